//! The JSON that scripts rely on (`DESIGN.md`, section 5). Keys may be added; none may change.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Serialize;
use wharf_core::addr::Mac;
use wharf_core::attach::{Attachment, Container, Phase, ProcessRef};
use wharf_core::network::Subnet;
use wharf_core::publish::PortMapping;
use wharf_engine::api::NetworkView;
use wharf_engine::process::ProcessId;

/// A container.
#[derive(Debug, Serialize)]
pub struct ContainerJson<'a> {
    name: &'a str,
    id: &'a str,
    /// `running`, `exited`, or `created` when wharf started no program in it.
    pub status: &'static str,
    /// The first program's process, while it runs.
    pub pid: Option<i32>,
    exit_status: Option<i32>,
    netns: &'a PathBuf,
    networks: Vec<AttachmentJson<'a>>,
    ports: Vec<PortJson>,
    command: &'a [String],
    labels: &'a BTreeMap<String, String>,
    owner: &'a str,
    created: u64,
}

/// A container on a network.
#[derive(Debug, Serialize)]
struct AttachmentJson<'a> {
    network: &'a str,
    interface: &'a str,
    host_interface: &'a str,
    mac: Mac,
    addresses: &'a [IpNet],
    gateways: &'a [IpAddr],
    default_route: bool,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    aliases: &'a [String],
}

/// A published port.
#[derive(Debug, Serialize)]
pub struct PortJson {
    host_ip: String,
    host_port: String,
    container_port: String,
    protocol: &'static str,
}

/// A network.
#[derive(Debug, Serialize)]
pub struct NetworkJson<'a> {
    name: &'a str,
    id: &'a str,
    owner: &'a str,
    driver: &'static str,
    bridge: &'a str,
    subnets: Vec<SubnetJson>,
    internal: bool,
    icc: bool,
    masquerade: bool,
    mtu: u32,
    ipv6: bool,
    labels: &'a BTreeMap<String, String>,
    options: &'a BTreeMap<String, String>,
    containers: Vec<&'a str>,
    created: u64,
}

#[derive(Debug, Serialize)]
struct SubnetJson {
    subnet: IpNet,
    gateway: IpAddr,
    ip_range: Option<IpNet>,
}

impl<'a> From<&'a Container> for ContainerJson<'a> {
    fn from(container: &'a Container) -> Self {
        let process = running(container);
        Self {
            name: container.name.as_str(),
            id: &container.id,
            status: status(container, process.is_some()),
            pid: process.map(|p| p.pid),
            exit_status: container.exit_status,
            netns: &container.netns.path,
            networks: visible(container).map(AttachmentJson::from).collect(),
            ports: container.ports.iter().map(PortJson::from).collect(),
            command: &container.command,
            labels: &container.labels,
            owner: &container.owner,
            created: container.created,
        }
    }
}

impl<'a> From<&'a Attachment> for AttachmentJson<'a> {
    fn from(attachment: &'a Attachment) -> Self {
        Self {
            network: attachment.network.as_str(),
            interface: attachment.interface.as_str(),
            host_interface: attachment.host_interface.as_str(),
            mac: attachment.mac,
            addresses: &attachment.addresses,
            gateways: &attachment.gateways,
            default_route: attachment.leads_out(),
            aliases: &attachment.aliases,
        }
    }
}

impl From<&PortMapping> for PortJson {
    fn from(port: &PortMapping) -> Self {
        Self {
            host_ip: port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
            host_port: port.host.to_string(),
            container_port: port.container.to_string(),
            protocol: port.protocol.as_str(),
        }
    }
}

impl<'a> From<&'a NetworkView> for NetworkJson<'a> {
    fn from(view: &'a NetworkView) -> Self {
        let spec = &view.spec;
        Self {
            name: spec.name.as_str(),
            id: &spec.id,
            owner: &spec.owner,
            driver: spec.driver.as_str(),
            bridge: spec.bridge.as_str(),
            subnets: spec.subnets.iter().map(SubnetJson::from).collect(),
            internal: spec.internal,
            icc: spec.icc,
            masquerade: spec.masquerade,
            mtu: spec.mtu,
            ipv6: spec.has_v6(),
            labels: &spec.labels,
            options: &spec.options,
            containers: view.containers.iter().map(|c| c.as_str()).collect(),
            created: spec.created,
        }
    }
}

impl From<&Subnet> for SubnetJson {
    fn from(subnet: &Subnet) -> Self {
        Self {
            subnet: subnet.subnet,
            gateway: subnet.gateway,
            ip_range: subnet.ip_range,
        }
    }
}

/// The attachments that are not on their way out.
pub fn visible(container: &Container) -> impl Iterator<Item = &Attachment> {
    container
        .attachments
        .iter()
        .filter(|a| a.phase != Phase::Leaving)
}

/// The container's first process, if it is still the one wharf started.
pub fn running(container: &Container) -> Option<ProcessRef> {
    container.process.filter(|p| {
        u32::try_from(p.pid).is_ok_and(|pid| {
            ProcessId {
                pid,
                start_time: p.start_time,
            }
            .is_alive()
        })
    })
}

/// The word for how a container is.
pub fn status(container: &Container, runs: bool) -> &'static str {
    if runs {
        "running"
    } else if container.process.is_some() || container.exit_status.is_some() {
        "exited"
    } else {
        "created"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_core::attach::ContainerNetns;

    fn container() -> Container {
        Container {
            name: "web".parse().unwrap(),
            id: "ab".repeat(32),
            owner: "cli".to_owned(),
            client: None,
            netns: ContainerNetns {
                path: "/run/netns/web".into(),
                identity: None,
                made_by_wharf: true,
            },
            process: None,
            exit_status: None,
            command: Vec::new(),
            transient: false,
            attachments: vec![Attachment {
                network: "blue".parse().unwrap(),
                interface: "eth0".parse().unwrap(),
                host_interface: "veth1".parse().unwrap(),
                mac: "02:00:00:00:00:01".parse().unwrap(),
                addresses: vec!["172.18.0.10/16".parse().unwrap()],
                gateways: vec!["172.18.0.1".parse().unwrap()],
                default_routes: Vec::new(),
                extras: Default::default(),
                gw_priority: 0,
                aliases: Vec::new(),
                routes: Vec::new(),
                own_table: None,
                announce: false,
                phase: Phase::Active,
            }],
            ports: vec![
                "5005:5000".parse().unwrap(),
                "127.0.0.1:8000-8010:9000-9010/udp".parse().unwrap(),
            ],
            labels: Default::default(),
            created: 1,
        }
    }

    #[test]
    fn the_pinned_keys_of_a_container() {
        let container = container();
        let value = serde_json::to_value(ContainerJson::from(&container)).unwrap();
        assert_eq!(value["name"], "web");
        assert_eq!(value["netns"], "/run/netns/web");
        assert!(value["pid"].is_null());
        assert_eq!(value["networks"][0]["network"], "blue");
        assert_eq!(value["networks"][0]["interface"], "eth0");
        assert_eq!(value["networks"][0]["host_interface"], "veth1");
        assert_eq!(value["networks"][0]["mac"], "02:00:00:00:00:01");
        assert_eq!(value["networks"][0]["addresses"][0], "172.18.0.10/16");
        assert_eq!(value["networks"][0]["gateways"][0], "172.18.0.1");
        assert_eq!(
            value["ports"][0].to_string(),
            r#"{"host_ip":"","host_port":"5005","container_port":"5000","protocol":"tcp"}"#
        );
        assert_eq!(value["ports"][1]["host_ip"], "127.0.0.1");
        assert_eq!(value["ports"][1]["host_port"], "8000-8010");
    }

    #[test]
    fn an_exited_container_has_no_pid() {
        let mut container = container();
        container.exit_status = Some(3);
        let value = serde_json::to_value(ContainerJson::from(&container)).unwrap();
        assert_eq!(value["status"], "exited");
        assert_eq!(value["exit_status"], 3);
        assert!(value["pid"].is_null());
    }
}
