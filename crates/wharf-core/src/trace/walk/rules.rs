//! A rule or a policy that stops the packet, as a cause: its name, its owner, and what lets the packet through.

use std::net::IpAddr;

use crate::trace::env::Blame;
use crate::trace::packet::{L4, Packet};
use crate::trace::report::{Code, Owner};
use crate::trace::ruleset::{Backend, Chain, Expr, Hook, RuleVerdict, TableFamily};
use crate::trace::state::Space;

use super::Walk;
use super::fault::Fault;
use super::hooks::{Site, Sort, hook_name};

/// The words nft uses for a family.
pub(super) fn family_word(family: TableFamily) -> &'static str {
    match family {
        TableFamily::Ip => "ip",
        TableFamily::Ip6 => "ip6",
        TableFamily::Inet => "inet",
        TableFamily::Arp => "arp",
        TableFamily::Bridge => "bridge",
        TableFamily::Netdev => "netdev",
    }
}

/// `inet f fwd-in handle 4`, or `ip filter FORWARD` for a policy.
pub(super) fn object(blame: &Blame) -> String {
    let family = family_word(blame.family);
    let chain = format!("{family} {} {}", blame.table, blame.chain);
    match (blame.handle, blame.backend) {
        (None, _) => chain,
        (Some(n), Backend::Nft) => format!("{chain} handle {n}"),
        (Some(n), Backend::Legacy) => format!("{chain} rule {n}"),
    }
}

/// Whether a rule's text is what iptables prints.
fn in_words_of_iptables(text: &str) -> bool {
    text.starts_with('-') || text.starts_with("! -")
}

/// Whether it is kept by iptables, in either of its forms.
fn by_iptables(blame: &Blame) -> bool {
    let tables = ["filter", "nat", "mangle", "raw", "security"];
    let builtin = blame.base.chars().all(|c| c.is_ascii_uppercase());
    blame.backend == Backend::Legacy
        || (in_words_of_iptables(&blame.text) || blame.handle.is_none())
            && builtin
            && tables.contains(&blame.table.as_str())
            && matches!(blame.family, TableFamily::Ip | TableFamily::Ip6)
}

pub(super) fn iptables(space: &Space, blame: &Blame) -> String {
    let six = if blame.family == TableFamily::Ip6 {
        "6"
    } else {
        ""
    };
    let legacy = if blame.backend == Backend::Legacy {
        "-legacy"
    } else {
        ""
    };
    let table = match blame.table.as_str() {
        "filter" => String::new(),
        other => format!(" -t {other}"),
    };
    format!("{}ip{six}tables{legacy}{table}", space.enter)
}

/// Whether iptables finds the rule by its text; what these matches keep beside it differs each time.
fn found_again(blame: &Blame) -> bool {
    let kept = ["recent", "connlimit", "quota", "statistic"];
    !kept
        .iter()
        .any(|m| blame.text.contains(&format!("-m {m} ")))
}

/// The command that removes a rule.
pub(super) fn removed(space: &Space, rule: &Blame) -> String {
    let handle = rule.handle.unwrap_or(0);
    match (
        rule.backend,
        in_words_of_iptables(&rule.text) && found_again(rule),
    ) {
        (Backend::Legacy, _) => format!("{} -D {} {handle}", iptables(space, rule), rule.chain),
        (Backend::Nft, true) => {
            let tool = iptables(space, rule);
            format!("{tool} -D {} {}", rule.chain, rule.text)
        }
        (Backend::Nft, false) => {
            let family = family_word(rule.family);
            format!(
                "{}nft delete rule {family} {} {} handle {handle}",
                space.enter, rule.table, rule.chain
            )
        }
    }
}

/// Commands that put another address into a rule.
pub(super) fn rewritten(space: &Space, rule: &Blame, old: IpAddr, new: IpAddr) -> Vec<String> {
    replaced(space, rule, &old.to_string(), &new.to_string())
}

/// Commands that put other words into a rule.
pub(super) fn replaced(space: &Space, rule: &Blame, old: &str, new: &str) -> Vec<String> {
    let text = rule.text.replace(old, new);
    let handle = rule.handle.unwrap_or(0);
    if !in_words_of_iptables(&rule.text) {
        let family = family_word(rule.family);
        return vec![format!(
            "{}nft 'replace rule {family} {} {} handle {handle} {text}'",
            space.enter, rule.table, rule.chain
        )];
    }
    let tool = iptables(space, rule);
    if rule.backend == Backend::Legacy {
        return vec![format!("{tool} -R {} {handle} {text}", rule.chain)];
    }
    vec![
        format!("{tool} -D {} {}", rule.chain, rule.text),
        format!("{tool} -I {} {text}", rule.chain),
    ]
}

/// What matches the packet in nft's words and in iptables' words.
pub(super) fn selector(packet: &Packet) -> (String, String) {
    // An answer comes from the port that the question went to.
    let (dir, flag, port) = if packet.reply {
        ("sport", "--sport", packet.sport)
    } else {
        ("dport", "--dport", packet.dport)
    };
    match packet.l4 {
        L4::Icmp if packet.arp.is_some() => (
            format!("arp operation {}", packet.arp.unwrap_or_default()),
            "-p ARP".into(),
        ),
        L4::Icmp if packet.dst.is_ipv4() => ("meta l4proto icmp".into(), "-p icmp".into()),
        L4::Icmp => ("meta l4proto ipv6-icmp".into(), "-p ipv6-icmp".into()),
        L4::Tcp => (format!("tcp {dir} {port}"), format!("-p tcp {flag} {port}")),
        L4::Udp => (format!("udp {dir} {port}"), format!("-p udp {flag} {port}")),
    }
}

/// Whether a rule in a chain that all tools share is of the kind that Docker writes there, for one of its bridges:
/// containers of a network kept apart, and their addresses kept to themselves.
fn docker_wrote(space: &Space, blame: &Blame) -> bool {
    let words: Vec<&str> = blame.text.split(' ').collect();
    let bridge = match words[..] {
        ["-i", a, "-o", b, "-j", "DROP"] if a == b && blame.chain == "FORWARD" => a,
        ["-d", _, "!", "-i", a, "-j", "DROP"] if blame.table == "raw" => a,
        _ => return false,
    };
    let docker = space
        .ruleset
        .chains
        .iter()
        .filter(|c| c.owner == Owner::Docker && c.base.is_none() && c.family == blame.family);
    let mut rules = docker.flat_map(|c| &c.rules);
    rules.any(|r| r.text.get().split(' ').any(|w| w == bridge))
}

/// Whether the chain that Docker keeps for the administrator is there, and asked.
fn asks_docker_user(space: &Space, blame: &Blame) -> bool {
    let jumps = |c: &Chain| {
        (c.backend, c.family) == (blame.backend, blame.family)
            && c.table == blame.table
            && c.base.is_some()
            && c.rules.iter().any(|r| {
                r.exprs.iter().any(
                    |e| matches!(e, Expr::Verdict(RuleVerdict::Jump(to)) if to == "DOCKER-USER"),
                )
            })
    };
    space.ruleset.chains.iter().any(jumps)
}

impl<'a> Walk<'a> {
    /// The cause that a rule or a policy is.
    pub(super) fn fault_of_rule(&self, site: Site, blame: &Blame, packet: &Packet) -> Fault {
        if blame.table == "wharf" && matches!(blame.family, TableFamily::Inet | TableFamily::Bridge)
        {
            return self.fault_of_wharf(site, blame, packet);
        }
        if site.sort == Sort::Bridged {
            return self.bridge_netfilter(site, blame);
        }
        let space = self.space(site.space);
        let hook = hook_name(site.hook);
        let shown = object(blame);
        let list = if by_iptables(blame) {
            format!("{} -S {}", iptables(space, blame), blame.chain)
        } else {
            let (f, t, c) = (family_word(blame.family), &blame.table, &blame.chain);
            format!("{}nft -a list chain {f} {t} {c}", space.enter)
        };
        let (code, what, seen) = match blame.handle {
            Some(_) => (
                Code::FirewallRule,
                format!(
                    "A packet rule of {} stops it at {hook}: {}",
                    space.name, blame.text
                ),
                format!("{list}: {}", blame.text),
            ),
            None => (
                Code::FirewallPolicy,
                format!(
                    "No rule of {} accepts it at {hook}, and the policy of {} {} is to drop.",
                    space.name, blame.table, blame.chain
                ),
                format!("{list}: policy drop"),
            ),
        };
        let owner = if docker_wrote(space, blame) {
            Owner::Docker
        } else {
            blame.owner
        };
        let fault = Fault::new(code, site.space, shown, what)
            .owner(owner)
            .evidence(seen);
        // The rule need not change where the answer is not known for one.
        match self.in_another_zone().filter(|_| self.reply) {
            Some(why) => Fault {
                evidence: [fault.evidence, vec![why.summary], why.evidence].concat(),
                ..fault
            }
            .fixes(why.fix),
            None => fault.fixes(self.let_through(site, blame, packet)),
        }
    }

    /// Commands that let the packet through.
    fn let_through(&self, site: Site, blame: &Blame, packet: &Packet) -> Vec<String> {
        let space = self.space(site.space);
        let (nft, xt) = selector(packet);
        let forward = site.hook == Hook::Forward;
        match blame.owner {
            Owner::Docker if forward && asks_docker_user(space, blame) => {
                // Docker keeps a chain for the administrator's own rules.
                return self.by_link(site, &iptables(space, blame), "DOCKER-USER");
            }
            Owner::Ufw => {
                if let Some(commands) = self.by_ufw(site, blame, packet) {
                    return commands;
                }
            }
            Owner::Firewalld => return self.by_firewalld(site, blame, packet),
            _ => {}
        }
        let chain = format!(
            "{} {} {}",
            family_word(blame.family),
            blame.table,
            blame.chain
        );
        match (blame.handle, by_iptables(blame)) {
            (Some(n), true) if blame.backend == Backend::Legacy => {
                vec![format!("{} -D {} {n}", iptables(space, blame), blame.chain)]
            }
            (Some(_), true) if in_words_of_iptables(&blame.text) && found_again(blame) => {
                vec![format!(
                    "{} -D {} {}",
                    iptables(space, blame),
                    blame.chain,
                    blame.text
                )]
            }
            (Some(n), _) => vec![format!("{}nft delete rule {chain} handle {n}", space.enter)],
            (None, true) => {
                let tool = iptables(space, blame);
                let at = &blame.chain;
                match forward {
                    true => self.by_link(site, &tool, at),
                    _ if packet.reply => vec![format!(
                        "{tool} -I {at} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
                    )],
                    _ => vec![format!("{tool} -I {at} {xt} -j ACCEPT")],
                }
            }
            (None, false) if packet.reply => vec![format!(
                "{}nft insert rule {chain} ct state established,related accept",
                space.enter
            )],
            (None, false) => {
                let insert = format!("{}nft insert rule {chain}", space.enter);
                let mut all = vec![format!("{insert} {nft} accept")];
                // Answers meet the same chain.
                if blame.family == TableFamily::Bridge {
                    let mut back = packet.clone();
                    back.reply = true;
                    (back.sport, back.dport) = (packet.dport, packet.sport);
                    let answers = selector(&back).0;
                    if answers != nft {
                        all.push(format!("{insert} {answers} accept"));
                    }
                } else if forward {
                    all.push(format!("{insert} ct state established,related accept"));
                }
                all
            }
        }
    }

    fn query_is_v6(&self) -> bool {
        self.tracked
            .values()
            .flatten()
            .any(|ct| ct.original.dst.is_ipv6())
    }

    /// Frames inside one bridge meet IP rules only because a sysctl says so.
    fn bridge_netfilter(&self, site: Site, blame: &Blame) -> Fault {
        let space = self.space(site.space);
        let tables = if self.query_is_v6() {
            "ip6tables"
        } else {
            "iptables"
        };
        let name = format!("net.bridge.bridge-nf-call-{tables}");
        let bridge = site
            .iif
            .and_then(|i| space.link(i))
            .map_or("the bridge", |l| &l.name);
        let rule = object(blame);
        let text = match blame.handle {
            Some(_) => blame.text.clone(),
            None => "policy drop".to_owned(),
        };
        let what = format!(
            "Frames inside {bridge} are judged by IP rules because {name} is 1, and {rule} stops this one."
        );
        // The bridge may be told by itself.
        let own = site.iif.and_then(|i| space.link(i)?.bridge.as_ref());
        let own = own.is_some_and(|b| {
            if tables == "iptables" {
                b.nf_call.0
            } else {
                b.nf_call.1
            }
        });
        let option = format!("nf_call_{tables}");
        let (by_all, enter) = (space.sysctl(&name).is_some_and(|v| v != 0), &space.enter);
        let (object, what) = if own && !by_all {
            (format!("{bridge} {option}"), what.replace(&name, &option))
        } else {
            (name.clone(), what)
        };
        let mut fault = Fault::new(Code::BridgeNetfilter, site.space, object, what);
        if by_all || !own {
            fault = fault
                .evidence(format!("{enter}sysctl {name}: 1"))
                .fix(format!("{enter}sysctl -w {name}=0"));
        }
        if own {
            fault = fault
                .evidence(format!("{enter}ip -d link show {bridge}: {option} 1"))
                .fix(format!(
                    "{enter}ip link set {bridge} type bridge {option} 0"
                ));
        }
        fault = fault.evidence(format!("{rule}: {text}"));
        if by_iptables(blame) {
            fault = fault.evidence(format!(
                "{} -I {} -i {bridge} -o {bridge} -j ACCEPT would accept what stays inside the bridge",
                iptables(space, blame),
                blame.base
            ));
        }
        fault
    }
}
