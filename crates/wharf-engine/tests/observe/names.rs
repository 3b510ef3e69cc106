//! From words to namespaces.

use wharf_core::attach::{Container, ContainerNetns};
use wharf_core::trace::L4;
use wharf_core::trace::query::{Source, Target};
use wharf_engine::observe::world::{Ask, Endpoint, FindError, find, source, target, world};

use crate::{alone, sh, space};

fn container(name: &str, path: &str) -> Container {
    Container {
        name: name.parse().unwrap(),
        id: "0".repeat(64),
        owner: "cli".to_owned(),
        netns: ContainerNetns {
            path: path.into(),
            identity: None,
            made_by_wharf: false,
        },
        process: None,
        exit_status: None,
        command: Vec::new(),
        transient: false,
        attachments: Vec::new(),
        ports: Vec::new(),
        labels: Default::default(),
        created: 0,
        client: None,
    }
}

#[test]
fn names_paths_and_processes_are_found() {
    if !alone() {
        return;
    }
    sh("ip netns add web
        ip netns add db
        ip netns add other
        ip -n web link set lo up
        ip -n db link add va type veth peer name vb
        ip -n db addr add 10.7.0.1/24 dev va");
    let known = [
        container("web", "/run/netns/web"),
        container("other", "/run/netns/db"),
    ];
    let found = |text: &str| find(text, &known);
    let at = |name: &str, path: &str| {
        Ok(Endpoint::Space {
            name: name.to_owned(),
            path: path.into(),
        })
    };
    assert_eq!(found("web"), at("web", "/run/netns/web"));
    assert_eq!(found("db"), at("/run/netns/db", "/run/netns/db"));
    assert_eq!(found("/run/netns/db"), at("/run/netns/db", "/run/netns/db"));
    let pid = std::process::id();
    let path = format!("/proc/{pid}/ns/net");
    assert_eq!(found(&pid.to_string()), at(&path, &path));
    // The container of that name is in another namespace than the name.
    let Err(FindError::Ambiguous { choices, .. }) = found("other") else {
        panic!("`other` is two things");
    };
    assert_eq!(
        choices,
        [
            "the container at /run/netns/db",
            "the namespace /run/netns/other"
        ]
    );
    let Err(FindError::Unknown { near, .. }) = found("wbe") else {
        panic!("nobody is called `wbe`");
    };
    assert_eq!(near, ["web"]);
    assert!(matches!(found("/run"), Err(FindError::Namespace(_))));
}

#[test]
fn what_was_found_is_read_and_asked_about() {
    if !alone() {
        return;
    }
    sh("ip netns add web
        ip netns add db
        ip -n db link add va type veth peer name vb
        ip -n db addr add 10.7.0.1/24 dev va");
    let mut ask = Ask {
        containers: vec![
            container("web", "/run/netns/web"),
            container("gone", "/run/netns/gone"),
        ],
        ..Ask::default()
    };
    let web = find("web", &ask.containers).unwrap();
    let owner = find("10.7.0.1", &ask.containers).unwrap();
    ask.about(&web);
    ask.about(&owner);
    let state = world(&ask);
    assert_eq!(state.containers.len(), 2);
    let read = space(&state, "web");
    assert_eq!(read.container.as_deref(), Some("web"));
    assert!(read.full, "it was asked about");
    assert!(space(&state, "/run/netns/db").full, "it owns the address");
    assert!(
        state.unread.iter().any(|u| u.netns == "gone"),
        "{:?}",
        state.unread
    );
    let id = state.container_space("web").unwrap();
    assert_eq!(source(&state, &web), Ok(Source::Space(id, None)));
    assert_eq!(target(&state, &web), Ok(Target::Space(id)));
    let db = state
        .spaces
        .iter()
        .position(|s| s.name == "/run/netns/db")
        .unwrap();
    let addr = "10.7.0.1".parse().unwrap();
    assert_eq!(source(&state, &owner), Ok(Source::Space(db, Some(addr))));
    assert_eq!(target(&state, &owner), Ok(Target::Address(addr)));
    let far = "198.51.100.1".parse().unwrap();
    let outside = source(&state, &Endpoint::Address(far));
    assert_eq!(outside, Ok(Source::Outside(Some(far))));
}

#[test]
fn without_privileges_what_is_readable_is_read() {
    if !alone() {
        return;
    }
    sh("ip netns add web; ip link add va type veth peer name vb; ip addr add 10.7.0.1/24 dev va");
    // SAFETY: takes no pointers; by this call itself only the calling thread gives up its rights.
    let done = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
    assert_eq!(done, 0);
    let state = crate::see(&["web"]);
    let host = state.host();
    assert!(host.link_named("va").is_some() && !host.addrs.is_empty());
    assert!(!host.routes.is_empty() && host.sysctl("net.ipv4.ip_forward").is_some());
    let said: Vec<_> = state
        .unread
        .iter()
        .map(|u| (u.netns.as_str(), u.what.as_str()))
        .collect();
    assert!(said.contains(&("web", "links and addresses")), "{said:?}");
    assert!(said.contains(&("host", "tracked connections")), "{said:?}");
}

#[test]
fn who_publishes_the_port_and_who_routes_is_read_too() {
    if !alone() {
        return;
    }
    sh("for n in web router far; do ip netns add $n; done
        ip link add br0 type bridge
        ip link set br0 up
        for n in web router far; do
            ip link add h-$n type veth peer name eth0 netns $n
            ip link set h-$n master br0 up
            ip -n $n link set eth0 up
        done
        ip -n router addr add 10.7.0.1/24 dev eth0
        ip addr add 10.7.0.2/24 dev br0
        ip route add 10.8.0.0/16 via 10.7.0.1");
    let mut web = container("web", "/run/netns/web");
    web.ports.push("8080:80".parse().unwrap());
    let router = container("router", "/run/netns/router");
    let mut ask = Ask {
        containers: vec![web, router, container("far", "/run/netns/far")],
        ..Ask::default()
    };
    let full = |ask: &Ask| {
        let state = world(ask);
        ["web", "router", "far"].map(|name| space(&state, name).full)
    };
    // A container beside the host is not on the way.
    assert_eq!(full(&ask), [false, true, false]);
    ask.about_port(L4::Udp, 8080);
    ask.about_port(L4::Tcp, 8081);
    assert_eq!(full(&ask), [false, true, false]);
    ask.about_port(L4::Tcp, 8080);
    assert_eq!(full(&ask), [true, true, false]);
}
