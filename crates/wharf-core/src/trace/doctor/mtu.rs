//! MTUs that do not fit each other. That a container's packets are larger than the uplink takes is no fault: the host
//! says so to the container. Nobody does inside a bridge.

use crate::trace::report::{Code, Owner};
use crate::trace::state::Link;
use crate::trace::walk::outlook;

use super::Severity::{Info, Warning};
use super::{Finding, Findings, Member, Scene};

pub(super) fn check(scene: &Scene, found: &mut Findings) {
    for member in scene.members.iter().filter(|m| !m.net.adopted) {
        let (Some(link), Some(cable)) = (member.link, member.cable) else {
            continue;
        };
        let asked_for = member.attachment.extras.traits.mtu == Some(link.mtu);
        if link.mtu != cable.mtu && !asked_for {
            let small = if link.mtu < cable.mtu { link } else { cable };
            let inside = std::ptr::eq(small, link);
            found.add(ends(member, inside, link, cable));
        }
        if let Some(bridge) = scene.bridge(member.net)
            && bridge.mtu > cable.mtu
            && link.mtu == cable.mtu
        {
            found.add(beside(scene, member, cable, bridge));
        }
    }
}

/// The two ends of a cable differ.
fn ends(member: &Member, inside: bool, link: &Link, cable: &Link) -> Finding {
    let (who, enter) = (member.name(), &member.space.enter);
    let what = format!(
        "{} in {who} has MTU {}, and {}, the other end of its cable, has {}: larger packets vanish.",
        link.name, link.mtu, cable.name, cable.mtu
    );
    let (netns, object) = match inside {
        true => (who, link.name.clone()),
        false => ("host", cable.name.clone()),
    };
    // A runtime's further plugins may make it smaller, as their user asked.
    let severity = match inside && member.container.client.is_some() {
        true => Info,
        false => Warning,
    };
    let right = member.net.mtu;
    let finding = Finding::new(severity, Code::MtuExceeded, netns, object, what)
        .owner(Owner::Wharf)
        .evidence(format!(
            "{enter}ip link show {}: mtu {}",
            link.name, link.mtu
        ))
        .evidence(format!("ip link show {}: mtu {}", cable.name, cable.mtu));
    let finding = match link.mtu == right {
        true => finding,
        false => finding.fix(format!("{enter}ip link set {} mtu {right}", link.name)),
    };
    match cable.mtu == right {
        true => finding,
        false => finding.fix(format!("ip link set {} mtu {right}", cable.name)),
    }
}

/// A cable that takes less than the others of its bridge send.
fn beside(scene: &Scene, member: &Member, cable: &Link, bridge: &Link) -> Finding {
    let (who, enter) = (member.name(), &member.space.enter);
    let name = member.attachment.interface.as_str();
    let what = format!(
        "The cable {} of {who} takes packets of {} bytes, and its bridge {} of {}: larger ones vanish.",
        cable.name, cable.mtu, bridge.name, bridge.mtu
    );
    let right = member.net.mtu;
    let finding = Finding::new(Warning, Code::MtuExceeded, "host", cable.name.clone(), what)
        .owner(outlook::owner_of(
            scene.state,
            super::host_place(cable.index),
        ))
        .evidence(format!("ip link show {}: mtu {}", cable.name, cable.mtu))
        .evidence(format!("ip link show {}: mtu {}", bridge.name, bridge.mtu));
    if cable.mtu == right {
        return finding.fix(format!("ip link set {} mtu {right}", bridge.name));
    }
    finding
        .fix(format!("ip link set {} mtu {right}", cable.name))
        .fix(format!("{enter}ip link set {name} mtu {right}"))
}
