//! How a packet is let through at the door of the tool that stops it: by its program, or where that is not in charge by
//! its chain for the administrator's rules.

use crate::trace::env::Blame;
use crate::trace::packet::{L4, Packet};
use crate::trace::ruleset::Hook;

use super::Walk;
use super::hooks::Site;
use super::rules::{family_word, iptables, selector};
use super::segment::is_bridge;

/// Answers.
const KNOWN: &str = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT";

impl Walk<'_> {
    fn names(&self, site: Site) -> (Option<&str>, Option<&str>) {
        let space = self.space(site.space);
        let name = |i: Option<u32>| i.and_then(|i| space.link(i)).map(|l| l.name.as_str());
        (name(site.iif), name(site.oif))
    }

    fn has_program(&self, name: &str) -> bool {
        self.state.programs.contains(&name)
    }

    /// The bridge that a forwarded packet's containers are on, wharf's before others', and whether the flow begins there.
    /// The link to the outside is nobody's to open.
    fn side(&self, site: Site) -> Option<(&str, bool)> {
        let space = self.space(site.space);
        let (first, second) = match self.reply {
            true => (site.oif, site.iif),
            false => (site.iif, site.oif),
        };
        let link = |i: Option<u32>| i.and_then(|i| space.link(i));
        let ours = |i: Option<u32>| link(i).filter(|_| self.network_of_bridge(i).is_some());
        let any = |i: Option<u32>| link(i).filter(|l| is_bridge(l));
        let begins = ours(first).map(|l| (l, true));
        let side = begins
            .or_else(|| ours(second).map(|l| (l, false)))
            .or_else(|| any(first).map(|l| (l, true)))
            .or_else(|| any(second).map(|l| (l, false)));
        side.map(|(l, begins)| (l.name.as_str(), begins))
    }

    /// By rules of iptables' in a chain, for whom a forwarded packet is.
    pub(super) fn by_link(&self, site: Site, tool: &str, chain: &str) -> Vec<String> {
        let insert = format!("{tool} -I {chain}");
        match (self.side(site), self.names(site)) {
            (Some((bridge, true)), _) => vec![
                format!("{insert} -i {bridge} -j ACCEPT"),
                format!("{insert} -o {bridge} {KNOWN}"),
            ],
            (Some((bridge, false)), _) => vec![
                format!("{insert} -o {bridge} -j ACCEPT"),
                format!("{insert} -i {bridge} {KNOWN}"),
            ],
            (None, (Some(i), Some(o))) => vec![
                format!("{insert} -i {i} -o {o} -j ACCEPT"),
                format!("{insert} -i {o} -o {i} {KNOWN}"),
            ],
            _ => vec![format!("{insert} -j ACCEPT")],
        }
    }

    /// `None` if there is neither ufw nor a chain for it.
    pub(super) fn by_ufw(&self, site: Site, blame: &Blame, packet: &Packet) -> Option<Vec<String>> {
        let space = self.space(site.space);
        let forward = site.hook == Hook::Forward;
        let names = self.names(site);
        if self.has_program("ufw") {
            let what = match (packet.l4, forward, names) {
                (_, true, (Some(i), Some(o))) => format!("route allow in on {i} out on {o}"),
                (L4::Tcp, ..) => format!("allow {}/tcp", packet.dport),
                (L4::Udp, ..) => format!("allow {}/udp", packet.dport),
                (L4::Icmp, ..) => format!("allow from {}", packet.src),
            };
            return Some(vec![format!("{}ufw {what}", space.enter)]);
        }
        let six = if packet.dst.is_ipv6() { "6" } else { "" };
        let way = match site.hook {
            Hook::Forward => "forward",
            Hook::Output => "output",
            _ => "input",
        };
        let chain = format!("ufw{six}-user-{way}");
        let mut chains = space.ruleset.chains.iter();
        chains.find(|c| {
            (c.backend, c.family, c.name.as_str()) == (blame.backend, blame.family, &*chain)
        })?;
        let insert = format!("{} -I {chain}", iptables(space, blame));
        Some(match (forward, names) {
            _ if packet.reply => vec![format!("{insert} {KNOWN}")],
            (true, (Some(i), Some(o))) => vec![
                format!("{insert} -i {i} -o {o} -j ACCEPT"),
                format!("{insert} -i {o} -o {i} {KNOWN}"),
            ],
            _ => vec![format!("{insert} {} -j ACCEPT", selector(packet).1)],
        })
    }

    pub(super) fn by_firewalld(&self, site: Site, blame: &Blame, packet: &Packet) -> Vec<String> {
        let (space, (iif, _)) = (self.space(site.space), self.names(site));
        let forward = site.hook == Hook::Forward;
        if self.has_program("firewall-cmd") {
            let program = format!("{}firewall-cmd", space.enter);
            if let Some((bridge, _)) = self.side(site).filter(|_| forward) {
                return vec![
                    format!("{program} --permanent --zone=trusted --add-interface={bridge}"),
                    format!("{program} --reload"),
                ];
            }
            let what = match packet.l4 {
                L4::Tcp => format!("--add-port={}/tcp", packet.dport),
                L4::Udp => format!("--add-port={}/udp", packet.dport),
                L4::Icmp => "--add-protocol=icmp".to_owned(),
            };
            return vec![format!("{program} {what}")];
        }
        let from = match (forward, iif) {
            (true, Some(i)) => format!("iifname {i} "),
            _ => String::new(),
        };
        let (family, table, base) = (family_word(blame.family), &blame.table, &blame.base);
        let which = selector(packet).0;
        vec![format!(
            "{}nft insert rule {family} {table} {base} {from}{which} accept",
            space.enter
        )]
    }
}
