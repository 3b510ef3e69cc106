//! Other tools' policies on forwarded packets.
//!
//! A base chain of another tool that drops by policy, or refuses at its end, drops wharf's packets too, whatever wharf's
//! own chains say. Docker and ufw keep a door for others, the chains `DOCKER-USER` and `ufw-user-forward`: there wharf
//! lets its bridges pass, behind the user's own rules (what may go to them is still decided in wharf's own chain). Where
//! there is no door, or one that its tool shuts again, the user is told by name, with the commands that help. A tool that
//! has been told of the bridge is taken at its word.

use std::collections::BTreeSet;

use wharf_core::addr::Family;
use wharf_core::name::IfName;
use wharf_core::network::NetworkSpec;
use wharf_core::op::{DoorChange, Op};
use wharf_core::plan::{Plan, Undo};
use wharf_nft::{Chain, Data, Expr, Hook, NfSocket, NftError, Policy, Rule, Verdict};

use crate::api::{Finding, Mode, Note};
use crate::engine::{Engine, applies};
use crate::error::EngineError;
use crate::kernel::Kernel;
use crate::kernel::netlink::NetlinkKernel;
use crate::kernel::netlink::door::{FILTER, Standing, door_rule, is_for, is_ours, same, standing};
use crate::observe::{verdict_of, xtables};

/// Chains for users' rules, in `ip filter` and `ip6 filter`.
const DOORS: [&str; 3] = ["DOCKER-USER", UFW[0], UFW[1]];
/// ufw's, of which it forgets the rules that are not in its own files.
const UFW: [&str; 2] = ["ufw-user-forward", "ufw6-user-forward"];

/// What comes in by a bridge, and what leaves by it.
const WAYS: [bool; 2] = [true, false];

impl Engine {
    /// Lets a network's bridge pass at other tools' doors. What fails here shows in [`Engine::closed_doors`].
    pub(super) fn open_doors(&mut self, net: &NetworkSpec) {
        for op in self.doors(std::slice::from_ref(net)) {
            let _ = self.kernel.apply(&[&op]);
        }
    }

    fn doors(&mut self, nets: &[NetworkSpec]) -> Vec<Op> {
        try_shut_doors(&mut self.kernel, nets, |_, _| Ok(true)).unwrap_or_default()
    }

    /// What a change of these networks would do at other tools' chains and for Docker's bridges.
    pub(super) fn beside_others(&mut self, nets: &[NetworkSpec]) -> Plan {
        let mut plan = self.docker_plan();
        for door in self.doors(nets) {
            let undo = Undo::Ops(vec![changed(&door, DoorChange::Shut)]);
            plan.push(door, undo, "bridges of wharf's pass there");
        }
        plan
    }

    /// What takes wharf's rules for some links out of other tools' doors. Rules of the user's own, though they say the same,
    /// are not wharf's to remove.
    pub(super) fn doors_to_shut(&mut self, is_asked: impl Fn(&IfName) -> bool) -> Vec<Op> {
        open_doors(&mut self.kernel, is_asked).unwrap_or_default()
    }

    /// Base chains that will drop a network's packets, with what mends it. Opens doors that appeared since the
    /// network was made, unless nothing is to be changed.
    pub(super) fn closed_doors(&mut self, net: &NetworkSpec, mode: Mode) -> Vec<Note> {
        if net.internal || !net.is_managed() {
            return Vec::new();
        }
        let mut notes = self.closed_in_nftables(net, mode).unwrap_or_default();
        notes.extend(closed_in_xtables(net));
        notes
    }

    fn closed_in_nftables(&mut self, net: &NetworkSpec, mode: Mode) -> Result<Vec<Note>, NftError> {
        let nft = self.kernel.nftables()?;
        let chains = foreign_chains(nft)?;
        let mut closed = Vec::new();
        for chain in chains.iter().filter(|c| at_forward(c) && concerns(c, net)) {
            if refuses(nft, chain)? {
                closed.push(chain);
            }
        }
        if closed.is_empty() && !chains.iter().any(is_door) {
            return Ok(Vec::new());
        }
        if applies(mode) {
            self.open_doors(net);
        }
        let nft = self.kernel.nftables()?;
        let mut notes = Vec::new();
        for chain in closed {
            if !leads_to_door(nft, chain)? && !speaks_of(nft, chain, net)? {
                notes.push(note(chain, net));
            }
        }
        Ok(notes)
    }

    /// What the user must know when another tool's policy drops forwarded packets.
    pub(super) fn notes_of_forwarding(
        &mut self,
        spec: &NetworkSpec,
        mode: Mode,
    ) -> Result<Vec<Note>, EngineError> {
        let mut notes = self.take_notes();
        notes.extend(self.closed_doors(spec, mode));
        notes.extend(self.doors_for_now(spec));
        Ok(notes)
    }

    /// Doors that are open because of wharf alone, and only until their tool's next reload.
    pub(super) fn doors_for_now(&mut self, net: &NetworkSpec) -> Vec<Note> {
        if !net.is_managed() {
            return Vec::new();
        }
        let for_now = self.ufw_opened(net).unwrap_or_default();
        let bridge = &net.bridge;
        let note = Note::DoorForNow {
            tool: "ufw".to_owned(),
            fix: ["in", "out"]
                .map(|way| format!("ufw route allow {way} on {bridge}"))
                .into(),
        };
        for_now.then_some(note).into_iter().collect()
    }

    fn ufw_opened(&mut self, net: &NetworkSpec) -> Result<bool, NftError> {
        let nft = self.kernel.nftables()?;
        let chains = nft.dump_chains()?;
        for chain in chains.iter().filter(|c| is_door(c) && concerns(c, net)) {
            if !UFW.contains(&chain.name.as_str()) {
                continue;
            }
            let ours = door_rules(chain, net);
            let rules = nft.dump_chain_rules(chain.family, &chain.table, &chain.name)?;
            let opened = |r: &Rule| is_ours(r) && ours.iter().any(|o| same(r, o));
            if rules.iter().any(opened) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What lets networks' bridges pass at the doors at which they do not yet, where nobody passes without, and what puts
/// those rules behind the user's. Where others' rules cannot be read there is nothing to be done.
pub(super) fn shut_doors(kernel: &mut NetlinkKernel, nets: &[NetworkSpec]) -> Vec<Op> {
    try_shut_doors(kernel, nets, is_needed).unwrap_or_default()
}

/// The way back of a door that is shut.
pub(super) fn opened(door: &Op) -> Op {
    changed(door, DoorChange::Open)
}

fn changed(door: &Op, to: DoorChange) -> Op {
    let mut other = door.clone();
    if let Op::Door { change, .. } = &mut other {
        *change = to;
    }
    other
}

/// What is found of a door that is shut, or of nobody's.
pub(super) fn shut(door: &Op) -> Finding {
    let (chain, link, change) = match door {
        Op::Door {
            chain,
            link,
            change,
            ..
        } => (chain.as_str(), link.as_str(), *change),
        _ => ("", "", DoorChange::Open),
    };
    let was = match change {
        DoorChange::Open => "missing",
        DoorChange::Move => "before the user's rules",
        DoorChange::Shut => "its network is gone",
    };
    Finding {
        object: format!("rule for {link} in chain {chain}"),
        was: was.to_owned(),
    }
}

/// Whether what no rule of a door's table accepts is refused.
fn is_needed(nft: &mut NfSocket, door: &Chain) -> Result<bool, NftError> {
    for chain in nft.dump_chains()? {
        let same = (chain.family, &chain.table) == (door.family, &door.table);
        if same && at_forward(&chain) && refuses(nft, &chain)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn open_doors(
    kernel: &mut NetlinkKernel,
    is_asked: impl Fn(&IfName) -> bool,
) -> Result<Vec<Op>, NftError> {
    let nft = kernel.nftables()?;
    let mut open = Vec::new();
    for chain in foreign_chains(nft)? {
        let Some(family) = door_family(&chain) else {
            continue;
        };
        let there = nft.dump_chain_rules(chain.family, &chain.table, &chain.name)?;
        for (link, inward) in there.iter().filter_map(is_for) {
            let door = Op::Door {
                family,
                chain: chain.name.clone(),
                link,
                inward,
                change: DoorChange::Shut,
            };
            if door.link().is_some_and(&is_asked) && !open.contains(&door) {
                open.push(door);
            }
        }
    }
    Ok(open)
}

fn try_shut_doors(
    kernel: &mut NetlinkKernel,
    nets: &[NetworkSpec],
    matters: impl Fn(&mut NfSocket, &Chain) -> Result<bool, NftError>,
) -> Result<Vec<Op>, NftError> {
    let managed = || nets.iter().filter(|net| net.is_managed());
    let mut shut = Vec::new();
    if managed().next().is_none() {
        return Ok(shut);
    }
    let nft = kernel.nftables()?;
    for chain in foreign_chains(nft)? {
        let Some(family) = door_family(&chain) else {
            continue;
        };
        let matters = matters(nft, &chain)?;
        let there = nft.dump_chain_rules(chain.family, &chain.table, &chain.name)?;
        for net in managed().filter(|net| net.subnet(family).is_some()) {
            for inward in WAYS {
                let rule = door_rule(chain.family, &chain.name, &net.bridge, inward);
                let is = standing(&there, &rule);
                // Before the user's rules it would void them.
                if is == Standing::Early || is == Standing::Missing && matters {
                    let change = match is {
                        Standing::Early => DoorChange::Move,
                        _ => DoorChange::Open,
                    };
                    shut.push(Op::Door {
                        family,
                        chain: chain.name.clone(),
                        link: net.bridge.clone(),
                        inward,
                        change,
                    });
                }
            }
        }
    }
    Ok(shut)
}

/// Whether a chain lets nothing pass but what its rules name.
pub(super) fn refuses(nft: &mut NfSocket, chain: &Chain) -> Result<bool, NftError> {
    if chain
        .base
        .as_ref()
        .is_some_and(|b| b.policy == Policy::Drop)
    {
        return Ok(true);
    }
    let rules = nft.dump_chain_rules(chain.family, &chain.table, &chain.name)?;
    let Some(last) = rules.last() else {
        return Ok(false);
    };
    let plain = |e: &Expr| matches!(e, Expr::Counter(_) | Expr::Log(_)) || is_refusal(e);
    Ok(last.exprs.iter().all(plain) && last.exprs.iter().any(is_refusal))
}

fn is_refusal(expr: &Expr) -> bool {
    match expr {
        Expr::Reject(_) => true,
        Expr::Immediate(i) => matches!(i.data, Data::Verdict(Verdict::Drop)),
        _ => false,
    }
}

/// Whether what a base chain judges comes by a door: that of a tool which is gone may still be there.
fn leads_to_door(nft: &mut NfSocket, base: &Chain) -> Result<bool, NftError> {
    let mut to_read = vec![base.name.clone()];
    let mut read = BTreeSet::new();
    while let Some(name) = to_read.pop().filter(|_| base.table == FILTER) {
        if DOORS.contains(&name.as_str()) {
            return Ok(true);
        }
        if read.insert(name.clone()) {
            for rule in nft.dump_chain_rules(base.family, FILTER, &name)? {
                if let Some(Verdict::Jump(to) | Verdict::Goto(to)) = verdict_of(&rule) {
                    to_read.push(to.clone());
                }
            }
        }
    }
    Ok(false)
}

/// Whether any rule of somebody's in the chain's table names the network's bridge: then he has seen to it.
fn speaks_of(nft: &mut NfSocket, chain: &Chain, net: &NetworkSpec) -> Result<bool, NftError> {
    let name = net.bridge.as_str().as_bytes();
    let is_name = |data: &[u8]| {
        data.strip_prefix(name)
            .is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
    };
    let names_it = |e: &Expr| matches!(e, Expr::Cmp(cmp) if is_name(&cmp.data));
    let rules = nft.dump_rules()?;
    Ok(rules
        .iter()
        .filter(|r| (r.family, &r.table) == (chain.family, &chain.table) && !is_ours(r))
        .any(|r| r.exprs.iter().any(names_it)))
}

/// The same for the old iptables' tables, which wharf does not write.
fn closed_in_xtables(net: &NetworkSpec) -> Vec<Note> {
    let closed = |family: &Family| {
        net.subnet(*family)?;
        let filter = xtables::filter(*family)?;
        let told = filter.links.iter().any(|link| link == net.bridge.as_str());
        (filter.forward_drops && !told).then(|| xtables_note(*family, &filter, net))
    };
    Family::BOTH.iter().filter_map(closed).collect()
}

fn xtables_note(family: Family, filter: &xtables::Filter, net: &NetworkSpec) -> Note {
    let (program, table) = match family {
        Family::V4 => ("iptables-legacy", "ip filter"),
        Family::V6 => ("ip6tables-legacy", "ip6 filter"),
    };
    let bridge = &net.bridge;
    let has = |name: &str| filter.chains.iter().any(|c| c == name);
    let fix = if UFW.iter().any(|name| has(name)) {
        ["in", "out"].map(|way| format!("ufw route allow {way} on {bridge}"))
    } else {
        let chain = if has(DOORS[0]) { DOORS[0] } else { "FORWARD" };
        ["i", "o"].map(|way| format!("{program} -I {chain} -{way} {bridge} -j ACCEPT"))
    };
    Note::ForwardPolicyDrop {
        chain: format!("{table} FORWARD of {program}"),
        fix: fix.into(),
    }
}

/// All chains, if there is any table but wharf's: a list of tables is short.
pub(super) fn foreign_chains(nft: &mut NfSocket) -> Result<Vec<Chain>, NftError> {
    let ours = wharf_core::nft::Table::NAME;
    if nft.dump_tables()?.iter().all(|t| t.name == ours) {
        return Ok(Vec::new());
    }
    nft.dump_chains()
}

/// The family of a chain that is a door.
fn door_family(chain: &Chain) -> Option<Family> {
    let named = chain.table == FILTER && DOORS.contains(&chain.name.as_str());
    match chain.family {
        wharf_nft::Family::Ip if named => Some(Family::V4),
        wharf_nft::Family::Ip6 if named => Some(Family::V6),
        _ => None,
    }
}

fn is_door(chain: &Chain) -> bool {
    door_family(chain).is_some()
}

fn at_forward(chain: &Chain) -> bool {
    use wharf_nft::Family::{Inet, Ip, Ip6};
    chain.table != wharf_core::nft::Table::NAME
        && chain.base.as_ref().is_some_and(|b| b.hook == Hook::Forward)
        && matches!(chain.family, Ip | Ip6 | Inet)
}

/// Whether the chain sees packets of a family the network has.
fn concerns(chain: &Chain, net: &NetworkSpec) -> bool {
    match chain.family {
        wharf_nft::Family::Ip => net.subnet(Family::V4).is_some(),
        wharf_nft::Family::Ip6 => net.subnet(Family::V6).is_some(),
        _ => true,
    }
}

/// What comes in by the bridge, and what leaves by it.
fn door_rules(chain: &Chain, net: &NetworkSpec) -> [Rule; 2] {
    WAYS.map(|inward| door_rule(chain.family, &chain.name, &net.bridge, inward))
}

fn note(chain: &Chain, net: &NetworkSpec) -> Note {
    let bridge = &net.bridge;
    let fix =
        |dir: &str, word: &str| match (chain.family, chain.table.as_str(), chain.name.as_str()) {
            (wharf_nft::Family::Ip, FILTER, "FORWARD") => {
                format!("iptables -I FORWARD -{dir} {bridge} -j ACCEPT")
            }
            (wharf_nft::Family::Ip6, FILTER, "FORWARD") => {
                format!("ip6tables -I FORWARD -{dir} {bridge} -j ACCEPT")
            }
            (_, "firewalld", _) => match dir {
                "i" => format!("firewall-cmd --permanent --zone=trusted --add-interface={bridge}"),
                _ => "firewall-cmd --reload".to_owned(),
            },
            (family, table, name) => {
                format!("nft insert rule {family} {table} {name} {word} {bridge} accept")
            }
        };
    Note::ForwardPolicyDrop {
        chain: format!("{} {} {}", chain.family, chain.table, chain.name),
        fix: vec![fix("i", "iifname"), fix("o", "oifname")],
    }
}
