//! The network that a configuration describes.

use std::collections::BTreeMap;
use std::time::Duration;

use wharf_core::addr::Mac;
use wharf_core::attach::Container;
use wharf_core::name::IfName;
use wharf_core::network::{IfThere, NetworkKind, NetworkRequest, NetworkSpec};
use wharf_core::publish::{PortMapping, PortRange};
use wharf_engine::api::{ContainerRequest, Mode, ObjectName};
use wharf_engine::engine::{CLIENT_LABEL, Engine};
use wharf_engine::error::EngineError;

use super::call::Call;
use super::config::{Config, Port};
use super::error::{CniError, Done};
use super::ipam::Numbering;
use super::names::network_names;

/// The front end's name in the store.
pub const OWNER: &str = "cni";

/// The network with its bridge.
///
/// Without `isGateway` the bridge has no address and the host routes nothing: nobody comes in or goes out. With it,
/// and without `ipMasq`, containers go out with their own addresses, so the world may come to them by those.
///
/// # Errors
/// A name that is none.
pub fn request(config: &Config, numbering: Option<&Numbering>) -> Done<NetworkRequest> {
    let name = network_names(&config.name).into_iter().next();
    let bad = || CniError::config("invalid network name").with(config.name.as_str());
    let mut request = NetworkRequest::new(name.ok_or_else(bad)?);
    request.kind = match numbering {
        Some(n) if n.automatic => NetworkKind::Own,
        _ => NetworkKind::Numbered,
    };
    if let Some(n) = numbering {
        request.subnets = n.subnets.iter().map(|(subnet, _)| *subnet).collect();
        request.subnets.dedup();
        request.gateways = n.subnets.iter().map(|(_, gateway)| *gateway).collect();
        request.gateways.dedup();
        request.ipv6 = (n.automatic && n.ipv6).then_some(true);
    }
    request.bridge = match config.bridge.as_deref() {
        None | Some("") => None,
        Some(name) => Some(name.parse::<IfName>().map_err(|e| {
            CniError::config("`bridge` is not an interface name").with(e.to_string())
        })?),
    };
    // As the reference plugin, which leaves its bridge behind.
    request.if_there = IfThere::Use {
        force_address: config.force_address,
    };
    request.mtu = Some(config.mtu).filter(|mtu| *mtu != 0);
    request.masquerade = Some(config.ip_masq);
    request.internal = !config.routes() || numbering.is_none();
    request.icc =
        Some(!config.port_isolation && config.ingress_policy.as_deref() != Some("isolated"));
    request.options = options(config, request.internal);
    request.labels = labels();
    Ok(request)
}

/// Gives a request the name that its network has beside those of other front ends.
///
/// # Errors
/// The engine's.
pub fn settle_name(
    engine: &mut Engine,
    config: &Config,
    request: &mut NetworkRequest,
) -> Result<(), EngineError> {
    let mut others = network_names(&config.name).into_iter().skip(1);
    if let Some(other) = others.next() {
        request.name = engine.client_network_name(request, other)?;
    }
    Ok(())
}

/// Makes a container on a network, which is made too if it is not there, and goes again if the container fails.
/// Somebody may remove it in the meantime, since nobody is on it yet: then it is made again.
///
/// # Errors
/// The engine's.
pub fn create(
    engine: &mut Engine,
    network: &NetworkRequest,
    container: impl Fn(&NetworkSpec) -> ContainerRequest,
) -> Result<(NetworkSpec, Container), EngineError> {
    const ROUNDS: u32 = 10;
    const PAUSE: Duration = Duration::from_millis(20);
    let mut made = false;
    for round in 0.. {
        let (spec, new) = engine.network_ensure(network)?;
        made |= new;
        match engine.create(&container(&spec), Mode::Apply) {
            Ok(outcome) => {
                super::remarks(&outcome.notes);
                return Ok((spec, outcome.value));
            }
            Err(EngineError::NotFound(ObjectName::Network(_)) | EngineError::Busy(_))
                if round < ROUNDS =>
            {
                std::thread::sleep(PAUSE);
            }
            Err(error) => {
                if made {
                    // Somebody else may be on it by now, and then it stays.
                    let name = std::slice::from_ref(&network.name);
                    let _ = engine.network_remove(name, false, Mode::Apply);
                }
                return Err(error);
            }
        }
    }
    unreachable!("the last round returns")
}

/// Marks a network as one that this front end made.
pub fn labels() -> BTreeMap<String, String> {
    [(CLIENT_LABEL.to_owned(), OWNER.to_owned())].into()
}

fn options(config: &Config, internal: bool) -> BTreeMap<String, String> {
    let open = config.ingress_policy.as_deref() == Some("open");
    let mode = match (internal, config.ip_masq && !open) {
        (true, _) => Some("isolated"),
        (false, true) => None,
        (false, false) => Some("nat-unprotected"),
    };
    let mut options: Vec<(&str, &str)> = vec![("no_default_route", "true")];
    if let Some(mode) = mode {
        options.push(("com.docker.network.bridge.gateway_mode_ipv4", mode));
        options.push(("com.docker.network.bridge.gateway_mode_ipv6", mode));
    }
    if internal {
        options.push(("host-access", "none"));
    }
    if open {
        options.push(("isolate", "false"));
    }
    if config.promisc_mode {
        options.push(("promisc", "true"));
    }
    if config.disable_container_interface {
        options.push(("interfaces-down", "true"));
    }
    if config.masq_all {
        options.push(("masquerade-published", "true"));
    }
    if config.hairpin_mode {
        options.push(("hairpin", "true"));
    }
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    options.into_iter().map(owned).collect()
}

/// The container interface's hardware address: the runtime's before `args.cni`, that before `CNI_ARGS`, and what is one for
/// all containers of the list last.
///
/// # Errors
/// It is none.
pub fn mac(call: &Call, config: &Config) -> Done<Option<Mac>> {
    let chosen = [
        config.runtime_config.mac.as_deref(),
        config.args.cni.mac.as_deref(),
        call.arg("MAC"),
        config.mac.as_deref(),
    ];
    let Some(text) = chosen.into_iter().flatten().find(|t| !t.is_empty()) else {
        return Ok(None);
    };
    let mac = text.to_ascii_lowercase().replace('-', ":").parse();
    mac.map(Some)
        .map_err(|e: wharf_core::addr::MacError| CniError::config(e.to_string()))
}

/// Published ports.
///
/// # Errors
/// One that is none.
pub fn ports(config: &Config) -> Done<Vec<PortMapping>> {
    let mut all: Vec<PortMapping> = Vec::new();
    for port in &config.runtime_config.port_mappings {
        let mapping = port_mapping(port)?;
        if !all.contains(&mapping) {
            all.push(mapping);
        }
    }
    Ok(all)
}

fn port_mapping(port: &Port) -> Done<PortMapping> {
    let number = |key: &str, number: i64| {
        let port = u16::try_from(number).ok();
        port.and_then(|p| PortRange::new(p, p))
            .ok_or_else(|| CniError::config(format!("`{key}`: {number} is not a port")))
    };
    let bad = |e: wharf_core::publish::PortError| CniError::config(e.to_string());
    let (host, container) = (
        number("hostPort", port.host_port)?,
        number("containerPort", port.container_port)?,
    );
    let protocol = match port.protocol.as_str() {
        "" => "tcp",
        other => other,
    };
    // Written out and read again, so that a host address is judged as on the command line.
    let text = match port.host_ip.as_str() {
        "" | "0.0.0.0" | "::" => format!("{host}:{container}/{protocol}"),
        ip if ip.contains(':') => format!("[{ip}]:{host}:{container}/{protocol}"),
        ip => format!("{ip}:{host}:{container}/{protocol}"),
    };
    text.parse().map_err(bad)
}

/// Further names of the container on this network: a list, or a list for each network.
pub fn aliases(config: &Config) -> Vec<String> {
    let all = &config.runtime_config.aliases;
    let list = all.as_array().or_else(|| all.get(&config.name)?.as_array());
    let texts = list.into_iter().flatten().filter_map(|v| v.as_str());
    texts.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::config::Input;

    fn config(text: &str) -> Config {
        let text = format!(r#"{{"name":"n",{text}}}"#);
        Input::read(text.into_bytes()).unwrap().config
    }

    #[test]
    fn flags_become_options() {
        let n = Numbering::default();
        let make = |text: &str| request(&config(text), Some(&n)).unwrap();
        let mode = |r: &NetworkRequest| {
            let mode = r.options.get("com.docker.network.bridge.gateway_mode_ipv4");
            mode.cloned().unwrap_or_default()
        };
        let closed = make(r#""isGateway":true,"ipMasq":true"#);
        assert_eq!(
            (closed.internal, closed.masquerade, mode(&closed).as_str()),
            (false, Some(true), "")
        );
        let routed = make(r#""isDefaultGateway":true"#);
        assert_eq!(
            (routed.masquerade, mode(&routed).as_str()),
            (Some(false), "nat-unprotected")
        );
        let apart = make(r#""ipMasq":true"#);
        assert_eq!((apart.internal, mode(&apart).as_str()), (true, "isolated"));
        assert_eq!(make(r#""ingressPolicy":"isolated""#).icc, Some(false));
        assert_eq!(
            make(r#""isGateway":true,"ingressPolicy":"open""#).options["isolate"],
            "false"
        );
    }

    #[test]
    fn ports_as_runtimes_send_them() {
        let ports = |text: &str| {
            let text = format!(r#""runtimeConfig":{{"portMappings":[{text}]}}"#);
            super::ports(&config(&text))
                .map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let one = r#"{"hostPort":8080,"containerPort":80,"protocol":"TCP","hostIP":"0.0.0.0"}"#;
        assert_eq!(ports(one).unwrap(), ["8080:80/tcp"]);
        assert_eq!(ports(&format!("{one},{one}")).unwrap().len(), 1);
        let v6 = r#"{"hostPort":53,"containerPort":53,"protocol":"udp","hostIP":"2001:db8::1"}"#;
        assert_eq!(ports(v6).unwrap(), ["[2001:db8::1]:53:53/udp"]);
        for bad in [
            r#"{"hostPort":0,"containerPort":80}"#,
            r#"{"hostPort":-1,"containerPort":80}"#,
            r#"{"hostPort":80,"containerPort":65536}"#,
            r#"{"hostPort":80,"containerPort":80,"protocol":"icmp"}"#,
            r#"{"hostPort":80,"containerPort":80,"hostIP":"x"}"#,
        ] {
            assert_eq!(ports(bad).unwrap_err().code, 7, "{bad}");
        }
    }

    #[test]
    fn a_mac_address_is_folded() {
        let call = Call::read(|key| match key {
            "CNI_COMMAND" => Some("VERSION".to_owned()),
            "CNI_ARGS" => Some("MAC=02:00:00:00:00:01".to_owned()),
            _ => None,
        })
        .unwrap();
        let text = |c: &str| mac(&call, &config(c)).unwrap().unwrap().to_string();
        assert_eq!(text(r#""x":1"#), "02:00:00:00:00:01");
        assert_eq!(
            text(r#""mac":"02:00:00:00:00:09""#),
            "02:00:00:00:00:01",
            "what is asked for this container"
        );
        assert_eq!(
            text(r#""runtimeConfig":{"mac":"C2:11:22:33:44:55"}"#),
            "c2:11:22:33:44:55"
        );
        assert!(mac(&call, &config(r#""runtimeConfig":{"mac":"x"}"#)).is_err());
    }
}
