//! The second half: the same host under wharf.

use wharf_core::attach::AttachRequest;
use wharf_core::model::{Netns, Resource};
use wharf_core::network::NetworkRequest;
use wharf_core::op::Op;
use wharf_engine::api::{ContainerRequest, Mode, NetnsRequest};
use wharf_engine::engine::Engine;

use super::Step;
use super::stage::Expect::{Fails, Works};
use super::stage::{Stage, namespace, netns, place};
use crate::output::error::CommandError;

type Scene = Result<Step, CommandError>;

fn make_network(
    stage: &mut Stage,
    engine: &mut Engine,
    name: &str,
    subnet: &str,
) -> Result<(), CommandError> {
    let mut request = NetworkRequest::new(name.parse().expect("the tour's own name"));
    request.subnets = vec![subnet.parse().expect("the tour's own prefix")];
    stage.typed(&format!("wharf network create {name} --subnet {subnet}"));
    let outcome = engine.network_create(&request, Mode::Apply)?;
    stage.show(&outcome.plan);
    Ok(())
}

fn adopt(
    stage: &mut Stage,
    engine: &mut Engine,
    name: &str,
    network: &str,
    ip: &str,
) -> Result<(), CommandError> {
    let mut attach = AttachRequest::new(network.parse().expect("the tour's own name"));
    attach.ips = vec![ip.parse().expect("the tour's own address")];
    let path = place(name).expect("not the host");
    stage.typed(&format!(
        "wharf create {name} --netns {} --network {network}:ip={ip}",
        path.display()
    ));
    let request = ContainerRequest {
        name: name.parse().expect("the tour's own name"),
        owner: "cli".to_owned(),
        client: None,
        netns: NetnsRequest::Path(path),
        networks: vec![attach],
        ports: Vec::new(),
        id: None,
        ports_held: false,
        labels: Default::default(),
        command: Vec::new(),
        transient: false,
    };
    let outcome = engine.create(&request, Mode::Apply)?;
    stage.show(&outcome.plan);
    Ok(())
}

/// A network of wharf, with the same two containers.
pub fn network(stage: &mut Stage) -> Scene {
    let by_hand = |r: &Resource| match r {
        Resource::Link(l) => l.name.as_str() != "up0",
        Resource::Addr { addr, .. } => addr.to_string().starts_with("172.18."),
        Resource::Route { netns: at, .. } => *at != Netns::Host && *at != netns("outside"),
        Resource::Nft(_) => true,
        Resource::Up { netns: at, link } => {
            link.as_str() == "br0" || (link.as_str() == "eth0" && *at != netns("outside"))
        }
        _ => false,
    };
    stage.unmake(by_hand)?;
    stage.op(Op::SysctlSet {
        netns: Netns::Host,
        key: "net/ipv4/ip_forward".to_owned(),
        value: "0".to_owned(),
    })?;
    let _ = stage.step("", "");
    stage.before = stage.snapshot();
    let mut engine = stage.engine()?;
    make_network(stage, &mut engine, "blue", "172.18.0.0/16")?;
    adopt(stage, &mut engine, "netns0", "blue", "172.18.0.10")?;
    adopt(stage, &mut engine, "netns1", "blue", "172.18.0.20")?;
    stage.ping("netns0", "172.18.0.20", Works);
    stage.ping("host", "172.18.0.10", Works);
    stage.ping("netns0", "10.0.2.1", Works);
    stage.connect("netns1", "172.18.0.10:5000", Works);
    stage.connect("outside", "172.18.0.10:5000", Fails);
    Ok(stage.step(
        "The same under wharf",
        "What was made by hand is gone; three commands made it again, and more: the commands below them are what \
         they did. The containers reach each other, the host and the outside. The neighbour's route leads nowhere now: \
         toward a container pass answers, its own network, and what was published; all else is dropped, whatever \
         the FORWARD policy is.",
    ))
}

/// A published port, from everywhere.
pub fn publish(stage: &mut Stage) -> Scene {
    let mut engine = stage.engine()?;
    stage.typed("wharf port add netns0 5005:5000");
    let name = "netns0".parse().expect("the tour's own name");
    let port = "5005:5000".parse().expect("the tour's own mapping");
    let outcome = engine.port_add(&name, &[port], Mode::Apply)?;
    stage.show(&outcome.plan);
    stage.connect("outside", "10.0.2.2:5005", Works);
    stage.connect("host", "10.0.2.2:5005", Works);
    stage.connect("host", "127.0.0.1:5005", Works);
    stage.connect("netns1", "10.0.2.2:5005", Works);
    stage.connect("netns0", "172.18.0.1:5005", Works);
    stage.connect("outside", "172.18.0.10:5000", Fails);
    stage.connect("outside", "10.0.2.2:5000", Fails);
    Ok(stage.step(
        "A published port",
        "Port 5005 of the host leads to port 5000 of netns0: one element in a map, however many ports there are. It \
         works from outside, from the host, from its loopback, from a sibling and from the container itself. The \
         outside client keeps its address; a sibling appears as the gateway, since its answer must come back by the \
         host. The container's own address stays closed.",
    ))
}

/// A second network.
pub fn apart(stage: &mut Stage) -> Scene {
    stage.make(namespace("netns2"))?;
    let mut engine = stage.engine()?;
    make_network(stage, &mut engine, "green", "172.19.0.0/16")?;
    adopt(stage, &mut engine, "netns2", "green", "172.19.0.10")?;
    stage.ping("netns2", "10.0.2.1", Works);
    stage.ping("netns2", "172.18.0.10", Fails);
    stage.connect("netns2", "172.18.0.10:5000", Fails);
    stage.connect("netns1", "172.19.0.10:5000", Fails);
    stage.connect("netns2", "10.0.2.2:5005", Works);
    Ok(stage.step(
        "Another network",
        "Networks are kept apart: a container of green reaches the outside, but no container of blue, although the host \
         has routes to both. What blue published is open to green as to everybody.",
    ))
}

/// Everything goes.
pub fn gone(stage: &mut Stage) -> Scene {
    let mut engine = stage.engine()?;
    stage.typed("wharf rm -f netns0 netns1 netns2");
    stage.typed("wharf network rm blue green");
    let containers =
        ["netns0", "netns1", "netns2"].map(|n| n.parse().expect("the tour's own name"));
    stage_plan(stage, engine.remove(&containers, true, Mode::Apply)?.plan);
    let networks = ["blue", "green"].map(|n| n.parse().expect("the tour's own name"));
    stage_plan(
        stage,
        engine.network_remove(&networks, false, Mode::Apply)?.plan,
    );
    let after = stage.snapshot();
    let before = stage.before.clone();
    let changed: Vec<String> = before
        .iter()
        .filter(|l| !after.contains(l))
        .map(|l| format!("-{l}"))
        .chain(
            after
                .iter()
                .filter(|l| !before.contains(l))
                .map(|l| format!("+{l}")),
        )
        .collect();
    let same = changed.is_empty();
    let happened = if same {
        "as it was before wharf came".to_owned()
    } else {
        changed.join(", ")
    };
    stage.note(
        "the host's links, addresses, routes, tables and forwarding".to_owned(),
        Works,
        happened,
        same,
    );
    Ok(stage.step(
        "Gone without a trace",
        "Cables, bridges, rules, and forwarding, which wharf had turned on: all of it is as before. The namespaces that \
         were adopted are their owner's and stay.",
    ))
}

fn stage_plan(stage: &mut Stage, plan: wharf_core::plan::Plan) {
    stage.show(&plan);
}
