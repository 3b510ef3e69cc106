//! Beside Docker: its rules as it writes them, for containers on bridges of its own.

use crate::common::*;
use crate::neighbours::{all_work, follow, servers, start, stop};
use crate::serve::{SOON, watched};
use std::time::Instant;
use wharf_testkit::skip::Need;
use wharf_testkit::{Answer, Echo, ForwardPolicy, Host, Netns, Snapshot, addr, require};

/// What dockerd up to 27 writes; d1 publishes 8180 to 80, the second network is internal.
const CLASSIC: &str = "
    N DOCKER-USER; N DOCKER; N DOCKER-ISOLATION-STAGE-1; N DOCKER-ISOLATION-STAGE-2
    A FORWARD -j DOCKER-USER; A FORWARD -j DOCKER-ISOLATION-STAGE-1
    A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    A FORWARD -o docker0 -j DOCKER; A FORWARD -i docker0 ! -o docker0 -j ACCEPT
    A FORWARD -i docker0 -o docker0 -j ACCEPT; A FORWARD -i br-inner -o br-inner -j ACCEPT
    A DOCKER-ISOLATION-STAGE-1 ! -s 172.18.0.0/16 -o br-inner -j DROP
    A DOCKER-ISOLATION-STAGE-1 ! -d 172.18.0.0/16 -i br-inner -j DROP
    A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
    A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
    A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp --dport 80 -j ACCEPT
    A DOCKER-USER -j RETURN";

/// The same from 28 on.
const LATER: &str = "
    N DOCKER-USER; N DOCKER; N DOCKER-FORWARD; N DOCKER-CT; N DOCKER-INTERNAL; N DOCKER-BRIDGE
    A FORWARD -j DOCKER-USER; A FORWARD -j DOCKER-FORWARD
    A DOCKER-FORWARD -j DOCKER-CT; A DOCKER-FORWARD -j DOCKER-INTERNAL; A DOCKER-FORWARD -j DOCKER-BRIDGE
    A DOCKER-FORWARD -i docker0 -j ACCEPT
    A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    A DOCKER-INTERNAL ! -s 172.18.0.0/16 -o br-inner -j DROP
    A DOCKER-INTERNAL ! -d 172.18.0.0/16 -i br-inner -j DROP
    A DOCKER-BRIDGE -o docker0 -j DOCKER
    A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp --dport 80 -j ACCEPT
    A DOCKER ! -i docker0 -o docker0 -j DROP";

/// In table nat, for both.
const NAT: &str = "
    N DOCKER; A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
    A DOCKER ! -i docker0 -p tcp --dport 8180 -j DNAT --to-destination 172.17.0.2:80
    A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE";

fn rules(host: &Host, table: &str, text: &str) {
    rules_by("iptables-nft", host, table, text);
}

fn rules_by(program: &str, host: &Host, table: &str, text: &str) {
    for rule in text
        .split(['\n', ';'])
        .map(str::trim)
        .filter(|r| !r.is_empty())
    {
        host.sh(&format!("{program} -t {table} -{rule}"));
    }
}

/// A bridge of Docker's, 172.NET.0.1, with a container at 172.NET.0.2.
fn bridge(host: &Host, name: &str, net: u8) -> Netns {
    let container = Netns::new("docker");
    host.sh(&format!(
        "ip link add {name} type bridge; ip addr add 172.{net}.0.1/16 dev {name}; ip link set {name} up"
    ));
    container.sh(&format!(
        "ip link add eth0 type veth peer name vdocker{net} netns {}",
        host.netns().path()
    ));
    host.sh(&format!("ip link set vdocker{net} master {name} up"));
    container.sh(&format!(
        "ip addr add 172.{net}.0.2/16 dev eth0; ip link set eth0 up; ip route add default via 172.{net}.0.1"
    ));
    container
}

/// Docker's containers d1 and, on the internal network, d2, and what they serve.
fn docker(host: &Host, layout: &str) -> (Netns, Netns, Vec<Echo>) {
    let (d1, d2) = (bridge(host, "docker0", 17), bridge(host, "br-inner", 18));
    rules(host, "filter", layout);
    rules(host, "nat", NAT);
    let echoes = vec![
        Echo::tcp(&d1, "d1", 80),
        Echo::tcp(&d1, "d1", 81),
        Echo::tcp(&d2, "d2", 81),
    ];
    (d1, d2, echoes)
}

#[test]
fn containers_of_docker_are_reached_by_published_ports_only() {
    require!(Need::Program("iptables-nft"));
    for layout in [CLASSIC, LATER] {
        let host = options().ip_forward(true).start();
        host.sh("iptables-nft -P FORWARD DROP");
        let _servers = servers(&host);
        let (d1, _d2, echoes) = docker(&host, layout);
        let before = Snapshot::of(&host);
        let web = start(&host);
        all_work(&host, "beside Docker");
        let a1 = host.container("a1");
        for (to, port, what) in [
            ("172.17.0.2", 81, "an unpublished port"),
            ("172.17.0.2", 80, "a published port, passing it by"),
            ("172.18.0.2", 81, "an internal network"),
        ] {
            let answer = a1.tcp_brief(ip(to), port);
            assert!(!answer.reached(), "{what}: {answer}");
        }
        let told = host.w("trace a1 172.17.0.2:81").stdout;
        assert!(told.contains("ports that Docker publishes"), "{told}");
        for from in [&a1, host.outside()] {
            assert_eq!(from.tcp(addr::HOST4, 8180).by(), Some("d1"));
        }
        assert_eq!(d1.tcp(addr::OUTSIDE4, 80).by(), Some("outside"));
        assert!(!d1.tcp_brief(at(false, 1, 11), 80).reached());
        drop((web, echoes));
        stop(&host);
        before.assert_same(&host, "a network beside Docker");
    }
}

/// What Docker wrote with the old iptables holds as well, when the user has done what wharf says.
#[test]
fn docker_with_the_old_iptables_is_read() {
    require!(Need::Program("iptables-legacy"));
    let host = options().ip_forward(true).start();
    let _servers = servers(&host);
    let (d1, _d2) = (bridge(&host, "docker0", 17), bridge(&host, "br-inner", 18));
    let _echoes = [80, 81].map(|port| Echo::tcp(&d1, "d1", port));
    rules_by("iptables-legacy", &host, "filter", CLASSIC);
    rules_by("iptables-legacy", &host, "nat", NAT);
    host.sh("iptables-legacy -P FORWARD DROP");
    let made = host
        .w(&format!("network create A {} --bridge wharf-a", subnets(1)))
        .ok();
    assert_eq!(follow(&host, &made.stderr), 2);
    container(&host, "a1", "A", 1, 11, "");
    let a1 = host.container("a1");
    assert_eq!(a1.tcp(addr::OUTSIDE4, 80).by(), Some("outside"));
    assert!(!a1.tcp_brief(ip("172.17.0.2"), 81).reached());
    assert_eq!(a1.tcp(addr::HOST4, 8180).by(), Some("d1"));
    let known = host.sh("nft list set inet wharf docker");
    assert!(known.contains("br-inner"), "{known}");
    remove(&host, &["a1"], &["A"]);
}

/// A network that Docker makes later is known by wharf's next change, by `repair`, and by the watcher.
#[test]
fn later_networks_of_docker_are_known() {
    require!(Need::Program("iptables-nft"));
    let host = options().ip_forward(true).start();
    host.sh("iptables-nft -P FORWARD DROP");
    let _servers = servers(&host);
    let _docker = docker(&host, CLASSIC);
    let web = start(&host);
    let a1 = host.container("a1");
    let later = |name: &str, net: u8| {
        let container = bridge(&host, name, net);
        rules(&host, "filter", &format!("A FORWARD -o {name} -j DOCKER"));
        let echo = Echo::tcp(&container, "later", 81);
        (container, echo)
    };
    let closed = |net: u8| !a1.tcp_brief(ip(&format!("172.{net}.0.2")), 81).reached();
    let _first = later("br-first", 20);
    container(&host, "a3", "A", 1, 13, "");
    assert!(closed(20), "after a change");
    let _second = later("br-second", 21);
    let told = host.w("doctor").stdout;
    assert!(told.contains("Docker's bridge br-second"), "{told}");
    let mended = host.w("repair").ok().stdout;
    assert!(mended.contains("Docker's bridge br-second"), "{mended}");
    assert!(closed(21), "after a repair");
    let _watcher = watched(&host);
    let _third = later("br-third", 22);
    let begun = Instant::now();
    while !host
        .sh("nft list set inet wharf docker")
        .contains("br-third")
    {
        assert!(begun.elapsed() < SOON, "the watcher has not seen it");
    }
    assert!(closed(22), "with the watcher");
    rules(&host, "filter", "D FORWARD -o br-third -j DOCKER");
    let begun = Instant::now();
    while host
        .sh("nft list set inet wharf docker")
        .contains("br-third")
    {
        assert!(begun.elapsed() < SOON, "it is still taken for Docker's");
    }
    drop(web);
    remove(&host, &["a3"], &[]);
    stop(&host);
}

/// A bridge of the host's own, on which Docker has containers too, is the way out.
#[test]
fn a_bridge_that_is_the_way_out_stays_open() {
    require!(Need::Program("iptables-nft"));
    let host = options().ip_forward(true).start();
    let _servers = servers(&host);
    host.sh(
        "ip link add br-up type bridge; ip link set br-up up; ip addr flush dev up0; ip link set up0 master br-up
         ip addr add 10.0.2.2/24 dev br-up; ip route replace default via 10.0.2.1",
    );
    rules(&host, "filter", "N DOCKER; A FORWARD -o br-up -j DOCKER");
    let web = start(&host);
    let out = host.container("a1").tcp(addr::OUTSIDE4, 80);
    assert_eq!(out.by(), Some("outside"), "{out}");
    drop(web);
    stop(&host);
}

/// Docker leaves the policy alone where forwarding is on already. It was wharf that turned it on: what Docker would have
/// kept closed without wharf stays closed.
#[test]
fn forwarding_turned_on_for_wharf_does_not_open_docker() {
    require!(Need::Program("iptables-nft"));
    let host = options().ip_forward(false).start();
    let _servers = servers(&host);
    let web = start(&host);
    let (d1, _d2, _echoes) = docker(&host, CLASSIC);
    let unpublished = || host.outside().tcp_brief(ip("172.17.0.2"), 81);
    container(&host, "a3", "A", 1, 13, "");
    assert_eq!(unpublished(), Answer::Timeout);
    all_work(&host, "beside Docker");
    assert_eq!(host.outside().tcp(addr::HOST4, 8180).by(), Some("d1"));
    assert_eq!(d1.tcp(addr::OUTSIDE4, 80).by(), Some("outside"));
    // With the policy it would have set, Docker decides again, also of what wharf knows nothing of.
    host.sh("iptables-nft -P FORWARD DROP");
    host.w("repair").ok();
    assert_eq!(unpublished(), Answer::Timeout);
    let published = host.outside().tcp(ip("172.17.0.2"), 80);
    assert_eq!(published.by(), Some("d1"), "{published}");
    host.sh("iptables-nft -P FORWARD ACCEPT");
    drop(web);
    host.w("rm -f a1 a2 a3").ok();
    let gone = host.w("network rm A").ok().says("docker0 open");
    assert_eq!(unpublished().by(), Some("d1"), "as wharf said");
    assert_eq!(follow(&host, &gone.stderr), 1);
    assert_eq!(unpublished(), Answer::Timeout);
}

/// A bridge that was there before wharf turned forwarding on, and that Docker takes later, is not held back; one that Docker
/// had without forwarding is.
#[test]
fn a_bridge_that_docker_takes_later_is_dockers() {
    require!(Need::Program("iptables-nft"));
    for late in [true, false] {
        let host = options().ip_forward(false).start();
        let _servers = servers(&host);
        let d1 = bridge(&host, "docker0", 17);
        let _echoes = [80, 81].map(|port| Echo::tcp(&d1, "d1", port));
        let write = || {
            rules(&host, "filter", CLASSIC);
            rules(&host, "nat", NAT);
        };
        if !late {
            write();
        }
        let web = start(&host);
        let out = || d1.tcp_brief(addr::OUTSIDE4, 80);
        assert!(!out().reached(), "it was not forwarded before");
        if late {
            write();
        }
        container(&host, "a3", "A", 1, 13, "");
        assert_eq!(out().reached(), late, "after a change");
        host.w("repair").ok();
        assert_eq!(out().reached(), late, "after a repair");
        let published = host.outside().tcp_brief(addr::HOST4, 8180);
        assert_eq!(published.reached(), late, "{published}");
        let unpublished = host.outside().tcp_brief(ip("172.17.0.2"), 81);
        assert_eq!(unpublished, Answer::Timeout);
        host.sh("rm -rf /run/wharf/*");
        host.w("repair").ok();
        assert_eq!(out().reached(), late, "when the store was lost");
        drop(web);
        host.w("rm -f a1 a2 a3").ok();
        host.w("network rm A").ok();
        let stays = host.netns().sysctl("net.ipv4.ip_forward");
        assert_eq!(stays.as_deref(), Some(if late { "1" } else { "0" }));
    }
}

/// The user's own rules come first, whether they were there before wharf's or come later, and where Docker ends the chain
/// with a RETURN or not.
#[test]
fn docker_user_is_the_users_first() {
    require!(Need::Program("iptables-nft"));
    for ends in [true, false] {
        let host = options().forward(ForwardPolicy::DropWithDockerUser).start();
        let _servers = servers(&host);
        let _more = Echo::tcp(host.outside(), "outside", 81);
        let refused = |port: u16| {
            format!(
                "DOCKER-USER -p tcp -d {} --dport {port} -j REJECT",
                addr::OUTSIDE4
            )
        };
        if !ends {
            host.sh("iptables-nft -D DOCKER-USER -j RETURN");
        }
        host.sh(&format!("iptables-nft -I {}", refused(80)));
        let web = start(&host);
        let out = |port: u16| host.container("a1").tcp_brief(addr::OUTSIDE4, port);
        assert!(!out(80).reached(), "refused before");
        assert_eq!(out(81).by(), Some("outside"));
        let at = if ends {
            "iptables-nft -D DOCKER-USER -j RETURN;"
        } else {
            ""
        };
        let back = if ends {
            "; iptables-nft -A DOCKER-USER -j RETURN"
        } else {
            ""
        };
        host.sh(&format!("{at} iptables-nft -A {}{back}", refused(81)));
        let plan = host.w("repair --dry-run").ok().stdout;
        assert!(plan.contains("before the user's rules"), "{plan}");
        host.sh(&plan);
        let rules = host.sh("iptables-nft -S DOCKER-USER");
        assert!(
            !out(81).reached(),
            "refused later, by the commands: {rules}"
        );
        let plan = host.w("repair --dry-run").ok().stdout;
        assert!(plan.contains("nothing to do"), "{plan}");
        host.sh(&format!("iptables-nft -D {}", refused(81)));
        assert_eq!(out(81).by(), Some("outside"));
        host.sh(&format!("{at} iptables-nft -A {}{back}", refused(81)));
        host.w("repair").ok();
        assert!(!out(81).reached(), "refused later");
        drop(web);
        stop(&host);
    }
}

/// Rules of the user's own in Docker's chain, which say what wharf's would, stay when wharf goes.
#[test]
fn docker_user_keeps_what_is_the_users() {
    require!(Need::Program("iptables-nft"));
    let host = options().forward(ForwardPolicy::DropWithDockerUser).start();
    let _servers = servers(&host);
    host.sh("iptables-nft -I DOCKER-USER -i wharf-a -j ACCEPT");
    let rules = || host.sh("iptables-nft -S; ip6tables-nft -S");
    let before = (Snapshot::of(&host), rules());
    let web = start(&host);
    all_work(&host, "beside Docker");
    assert!(
        rules().contains("-A DOCKER-USER -o wharf-a -m comment --comment wharf -j ACCEPT"),
        "{}",
        rules()
    );
    drop(web);
    stop(&host);
    assert_eq!(rules(), before.1);
    before.0.assert_same(&host, "a network beside Docker");
}

/// What lets a bridge pass goes with its network, also when a process dies on the way, or a store is lost.
#[test]
fn no_door_is_left_open_for_a_network_that_is_gone() {
    require!(Need::Program("iptables-nft"));
    let host = options().forward(ForwardPolicy::DropWithDockerUser).start();
    let rules = || host.sh("iptables-nft -S; ip6tables-nft -S");
    let before = rules();
    let die = |line: &str, step: u32| {
        let words: Vec<_> = line.split(' ').collect();
        let command = host.wharf_command(&words);
        command.env("WHARF_FAIL_AT", step.to_string()).run().code
    };
    let subnets = subnets(1);
    let lines = [
        format!("network create A --bridge wharf-a {subnets}"),
        "network rm A".to_owned(),
    ];
    for line in &lines {
        for step in 1..200 {
            if line.contains("rm") {
                host.w(&lines[0]);
            }
            if die(line, step).is_some() {
                break;
            }
            let there = !names(&host.w("network ls --json").json()).is_empty();
            if !there {
                assert_eq!(rules(), before, "{line} at step {step}");
            }
            host.w("network rm A");
        }
        host.w("network rm A");
    }
    assert_eq!(rules(), before);

    // Rules that were saved come back without their network.
    host.w(&lines[0]).ok();
    host.sh("iptables-nft-save > /run/saved; ip6tables-nft-save > /run/saved6");
    let shown = host.w("network rm A --dry-run").ok().stdout;
    assert!(
        shown.contains("iptables -D DOCKER-USER -i wharf-a"),
        "{shown}"
    );
    host.w("network rm A").ok();
    let restore = "iptables-nft-restore /run/saved; ip6tables-nft-restore /run/saved6";
    host.sh(restore);
    let plan = host.w("gc --dry-run").ok().stdout;
    host.sh(&plan);
    assert_eq!(rules(), before, "by the commands: {plan}");
    host.sh(restore);
    let removed = host.w("gc --json").ok().json();
    let object = "rule for wharf-a in chain DOCKER-USER";
    assert_eq!(removed["removed"][0]["object"], object, "{removed:#}");
    assert_eq!(rules(), before);
}

/// Docker is gone, and its chain still there, which nobody asks any more.
#[test]
fn a_door_that_nothing_leads_to_is_none() {
    require!(Need::Program("iptables-nft"));
    let host = options().forward(ForwardPolicy::DropWithDockerUser).start();
    host.sh("iptables-nft -D FORWARD -j DOCKER-USER; ip6tables-nft -D FORWARD -j DOCKER-USER");
    let _servers = servers(&host);
    let made = host.w(&format!("network create A --bridge wharf-a {}", subnets(1)));
    container(&host, "a1", "A", 1, 11, "-p 8080:80");
    container(&host, "a2", "A", 1, 12, "");
    let _web = Echo::tcp(&host.container("a1"), "a1", 80);
    assert_eq!(follow(&host, &made.stderr), 4, "{}", made.transcript());
    all_work(&host, "as was advised");
}
