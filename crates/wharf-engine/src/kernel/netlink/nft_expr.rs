//! Rules as the expressions the kernel runs, as nft itself would write them: `nft list ruleset` shows them as rules.

use std::net::IpAddr;

use wharf_core::addr::Family;
use wharf_core::nft::{Action, FieldType, Key, Match, Rule, Table, Test, Value};
use wharf_core::publish::PortRange;
use wharf_nft::expr::{
    Bits, CmpOp, CtKey, Expr, Fib, FibResult, Immediate, Masq, MetaKey, Nat, NatType, PayloadBase,
    Reg, Reject,
};
use wharf_nft::{Family as NfFamily, Verdict};

use super::nft_encode::known;

/// `NF_NAT_RANGE_PROTO_SPECIFIED` and `NF_NAT_RANGE_PROTO_RANDOM` (`linux/netfilter/nf_nat.h`).
const PORTS: u32 = 1 << 1;
const RANDOM: u32 = 1 << 2;
/// `IP_CT_DIR_ORIGINAL` (`linux/netfilter/nf_conntrack_tuple_common.h`).
const ORIGINAL: u8 = 0;
/// `IFNAMSIZ`: what the kernel compares of an interface name or kind.
const NAME: usize = 16;
const ETH_IP: u16 = 0x0800;
const ETH_ARP: u16 = 0x0806;
const ETH_IP6: u16 = 0x86dd;

/// What the rule has found out so far, so that it is not asked twice.
struct Writer {
    table: Table,
    exprs: Vec<Expr>,
    ether: Option<u16>,
    l4: Option<u8>,
}

/// The expressions of a rule.
pub(crate) fn rule(table: Table, rule: &Rule) -> Vec<Expr> {
    let mut w = Writer {
        table,
        exprs: Vec::with_capacity(8),
        ether: None,
        l4: None,
    };
    for m in &rule.matches {
        w.test(m);
    }
    w.action(&rule.action);
    w.exprs
}

/// An interface's name or kind as the kernel compares it.
pub(super) fn name_bytes(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(NAME, 0);
    bytes
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// Where a key is read from, and how long it is.
enum Source {
    Meta(MetaKey, u8),
    Ct(CtKey),
    CtOriginal(CtKey, u8),
    Fib(Bits),
    Payload(PayloadBase, u32, u8),
}

fn source(key: Key) -> Source {
    use PayloadBase::{LinkLayer, Network, Transport};
    match key {
        Key::IifName => Source::Meta(MetaKey::IifName, 16),
        Key::OifName => Source::Meta(MetaKey::OifName, 16),
        Key::Iif => Source::Meta(MetaKey::Iif, 4),
        Key::IifKind => Source::Meta(MetaKey::IifKind, 16),
        Key::OifKind => Source::Meta(MetaKey::OifKind, 16),
        Key::IifGroup => Source::Meta(MetaKey::IifGroup, 4),
        Key::NfProto => Source::Meta(MetaKey::NfProto, 1),
        Key::L4Proto => Source::Meta(MetaKey::L4Proto, 1),
        Key::Mark => Source::Meta(MetaKey::Mark, 4),
        Key::CtState => Source::Ct(CtKey::State),
        Key::CtStatus => Source::Ct(CtKey::Status),
        Key::CtOriginalIpSaddr => Source::CtOriginal(CtKey::SrcIp, 4),
        Key::CtOriginalIp6Saddr => Source::CtOriginal(CtKey::SrcIp6, 16),
        Key::FibDaddrType => Source::Fib(Fib::DADDR),
        Key::FibSaddrType => Source::Fib(Fib::SADDR),
        Key::IpSaddr => Source::Payload(Network, 12, 4),
        Key::IpDaddr => Source::Payload(Network, 16, 4),
        Key::Ip6Saddr => Source::Payload(Network, 8, 16),
        Key::Ip6Daddr => Source::Payload(Network, 24, 16),
        Key::ThSport => Source::Payload(Transport, 0, 2),
        Key::ThDport => Source::Payload(Transport, 2, 2),
        Key::EtherSaddr => Source::Payload(LinkLayer, 6, 6),
        Key::EtherType => Source::Payload(LinkLayer, 12, 2),
        Key::ArpHtype => Source::Payload(Network, 0, 2),
        Key::ArpPtype => Source::Payload(Network, 2, 2),
        Key::ArpSaddrEther => Source::Payload(Network, 8, 6),
        Key::ArpSaddrIp => Source::Payload(Network, 14, 4),
        Key::IcmpType | Key::Icmpv6Type | Key::IgmpType => Source::Payload(Transport, 0, 1),
        Key::Ip6NextHeader => Source::Payload(Network, 6, 1),
        Key::Ip6SaddrBare => Source::Payload(Network, 8, 16),
        Key::NdTarget => Source::Payload(Transport, 8, 16),
        Key::NdLinkAddr => Source::Payload(Transport, 26, 6),
        Key::NdOption => Source::Payload(Transport, 24, 2),
    }
}

impl Writer {
    /// What must hold for a key to mean anything.
    fn depend(&mut self, key: Key) {
        match key {
            Key::IpSaddr | Key::IpDaddr => self.network(ETH_IP),
            Key::Ip6Saddr | Key::Ip6Daddr | Key::Ip6NextHeader => self.network(ETH_IP6),
            Key::ArpHtype | Key::ArpPtype | Key::ArpSaddrEther | Key::ArpSaddrIp => {
                self.network(ETH_ARP);
            }
            Key::IcmpType => self.transport(1, ETH_IP),
            Key::Icmpv6Type => self.transport(58, ETH_IP6),
            _ => {}
        }
    }

    fn network(&mut self, ether: u16) {
        if self.ether == Some(ether) {
            return;
        }
        self.ether = Some(ether);
        match (self.table, ether) {
            (Table::Bridge, _) => {
                self.push(Expr::meta(MetaKey::Protocol, Reg::R1));
                self.equal(ether.to_be_bytes());
            }
            (Table::Inet, ETH_IP6) => self.nfproto(Family::V6),
            (Table::Inet, _) => self.nfproto(Family::V4),
        }
    }

    fn nfproto(&mut self, family: Family) {
        self.push(Expr::meta(MetaKey::NfProto, Reg::R1));
        self.equal([nfproto(family)]);
    }

    fn transport(&mut self, l4: u8, ether: u16) {
        if self.l4 == Some(l4) {
            return;
        }
        self.l4 = Some(l4);
        if self.table == Table::Bridge && self.ether.is_none() {
            self.ether = Some(ether);
            self.push(Expr::payload(PayloadBase::LinkLayer, 12, 2, Reg::R1));
            self.equal(ether.to_be_bytes());
        }
        self.push(Expr::meta(MetaKey::L4Proto, Reg::R1));
        self.equal([l4]);
    }

    fn push(&mut self, expr: Expr) {
        self.exprs.push(expr);
    }

    fn equal(&mut self, bytes: impl Into<Vec<u8>>) {
        self.push(Expr::cmp(Reg::R1, CmpOp::Eq, bytes));
    }

    fn load(&mut self, key: Key, reg: Reg) -> u8 {
        match source(key) {
            Source::Meta(key, len) => {
                self.push(Expr::meta(key, reg));
                len
            }
            Source::Ct(key) => {
                self.push(Expr::ct(key, None, reg));
                4
            }
            Source::CtOriginal(key, len) => {
                self.push(Expr::ct(key, Some(ORIGINAL), reg));
                len
            }
            Source::Fib(of) => {
                self.push(Expr::fib(FibResult::AddrType, of, reg));
                4
            }
            Source::Payload(base, offset, len) => {
                self.push(Expr::payload(base, offset, len.into(), reg));
                len
            }
        }
    }

    /// Loads keys side by side, each at the next multiple of 4 bytes.
    fn load_all(&mut self, keys: &[Key]) {
        for key in keys {
            self.depend(*key);
        }
        let mut reg = Some(Reg::R1);
        for key in keys {
            // 64 bytes of registers: the longest key of wharf has 24.
            let at = reg.expect("keys fit the registers");
            let len = self.load(*key, at);
            reg = at.after(len);
        }
    }

    fn test(&mut self, m: &Match) {
        match &m.test {
            Test::In(set) => {
                self.load_all(&m.keys);
                self.push(Expr::lookup(*set, Reg::R1));
            }
            Test::NotIn(set) => {
                self.load_all(&m.keys);
                self.push(Expr::lookup_not(*set, Reg::R1));
            }
            test => {
                for key in &m.keys {
                    self.single(*key, test);
                }
            }
        }
    }

    fn single(&mut self, key: Key, test: &Test) {
        self.depend(key);
        match test {
            Test::Is(value) => {
                self.compare(key, CmpOp::Eq, value);
                self.learn(key, value);
            }
            Test::Not(value) => self.compare(key, CmpOp::Neq, value),
            Test::AnyBit(bits) => self.masked(key, *bits, CmpOp::Neq, 0),
            Test::NoBit(bits) => self.masked(key, *bits, CmpOp::Eq, 0),
            Test::Masked { mask, value } => self.masked(key, *mask, CmpOp::Eq, *value),
            Test::In(_) | Test::NotIn(_) => {}
        }
    }

    fn learn(&mut self, key: Key, value: &Value) {
        match (key, value) {
            (Key::EtherType, Value::U16(ether)) => self.ether = Some(*ether),
            (Key::NfProto, Value::Family(Family::V4)) => self.ether = Some(ETH_IP),
            (Key::NfProto, Value::Family(Family::V6)) => self.ether = Some(ETH_IP6),
            (Key::L4Proto, Value::U8(l4)) => self.l4 = Some(*l4),
            _ => {}
        }
    }

    fn masked(&mut self, key: Key, mask: u32, op: CmpOp, value: u32) {
        self.load(key, Reg::R1);
        self.push(Expr::mask(Reg::R1, mask.to_ne_bytes()));
        self.push(Expr::cmp(Reg::R1, op, value.to_ne_bytes()));
    }

    fn compare(&mut self, key: Key, op: CmpOp, value: &Value) {
        let bytes = match value {
            Value::Net(net) => {
                return self.prefix(key, op, octets(net.network()), net.prefix_len());
            }
            Value::Name(name) => name_bytes(name.as_str()),
            Value::Kind(kind) => name_bytes(kind),
            Value::Addr(addr) => octets(*addr),
            Value::Family(family) => vec![nfproto(*family)],
            Value::U8(n) => vec![*n],
            Value::U16(n) => n.to_be_bytes().to_vec(),
            Value::U32(n) => n.to_ne_bytes().to_vec(),
            Value::AddrType(kind) => (*kind as u32).to_ne_bytes().to_vec(),
        };
        self.load(key, Reg::R1);
        self.push(Expr::cmp(Reg::R1, op, bytes));
    }

    /// Whole bytes are compared as such, other prefixes under a mask.
    fn prefix(&mut self, key: Key, op: CmpOp, bytes: Vec<u8>, len: u8) {
        let whole = usize::from(len / 8);
        if let (Source::Payload(base, offset, size), 0) = (source(key), len % 8)
            && len > 0
            && whole <= usize::from(size)
        {
            let (size, bytes) = (u32::from(len / 8), &bytes[..whole]);
            self.push(Expr::payload(base, offset, size, Reg::R1));
            self.push(Expr::cmp(Reg::R1, op, bytes));
            return;
        }
        let mask: Vec<u8> = (0..bytes.len())
            .map(|i| match usize::from(len).saturating_sub(i * 8) {
                0 => 0,
                bits => 0xff_u8 << (8 - bits.min(8)),
            })
            .collect();
        self.load(key, Reg::R1);
        self.push(Expr::mask(Reg::R1, mask));
        self.push(Expr::cmp(Reg::R1, op, bytes));
    }

    /// Loads both ends of a range, from register `at` on.
    fn ends(&mut self, at: Reg, ports: PortRange) -> (Reg, Reg) {
        let next = at.after(4).expect("an address leaves room");
        for (dreg, port) in [(at, ports.first()), (next, ports.last())] {
            let data = port.to_be_bytes().to_vec().into();
            self.push(Immediate { dreg, data }.into());
        }
        (at, next)
    }

    fn action(&mut self, action: &Action) {
        let verdict = match action {
            Action::Accept => Verdict::Accept,
            Action::Drop => Verdict::Drop,
            Action::Return => Verdict::Return,
            Action::Jump(chain) => Verdict::Jump(chain.clone()),
            Action::Goto(chain) => Verdict::Goto(chain.clone()),
            Action::Vmap(keys, map) => {
                self.load_all(keys);
                return self.push(Expr::lookup_map(*map, Reg::R1, Reg::VERDICT));
            }
            Action::DnatMap(family, keys, map) => {
                self.load_all(keys);
                self.push(Expr::lookup_map(*map, Reg::R1, Reg::R1));
                let gives_port =
                    known(self.table, map).is_some_and(|m| m.data.contains(&FieldType::Port));
                let port = gives_port.then(|| after_addr(*family));
                return self.push(Expr::dnat(nf_family(*family), Reg::R1, port));
            }
            Action::SnatMap(family, keys, map) => {
                self.load_all(keys);
                self.push(Expr::lookup_map(*map, Reg::R1, Reg::R1));
                return self.push(Expr::snat(nf_family(*family), Reg::R1, None));
            }
            Action::SnatMapDraw(family, keys, map, ports) => {
                self.load_all(keys);
                self.push(Expr::lookup_map(*map, Reg::R1, Reg::R1));
                let (first, last) = self.ends(after_addr(*family), *ports);
                let nat = Nat {
                    kind: NatType::Snat,
                    family: u32::from(nfproto(*family)),
                    addr_min: Some(Reg::R1),
                    addr_max: None,
                    proto_min: Some(first),
                    proto_max: Some(last),
                    // That there are addresses and ports the kernel sees for itself.
                    flags: Bits(RANDOM),
                };
                return self.push(nat.into());
            }
            Action::MasqueradeDraw(ports) => {
                let (first, last) = self.ends(Reg::R1, *ports);
                let masq = Masq {
                    flags: Bits(PORTS | RANDOM),
                    proto_min: Some(first),
                    proto_max: Some(last),
                };
                return self.push(masq.into());
            }
            Action::Masquerade => return self.push(Expr::masquerade(Bits(0))),
            Action::Reject => {
                return self.push(Expr::reject_icmpx(Reject::ICMPX_ADMIN_PROHIBITED));
            }
            Action::MarkOr(bits) => {
                self.push(Expr::meta(MetaKey::Mark, Reg::R1));
                let (keep, add) = ((!bits).to_ne_bytes(), bits.to_ne_bytes());
                self.push(Expr::mask_xor(Reg::R1, keep, add));
                return self.push(Expr::meta_set(MetaKey::Mark, Reg::R1));
            }
        };
        self.push(Expr::verdict(verdict));
    }
}

/// Where the port of `addr . port` data lies when the address is in the first register.
fn after_addr(family: Family) -> Reg {
    let port = Reg::R1.after(family.bits() / 8);
    port.expect("an address leaves room")
}

fn nfproto(family: Family) -> u8 {
    nf_family(family).number()
}

fn nf_family(family: Family) -> NfFamily {
    match family {
        Family::V4 => NfFamily::Ip,
        Family::V6 => NfFamily::Ip6,
    }
}
