//! Links stacked on one link (macvlan): who of them sees whom.

use crate::trace::report::Code;
use crate::trace::state::{Link, Place};

use super::fault::Fault;
use super::segment::{lower, switches};
use super::{Emit, Walk, owner};

/// `MACVLAN_MODE_*` as `ip` prints it.
fn mode(link: &Link) -> &'static str {
    match link.macvlan {
        Some(1) => "private",
        Some(2) => "vepa",
        Some(8) => "passthru",
        Some(16) => "source",
        _ => "bridge",
    }
}

impl Walk<'_> {
    /// Both ends lie on one link, and that link keeps them apart.
    pub(super) fn stacked_apart(&self, emit: &Emit<'_>, owner: Place) -> Option<Fault> {
        let from = Place {
            space: emit.space,
            index: emit.link,
        };
        let (near, far) = (self.state.link(from)?, self.state.link(owner)?);
        let below =
            |place, link: &Link| lower(self.state, place, link).filter(|_| link.macvlan.is_some());
        match (below(from, near), below(owner, far)) {
            (Some(a), Some(b)) if a == b => Some(self.not_switching(from, owner)),
            (None, Some(b)) if b == from => Some(self.under_the_stack(emit, from, owner)),
            _ => None,
        }
    }

    /// One of the two, or both, is in a mode that sends all frames out to the switch.
    fn not_switching(&self, from: Place, owner: Place) -> Fault {
        let odd: Vec<Place> = [from, owner]
            .into_iter()
            .filter(|p| self.state.link(*p).is_some_and(|l| !switches(l)))
            .collect();
        let first = odd.first().copied().unwrap_or(owner);
        let (name, space) = (self.link_name(first), self.space(first.space));
        let word = self.state.link(first).map_or("bridge", mode);
        let what = format!(
            "{name} in {} is a macvlan in mode {word}, which does not pass frames to others on the same link.",
            space.name
        );
        let mut fault = Fault::new(Code::BridgePortBlocked, first.space, name.clone(), what)
            .owner(owner::of_link(self.state, first))
            .evidence(format!(
                "{}ip -details link show {name}: macvlan mode {word}",
                space.enter
            ));
        for place in odd {
            fault = fault.fix(format!(
                "{}ip link set {} type macvlan mode bridge",
                self.space(place.space).enter,
                self.link_name(place)
            ));
        }
        fault
    }

    /// A link does not reach what is stacked on it: its frames go out by the wire.
    fn under_the_stack(&self, emit: &Emit<'_>, from: Place, owner: Place) -> Fault {
        let (space, dev, dst) = (self.space(from.space), self.link_name(from), emit.next);
        let (there, top) = (self.space(owner.space), self.link_name(owner));
        let what = format!(
            "{top} in {} is a macvlan on {dev}, and what is stacked on a link is not reached from that link itself.",
            there.name
        );
        let six = super::host::six(dst);
        let own: String = format!("{dev}-own").chars().take(15).collect();
        let (enter, src) = (&space.enter, emit.packet.src);
        Fault::new(
            Code::NeighbourUnreachable,
            from.space,
            format!("{dst} dev {dev}"),
            what,
        )
        .evidence(format!(
            "{}ip -details link show {top}: macvlan on {dev}",
            there.enter
        ))
        .fix(format!(
            "{enter}ip link add link {dev} name {own} type macvlan mode bridge"
        ))
        .fix(format!("{enter}ip link set {own} up"))
        .fix(format!(
            "{enter}ip {six}route add {dst} dev {own} src {src}"
        ))
    }
}
