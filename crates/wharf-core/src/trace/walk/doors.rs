//! How a packet is let through at the door of the tool that stops it: by its program, or where that is not in charge by
//! its chain for the administrator's rules.

use crate::trace::env::Blame;
use crate::trace::packet::{L4, Packet};
use crate::trace::ruleset::Hook;

use super::Walk;
use super::hooks::Site;
use super::rules::{family_word, iptables, selector};

impl Walk<'_> {
    fn names(&self, site: Site) -> (Option<&str>, Option<&str>) {
        let space = self.space(site.space);
        let name = |i: Option<u32>| i.and_then(|i| space.link(i)).map(|l| l.name.as_str());
        (name(site.iif), name(site.oif))
    }

    fn has_program(&self, name: &str) -> bool {
        self.state.programs.contains(&name)
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
        let known = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT";
        Some(match (forward, names) {
            _ if packet.reply => vec![format!("{insert} {known}")],
            (true, (Some(i), Some(o))) => vec![
                format!("{insert} -i {i} -o {o} -j ACCEPT"),
                format!("{insert} -i {o} -o {i} {known}"),
            ],
            _ => vec![format!("{insert} {} -j ACCEPT", selector(packet).1)],
        })
    }

    pub(super) fn by_firewalld(&self, site: Site, blame: &Blame, packet: &Packet) -> Vec<String> {
        let (space, (iif, _)) = (self.space(site.space), self.names(site));
        let forward = site.hook == Hook::Forward;
        if self.has_program("firewall-cmd") {
            let what = match (packet.l4, forward, iif) {
                (_, true, Some(i)) => format!("--zone=trusted --add-interface={i}"),
                (L4::Tcp, ..) => format!("--add-port={}/tcp", packet.dport),
                (L4::Udp, ..) => format!("--add-port={}/udp", packet.dport),
                (L4::Icmp, ..) => "--add-protocol=icmp".to_owned(),
            };
            return vec![format!("{}firewall-cmd {what}", space.enter)];
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
