//! Instructions of nftables.

use wharf_core::trace::ruleset::{
    Cmp, Ct, Expr, FibResult, Header, Match, Meta, NatArg, NatKind, RegByte,
};
use wharf_nft::expr::{
    self, Bits, ByteorderOp, CmpOp, CtKey, ExtHdrOp, MetaKey, NatType, PayloadBase, RangeOp,
    RejectType, RtKey, SocketKey,
};
use wharf_nft::{Data, Family, ObjectKind, Reg, Rule, Verdict};

use super::xtables::{decode_match, decode_target};
use super::{Dump, table_family};

/// `NFT_LIMIT_F_INV`, `NFT_QUOTA_F_INV`, `NFT_CONNLIMIT_F_INV`: over, not under.
const OVER: Bits = Bits(1);
/// `NFT_EXTHDR_F_PRESENT`.
const PRESENT: Bits = Bits(1);
/// `NFT_QUEUE_FLAG_BYPASS`.
const BYPASS: u16 = 1;
const TCP: u8 = 6;
const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// The instructions of a rule.
pub fn exprs<'a>(dump: &Dump<'a>, rule: &'a Rule) -> Vec<Expr> {
    let mut out = Vec::with_capacity(rule.exprs.len());
    for expr in &rule.exprs {
        one(dump, rule, expr, &mut out);
    }
    out
}

/// A register's first byte; the verdict register has none, and is only used where verdicts are.
fn byte(reg: Reg) -> RegByte {
    reg.index().map_or(RegByte::MAX, |slot| slot * 4)
}

fn one<'a>(dump: &Dump<'a>, rule: &'a Rule, expr: &'a expr::Expr, out: &mut Vec<Expr>) {
    use expr::Expr as E;
    let lowered = match expr {
        E::Meta(e) => meta(e),
        E::Payload(e) => payload(e),
        E::ExtHdr(e) => exthdr(e),
        E::Cmp(e) => Expr::Cmp {
            sreg: byte(e.sreg),
            op: compare(e.op),
            data: e.data.clone(),
        },
        E::Range(e) => Expr::Range {
            sreg: byte(e.sreg),
            outside: e.op == RangeOp::Neq,
            from: e.from.clone(),
            to: e.to.clone(),
        },
        E::Bitwise(e) => bitwise(e),
        E::Byteorder(e) => byteorder(e),
        E::Lookup(e) => Expr::Lookup {
            set: e.set.clone(),
            sreg: byte(e.sreg),
            dreg: e.dreg.filter(|r| *r != Reg::VERDICT).map(byte),
            invert: e.flags.has(expr::Lookup::INVERT),
            verdict: e.dreg == Some(Reg::VERDICT),
        },
        E::Immediate(e) => immediate(e),
        E::Fib(e) => fib(e),
        E::Reject(e) => Expr::Reject {
            reset: e.kind == RejectType::TcpRst,
        },
        E::Ct(e) => return ct(e, out),
        E::Nat(e) => return nat(rule.family, e, out),
        E::Masq(e) => Expr::Nat {
            kind: NatKind::Masquerade,
            addr: None,
            port: registers(e.proto_min, e.proto_max),
        },
        E::Redir(e) => Expr::Nat {
            kind: NatKind::Redirect,
            addr: None,
            port: registers(e.proto_min, e.proto_max),
        },
        E::Limit(_) | E::Quota(_) | E::Connlimit(_) | E::Dynset(_) | E::Objref(_) => {
            return stateful(dump, rule, expr, out);
        }
        _ => return rest(dump, rule, expr, out),
    };
    out.push(lowered);
}

/// What hands the packet on, and what was not read.
fn rest(dump: &Dump<'_>, rule: &Rule, expr: &expr::Expr, out: &mut Vec<Expr>) {
    use expr::Expr as E;
    use wharf_core::trace::ruleset::RuleVerdict as V;
    // Of tunnels and IPsec a walked packet has nothing: the rule ends.
    let absent = |dreg: Reg| Expr::ExtHdr {
        dreg: byte(dreg),
        exists: false,
    };
    let lowered = match expr {
        E::Notrack(_) => Expr::Notrack,
        E::Queue(e) => Expr::Verdict(V::Queue(e.flags.unwrap_or(0) & BYPASS != 0)),
        E::Tproxy(e) => Expr::Tproxy {
            port: e.port.map(|r| NatArg::Reg(byte(r))),
            drops: false,
        },
        E::Fwd(_) => Expr::Verdict(V::Stolen),
        E::Synproxy(_) => {
            out.push(test(Match::Proto(TCP)));
            Expr::Verdict(V::Stolen)
        }
        E::Hash(e) => Expr::Random {
            dreg: byte(e.dreg),
            len: 4,
        },
        E::Numgen(e) => Expr::Random {
            dreg: byte(e.dreg),
            len: 4,
        },
        E::Socket(e) => {
            out.push(test(Match::Socket));
            unread(e.dreg, if e.key == SocketKey::CgroupV2 { 8 } else { 4 })
        }
        E::Rt(e) => unread(e.dreg, if e.key == RtKey::NextHop6 { 16 } else { 4 }),
        E::Osf(e) => unread(e.dreg, 16),
        E::Xfrm(e) => absent(e.dreg),
        E::Tunnel(e) => absent(e.dreg),
        E::Inner(_) => absent(Reg::R1),
        E::Match(e) => return out.extend(xt_match(dump, e, rule.family)),
        E::Target(e) => return out.extend(xt_target(dump, e, rule.family)),
        E::Unknown { name, .. } => Expr::Opaque(name.clone()),
        // Counters, logs, copies and the like.
        _ => Expr::Nothing,
    };
    out.push(lowered);
}

fn test(test: Match) -> Expr {
    Expr::Match {
        test,
        invert: false,
    }
}

fn unread(dreg: Reg, len: u32) -> Expr {
    Expr::Unread {
        dreg: byte(dreg),
        len,
    }
}

fn xt_match(dump: &Dump<'_>, e: &expr::Match, family: Family) -> Vec<Expr> {
    match table_family(family) {
        Some(family) => decode_match(&e.name, e.rev, &e.info.0, family, dump.ipsets).exprs,
        None => vec![Expr::Opaque(format!("-m {}", e.name))],
    }
}

fn xt_target(dump: &Dump<'_>, e: &expr::Target, family: Family) -> Vec<Expr> {
    match table_family(family) {
        Some(family) => decode_target(&e.name, e.rev, &e.info.0, family, dump.ipsets).exprs,
        None => vec![Expr::Opaque(format!("-j {}", e.name))],
    }
}

/// Keys without a name of their own that the evaluator knows.
fn evaluated(key: MetaKey) -> bool {
    matches!(
        key,
        MetaKey::SecPath | MetaKey::TimeNs | MetaKey::TimeDay | MetaKey::TimeHour
    )
}

fn meta(e: &expr::Meta) -> Expr {
    let key = match e.key {
        MetaKey::Len => Meta::Length,
        MetaKey::Protocol => Meta::Protocol,
        MetaKey::NfProto => Meta::NfProto,
        MetaKey::L4Proto => Meta::L4Proto,
        MetaKey::Mark => Meta::Mark,
        MetaKey::Iif => Meta::Iif,
        MetaKey::Oif => Meta::Oif,
        MetaKey::IifName => Meta::IifName,
        MetaKey::OifName => Meta::OifName,
        MetaKey::IifType => Meta::IifType,
        MetaKey::OifType => Meta::OifType,
        MetaKey::IifKind => Meta::IifKind,
        MetaKey::OifKind => Meta::OifKind,
        MetaKey::IifGroup => Meta::IifGroup,
        MetaKey::OifGroup => Meta::OifGroup,
        MetaKey::PktType => Meta::PktType,
        MetaKey::BriIifName => Meta::BridgeIifName,
        MetaKey::BriOifName => Meta::BridgeOifName,
        MetaKey::SkUid => Meta::SkUid,
        MetaKey::SkGid => Meta::SkGid,
        other => Meta::Other(other.into()),
    };
    match (e.dreg, e.sreg, key) {
        (Some(dreg), _, Meta::Other(_)) if !evaluated(e.key) => unread(dreg, 4),
        (Some(dreg), _, key) => Expr::Meta {
            dreg: byte(dreg),
            key,
        },
        (None, Some(sreg), key) => Expr::MetaSet {
            sreg: byte(sreg),
            key,
        },
        (None, None, _) => Expr::Nothing,
    }
}

fn payload(e: &expr::Payload) -> Expr {
    let header = match e.base {
        PayloadBase::LinkLayer => Header::Link,
        PayloadBase::Network => Header::Network,
        PayloadBase::Transport => Header::Transport,
        _ => Header::Inner,
    };
    let (offset, len) = (e.offset, e.len);
    match (e.dreg, e.sreg) {
        (Some(dreg), _) => Expr::Payload {
            dreg: byte(dreg),
            header,
            offset,
            len,
        },
        (None, Some(sreg)) => Expr::PayloadSet {
            sreg: byte(sreg),
            header,
            offset,
            len,
        },
        (None, None) => Expr::Nothing,
    }
}

/// The first packet of a TCP connection has options, which are not known.
fn exthdr(e: &expr::ExtHdr) -> Expr {
    match (e.dreg, e.op) {
        (None, _) => Expr::Nothing,
        (Some(dreg), Some(ExtHdrOp::TcpOpt)) => unread(dreg, e.len.unwrap_or(1).max(1)),
        (Some(dreg), _) => Expr::ExtHdr {
            dreg: byte(dreg),
            exists: e.flags.has(PRESENT),
        },
    }
}

fn compare(op: CmpOp) -> Cmp {
    match op {
        CmpOp::Neq => Cmp::Ne,
        CmpOp::Lt => Cmp::Lt,
        CmpOp::Lte => Cmp::Le,
        CmpOp::Gt => Cmp::Gt,
        CmpOp::Gte => Cmp::Ge,
        _ => Cmp::Eq,
    }
}

fn bitwise(e: &expr::Bitwise) -> Expr {
    use expr::BitwiseOp as Op;
    let (sreg, dreg) = (byte(e.sreg), byte(e.dreg));
    let by = |data: &[u8]| data.try_into().map_or(0, u32::from_ne_bytes).cast_signed();
    let shift = |bits: i32| Expr::Shift {
        sreg,
        dreg,
        len: e.len,
        bits,
    };
    match (e.op.unwrap_or(Op::MaskXor), &e.data) {
        (Op::MaskXor, _) => match (&e.mask, &e.xor) {
            (Some(mask), Some(xor)) => Expr::Bitwise {
                sreg,
                dreg,
                mask: mask.clone(),
                xor: xor.clone(),
            },
            _ => unread(e.dreg, e.len),
        },
        (Op::LShift, Some(data)) => shift(by(data)),
        (Op::RShift, Some(data)) => shift(-by(data)),
        // Of two registers.
        _ => unread(e.dreg, e.len),
    }
}

fn byteorder(e: &expr::Byteorder) -> Expr {
    match e.op {
        ByteorderOp::Ntoh | ByteorderOp::Hton => Expr::Byteorder {
            sreg: byte(e.sreg),
            dreg: byte(e.dreg),
            len: e.len,
            size: e.size,
        },
        _ => unread(e.dreg, e.len),
    }
}

fn immediate(e: &expr::Immediate) -> Expr {
    match &e.data {
        Data::Value(data) => Expr::Immediate {
            dreg: byte(e.dreg),
            data: data.clone(),
        },
        Data::Verdict(Verdict::Break) => never(),
        Data::Verdict(verdict) => Expr::Verdict(super::lower_verdict(verdict)),
    }
}

fn fib(e: &expr::Fib) -> Expr {
    let result = match e.result {
        expr::FibResult::OifName => FibResult::OifName,
        expr::FibResult::AddrType => FibResult::AddrType,
        _ => FibResult::Oif,
    };
    Expr::Fib {
        dreg: byte(e.dreg),
        result,
        flags: e.flags.0,
    }
}

fn ct(e: &expr::Ct, out: &mut Vec<Expr>) {
    let key = match e.key {
        CtKey::State => Ct::State,
        CtKey::Direction => Ct::Direction,
        CtKey::Status => Ct::Status,
        CtKey::Mark => Ct::Mark,
        CtKey::L3Protocol => Ct::L3Proto,
        CtKey::Protocol => Ct::Protocol,
        CtKey::Src | CtKey::SrcIp | CtKey::SrcIp6 => Ct::Src,
        CtKey::Dst | CtKey::DstIp | CtKey::DstIp6 => Ct::Dst,
        CtKey::ProtoSrc => Ct::ProtoSrc,
        CtKey::ProtoDst => Ct::ProtoDst,
        CtKey::Zone => match (e.sreg, e.dir) {
            (Some(_), Some(dir)) => Ct::ZoneOf { reply: dir == 1 },
            _ => Ct::Zone,
        },
        other => Ct::Other(other.into()),
    };
    match e.key {
        CtKey::SrcIp | CtKey::DstIp => out.push(test(Match::NfProto(IPV4))),
        CtKey::SrcIp6 | CtKey::DstIp6 => out.push(test(Match::NfProto(IPV6))),
        _ => {}
    }
    out.push(match (e.dreg, e.sreg) {
        (Some(dreg), _) => Expr::Ct {
            dreg: byte(dreg),
            key,
            reply: e.dir.map(|d| d == 1),
        },
        (None, Some(sreg)) => Expr::CtSet {
            sreg: byte(sreg),
            key,
        },
        (None, None) => Expr::Nothing,
    });
}

fn registers(min: Option<Reg>, max: Option<Reg>) -> Option<NatArg> {
    let min = min?;
    Some(match max {
        Some(max) if max != min => NatArg::Regs(byte(min), byte(max)),
        _ => NatArg::Reg(byte(min)),
    })
}

/// In a table of both families a translation of the other one does nothing.
fn nat(family: Family, e: &expr::Nat, out: &mut Vec<Expr>) {
    let source = e.kind == NatType::Snat;
    if family == Family::Inet && e.addr_min.is_some() {
        let proto = if e.family == u32::from(Family::Ip.number()) {
            IPV4
        } else {
            IPV6
        };
        out.push(test(Match::NfProto(proto)));
    }
    let kind = match source {
        _ if e.flags.has(expr::Nat::NETMAP) => NatKind::Prefix { source },
        true => NatKind::Source,
        false => NatKind::Destination,
    };
    out.push(Expr::Nat {
        kind,
        addr: registers(e.addr_min, e.addr_max),
        port: registers(e.proto_min, e.proto_max),
    });
}

/// The rule ends, which only an absent header does in the core.
fn never() -> Expr {
    Expr::ExtHdr {
        dreg: 0,
        exists: false,
    }
}

/// Limits and quotas, by themselves, named, or per element of a set.
fn stateful<'a>(dump: &Dump<'a>, rule: &'a Rule, expr: &'a expr::Expr, out: &mut Vec<Expr>) {
    use expr::Expr as E;
    let depends = |over: bool, text: &str| {
        if over {
            Expr::Unlikely(format!("{text} over"))
        } else {
            Expr::Maybe(text.to_owned())
        }
    };
    let lowered = match expr {
        E::Limit(e) => depends(e.flags.has(OVER), "limit rate"),
        // The packet's own connection counts.
        E::Connlimit(e) => match (e.flags.has(OVER), e.count) {
            (true, 0) => Expr::Nothing,
            (false, 0) => never(),
            (over, _) => depends(over, "ct count"),
        },
        E::Quota(e) => match (e.flags.has(OVER), e.consumed.unwrap_or(0) >= e.bytes) {
            (over, false) => depends(over, "quota"),
            (true, true) => Expr::Nothing,
            (false, true) => never(),
        },
        E::Dynset(e) => {
            let inner = e.expr.iter().map(AsRef::as_ref).chain(&e.exprs);
            for expr in inner.filter(|e| !matches!(e, E::Dynset(_))) {
                stateful(dump, rule, expr, out);
            }
            return;
        }
        E::Objref(e) => match (&e.object, &e.set) {
            (Some(name), _) => match dump.object(rule, name) {
                Some(object) => return stateful(dump, rule, &object.data, out),
                None => Expr::Nothing,
            },
            (None, Some(set)) => match dump.set(rule, set).and_then(|(s, _)| s.object_type) {
                Some(kind) if limits(kind) => depends(false, "limit"),
                _ => Expr::Nothing,
            },
            (None, None) => Expr::Nothing,
        },
        _ => Expr::Nothing,
    };
    out.push(lowered);
}

fn limits(kind: u32) -> bool {
    matches!(
        ObjectKind::from(kind),
        ObjectKind::Limit | ObjectKind::Quota | ObjectKind::Connlimit
    )
}
