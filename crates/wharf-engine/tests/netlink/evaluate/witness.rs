//! A table that notes what comes through each hook.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use wharf_core::trace::ruleset::Hook;
use wharf_core::trace::{L4, Packet};
use wharf_nft::expr::{Bits, CmpOp, Dynset, DynsetOp, MetaKey, PayloadBase};
use wharf_nft::{
    Batch, Chain, ChainType, DataType, Expr, Family, NfSocket, Policy, Reg, Rule, Ruleset, Set,
    SetFlags, SetRef, Table,
};

pub const HOOKS: [Hook; 5] = [
    Hook::Prerouting,
    Hook::Input,
    Hook::Forward,
    Hook::Output,
    Hook::Postrouting,
];

/// A packet as it leaves a hook.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pass {
    mark: u32,
    src: IpAddr,
    dst: IpAddr,
    /// Both ports; of an echo the identifier.
    ports: (u16, u16),
}

impl Pass {
    pub fn of(packet: &Packet) -> Self {
        Self {
            mark: packet.mark,
            src: packet.src,
            dst: packet.dst,
            ports: match packet.l4 {
                L4::Icmp => (packet.sport, 0),
                _ => (packet.sport, packet.dport),
            },
        }
    }

    fn read(key: &[u8]) -> Self {
        let mark = u32::from_ne_bytes(key[..4].try_into().unwrap());
        let (addrs, ports) = key[4..].split_at(key.len() - 8);
        let (src, dst) = addrs.split_at(addrs.len() / 2);
        let addr = |bytes: &[u8]| -> IpAddr {
            match <[u8; 4]>::try_from(bytes) {
                Ok(four) => four.into(),
                Err(_) => <[u8; 16]>::try_from(bytes).unwrap().into(),
            }
        };
        let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
        Self {
            mark,
            src: addr(src),
            dst: addr(dst),
            ports: (port(0), port(2)),
        }
    }
}

const TABLE: &str = "witness";
/// nfproto, length of an address, its offset.
const FAMILIES: [(u8, u8, u32); 2] = [(2, 4, 12), (10, 16, 8)];

fn name(hook: Hook, nfproto: u8) -> String {
    format!("{hook:?}{nfproto}")
}

/// Notes a packet; `at` and `len` of what tells it above IP.
fn note(
    hook: Hook,
    (nfproto, len, offset): (u8, u8, u32),
    protocols: &[u8],
    at: u32,
    above: u32,
) -> Vec<Rule> {
    let (slot, after) = (Reg::R1, |bytes: u8| Reg::R1.after(bytes).unwrap());
    let from_a = matches!(hook, Hook::Prerouting | Hook::Input | Hook::Forward);
    let (key, link): (_, &[u8]) = if from_a {
        (MetaKey::IifName, b"va\0")
    } else {
        (MetaKey::OifName, b"vb\0")
    };
    let add = Dynset {
        set: name(hook, nfproto),
        set_id: None,
        op: DynsetOp::Add,
        sreg_key: slot,
        sreg_data: None,
        timeout: None,
        expr: None,
        flags: Bits(0),
        exprs: Vec::new(),
    };
    let rule = |protocol: &u8| {
        let exprs = vec![
            Expr::meta(key, slot),
            Expr::cmp(slot, CmpOp::Eq, link),
            Expr::meta(MetaKey::NfProto, slot),
            Expr::cmp(slot, CmpOp::Eq, [nfproto]),
            Expr::meta(MetaKey::L4Proto, slot),
            Expr::cmp(slot, CmpOp::Eq, [*protocol]),
            Expr::meta(MetaKey::Mark, slot),
            Expr::payload(PayloadBase::Network, offset, u32::from(len) * 2, after(4)),
            Expr::payload(PayloadBase::Transport, at, above, after(4 + 2 * len)),
            add.clone().into(),
        ];
        Rule::new(Family::Inet, TABLE, format!("{hook:?}"), exprs)
    };
    protocols.iter().map(rule).collect()
}

/// Makes the table. ICMPv6 is not noted: neighbours talk by it.
pub fn install(socket: &mut NfSocket) {
    let mut batch = Batch::default();
    batch.add_table(&Table::new(Family::Inet, TABLE));
    for hook in HOOKS {
        let nft = match hook {
            Hook::Prerouting => wharf_nft::Hook::Prerouting,
            Hook::Input => wharf_nft::Hook::Input,
            Hook::Forward => wharf_nft::Hook::Forward,
            Hook::Output => wharf_nft::Hook::Output,
            _ => wharf_nft::Hook::Postrouting,
        };
        let chain = Chain::new(Family::Inet, TABLE, format!("{hook:?}"));
        batch.add_chain(&chain.with_base(ChainType::Filter, nft, 1000, Policy::Accept));
        for (family, addr) in FAMILIES
            .into_iter()
            .zip([DataType::ipv4_addr(), DataType::ipv6_addr()])
        {
            let key = DataType::concat(&[DataType::mark(), addr.clone(), addr, DataType::mark()]);
            let mut set = Set::new(Family::Inet, TABLE, name(hook, family.0), &key)
                .with_flags(SetFlags::EVAL);
            set.size = Some(1000);
            set.fields = Vec::new();
            batch.add_set(&set);
            for rule in note(hook, family, &[6, 17], 0, 4) {
                batch.add_rule(&rule);
            }
        }
        for rule in note(hook, FAMILIES[0], &[1], 4, 2) {
            batch.add_rule(&rule);
        }
    }
    socket.commit(&batch).unwrap();
}

/// What came through, by hook. Answers are left out: they come from other ports.
pub fn read(socket: &mut NfSocket) -> BTreeMap<Hook, BTreeSet<Pass>> {
    let mut all: BTreeMap<Hook, BTreeSet<Pass>> = BTreeMap::new();
    for hook in HOOKS {
        for (nfproto, ..) in FAMILIES {
            let set = SetRef::new(Family::Inet, TABLE, name(hook, nfproto));
            for element in socket.dump_elements(&set).unwrap() {
                all.entry(hook)
                    .or_default()
                    .insert(Pass::read(&element.key));
            }
        }
    }
    all
}

/// Rules whose counter has seen a packet, and those that have none: table, chain, handle.
pub fn counted(ruleset: &Ruleset) -> BTreeSet<(String, String, u64)> {
    let saw = |rule: &&Rule| {
        let mut counters = rule.exprs.iter().filter_map(|e| match e {
            Expr::Counter(counter) => Some(counter.packets),
            _ => None,
        });
        counters.next() != Some(0)
    };
    let key = |r: &Rule| (r.table.clone(), r.chain.clone(), r.handle.unwrap());
    ruleset.rules.iter().filter(saw).map(key).collect()
}
