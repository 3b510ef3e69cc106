//! Operations as the commands an administrator would type: `sh` with iproute2, nft, procps and conntrack.
//!
//! The text is what `--dry-run` prints and what `ScriptKernel` runs, so it is complete and quoted. Not for:
//! carrying out operations; wharf itself starts no program.

use std::path::Path;

use ipnet::IpNet;
use serde::Serialize;

use crate::addr::Family;
use crate::extras::Traits;
use crate::model::{
    FIRST_VLAN, Hop, Link, LinkKind, Netns, PORT_GROUPS, PolicyRule, Port, RuleAction,
};
use crate::name::IfName;
use crate::op::{Op, RouteOp};
use crate::plan::{Plan, Undo};
use crate::publish::Protocol;

mod listing;
mod nft;

pub use listing::ruleset;
pub use nft::{object, rule, transaction};

/// The commands that do what `op` does; several are on lines of their own.
pub fn command(op: &Op) -> String {
    match op {
        Op::NetnsAdd(path) => netns_add(path),
        Op::NetnsDel(path) => netns_del(path),
        Op::LinkAdd(link) => match link.bridge_mtu() {
            Some(mtu) => {
                let set = format!(
                    "{} link set dev {} mtu {mtu}",
                    ip(&link.netns),
                    quote(&link.name)
                );
                format!("{}\n{set}", link_add(link))
            }
            None => link_add(link),
        },
        Op::LinkSet(link) => link_set(link),
        Op::LinkDel { netns, link } => format!("{} link del dev {}", ip(netns), quote(link)),
        Op::LinkUp { netns, link, up } => {
            let way = if *up { "up" } else { "down" };
            format!("{} link set dev {} {way}", ip(netns), quote(link))
        }
        Op::LinkRename { from, to } => {
            format!("ip link set dev {} name {}", quote(from), quote(to))
        }
        Op::PortUnplug(link) => format!("ip link set dev {} nomaster", quote(link)),
        Op::PortSet(port) => port_set(port),
        Op::AddrAdd { netns, link, addr } => {
            let nodad = match Family::of_net(*addr) {
                Family::V4 => "",
                Family::V6 => " nodad",
            };
            format!("{} addr add {addr} dev {}{nodad}", ip(netns), quote(link))
        }
        Op::AddrDel { netns, link, addr } => {
            format!("{} addr del {addr} dev {}", ip(netns), quote(link))
        }
        Op::RouteAdd(r) => {
            let verb = match (r.replace, r.more.beside) {
                (true, _) => "replace",
                (false, true) => "prepend",
                (false, false) => "add",
            };
            route(verb, r)
        }
        Op::RouteDel(r) => route("del", r),
        Op::RuleAdd(r) => policy_rule("add", r),
        Op::RuleDel(r) => policy_rule("del", r),
        Op::BlackholeAdd { dst, table } => format!(
            "ip route add blackhole {dst} table {table} proto {}",
            crate::model::ROUTE_PROTOCOL
        ),
        Op::BlackholeDel { dst, table } => format!("ip route del blackhole {dst} table {table}"),
        Op::NeighAdd { link, addr, mac } => {
            let dev = quote(link);
            format!("ip neigh replace {addr} lladdr {mac} dev {dev} nud permanent")
        }
        Op::NeighDel { link, addr } => format!("ip neigh del {addr} dev {}", quote(link)),
        Op::FdbAdd { link, mac } => {
            format!("bridge fdb replace {mac} dev {} master static", quote(link))
        }
        Op::FdbDel { link, mac } => format!("bridge fdb del {mac} dev {} master", quote(link)),
        Op::SysctlSet { netns, key, value } => sysctl(netns, key, value),
        Op::Shape { link, limit } => format!(
            "tc qdisc replace dev {} root handle 1: tbf rate {}bit burst {} latency 25ms",
            quote(link),
            limit.rate.saturating_mul(8),
            limit.burst
        ),
        Op::Detour { from, by } => detour(from, by),
        Op::LinkTraits {
            netns,
            link,
            traits,
            ..
        } => link_traits(netns, link, traits),
        Op::Nft(changes) => nft::command(changes),
        Op::Door {
            family,
            chain,
            link,
            inward,
        } => door(*family, chain, link, *inward),
        Op::ConntrackFlush {
            protocol,
            host_ip,
            first,
            last,
        } => conntrack(*protocol, *host_ip, *first, *last),
        Op::ConntrackForget(addrs) => forget(addrs),
    }
}

/// The operation's name, as plans show it: `link add`.
pub fn op_name(op: &Op) -> &'static str {
    match op {
        Op::NetnsAdd(_) => "netns add",
        Op::NetnsDel(_) => "netns del",
        Op::LinkAdd(_) => "link add",
        Op::LinkSet(_) => "link set",
        Op::LinkDel { .. } => "link del",
        Op::LinkUp { .. } => "link up",
        Op::LinkRename { .. } => "link rename",
        Op::PortUnplug(_) => "port unplug",
        Op::PortSet(_) => "port set",
        Op::AddrAdd { .. } => "addr add",
        Op::AddrDel { .. } => "addr del",
        Op::RouteAdd(_) => "route add",
        Op::RouteDel(_) => "route del",
        Op::RuleAdd(_) => "rule add",
        Op::RuleDel(_) => "rule del",
        Op::BlackholeAdd { .. } => "route add",
        Op::BlackholeDel { .. } => "route del",
        Op::NeighAdd { .. } => "neigh add",
        Op::NeighDel { .. } => "neigh del",
        Op::FdbAdd { .. } => "fdb add",
        Op::FdbDel { .. } => "fdb del",
        Op::SysctlSet { .. } => "sysctl set",
        Op::Shape { .. } => "qdisc replace",
        Op::Detour { .. } => "filter add",
        Op::LinkTraits { .. } => "link set",
        Op::Nft(_) => "nft",
        Op::Door { .. } => "rule insert",
        Op::ConntrackFlush { .. } => "conntrack flush",
        Op::ConntrackForget(_) => "conntrack forget",
    }
}

/// A plan as scripts read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanJson {
    /// The steps; none means "already so".
    pub steps: Vec<StepJson>,
}

/// A step as scripts read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepJson {
    /// The operation: `link add`.
    pub op: &'static str,
    /// The command an administrator would type.
    pub command: String,
    /// Why.
    pub because: String,
    /// The way back.
    pub undo: UndoJson,
}

/// The way back: commands, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum UndoJson {
    /// Commands in order.
    Commands(Vec<String>),
    /// Why it is not taken back.
    Irreversible(&'static str),
}

/// A plan in the form that `--json` shows: `{steps: [{op, command, because, undo}]}`.
pub fn plan_json(plan: &Plan) -> PlanJson {
    let steps = plan.steps.iter().map(|step| StepJson {
        op: op_name(&step.op),
        command: command(&step.op),
        because: step.because.clone(),
        undo: match &step.undo {
            Undo::Ops(ops) => UndoJson::Commands(ops.iter().map(command).collect()),
            Undo::Irreversible(why) => UndoJson::Irreversible(why),
        },
    });
    PlanJson {
        steps: steps.collect(),
    }
}

/// All commands of a plan, in order, one step after the other.
pub fn script(plan: &Plan) -> String {
    plan.steps
        .iter()
        .map(|step| command(&step.op) + "\n")
        .collect()
}

/// A word for `sh`: as it is, or in single quotes when it holds anything a shell could take otherwise.
pub fn quote(word: impl AsRef<str>) -> String {
    let word = word.as_ref();
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn quote_path(path: &Path) -> String {
    quote(path.to_string_lossy())
}

/// The name under which iproute2 knows a namespace.
fn netns_name(path: &Path) -> Option<&str> {
    let dir = path.parent()?;
    if dir != Path::new("/run/netns") && dir != Path::new("/var/run/netns") {
        return None;
    }
    let name = path.file_name()?.to_str()?;
    (!name.starts_with('-')).then_some(name)
}

/// `ip` for a namespace.
fn ip(netns: &Netns) -> String {
    match netns {
        Netns::Host => "ip".to_owned(),
        Netns::Path(path) => match netns_name(path) {
            Some(name) => format!("ip -n {}", quote(name)),
            None => format!("nsenter --net={} ip", quote_path(path)),
        },
    }
}

/// What another command is put behind to run in a namespace, with a space at the end.
fn inside(netns: &Netns) -> String {
    match netns {
        Netns::Host => String::new(),
        Netns::Path(path) => match netns_name(path) {
            Some(name) => format!("ip netns exec {} ", quote(name)),
            None => format!("nsenter --net={} ", quote_path(path)),
        },
    }
}

fn netns_add(path: &Path) -> String {
    match netns_name(path) {
        Some(name) => format!(
            "ip netns add {}\nip -n {} link set dev lo alias {}",
            quote(name),
            quote(name),
            quote(crate::model::netns_alias(path)),
        ),
        None => {
            let path = quote_path(path);
            format!("touch {path} && unshare --net={path} true")
        }
    }
}

fn netns_del(path: &Path) -> String {
    match netns_name(path) {
        Some(name) => format!("ip netns del {}", quote(name)),
        None => {
            let path = quote_path(path);
            format!("umount {path} && rm {path}")
        }
    }
}

/// The kernel gives each end of a cable one queue by itself only for the end that is not asked about; both
/// are named, since more queues cost memory and time to make.
fn link_add(link: &Link) -> String {
    if let LinkKind::Macvlan { parent, mode } = &link.kind {
        return macvlan_add(link, parent, mode.as_str());
    }
    let mut text = format!("{} link add name {}", ip(&link.netns), quote(&link.name));
    let mut word = |w: String| {
        text.push(' ');
        text.push_str(&w);
    };
    if link.up {
        word("up".to_owned());
    }
    if let Some(mtu) = link.mtu.filter(|_| link.bridge_mtu().is_none()) {
        word(format!("mtu {mtu}"));
    }
    if let Some(mac) = link.mac {
        word(format!("address {mac}"));
    }
    if matches!(link.kind, LinkKind::Veth { .. }) {
        word("numtxqueues 1 numrxqueues 1".to_owned());
    }
    if link.group != 0 {
        word(format!("group {:#x}", link.group));
    }
    if let Some(master) = &link.master {
        word(format!("master {}", quote(master)));
    }
    match &link.kind {
        LinkKind::Bridge => word("type bridge".to_owned()),
        LinkKind::Macvlan { .. } => {}
        LinkKind::Ifb => word("type ifb".to_owned()),
        LinkKind::Veth {
            peer,
            peer_netns,
            peer_mac,
        } => {
            word(format!("type veth peer name {}", quote(peer)));
            if let Some(mtu) = link.mtu {
                word(format!("mtu {mtu}"));
            }
            if let Some(mac) = peer_mac {
                word(format!("address {mac}"));
            }
            word("numtxqueues 1 numrxqueues 1".to_owned());
            if *peer_netns != link.netns {
                word(peer_place(peer_netns));
            }
        }
    }
    text
}

/// A sub-interface is made beside its parent and put into its namespace at once.
fn macvlan_add(link: &Link, parent: &IfName, mode: &str) -> String {
    let mut text = format!(
        "ip link add link {} name {}",
        quote(parent),
        quote(&link.name)
    );
    if let Some(mtu) = link.mtu {
        text += &format!(" mtu {mtu}");
    }
    if let Some(mac) = link.mac {
        text += &format!(" address {mac}");
    }
    if link.netns != Netns::Host {
        text += &format!(" {}", peer_place(&link.netns));
    }
    text + &format!(" type macvlan mode {mode}")
}

/// What can be changed of a link that is there.
fn link_set(link: &Link) -> String {
    let mut text = format!("{} link set dev {}", ip(&link.netns), quote(&link.name));
    if let Some(mtu) = link.mtu {
        text += &format!(" mtu {mtu}");
    }
    if let Some(mac) = link.mac {
        text += &format!(" address {mac}");
    }
    text += &format!(" group {:#x}", link.group);
    if let Some(master) = &link.master {
        text += &format!(" master {}", quote(master));
    }
    if link.up {
        text += " up";
    }
    text
}

/// `netns` of a cable's other end; the shell itself is in the host's namespace.
fn peer_place(netns: &Netns) -> String {
    match netns {
        Netns::Host => "netns $$".to_owned(),
        Netns::Path(path) => match netns_name(path) {
            Some(name) => format!("netns {}", quote(name)),
            None => format!("netns {}", quote_path(path)),
        },
    }
}

fn port_set(port: &Port) -> String {
    let on = |yes| if yes { "on" } else { "off" };
    let link = quote(&port.link);
    let groups = match port.locked {
        true => format!(" type bridge_slave group_fwd_mask {PORT_GROUPS:#x}"),
        false => String::new(),
    };
    let vlan = port.vlan.map(|id| {
        // Only then is the port no longer in the bridge's first VLAN.
        let leave = match id {
            FIRST_VLAN => String::new(),
            _ => format!("bridge vlan del dev {link} vid {FIRST_VLAN}\n"),
        };
        format!("bridge vlan add dev {link} vid {id} pvid untagged\n{leave}")
    });
    let unnumbered = if port.ipv6 { " addrgenmode none" } else { "" };
    let text = format!(
        "bridge link set dev {link} locked {} learning {} hairpin {} isolated {}\nip link set dev {link} up{unnumbered} alias {}{groups}",
        on(port.locked),
        on(port.learning),
        on(port.hairpin),
        on(port.isolated),
        quote(&port.alias),
    );
    vlan.unwrap_or_default() + &text
}

fn door(family: Family, chain: &str, link: &IfName, inward: bool) -> String {
    let table = match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    let end = if inward { "iifname" } else { "oifname" };
    let rule = format!(
        "insert rule {table} filter {chain} {end} \"{link}\" counter accept comment \"wharf\""
    );
    format!("nft {}", quote(rule))
}

fn detour(from: &IfName, by: &IfName) -> String {
    let (from, by) = (quote(from), quote(by));
    format!(
        "tc qdisc add dev {from} ingress\ntc filter add dev {from} parent ffff: protocol all prio 1 u32 match u32 0 0 action mirred egress redirect dev {by}"
    )
}

fn link_traits(netns: &Netns, link: &IfName, traits: &Traits) -> String {
    let on = |yes| if yes { "on" } else { "off" };
    let mut text = format!("{} link set dev {}", ip(netns), quote(link));
    if let Some(promisc) = traits.promisc {
        text += &format!(" promisc {}", on(promisc));
    }
    if let Some(allmulti) = traits.allmulti {
        text += &format!(" allmulticast {}", on(allmulti));
    }
    if let Some(length) = traits.tx_queue {
        text += &format!(" txqueuelen {length}");
    }
    if let Some(mac) = traits.mac {
        text += &format!(" address {mac}");
    }
    if let Some(mtu) = traits.mtu {
        text += &format!(" mtu {mtu}");
    }
    if let Some(arp) = traits.arp {
        text += &format!(" arp {}", on(arp));
    }
    if let Some(stp) = traits.stp {
        text += &format!(" type bridge stp_state {}", u8::from(stp));
    }
    text
}

fn route(verb: &str, r: &RouteOp) -> String {
    let (dst, dev) = (destination(r.dst), quote(&r.link));
    let way = match r.hop {
        Hop::Via(gateway) if r.more.any_link => format!("{dst} via {gateway}"),
        Hop::Via(gateway) => format!("{dst} via {gateway} dev {dev}"),
        Hop::Link => format!("{dst} dev {dev}"),
        hop => format!("{} {dst}", hop.refusal().unwrap_or_default()),
    };
    let protocol = crate::model::ROUTE_PROTOCOL;
    let mut text = format!("{} route {verb} {way} proto {protocol}", ip(&r.netns));
    let scope = r.more.scope.map(u32::from);
    for (word, value) in [
        ("scope", scope),
        ("table", r.more.table),
        ("metric", r.metric),
        ("mtu", r.more.mtu),
        ("advmss", r.more.advmss),
    ] {
        if let Some(value) = value {
            text += &format!(" {word} {value}");
        }
    }
    text
}

fn policy_rule(verb: &str, r: &PolicyRule) -> String {
    let family = match r.family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    };
    let mut text = format!("ip {family} rule {verb} priority {}", r.priority);
    if let Some(from) = r.from {
        text += &format!(" from {from}");
    }
    if let Some(mark) = r.mark {
        text += &format!(" fwmark {mark:#x}/{mark:#x}");
    }
    if let Some(iif) = &r.iif {
        text += &format!(" iif {}", quote(iif));
    }
    text += &match r.action {
        RuleAction::Goto(to) => format!(" goto {to}"),
        RuleAction::Lookup(table) => format!(" lookup {table}"),
        RuleAction::Nop => " nop".to_owned(),
        RuleAction::Blackhole => " blackhole".to_owned(),
    };
    text + &format!(" protocol {}", crate::model::ROUTE_PROTOCOL)
}

fn destination(dst: IpNet) -> String {
    match dst.prefix_len() {
        0 => "default".to_owned(),
        _ => dst.to_string(),
    }
}

/// With dots, unless a part has a dot in it, as the name of a VLAN interface has.
fn sysctl(netns: &Netns, key: &str, value: &str) -> String {
    let key = match key.contains('.') {
        true => key.to_owned(),
        false => key.replace('/', "."),
    };
    format!(
        "{}sysctl -qw {}",
        inside(netns),
        quote(format!("{key}={value}"))
    )
}

fn forget(addrs: &[std::net::IpAddr]) -> String {
    let line = |side: &str, addr: &std::net::IpAddr| {
        let family = conntrack_family(Family::of(*addr));
        format!("conntrack -D -f {family} --{side} {addr} || true")
    };
    let lines = addrs
        .iter()
        .flat_map(|addr| ["orig-src", "reply-src"].map(|side| line(side, addr)));
    lines.collect::<Vec<_>>().join("\n")
}

fn conntrack_family(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// `conntrack` fails when nothing was to be forgotten, and takes one port at a time.
fn conntrack(
    protocol: Protocol,
    host_ip: Option<std::net::IpAddr>,
    first: u16,
    last: u16,
) -> String {
    let families: Vec<Family> = match host_ip {
        Some(ip) => vec![Family::of(ip)],
        None => Family::BOTH.to_vec(),
    };
    let port = match first == last {
        true => first.to_string(),
        false => "$port".to_owned(),
    };
    let one = |family: &Family| {
        let f = conntrack_family(*family);
        let ip = host_ip.filter(|ip| !ip.is_unspecified());
        let way = |what: &str, side: &str| {
            let dst = ip.map(|ip| format!(" --{side}-dst {ip}"));
            let dst = dst.unwrap_or_default();
            format!("conntrack -D -f {f} -p {protocol}{what}{dst} --{side}-port-dst {port} || true")
        };
        let mut all = vec![way("", "orig")];
        if protocol == Protocol::Udp {
            all.push(way(" --src-nat", "reply"));
        }
        all
    };
    let all: Vec<String> = families.iter().flat_map(one).collect();
    if first == last {
        return all.join("\n");
    }
    format!(
        "for port in $(seq {first} {last}); do {}; done",
        all.join("; ")
    )
}

#[cfg(test)]
mod tests;
