//! The floor program: see `xtask::floor`.

use std::net::Ipv4Addr;
use std::process::ExitCode;

use xtask::floor::{Attach, Cidr, Until, attach, detach, network_add, network_del, publish};
use xtask::nft::Publish;

const USAGE: &str = "\
usage: floor network-add BRIDGE GATEWAY/PREFIX [--no-nat]
       floor network-del BRIDGE
       floor attach BRIDGE NETNS HOSTIF ADDRESS/PREFIX GATEWAY [HOSTPORT:PORT | FIRST-LAST:PORT]…
             [--addr-gen-none] [--no-ipv6-inside]
       floor publish ADDRESS [HOSTPORT:PORT | FIRST-LAST:PORT]…
       floor detach HOSTIF [HOSTPORT:PORT | FIRST-LAST:PORT]… [--wait | --announce]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (flags, words): (Vec<&str>, Vec<&str>) = arguments
        .iter()
        .map(String::as_str)
        .partition(|word| word.starts_with("--"));
    match run(&words, &flags) {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) => {
            eprintln!("floor: {error}");
            ExitCode::FAILURE
        }
        None => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// `None` when the words make no sense.
fn run(words: &[&str], flags: &[&str]) -> Option<Result<(), xtask::floor::FloorError>> {
    let has = |flag| flags.contains(&flag);
    match words {
        ["network-add", bridge, gateway] => {
            Some(network_add(bridge, cidr(gateway)?, !has("--no-nat")))
        }
        ["network-del", bridge] => Some(network_del(bridge)),
        [
            "attach",
            bridge,
            netns,
            host_if,
            address,
            gateway,
            ports @ ..,
        ] => Some(attach(&Attach {
            bridge,
            netns,
            host_if,
            address: cidr(address)?,
            gateway: gateway.parse().ok()?,
            ports: &publishes(ports)?,
            addr_gen_none: has("--addr-gen-none"),
            no_ipv6_inside: has("--no-ipv6-inside"),
        })),
        ["publish", address, ports @ ..] => {
            Some(publish(address.parse().ok()?, &publishes(ports)?))
        }
        ["detach", host_if, ports @ ..] => {
            let until = if has("--announce") {
                Until::Announced
            } else {
                Until::Answered
            };
            Some(detach(host_if, &publishes(ports)?, until))
        }
        _ => None,
    }
}

fn cidr(text: &str) -> Option<Cidr> {
    let (address, prefix) = text.split_once('/')?;
    let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
    Some(Cidr {
        address: address.parse::<Ipv4Addr>().ok()?,
        prefix,
    })
}

/// `H:C` is one port; `F-L:C` publishes every port from F to L as C, and `F-L:C-D` each as its own.
fn publishes(words: &[&str]) -> Option<Vec<Publish>> {
    let mut ports = Vec::with_capacity(words.len());
    for word in words {
        let (host, container) = word.split_once(':')?;
        let (first, last) = host.split_once('-').unwrap_or((host, host));
        let (to, to_last) = container.split_once('-').unwrap_or((container, container));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        let (to, step): (u16, u16) = (to.parse().ok()?, u16::from(to != to_last));
        for host in first..=last {
            ports.push(Publish {
                host,
                container: to.checked_add((host - first) * step)?,
            });
        }
    }
    Some(ports)
}
