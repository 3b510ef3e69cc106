//! Everything a network engine could leave behind on a host, as sorted lines of text, and what differs between two.

use crate::host::Host;
use crate::netns::Netns;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// The state of a host at one moment. Counters, ages and index numbers are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    sections: BTreeMap<&'static str, BTreeSet<String>>,
    nft: String,
}

const VOLATILE: &[&str] = &[
    "ifindex",
    "link_index",
    "link_netnsid",
    "valid_life_time",
    "preferred_life_time",
    "operstate",
    "used",
    "probes",
    "hello_timer",
    "tcn_timer",
    "topology_change_timer",
    "gc_timer",
    "hold_timer",
    "tso_max_size",
    "tso_max_segs",
    "gso_max_size",
    "gso_max_segs",
    "gro_max_size",
    "message_age_timer",
    "forward_delay_timer",
    "mcast_flags",
    "promiscuity",
    "allmulti",
    "num_tx_queues",
    "num_rx_queues",
    "expires",
    "cacheinfo",
];

const PER_INTERFACE: &[(&str, &[&str])] = &[
    (
        "ipv4",
        &[
            "forwarding",
            "route_localnet",
            "rp_filter",
            "accept_local",
            "accept_redirects",
            "send_redirects",
            "arp_ignore",
            "arp_announce",
            "arp_notify",
            "proxy_arp",
            "log_martians",
            "src_valid_mark",
        ],
    ),
    (
        "ipv6",
        &[
            "forwarding",
            "disable_ipv6",
            "accept_ra",
            "accept_ra_defrtr",
            "autoconf",
            "accept_redirects",
            "accept_dad",
            "dad_transmits",
            "proxy_ndp",
            "addr_gen_mode",
            "keep_addr_on_down",
        ],
    ),
];

const GLOBAL: &[&str] = &[
    "net.ipv4.ip_forward",
    "net.ipv4.ip_nonlocal_bind",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_fwmark_accept",
    "net.ipv4.fwmark_reflect",
    "net.ipv6.bindv6only",
    "net.ipv6.ip_nonlocal_bind",
    "net.bridge.bridge-nf-call-iptables",
    "net.bridge.bridge-nf-call-ip6tables",
    "net.bridge.bridge-nf-call-arptables",
    "net.netfilter.nf_conntrack_acct",
    "net.netfilter.nf_conntrack_checksum",
    "net.netfilter.nf_conntrack_tcp_be_liberal",
    "net.netfilter.nf_conntrack_tcp_loose",
];

impl Snapshot {
    /// Looks at the host now.
    #[track_caller]
    pub fn of(host: &Host) -> Self {
        let mut this = Self::of_netns(host.netns());
        let processes = host.processes().into_iter().map(|(_, line)| line);
        let in_run = names(&host.path("/run")).into_iter();
        this.put("mount", mounts(host));
        this.put("/run/netns", names(&host.path("/run/netns")));
        this.put("/run", in_run.filter(|n| !expected_in_run(n)).collect());
        this.put("process", processes.collect());
        this
    }

    /// With a set of nftables taken for another: `set` is left out, and rules that look it up look up `stands_for`.
    #[must_use]
    pub fn with_set_as(mut self, set: &str, stands_for: &str) -> Self {
        if let Some(start) = self.nft.find(&format!("\tset {set} {{")) {
            let end = self.nft[start..]
                .find("\n\t}\n")
                .map_or(self.nft.len(), |n| start + n + 4);
            // The blank line behind it goes too.
            let end = if self.nft[end..].starts_with('\n') {
                end + 1
            } else {
                end
            };
            self.nft.replace_range(start..end, "");
        }
        self.nft = self
            .nft
            .replace(&format!("@{set}"), &format!("@{stands_for}"));
        self
    }

    /// Looks at one network namespace, a container's for instance.
    #[track_caller]
    pub fn of_netns(net: &Netns) -> Self {
        let bridge = net.command("bridge").args(["fdb", "show"]).run().ok();
        let nft = net
            .command("nft")
            .args(["-s", "list", "ruleset"])
            .run()
            .ok();
        let sections = BTreeMap::new();
        let mut this = Self {
            sections,
            nft: nft.stdout,
        };
        for (section, command) in [
            ("link", "-d link show"),
            ("address", "addr show"),
            ("route", "-4 route show table all"),
            ("route6", "-6 route show table all"),
            ("rule", "-4 rule show"),
            ("rule6", "-6 rule show"),
            ("neighbour", "neigh show nud permanent"),
        ] {
            this.put(section, json_lines(&net.ip_json(command)));
        }
        let fdb = text_lines(&bridge.stdout);
        this.put("fdb", fdb.into_iter().filter(|l| is_made(l)).collect());
        this.put("sysctl", sysctls(net));
        this
    }

    fn put(&mut self, section: &'static str, lines: Vec<String>) {
        self.sections.insert(section, lines.into_iter().collect());
    }

    /// The nftables ruleset without counters.
    pub fn nft(&self) -> &str {
        &self.nft
    }

    /// The lines of one section (`link`, `address`, `route`, `sysctl`, `process`, …).
    pub fn section(&self, name: &str) -> Vec<&str> {
        self.sections
            .get(name)
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect()
    }

    /// The same with each `(from, to)` replaced everywhere: for names and MAC addresses that may differ.
    pub fn replace(mut self, pairs: &[(&str, &str)]) -> Self {
        let swap = |text: &str| {
            pairs
                .iter()
                .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
        };
        for lines in self.sections.values_mut() {
            *lines = lines.iter().map(|line| swap(line)).collect();
        }
        self.nft = swap(&self.nft);
        self
    }

    /// The same without some sections.
    pub fn without(mut self, names: &[&str]) -> Self {
        self.sections.retain(|name, _| !names.contains(name));
        if names.contains(&"nft") {
            self.nft.clear();
        }
        self
    }

    /// What is different in `later`.
    pub fn difference(&self, later: &Self) -> Difference {
        let none = BTreeSet::new();
        let mut lines = Vec::new();
        let names: BTreeSet<_> = self.sections.keys().chain(later.sections.keys()).collect();
        for name in names {
            let old = self.sections.get(name).unwrap_or(&none);
            let new = later.sections.get(name).unwrap_or(&none);
            lines.extend(old.difference(new).map(|line| format!("- {name}: {line}")));
            lines.extend(new.difference(old).map(|line| format!("+ {name}: {line}")));
        }
        if self.nft != later.nft {
            lines.extend(text_difference(&self.nft, &later.nft));
        }
        Difference(lines)
    }

    /// What is different on the host, after the moment that a command's last child may need to end.
    #[track_caller]
    pub fn difference_on(&self, host: &Host) -> Difference {
        const PAUSE: Duration = Duration::from_millis(50);
        const ROUNDS: u32 = 20;
        for _ in 0..ROUNDS {
            let difference = self.difference(&Self::of(host));
            if difference
                .lines()
                .iter()
                .all(|l| !l.starts_with("+ process:"))
            {
                return difference;
            }
            thread::sleep(PAUSE);
        }
        self.difference(&Self::of(host))
    }

    /// Panics unless the host is as it was.
    #[track_caller]
    pub fn assert_same(&self, host: &Host, what: &str) {
        let difference = self.difference_on(host);
        assert!(
            difference.is_empty(),
            "comparing the host before and after: {what}\n{difference}"
        );
    }
}

/// What differs between two snapshots, one line each: `-` was there before, `+` is there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference(Vec<String>);

impl Difference {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The lines.
    pub fn lines(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// Whether somebody made an entry of a forwarding table: what is learnt from traffic and the groups that a link
/// listens to come and go by themselves.
fn is_made(entry: &str) -> bool {
    let group = ["33:33:", "01:00:5e:"].iter().any(|g| entry.starts_with(g));
    !group && ["permanent", "static"].iter().any(|w| entry.contains(w))
}

fn text_lines(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

fn json_lines(list: &Value) -> Vec<String> {
    list.as_array()
        .into_iter()
        .flatten()
        .map(|item| flat(item, ""))
        // The kernel makes the multicast route when a link first has a carrier, and keeps it.
        .filter(|line| !line.is_empty() && !line.contains("dst=ff00::/8"))
        .collect()
}

fn flat(value: &Value, key: &str) -> String {
    match value {
        Value::Object(map) => {
            let parts = map
                .iter()
                .filter(|(key, _)| !VOLATILE.contains(&key.as_str()));
            let parts: Vec<_> = parts
                .map(|(key, value)| flat(value, key))
                .filter(|part| !part.is_empty())
                .collect();
            let inside = parts.join(" ");
            if key.is_empty() || inside.is_empty() {
                inside
            } else {
                format!("{key}({inside})")
            }
        }
        Value::Array(items) => {
            // Whether a bridge has a carrier follows its last port with a delay.
            let fleeting = |item: &Value| {
                matches!(item.as_str(), Some("NO-CARRIER" | "LOWER_UP" | "linkdown"))
            };
            let parts: Vec<_> = items
                .iter()
                .filter(|item| !fleeting(item))
                .map(|item| flat(item, ""))
                .filter(|part| !part.is_empty())
                .collect();
            if parts.is_empty() {
                String::new()
            } else {
                format!("{key}[{}]", parts.join(", "))
            }
        }
        Value::String(text) if key.is_empty() => text.clone(),
        Value::String(text) => format!("{key}={text}"),
        other if key.is_empty() => other.to_string(),
        other => format!("{key}={other}"),
    }
}

fn sysctls(net: &Netns) -> Vec<String> {
    let read = || {
        let mut lines = Vec::new();
        let mut read = |key: String| {
            if let Ok(value) = fs::read_to_string(format!("/proc/sys/{}", key.replace('.', "/"))) {
                lines.push(format!("{key} = {}", value.trim()));
            }
        };
        GLOBAL.iter().for_each(|key| read((*key).into()));
        for (family, keys) in PER_INTERFACE {
            for interface in names(Path::new(&format!("/proc/sys/net/{family}/conf"))) {
                keys.iter()
                    .for_each(|key| read(format!("net.{family}.conf.{interface}.{key}")));
            }
        }
        lines
    };
    net.run(read)
}

fn mounts(host: &Host) -> Vec<String> {
    let fields = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        let kind = words
            .iter()
            .skip_while(|word| **word != "-")
            .nth(1)
            .copied()
            .unwrap_or_default();
        // The inode of a namespace is new each time.
        let root = if kind == "nsfs" {
            ""
        } else {
            words.get(3).copied().unwrap_or_default()
        };
        format!(
            "{} {kind} {root}",
            words.get(4).copied().unwrap_or_default()
        )
    };
    host.mounts()
        .lines()
        .map(fields)
        .filter(|line| !line.starts_with("/run/netns tmpfs"))
        .collect()
}

/// `/run/netns` itself may stay: `ip netns` leaves it as well.
fn expected_in_run(name: &str) -> bool {
    matches!(name, "netns" | "wharf" | "lock" | "xtables.lock")
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

/// A plain line difference with the path of each line (table, chain) in front.
fn text_difference(old: &str, new: &str) -> Vec<String> {
    let (old, new) = (with_path(old), with_path(new));
    let mut lines = Vec::new();
    lines.extend(
        old.iter()
            .filter(|line| !new.contains(line))
            .map(|line| format!("- nft: {line}")),
    );
    lines.extend(
        new.iter()
            .filter(|line| !old.contains(line))
            .map(|line| format!("+ nft: {line}")),
    );
    if lines.is_empty() {
        lines.push("the same nft lines in another order or number".into());
    }
    lines
}

fn with_path(text: &str) -> Vec<String> {
    let mut path: Vec<String> = Vec::new();
    let mut lines = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line == "}" {
            path.pop();
            continue;
        }
        let mut shown = String::new();
        path.iter().for_each(|step| _ = write!(shown, "{step} / "));
        lines.push(shown + line);
        if let Some(head) = line.strip_suffix('{') {
            path.push(head.trim().to_owned());
        }
    }
    lines
}
