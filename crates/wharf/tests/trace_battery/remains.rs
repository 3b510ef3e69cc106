//! What a question could leave behind: rules, connections, addresses, links, routes, in every namespace.

use std::collections::BTreeSet;
use wharf_testkit::Host;

/// One line per thing, with the namespace before it. Counters and lifetimes are left out: they move by themselves.
const LIST: &str = r#"
    list() {
        $1 nft -s list ruleset | sed -E 's/(expires|timeout) [0-9a-z]+//g; s/(packets|bytes|used) [0-9]+//g'
        $1 ip -o addr | sed -E 's/\\.*//; s/ (dynamic|tentative|dadfailed|deprecated)//g'
        $1 ip -o link | sed -E 's/NO-CARRIER,|,LOWER_UP|,M-DOWN//g; s/ (qdisc|state|qlen|mode|group) .*//'
        $1 ip rule; $1 ip -6 rule
        $1 ip route show table all | grep -v cache | sed -E 's/expires [0-9]+sec//; s/ linkdown//'
        $1 ip -6 route show table all | grep -v cache | sed -E 's/expires [0-9]+sec//; s/ linkdown//'
        $1 tc qdisc show
        $1 conntrack -L 2>/dev/null | sed -E 's/^([a-z0-9]+ +[0-9]+) [0-9]+ ([A-Z_0-9]+ )?/\1 /; s/\[[A-Z]+\] ?//g; s/(packets|bytes|mark|use)=[0-9]+ ?//g' || true
        $1 conntrack -L -f ipv6 2>/dev/null | sed -E 's/^([a-z0-9]+ +[0-9]+) [0-9]+ ([A-Z_0-9]+ )?/\1 /; s/\[[A-Z]+\] ?//g; s/(packets|bytes|mark|use)=[0-9]+ ?//g' || true
    }
    # What kernels and relays do in their own time, for link-local, multicast and loopback addresses.
    own() { grep -vE 'fe80::|ff00::|^unknown +2 |dst=224\.|dst=ff0|src=127\.0\.0\.1 |src=::1 ' || true; }
    list '' | own | sed 's/^/host: /'
    for n in $(ls /run/netns 2>/dev/null); do
        list "ip netns exec $n" 2>/dev/null | own | sed "s/^/$n: /"
    done
"#;

/// What there is now.
#[track_caller]
pub fn remains(host: &Host) -> BTreeSet<String> {
    let out = host.command("sh").args(["-uc", LIST]).run();
    out.stdout.lines().map(str::to_owned).collect()
}

/// Nothing came and nothing went, but connections that ended.
#[track_caller]
pub fn nothing_left(before: &BTreeSet<String>, after: &BTreeSet<String>) {
    let came: Vec<_> = after.difference(before).collect();
    assert!(came.is_empty(), "left behind: {came:#?}");
    let connection = |line: &&String| line.contains(" sport=") || line.contains(" id=");
    let went: Vec<_> = before
        .difference(after)
        .filter(|line| !connection(line))
        .collect();
    assert!(went.is_empty(), "taken away: {went:#?}");
}
