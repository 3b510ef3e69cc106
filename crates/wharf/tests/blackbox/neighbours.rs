//! Beside other tools that rule over packets: everybody's traffic keeps working, or wharf says exactly what it needs, and
//! removal leaves the host as it was.

use crate::common::*;
use wharf_testkit::skip::Need;
use wharf_testkit::{Answer, Echo, Host, Netns, Snapshot, addr, require};

const V4_ONLY: bool = false;

/// Servers that are there all the time.
pub fn servers(host: &Host) -> Vec<Echo> {
    vec![
        Echo::tcp(host.outside(), "outside", 80),
        Echo::tcp(host.netns(), "host", 7000),
    ]
}

/// Network A with a1 on it, its port 80 published at 8080, and a2.
pub fn start(host: &Host) -> Echo {
    network(host, "A", 1, "--bridge wharf-a");
    container(host, "a1", "A", 1, 11, "-p 8080:80");
    container(host, "a2", "A", 1, 12, "");
    Echo::tcp(&host.container("a1"), "a1", 80)
}

pub fn stop(host: &Host) {
    remove(host, &["a1", "a2"], &["A"]);
}

/// What works of a container's traffic, as answers: out, in, to a sibling.
fn answers(host: &Host, v6: bool) -> [Answer; 3] {
    [
        host.container("a1").tcp(addr::outside(v6), 80),
        host.outside().tcp(addr::host(v6), 8080),
        host.container("a2").tcp(at(v6, 1, 11), 80),
    ]
}

#[track_caller]
pub fn all_work(host: &Host, when: &str) {
    for v6 in [false, true] {
        let [out, within, sibling] = answers(host, v6);
        assert_eq!(
            out.by(),
            Some("outside"),
            "to the outside, {when}, IPv6 {v6}: {out}"
        );
        assert_eq!(
            within.by(),
            Some("a1"),
            "from outside, {when}, IPv6 {v6}: {within}"
        );
        assert_eq!(
            sibling.by(),
            Some("a1"),
            "a sibling, {when}, IPv6 {v6}: {sibling}"
        );
    }
}

/// Runs the commands of a note, as a user would who copies them.
#[track_caller]
pub fn follow(host: &Host, text: &str) -> usize {
    let commands: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .collect();
    commands.iter().for_each(|command| _ = host.sh(command));
    commands.len()
}

/// ufw with its own files in the private host; it may load no modules.
fn ufw(host: &Host) {
    host.sh("mkdir /run/ufw-files; cp -a /etc/ufw /run/ufw-files/etc; cp -a /var/lib/ufw /run/ufw-files/lib 2>/dev/null || mkdir /run/ufw-files/lib
             cp /etc/default/ufw /run/ufw-files/default
             sed -i 's/^IPT_MODULES=.*/IPT_MODULES=\"\"/' /run/ufw-files/default
             mount --bind /run/ufw-files/etc /etc/ufw
             mount --bind /run/ufw-files/default /etc/default/ufw
             [ ! -d /var/lib/ufw ] || mount --bind /run/ufw-files/lib /var/lib/ufw
             ufw --force enable");
}

#[test]
fn ufw_before_wharf() {
    require!(Need::Program("ufw"), Need::Program("iptables-nft"));
    let host = host();
    let _servers = servers(&host);
    ufw(&host);
    // ufw writes some rules only when it is reloaded.
    host.sh("ufw reload");
    let before = Snapshot::of(&host).without(&["process"]);
    let made = host
        .w(&format!("network create A {} --bridge wharf-a", subnets(1)))
        .ok();
    container(&host, "a1", "A", 1, 11, "-p 8080:80");
    container(&host, "a2", "A", 1, 12, "");
    let web = Echo::tcp(&host.container("a1"), "a1", 80);
    all_work(&host, "with ufw");
    assert_eq!(
        host.outside().tcp_brief(addr::HOST4, 7000),
        Answer::Timeout,
        "what ufw denies stays denied"
    );
    // A reload forgets wharf's rules, and wharf has said so; the next change brings them back.
    host.sh("ufw reload");
    assert_eq!(host.outside().tcp_brief(addr::HOST4, 8080), Answer::Timeout);
    container(&host, "a3", "A", 1, 13, "");
    all_work(&host, "after a reload and a change");
    assert_eq!(follow(&host, &made.stderr), 2, "{}", made.transcript());
    host.sh("ufw reload");
    all_work(&host, "after a reload, with what the note says");
    drop(web);
    remove(&host, &["a3"], &[]);
    stop(&host);
    let rules = host.sh("ufw status");
    assert!(
        rules.contains("wharf-a"),
        "the user's own rules stay: {rules}"
    );
    host.sh(
        "ufw route delete allow in on wharf-a; ufw route delete allow out on wharf-a; ufw reload",
    );
    before.assert_same(&host, "a network beside ufw");
}

/// Rules of the user's own come first, whether they were there before wharf's or come later.
#[test]
fn what_ufw_denies_on_the_way_stays_denied() {
    require!(Need::Program("ufw"), Need::Program("iptables-nft"));
    let host = host();
    let _servers = servers(&host);
    ufw(&host);
    let outside = addr::OUTSIDE4;
    let denied = format!("proto tcp to {outside} port 80");
    let out = || host.container("a1").tcp_brief(outside, 80);
    host.sh(&format!("ufw route deny {denied}"));
    let web = start(&host);
    assert!(!out().reached(), "denied before");
    host.sh(&format!("ufw route delete deny {denied}"));
    container(&host, "a3", "A", 1, 13, "");
    assert_eq!(out().by(), Some("outside"));
    host.sh(&format!("ufw route deny {denied}"));
    host.w("repair").ok();
    assert!(!out().reached(), "denied later");
    drop(web);
    remove(&host, &["a3"], &[]);
    stop(&host);
}

#[test]
fn ufw_after_wharf() {
    require!(Need::Program("ufw"), Need::Program("iptables-nft"));
    let host = host();
    let _servers = servers(&host);
    let web = start(&host);
    all_work(&host, "before ufw");
    ufw(&host);
    container(&host, "a3", "A", 1, 13, "");
    all_work(&host, "with ufw");
    host.sh("ufw --force disable");
    all_work(&host, "when ufw is off again");
    drop(web);
    remove(&host, &["a3"], &[]);
    stop(&host);
    assert!(
        !host.sh("nft list ruleset").contains("wharf-a"),
        "nothing is left in ufw's chains"
    );
}

/// The shape of firewalld's table (1.3): no policy, but everything is refused at the end unless its zone allows it.
const FIREWALLD: &str = r#"
table inet firewalld
delete table inet firewalld
table inet firewalld {
    chain filter_INPUT {
        type filter hook input priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname "lo" accept
        ct state invalid drop
        jump filter_INPUT_ZONES
        reject with icmpx admin-prohibited
    }
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname "lo" accept
        ct state invalid drop
        jump filter_FORWARD_ZONES
        reject with icmpx admin-prohibited
    }
    chain filter_INPUT_ZONES { %ZONE% goto filter_IN_public; }
    chain filter_FORWARD_ZONES { %ZONE% goto filter_FWD_public; }
    chain filter_IN_public { meta l4proto { icmp, ipv6-icmp } accept; tcp dport 22 accept; reject with icmpx admin-prohibited; }
    chain filter_FWD_public { reject with icmpx admin-prohibited; }
}
"#;

/// Loads the table as firewalld does, start and reload alike; `zone` is what it has for a trusted link.
fn firewalld(host: &Host, trusted: Option<&str>) {
    let zone = trusted
        .map(|link| format!("iifname \"{link}\" accept;"))
        .unwrap_or_default();
    let text = FIREWALLD.replace("%ZONE%", &zone);
    host.sh(&format!("nft -f - <<'END'\n{text}\nEND"));
}

#[test]
fn firewalld_is_told_or_the_user_is() {
    require!();
    let host = host();
    let _servers = servers(&host);
    firewalld(&host, None);
    let before = Snapshot::of(&host);
    let made = host
        .w(&format!("network create A {} --bridge wharf-a", subnets(1)))
        .ok();
    made.says("filter_FORWARD")
        .says("firewall-cmd --permanent --zone=trusted --add-interface=wharf-a");
    container(&host, "a1", "A", 1, 11, "-p 8080:80");
    container(&host, "a2", "A", 1, 12, "");
    let web = Echo::tcp(&host.container("a1"), "a1", 80);
    for v6 in [false, true] {
        let [out, within, _] = answers(&host, v6);
        assert!(!out.reached(), "firewalld refuses, as wharf said: {out}");
        assert_eq!(within.by(), Some("a1"), "published ports it lets pass");
    }
    firewalld(&host, Some("wharf-a"));
    all_work(&host, "with the zone");
    let again = host
        .w(&format!("create a3 --network A {}", ips(1, 13)))
        .ok();
    assert!(
        !again.stderr.contains("firewall-cmd"),
        "it is done: {}",
        again.transcript()
    );
    firewalld(&host, Some("wharf-a"));
    all_work(&host, "after a reload");
    assert!(
        !host.outside().tcp_brief(addr::HOST4, 7000).reached(),
        "what firewalld refuses stays refused"
    );
    drop(web);
    firewalld(&host, None);
    remove(&host, &["a3"], &[]);
    stop(&host);
    before.assert_same(&host, "a network beside firewalld");
}

/// `/etc/nftables.conf` begins with `flush ruleset`: it takes wharf's rules too. Nothing of it stays broken.
#[test]
fn nftables_service_reload() {
    require!();
    let host = host();
    let _servers = servers(&host);
    let reload = || {
        host.sh("nft -f - <<'END'
        flush ruleset
        table inet filter {
            chain input { type filter hook input priority filter; policy drop; iifname lo accept; ct state established,related accept
                meta l4proto { icmp, ipv6-icmp } accept; }
            chain forward { type filter hook forward priority filter; policy drop; iifname \"wharf*\" accept; oifname \"wharf*\" accept; }
        }
END")
    };
    reload();
    let before = Snapshot::of(&host);
    let web = start(&host);
    all_work(&host, "beside the service");
    reload();
    container(&host, "a3", "A", 1, 13, "");
    all_work(&host, "after its reload and a change");
    assert!(
        !host.outside().tcp_brief(at(V4_ONLY, 1, 11), 80).reached(),
        "the guards are back"
    );
    assert_eq!(
        host.outside().tcp_brief(addr::HOST4, 7000),
        Answer::Timeout,
        "its own policy holds"
    );
    drop(web);
    remove(&host, &["a3"], &[]);
    stop(&host);
    before.assert_same(&host, "a network beside the service");
}

#[test]
fn the_old_iptables_is_read_and_the_user_told() {
    require!(Need::Program("iptables-legacy"));
    let host = host();
    let _servers = servers(&host);
    host.sh("for program in iptables-legacy ip6tables-legacy; do
                 $program -P FORWARD DROP; $program -A FORWARD -i other0 -j ACCEPT
             done");
    let rules = || host.sh("iptables-legacy -S; ip6tables-legacy -S");
    let before = (Snapshot::of(&host), rules());
    let made = host
        .w(&format!("network create A {} --bridge wharf-a", subnets(1)))
        .ok();
    let made = made
        .says("ip filter FORWARD of iptables-legacy")
        .says("ip6 filter FORWARD of ip6tables-legacy");
    assert_eq!(
        rules(),
        before.1,
        "another tool's rules are not wharf's to change"
    );
    assert_eq!(follow(&host, &made.stderr), 4);
    container(&host, "a1", "A", 1, 11, "-p 8080:80");
    let quiet = host
        .w(&format!("create a2 --network A {}", ips(1, 12)))
        .ok();
    assert!(
        !quiet.stderr.contains("iptables"),
        "it is done: {}",
        quiet.transcript()
    );
    let web = Echo::tcp(&host.container("a1"), "a1", 80);
    all_work(&host, "with what the note says");
    drop(web);
    stop(&host);
    host.sh("for program in iptables-legacy ip6tables-legacy; do
                 $program -D FORWARD -i wharf-a -j ACCEPT; $program -D FORWARD -o wharf-a -j ACCEPT
             done");
    assert_eq!(rules(), before.1);
    before
        .0
        .assert_same(&host, "a network beside the old iptables");
}

/// A bridge with a machine on it and the rules that libvirt's default network has (iptables): it works before, during and
/// after, whoever turned on forwarding.
#[test]
fn a_virtual_machines_bridge_keeps_working() {
    require!(Need::Program("iptables-nft"));
    for bridge_nf in crate::liar::bridge_nf_values() {
        let host = options()
            .bridge_nf_call(*bridge_nf)
            .ip_forward(true)
            .start();
        let _servers = servers(&host);
        let vm = Netns::new("vm");
        vm.sh(&format!(
            "ip link add eth0 type veth peer name vnet0 netns {}",
            host.netns().path()
        ));
        host.sh(
            "ip link add virbr0 type bridge; ip addr add 192.168.122.1/24 dev virbr0; ip link set virbr0 up
             ip link set vnet0 master virbr0 up
             for table in filter nat; do iptables-nft -t $table -N LIBVIRT_X; done
             iptables-nft -A FORWARD -j LIBVIRT_X
             iptables-nft -A LIBVIRT_X -d 192.168.122.0/24 -o virbr0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
             iptables-nft -A LIBVIRT_X -s 192.168.122.0/24 -i virbr0 -j ACCEPT
             iptables-nft -A LIBVIRT_X -i virbr0 -o virbr0 -j ACCEPT
             iptables-nft -A LIBVIRT_X -o virbr0 -j REJECT
             iptables-nft -A LIBVIRT_X -i virbr0 -j REJECT
             iptables-nft -t nat -A POSTROUTING -j LIBVIRT_X
             iptables-nft -t nat -A LIBVIRT_X -s 192.168.122.0/24 ! -d 192.168.122.0/24 -j MASQUERADE",
        );
        vm.sh("ip addr add 192.168.122.50/24 dev eth0; ip link set eth0 up; ip route add default via 192.168.122.1");
        let works = |when: &str| {
            assert_eq!(
                vm.tcp(addr::OUTSIDE4, 80).by(),
                Some("outside"),
                "the machine, {when}"
            );
            assert_eq!(
                vm.tcp(ip("192.168.122.1"), 7000).by(),
                Some("host"),
                "the machine to its host, {when}"
            );
        };
        works("before");
        let before = Snapshot::of(&host);
        let web = start(&host);
        works("beside wharf");
        all_work(&host, "beside the machine");
        assert_eq!(
            vm.tcp(addr::HOST4, 8080).by(),
            Some("a1"),
            "published ports are for it too"
        );
        assert!(
            !vm.tcp_brief(at(false, 1, 11), 80).reached(),
            "unpublished addresses are not"
        );
        assert!(
            !host
                .container("a1")
                .tcp_brief(ip("192.168.122.50"), 7000)
                .reached(),
            "nor is the machine for containers"
        );
        drop(web);
        stop(&host);
        works("after");
        before.assert_same(&host, "a network beside a virtual machine");
    }
}

/// Who sets up links by networkd, and has it take all that there are, hears what that does, and how to have it not.
#[test]
fn links_that_networkd_manages_are_named() {
    require!();
    let host = host();
    let _servers = servers(&host);
    let web = start(&host);
    host.w("doctor").ok();
    // As networkd tells of links.
    let state = |link: &str, is: &str| {
        host.sh(&format!(
            "mkdir -p /run/systemd/netif/links
             echo ADMIN_STATE={is} > /run/systemd/netif/links/$(cat /sys/class/net/{link}/ifindex)"
        ));
    };
    state("wharf-a", "unmanaged");
    let told = host.w("doctor").ok().stdout;
    assert!(told.contains("rules-at-risk"), "{told}");
    state("wharf-a", "configuring");
    let cable = text(&host.inspect("a1"), "networks/0/host_interface");
    state(&cable, "configured");
    let told = host.w("doctor").stdout;
    for word in ["link-managed", &cable, "wharf-a", "Unmanaged=yes"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    host.sh("mkdir -p /run/systemd/networkd.conf.d
             printf '[Network]\\nManageForeignRoutingPolicyRules=no\\nManageForeignRoutes=no\\n' > /run/systemd/networkd.conf.d/50-wharf.conf");
    let told = host.w("doctor").stdout;
    assert!(!told.contains("rules-at-risk"), "{told}");
    drop(web);
    stop(&host);
}
