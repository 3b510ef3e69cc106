//! Links of wharf's that somebody gave other names.
//!
//! A cable is known by its alias, a bridge by its hardware address: both stay when the name changes. What the rules and
//! the store say of a link they say by its name, so it gets that back.

use wharf_core::attach::{Attachment, Container, Phase};
use wharf_core::compile::port_alias;
use wharf_core::model::Netns;
use wharf_core::name::IfName;
use wharf_core::network::NetworkSpec;
use wharf_core::op::Op;

use crate::api::Finding;
use crate::engine::Engine;
use crate::engine::host::failed;
use crate::error::EngineError;
use crate::kernel::{Kernel, OpError};
use crate::observe::LinkInfo;

/// A link that bears another name than wharf gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Renamed {
    /// As it is called.
    pub(super) from: IfName,
    /// As wharf called it.
    pub(super) to: IfName,
}

impl Renamed {
    pub(super) fn op(&self) -> Op {
        Op::LinkRename {
            from: self.from.clone(),
            to: self.to.clone(),
        }
    }

    pub(super) fn back(&self) -> Self {
        Self {
            from: self.to.clone(),
            to: self.from.clone(),
        }
    }

    pub(super) fn finding(&self) -> Finding {
        Finding {
            object: format!("link {}", self.to),
            was: format!("renamed to {}", self.from),
        }
    }

    /// Gives the link its name back. Kernels before 6.2 rename links only while they are down.
    pub(super) fn undo(&self, kernel: &mut dyn Kernel) -> Result<(), OpError> {
        let op = self.op();
        let Err(failure) = kernel.apply(&[&op]) else {
            return Ok(());
        };
        if failure.error.errno != libc::EBUSY {
            return Err(failure.error);
        }
        let down = Op::LinkUp {
            netns: Netns::Host,
            link: self.from.clone(),
            up: false,
        };
        kernel.apply(&[&down, &op]).map_err(|e| e.error)
    }
}

impl Engine {
    /// Before cables go: those that somebody gave other names are called as wharf knows them.
    pub(super) fn name_cables(&mut self, containers: &[Container]) -> Result<(), EngineError> {
        let cables = containers.iter().flat_map(|c| &c.attachments);
        for name in cables.map(|a| &a.host_interface) {
            let link = self.kernel.link(&Netns::Host, name);
            if link.map_err(|e| failed("look for a link", &e))?.is_some() {
                continue;
            }
            let links = self.host_links_now()?;
            for link in renamed(&links, &[], containers) {
                // What is not called so is only not removed.
                let _ = link.undo(&mut self.kernel);
            }
            break;
        }
        Ok(())
    }
}

/// The links of networks and containers that are not there under their names, and are there under others.
pub(super) fn renamed(
    links: &[LinkInfo],
    nets: &[NetworkSpec],
    containers: &[Container],
) -> Vec<Renamed> {
    let is_there = |name: &IfName| links.iter().any(|l| l.name == name.as_str());
    let mut all = Vec::new();
    let mut find = |to: &IfName, is: &dyn Fn(&LinkInfo) -> bool| {
        if is_there(to) {
            return;
        }
        // Of several nobody knows which.
        let mut found = links.iter().filter(|l| is(l));
        if let (Some(link), None) = (found.next(), found.next())
            && let Ok(from) = link.name.parse()
        {
            let to = to.clone();
            all.push(Renamed { from, to });
        }
    };
    for net in nets.iter().filter(|n| n.has_own_bridge()) {
        find(&net.bridge, &|l| {
            l.kind.as_deref() == Some("bridge") && l.mac == Some(net.bridge_mac)
        });
    }
    for container in containers {
        let settled = container.attachments.iter();
        for a in settled.filter(|a| a.phase == Phase::Active) {
            find(&a.host_interface, &|l| is_cable_of(l, container, a));
        }
    }
    all
}

/// Whether a link's alias says that it is this attachment's cable.
pub(super) fn is_cable_of(link: &LinkInfo, container: &Container, a: &Attachment) -> bool {
    link.kind.as_deref() == Some("veth")
        && link.alias.as_deref() == Some(port_alias(container, a).as_str())
}
