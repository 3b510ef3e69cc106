//! Other engines, where Debian's packages have installed them: the CNI plugins and Netavark.

use std::net::Ipv4Addr;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::engines::{Arm, BRIDGE, Call, Engine};
use super::world::{Container, GATEWAY, PREFIX, SUBNET};
use super::{Context, Result};

const CNI: &str = "/usr/lib/cni";
const NETAVARK: &str = "/usr/lib/podman/netavark";

/// All peers that are installed, each on a new host.
pub fn all(context: &Context) -> Result<Vec<Arm>> {
    let mut arms = Vec::new();
    if ["bridge", "portmap", "firewall"]
        .iter()
        .all(|plugin| Path::new(CNI).join(plugin).exists())
    {
        let host = context.world.host()?;
        let leases = host.directory("cni");
        arms.push(Arm {
            engine: Box::new(Cni { leases }),
            host,
        });
    }
    if Path::new(NETAVARK).exists() {
        let host = context.world.host()?;
        let state = host.directory("netavark");
        arms.push(Arm {
            engine: Box::new(Netavark { state }),
            host,
        });
    }
    Ok(arms)
}

/// `HOST:CONTAINER` as two numbers.
fn pairs(ports: &[String]) -> impl Iterator<Item = (u16, u16)> + '_ {
    ports.iter().filter_map(|spec| {
        let (host, container) = spec.split_once(':')?;
        Some((host.parse().ok()?, container.parse().ok()?))
    })
}

/// The chain that containerd and CRI-O are commonly set up with.
struct Cni {
    leases: String,
}

impl Cni {
    fn config(&self, plugin: &str, address: Ipv4Addr, ports: &[String]) -> Value {
        let mut config = json!({ "cniVersion": "1.0.0", "name": BRIDGE, "type": plugin });
        let more = match plugin {
            "bridge" => json!({
                "bridge": BRIDGE, "isGateway": true, "ipMasq": true, "hairpinMode": true,
                "args": { "cni": { "ips": [address.to_string()] } },
                "ipam": {
                    "type": "host-local", "dataDir": self.leases,
                    "ranges": [[{ "subnet": SUBNET, "gateway": GATEWAY.to_string() }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            }),
            "portmap" => {
                let mappings: Vec<Value> = pairs(ports)
                    .map(|(host, inside)| json!({ "hostPort": host, "containerPort": inside, "protocol": "tcp" }))
                    .collect();
                json!({ "capabilities": { "portMappings": true }, "runtimeConfig": { "portMappings": mappings } })
            }
            _ => json!({ "backend": "iptables" }),
        };
        if let (Value::Object(config), Value::Object(more)) = (&mut config, more) {
            config.extend(more);
        }
        config
    }

    fn plugin(&self, command: &str, plugin: &str, container: &Container, ports: &[String]) -> Call {
        let mut stdin = self.config(plugin, container.address, ports);
        if command == "DEL" {
            let address = format!("{}/{PREFIX}", container.address);
            stdin["prevResult"] = json!({
                "cniVersion": "1.0.0",
                "interfaces": [{ "name": "eth0", "sandbox": container.netns }],
                "ips": [{ "address": address, "gateway": GATEWAY.to_string(), "interface": 0 }],
            });
        }
        let env = vec![
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", container.name.clone()),
            ("CNI_NETNS", container.netns.clone()),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_PATH", CNI.to_owned()),
        ];
        Call {
            program: Path::new(CNI).join(plugin),
            env,
            stdin: Some(stdin),
            ..Call::default()
        }
    }

    fn chain(
        &self,
        command: &str,
        plugins: [&str; 3],
        container: &Container,
        ports: &[String],
    ) -> Call {
        let [first, second, third] =
            plugins.map(|plugin| self.plugin(command, plugin, container, ports));
        let second = Call {
            next: Some(Box::new(third)),
            ..second
        };
        Call {
            next: Some(Box::new(second)),
            ..first
        }
    }
}

impl Engine for Cni {
    fn label(&self) -> &'static str {
        "CNI chain (Debian)"
    }

    fn network_add(&self) -> Call {
        // The first container makes the network.
        Call {
            program: "true".into(),
            ..Call::default()
        }
    }

    fn attach(&self, container: &Container, ports: &[String]) -> Call {
        self.chain("ADD", ["bridge", "portmap", "firewall"], container, ports)
    }

    fn detach(&self, container: &Container, ports: &[String]) -> Call {
        self.chain("DEL", ["firewall", "portmap", "bridge"], container, ports)
    }
}

/// What Podman calls.
struct Netavark {
    state: String,
}

impl Netavark {
    fn call(&self, command: &str, container: &Container, ports: &[String]) -> Call {
        let mappings: Vec<Value> = pairs(ports)
            .map(|(host, inside)| {
                json!({
                    "host_ip": "", "host_port": host, "container_port": inside, "range": 1, "protocol": "tcp",
                })
            })
            .collect();
        let mut networks = Map::new();
        let address = container.address.to_string();
        networks.insert(
            BRIDGE.into(),
            json!({ "interface_name": "eth0", "static_ips": [address] }),
        );
        let stdin = json!({
            "container_id": container.name, "container_name": container.name,
            "networks": networks, "port_mappings": mappings,
            "network_info": { BRIDGE: {
                "name": BRIDGE, "id": "ab".repeat(32), "driver": "bridge", "network_interface": BRIDGE,
                "subnets": [{ "subnet": SUBNET, "gateway": GATEWAY.to_string() }],
                "ipv6_enabled": false, "internal": false, "dns_enabled": false,
                "ipam_options": { "driver": "host-local" },
            } },
        });
        let args = ["--config", &self.state, command, &container.netns]
            .map(str::to_owned)
            .to_vec();
        Call {
            program: NETAVARK.into(),
            args,
            stdin: Some(stdin),
            ..Call::default()
        }
    }
}

impl Engine for Netavark {
    fn label(&self) -> &'static str {
        "netavark (Debian)"
    }

    fn network_add(&self) -> Call {
        Call {
            program: "mkdir".into(),
            args: vec!["-p".into(), self.state.clone()],
            ..Call::default()
        }
    }

    fn attach(&self, container: &Container, ports: &[String]) -> Call {
        self.call("setup", container, ports)
    }

    fn detach(&self, container: &Container, ports: &[String]) -> Call {
        self.call("teardown", container, ports)
    }
}
