//! The files a container's programs see as their own, and the logs of those in the background.
//!
//! A program's `/etc/hosts` is written when it starts: siblings that come later are not in it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use wharf_core::addr::Family;
use wharf_core::attach::{Attachment, Container};
use wharf_core::name::{ContainerName, HostName};
use wharf_engine::api::Dirs;

use crate::output::json::visible;

/// The host, as seen from a container: wharf's name for it and Docker's.
const HOST_NAMES: &str = "host.wharf.internal host.docker.internal";
/// Where the resolver's configuration is; the second has systemd-resolved's own servers.
const RESOLV_CONFS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// `/etc/hosts`: the container itself, its siblings on the same networks, and the host.
pub fn hosts(own: &Container, hostname: &str, all: &[Container]) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    let own_name = if hostname == own.name.as_str() {
        hostname.to_owned()
    } else {
        format!("{hostname} {}", own.name)
    };
    for attachment in visible(own) {
        push_names(&mut text, attachment, &own_name);
    }
    for sibling in all.iter().filter(|c| c.name != own.name) {
        for attachment in visible(sibling) {
            if visible(own).any(|a| a.network == attachment.network) {
                push_names(&mut text, attachment, sibling.name.as_str());
            }
        }
    }
    for gateway in host_addresses(own) {
        let _ = writeln!(text, "{gateway}\t{HOST_NAMES}");
    }
    text
}

fn push_names(text: &mut String, attachment: &Attachment, name: &str) {
    for address in &attachment.addresses {
        let _ = write!(text, "{}\t{name}", address.addr());
        // Those of other front ends may be what no line of this file can hold.
        let names = attachment
            .aliases
            .iter()
            .map(|text| text.parse::<HostName>());
        for alias in names.flatten() {
            let _ = write!(text, " {alias}");
        }
        text.push('\n');
    }
}

/// Where the container meets the host: at the gateways of its default routes, else of its first network.
fn host_addresses(own: &Container) -> Vec<IpAddr> {
    let routed: BTreeSet<IpAddr> = visible(own)
        .flat_map(|a| {
            let by_default = |ip: &&IpAddr| a.default_routes.contains(&Family::of(**ip));
            a.gateways.iter().filter(by_default).copied()
        })
        .collect();
    if !routed.is_empty() {
        return routed.into_iter().collect();
    }
    visible(own)
        .next()
        .map(|a| a.gateways.clone())
        .unwrap_or_default()
}

/// `/etc/resolv.conf`: the host's servers as far as the container can reach them.
pub fn resolv_conf(own: &Container) -> String {
    let families: Vec<Family> = visible(own)
        .flat_map(|a| a.default_routes.iter().copied())
        .collect();
    if families.is_empty() {
        return "# No network of this container leads outside: no name service.\n".to_owned();
    }
    for path in RESOLV_CONFS {
        let Ok(text) = std::fs::read_to_string(path) else {
            continue;
        };
        if let Some(text) = reachable(&text, &families) {
            return text;
        }
    }
    "# No name server of the host can be reached from this container.\n".to_owned()
}

/// The configuration without servers that mean something else in a container; `None` if none is left.
fn reachable(text: &str, families: &[Family]) -> Option<String> {
    let mut kept = String::new();
    let mut servers = 0;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                // A link-local address with its interface does not parse; nobody could reach it.
                let server = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                let fits = |ip: &IpAddr| {
                    !ip.is_loopback()
                        && !ip.is_unspecified()
                        && families.contains(&Family::of(*ip))
                        && !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
                };
                if server.as_ref().is_some_and(fits) {
                    servers += 1;
                } else {
                    continue;
                }
            }
            Some("search" | "domain" | "options" | "sortlist") => {}
            _ => continue,
        }
        kept += line;
        kept.push('\n');
    }
    (servers > 0).then_some(kept)
}

/// Where the output of a container's program in the background goes.
pub fn log(dirs: &Dirs, name: &ContainerName) -> PathBuf {
    dirs.run.join("logs").join(format!("{name}.log"))
}

/// The log, if there is one.
pub fn existing_log(dirs: &Dirs, name: &ContainerName) -> Option<PathBuf> {
    Some(log(dirs, name)).filter(|path| path.exists())
}

/// Removes the log, if there is one.
pub fn forget_log(dirs: &Dirs, name: &ContainerName) {
    let path = log(dirs, name);
    if std::fs::remove_file(&path).is_ok()
        && let Some(folder) = path.parent()
    {
        // Fails while other logs are there, as it should.
        let _ = std::fs::remove_dir(folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_core::attach::{ContainerNetns, Phase};

    fn container(name: &str, networks: &[(&str, &str, &str, bool)]) -> Container {
        let attach = |(network, address, gateway, default): &(&str, &str, &str, bool)| Attachment {
            network: network.parse().unwrap(),
            interface: "eth0".parse().unwrap(),
            host_interface: "veth0".parse().unwrap(),
            mac: "02:00:00:00:00:01".parse().unwrap(),
            addresses: vec![address.parse().unwrap()],
            gateways: vec![gateway.parse().unwrap()],
            default_routes: default.then_some(Family::V4).into_iter().collect(),
            gw_priority: 0,
            aliases: Vec::new(),
            routes: Vec::new(),
            own_table: None,
            extras: Default::default(),
            announce: false,
            phase: Phase::Active,
        };
        Container {
            name: name.parse().unwrap(),
            id: String::new(),
            owner: "cli".to_owned(),
            client: None,
            netns: ContainerNetns {
                path: PathBuf::new(),
                identity: None,
                made_by_wharf: true,
            },
            process: None,
            exit_status: None,
            command: Vec::new(),
            transient: false,
            attachments: networks.iter().map(attach).collect(),
            ports: Vec::new(),
            labels: Default::default(),
            created: 0,
        }
    }

    #[test]
    fn hosts_names_itself_siblings_and_the_host() {
        let web = container("web", &[("blue", "10.0.0.2/24", "10.0.0.1", true)]);
        let all = [
            web.clone(),
            container("db", &[("blue", "10.0.0.3/24", "10.0.0.1", true)]),
            container("far", &[("red", "10.0.1.2/24", "10.0.1.1", true)]),
        ];
        assert_eq!(
            hosts(&web, "www", &all),
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             10.0.0.2\twww web\n10.0.0.3\tdb\n\
             10.0.0.1\thost.wharf.internal host.docker.internal\n"
        );
    }

    #[test]
    fn loopback_servers_are_left_out() {
        let stub = "# stub\nnameserver 127.0.0.53\noptions edns0\n";
        assert_eq!(reachable(stub, &[Family::V4]), None);
        let mixed = "nameserver 127.0.0.1\nnameserver 9.9.9.9\nnameserver 2620:fe::fe\n\
                     nameserver fe80::1%eth0\nsearch example.org\n";
        assert_eq!(
            reachable(mixed, &[Family::V4]).unwrap(),
            "nameserver 9.9.9.9\nsearch example.org\n"
        );
    }

    #[test]
    fn an_internal_network_has_no_name_service() {
        let web = container("web", &[("blue", "10.0.0.2/24", "10.0.0.1", false)]);
        assert!(!resolv_conf(&web).contains("nameserver"));
    }
}
