//! Calls as Podman makes them.

use crate::common::*;
use serde_json::{Value, json};
use std::os::unix::fs::symlink;
use wharf_testkit::{Host, HostCommand};

/// A call of the program by the name of Netavark, ready to run.
pub fn netavark(host: &Host, args: &[&str], input: &Value) -> HostCommand {
    let dir = host.dir().path().join("helpers");
    std::fs::create_dir_all(dir.join("networks")).unwrap();
    let program = std::env::var("WHARF_BIN").unwrap_or_else(|_| WHARF.to_owned());
    // It may be there from an earlier call.
    let _ = symlink(program, dir.join("netavark"));
    host.command(dir.join("netavark").to_str().unwrap())
        .arg("--config")
        .arg(dir.join("networks"))
        .args(["--rootless=false", "--aardvark-binary="])
        .args(args)
        .input(&format!("{input}\n"))
}

/// A container at address `n` of a bridge network, number `net`, with one published UDP port if it is not 0.
pub fn container(name: &str, net: u8, n: u8, port: u16) -> Value {
    let key = format!("pod{net}");
    let mut input = json!({
        "container_id": format!("{net:032x}{n:032x}"),
        "container_name": name,
        "networks": {},
        "network_info": {},
    });
    input["networks"][&key] = json!({
        "static_ips": [at(false, net, n), at(true, net, n)],
        "interface_name": "eth0",
    });
    input["network_info"][&key] = json!({
        "name": key,
        "id": format!("{net:064x}"),
        "driver": "bridge",
        "network_interface": format!("podman{net}"),
        "subnets": [
            {"subnet": format!("10.88.{net}.0/24"), "gateway": at(false, net, 1)},
            {"subnet": format!("fd00:88:{net}::/64"), "gateway": at(true, net, 1)},
        ],
        "ipv6_enabled": true,
        "internal": false,
        "dns_enabled": false,
        "ipam_options": {"driver": "host-local"},
    });
    if port != 0 {
        input["port_mappings"] = json!([{
            "host_ip": "", "host_port": port, "container_port": 91, "range": 1, "protocol": "udp",
        }]);
    }
    input
}
