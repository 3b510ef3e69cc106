//! The state that a topology file stands for, with everything left open chosen the same way each time.

use wharf_core::addr::{Family, Mac, from_number, to_number};
use wharf_core::attach::{Attachment, Container, ContainerNetns, Phase, assign_default_routes};
use wharf_core::compile;
use wharf_core::model::Resource;
use wharf_core::network::{HostFacts, NetworkSpec, resolve};
use wharf_core::topology::{ContainerSpec, Topology};

/// Every object that networks and containers of a file need, in the order of making, without the base.
pub fn state(topology: Topology) -> Vec<Resource> {
    parts(topology).2
}

/// The networks and containers as they are resolved, and every object they need.
pub fn parts(topology: Topology) -> (Vec<NetworkSpec>, Vec<Container>, Vec<Resource>) {
    let (requests, specs) = topology.into_requests().unwrap();
    let mut networks: Vec<NetworkSpec> = Vec::new();
    for request in &requests {
        // By the name, so that a network is the same in every file.
        let mut id = [0u8; 32];
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        for (at, byte) in request.name.as_str().bytes().cycle().take(64).enumerate() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            id[at % 32] = (hash >> 32) as u8;
        }
        let host = HostFacts {
            id,
            ..HostFacts::default()
        };
        networks.push(resolve(request, &networks, &host).unwrap());
    }
    let mut all: Vec<Resource> = networks.iter().flat_map(compile::network).collect();
    let mut containers = Vec::new();
    for (at, spec) in specs.iter().enumerate() {
        containers.push(container(spec, at, &networks));
        all.extend(container_state(&containers[at], &networks));
    }
    (networks, containers, all)
}

fn network<'a>(networks: &'a [NetworkSpec], a: &Attachment) -> &'a NetworkSpec {
    networks.iter().find(|n| n.name == a.network).unwrap()
}

fn container(spec: &ContainerSpec, at: usize, networks: &[NetworkSpec]) -> Container {
    let made_by_wharf = spec.netns.is_none();
    let path = spec
        .netns
        .clone()
        .unwrap_or_else(|| format!("/run/netns/{}", spec.name).into());
    let mut attachments = Vec::new();
    for (n, request) in spec.networks.iter().enumerate() {
        let net = networks.iter().find(|n| n.name == request.network).unwrap();
        let address = |s: &wharf_core::network::Subnet| {
            let asked = request.ips.iter().find(|ip| Family::of(**ip) == s.family());
            let next = to_number(s.gateway) + 1 + at as u128;
            let addr = asked.copied().unwrap_or(from_number(s.family(), next));
            ipnet::IpNet::new(addr, s.subnet.prefix_len()).unwrap()
        };
        let addresses: Vec<_> = net.subnets.iter().map(address).collect();
        let mac = Mac::from_ip(addresses[0].addr(), net.mac_salt());
        attachments.push(Attachment {
            network: net.name.clone(),
            interface: request
                .interface
                .clone()
                .unwrap_or_else(|| format!("eth{n}").parse().unwrap()),
            host_interface: request
                .host_interface
                .clone()
                .unwrap_or_else(|| format!("veth{at}-{n}").parse().unwrap()),
            mac: request.mac.unwrap_or(mac),
            gateways: net.subnets.iter().map(|s| s.gateway).collect(),
            addresses,
            default_routes: Vec::new(),
            extras: Default::default(),
            gw_priority: request.gw_priority,
            aliases: Vec::new(),
            routes: Vec::new(),
            own_table: None,
            announce: false,
            phase: Phase::Active,
        });
    }
    assign_default_routes(&mut attachments, |name| {
        networks.iter().find(|n| n.name == *name)
    });
    Container {
        name: spec.name.clone(),
        id: "0".repeat(64),
        owner: "cli".to_owned(),
        client: None,
        netns: ContainerNetns {
            path,
            identity: None,
            made_by_wharf,
        },
        process: None,
        exit_status: None,
        command: Vec::new(),
        transient: false,
        attachments,
        ports: spec.ports.clone(),
        labels: Default::default(),
        created: 0,
    }
}

fn container_state(container: &Container, networks: &[NetworkSpec]) -> Vec<Resource> {
    let mut all = Vec::new();
    if container.netns.made_by_wharf {
        all.push(Resource::Netns(container.netns.path.clone()));
        all.push(compile::loopback(&container.netns.path));
    }
    for a in &container.attachments {
        let hairpin = !container.ports.is_empty();
        all.extend(compile::attachment(
            network(networks, a),
            container,
            a,
            hairpin,
        ));
    }
    let internal = |name: &wharf_core::name::NetworkName| {
        networks.iter().any(|n| n.name == *name && n.internal)
    };
    for mapping in &container.ports {
        for family in Family::BOTH {
            if let Some(a) = container.port_carrier(family, internal) {
                let addr = a.address(family).unwrap().addr();
                all.extend(compile::ports(network(networks, a), mapping, addr));
            }
        }
    }
    all
}
