//! Operations as the commands an administrator would type: `sh` with iproute2, nft, procps and conntrack.
//!
//! The text is what `--dry-run` prints and what `ScriptKernel` runs, so it is complete and quoted. Not for:
//! carrying out operations; wharf itself starts no program.

use std::path::Path;

use serde::Serialize;

use crate::addr::Family;
use crate::model::Netns;
use crate::name::IfName;
use crate::op::{DoorChange, Op};
use crate::plan::{Plan, Undo};
use crate::publish::Protocol;

mod link;
mod listing;
mod nft;
mod route;

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
                format!("{}\n{set}", link::add(link))
            }
            None => link::add(link),
        },
        Op::LinkSet(link) => link::set(link),
        Op::LinkDel { netns, link } => format!("{} link del dev {}", ip(netns), quote(link)),
        Op::LinkUp { netns, link, up } => {
            let way = if *up { "up" } else { "down" };
            format!("{} link set dev {} {way}", ip(netns), quote(link))
        }
        Op::LinkRename { from, to } => {
            format!("ip link set dev {} name {}", quote(from), quote(to))
        }
        Op::PortUnplug(link) => format!("ip link set dev {} nomaster", quote(link)),
        Op::PortSet(port) => link::port_set(port),
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
            route::route(verb, r)
        }
        Op::RouteDel(r) => route::route("del", r),
        Op::RuleAdd(r) => route::rule("add", r),
        Op::RuleDel(r) => route::rule("del", r),
        Op::BlackholeAdd { dst, table } => format!(
            "ip route add blackhole {dst} table {table} proto {}",
            crate::model::ROUTE_PROTOCOL
        ),
        Op::BlackholeDel { dst, table } => format!("ip route del blackhole {dst} table {table}"),
        Op::NeighAdd { link, addr, mac } => {
            let dev = quote(link);
            let protocol = crate::model::ROUTE_PROTOCOL;
            format!(
                "ip neigh replace {addr} lladdr {mac} dev {dev} nud permanent protocol {protocol}"
            )
        }
        Op::NeighDel { link, addr } => format!("ip neigh del {addr} dev {}", quote(link)),
        Op::FdbAdd { link, mac } => {
            format!("bridge fdb replace {mac} dev {} master static", quote(link))
        }
        Op::FdbOwn { link, mac } => {
            format!(
                "bridge fdb replace {mac} dev {} self permanent",
                quote(link)
            )
        }
        Op::FdbDel { link, mac } => format!("bridge fdb del {mac} dev {} master", quote(link)),
        Op::SysctlSet { netns, key, value } => sysctl(netns, key, value),
        Op::Shape { link, limit } => format!(
            "tc qdisc replace dev {} root handle 1: tbf rate {}bit burst {} latency 25ms",
            quote(link),
            limit.rate.saturating_mul(8),
            limit.burst
        ),
        Op::Detour { from, by } => link::detour(from, by),
        Op::LinkTraits {
            netns,
            link,
            traits,
            ..
        } => link::traits(netns, link, traits),
        Op::Nft(changes) => nft::command(changes),
        Op::Door {
            family,
            chain,
            link,
            inward,
            change,
        } => door(*family, chain, (link, *inward), *change),
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
        Op::FdbAdd { .. } | Op::FdbOwn { .. } => "fdb add",
        Op::FdbDel { .. } => "fdb del",
        Op::SysctlSet { .. } => "sysctl set",
        Op::Shape { .. } => "qdisc replace",
        Op::Detour { .. } => "filter add",
        Op::LinkTraits { .. } => "link set",
        Op::Nft(_) => "nft",
        Op::Door {
            change: DoorChange::Shut,
            ..
        } => "rule del",
        Op::Door { .. } => "rule add",
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

/// Behind the user's rules: before the first `return` of everything, if there is one, else at the end.
fn door(
    family: Family,
    chain: &str,
    (link, inward): (&IfName, bool),
    change: DoorChange,
) -> String {
    let table = match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    let end = if inward { "iifname" } else { "oifname" };
    let at = format!("{table} filter {chain}");
    let list = format!("nft -a list chain {at}");
    let rule = format!("{end} \"{link}\" counter accept comment \"wharf\"");
    // Once saved and restored by the iptables programs, the rule has a comment that nft does not show.
    let (program, way) = match (family, inward) {
        (Family::V4, true) => ("iptables", "-i"),
        (Family::V4, false) => ("iptables", "-o"),
        (Family::V6, true) => ("ip6tables", "-i"),
        (Family::V6, false) => ("ip6tables", "-o"),
    };
    let gone = format!(
        "{program} -D {chain} {way} {} -m comment --comment wharf -j ACCEPT",
        quote(link)
    );
    let before = match change {
        DoorChange::Open => String::new(),
        DoorChange::Move => format!("{gone}; "),
        DoorChange::Shut => return gone,
    };
    format!(
        "{before}end=$({list} | sed -nE '/^\\s*(counter packets [0-9]+ bytes [0-9]+ )?return # handle /{{s///p;q}}'); \
         if [ -n \"$end\" ]; then nft insert rule {at} handle \"$end\" {rule}; else nft add rule {at} {rule}; fi",
        rule = quote(rule),
    )
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
