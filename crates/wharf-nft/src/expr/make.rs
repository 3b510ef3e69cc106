//! Short constructors for the expressions rules are mostly made of, and names for flag bits.

use super::*;
use crate::verdict::{Data, Verdict};

impl Lookup {
    /// `NFT_LOOKUP_F_INV`: holds if the key is not in the set.
    pub const INVERT: Bits = Bits(1);
}

impl Fib {
    /// `NFTA_FIB_F_SADDR`: look up the source address.
    pub const SADDR: Bits = Bits(1);
    /// `NFTA_FIB_F_DADDR`: look up the destination address.
    pub const DADDR: Bits = Bits(2);
    /// `NFTA_FIB_F_MARK`: with the packet mark.
    pub const MARK: Bits = Bits(4);
    /// `NFTA_FIB_F_IIF`: restricted to the incoming interface.
    pub const IIF: Bits = Bits(8);
    /// `NFTA_FIB_F_OIF`: restricted to the outgoing interface.
    pub const OIF: Bits = Bits(16);
    /// `NFTA_FIB_F_PRESENT`: only whether there is a route.
    pub const PRESENT: Bits = Bits(32);
}

impl Nat {
    /// `NF_NAT_RANGE_MAP_IPS` (`linux/netfilter/nf_nat.h`); the kernel sets it by itself.
    pub const MAP_IPS: Bits = Bits(1);
    /// `NF_NAT_RANGE_PROTO_SPECIFIED`; the kernel sets it by itself.
    pub const PROTO_SPECIFIED: Bits = Bits(2);
    /// `NF_NAT_RANGE_PROTO_RANDOM`: `random`.
    pub const RANDOM: Bits = Bits(4);
    /// `NF_NAT_RANGE_PERSISTENT`: `persistent`.
    pub const PERSISTENT: Bits = Bits(8);
    /// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`: `fully-random`.
    pub const FULLY_RANDOM: Bits = Bits(16);
    /// `NF_NAT_RANGE_NETMAP`: keep the host part.
    pub const NETMAP: Bits = Bits(64);
}

impl Reject {
    /// `NFT_REJECT_ICMPX_NO_ROUTE`, a code of `icmpx`.
    pub const ICMPX_NO_ROUTE: u8 = 0;
    /// `NFT_REJECT_ICMPX_PORT_UNREACH`, a code of `icmpx`.
    pub const ICMPX_PORT_UNREACH: u8 = 1;
    /// `NFT_REJECT_ICMPX_HOST_UNREACH`, a code of `icmpx`.
    pub const ICMPX_HOST_UNREACH: u8 = 2;
    /// `NFT_REJECT_ICMPX_ADMIN_PROHIBITED`, a code of `icmpx`.
    pub const ICMPX_ADMIN_PROHIBITED: u8 = 3;
}

impl Expr {
    /// `meta KEY` into `dreg`.
    #[must_use]
    pub fn meta(key: MetaKey, dreg: Reg) -> Self {
        Meta {
            key,
            dreg: Some(dreg),
            sreg: None,
        }
        .into()
    }

    /// `meta KEY set`, from `sreg`.
    #[must_use]
    pub fn meta_set(key: MetaKey, sreg: Reg) -> Self {
        Meta {
            key,
            dreg: None,
            sreg: Some(sreg),
        }
        .into()
    }

    /// `len` bytes of the packet at `offset` from `base` into `dreg`.
    #[must_use]
    pub fn payload(base: PayloadBase, offset: u32, len: u32, dreg: Reg) -> Self {
        let none = (None, None, Bits(0));
        let (csum_type, csum_offset, csum_flags) = none;
        Payload {
            dreg: Some(dreg),
            base,
            offset,
            len,
            sreg: None,
            csum_type,
            csum_offset,
            csum_flags,
        }
        .into()
    }

    /// `ct KEY` into `dreg`; `dir` 0 is original, 1 is reply.
    #[must_use]
    pub fn ct(key: CtKey, dir: Option<u8>, dreg: Reg) -> Self {
        Ct {
            key,
            dir,
            dreg: Some(dreg),
            sreg: None,
        }
        .into()
    }

    /// `ct KEY set`, from `sreg`.
    #[must_use]
    pub fn ct_set(key: CtKey, sreg: Reg) -> Self {
        Ct {
            key,
            dir: None,
            dreg: None,
            sreg: Some(sreg),
        }
        .into()
    }

    /// Ends the rule unless `sreg OP data`.
    #[must_use]
    pub fn cmp(sreg: Reg, op: CmpOp, data: impl Into<Vec<u8>>) -> Self {
        Cmp {
            sreg,
            op,
            data: data.into(),
        }
        .into()
    }

    /// `reg = (reg & mask) ^ xor`.
    #[must_use]
    pub fn mask_xor(reg: Reg, mask: impl Into<Vec<u8>>, xor: impl Into<Vec<u8>>) -> Self {
        let mask = mask.into();
        let len = u32::try_from(mask.len()).unwrap_or(u32::MAX);
        let (mask, xor) = (Some(mask), Some(xor.into()));
        Bitwise {
            sreg: reg,
            dreg: reg,
            len,
            mask,
            xor,
            op: None,
            data: None,
            sreg2: None,
        }
        .into()
    }

    /// `reg = reg & mask`.
    #[must_use]
    pub fn mask(reg: Reg, mask: impl Into<Vec<u8>>) -> Self {
        let mask = mask.into();
        let zero = vec![0; mask.len()];
        Self::mask_xor(reg, mask, zero)
    }

    /// Ends the rule unless the key at `sreg` is in `set`.
    #[must_use]
    pub fn lookup(set: impl Into<String>, sreg: Reg) -> Self {
        Lookup {
            set: set.into(),
            sreg,
            dreg: None,
            set_id: None,
            flags: Bits(0),
        }
        .into()
    }

    /// Ends the rule if the key at `sreg` is in `set`.
    #[must_use]
    pub fn lookup_not(set: impl Into<String>, sreg: Reg) -> Self {
        Lookup {
            set: set.into(),
            sreg,
            dreg: None,
            set_id: None,
            flags: Lookup::INVERT,
        }
        .into()
    }

    /// Takes what `map` has for the key at `sreg` into `dreg`; [`Reg::VERDICT`] for a verdict map.
    #[must_use]
    pub fn lookup_map(map: impl Into<String>, sreg: Reg, dreg: Reg) -> Self {
        Lookup {
            set: map.into(),
            sreg,
            dreg: Some(dreg),
            set_id: None,
            flags: Bits(0),
        }
        .into()
    }

    /// Loads bytes into `dreg`.
    #[must_use]
    pub fn load(dreg: Reg, bytes: impl Into<Vec<u8>>) -> Self {
        Immediate {
            dreg,
            data: Data::Value(bytes.into()),
        }
        .into()
    }

    /// Gives a verdict.
    #[must_use]
    pub fn verdict(verdict: Verdict) -> Self {
        Immediate {
            dreg: Reg::VERDICT,
            data: verdict.into(),
        }
        .into()
    }

    /// A counter that starts at zero.
    #[must_use]
    pub fn counter() -> Self {
        Counter {
            bytes: 0,
            packets: 0,
        }
        .into()
    }

    /// `masquerade`.
    #[must_use]
    pub fn masquerade(flags: Bits) -> Self {
        Masq {
            flags,
            proto_min: None,
            proto_max: None,
        }
        .into()
    }

    /// `fib FLAGS RESULT` into `dreg`.
    #[must_use]
    pub fn fib(result: FibResult, flags: Bits, dreg: Reg) -> Self {
        Fib {
            dreg,
            result,
            flags,
        }
        .into()
    }

    /// `dnat ip to` (or `ip6`) the address in `addr` and the port in `port`.
    #[must_use]
    pub fn dnat(family: crate::Family, addr: Reg, port: Option<Reg>) -> Self {
        Self::nat(NatType::Dnat, family, addr, port)
    }

    /// `snat ip to` (or `ip6`) the address in `addr` and the port in `port`.
    #[must_use]
    pub fn snat(family: crate::Family, addr: Reg, port: Option<Reg>) -> Self {
        Self::nat(NatType::Snat, family, addr, port)
    }

    fn nat(kind: NatType, family: crate::Family, addr: Reg, port: Option<Reg>) -> Self {
        let family = u32::from(family.number());
        let (addr_min, proto_min) = (Some(addr), port);
        Nat {
            kind,
            family,
            addr_min,
            addr_max: None,
            proto_min,
            proto_max: None,
            flags: Bits(0),
        }
        .into()
    }

    /// `reject with icmpx CODE`, for `inet` and `bridge` tables.
    #[must_use]
    pub fn reject_icmpx(code: u8) -> Self {
        Reject {
            kind: RejectType::IcmpxUnreach,
            code: Some(code),
        }
        .into()
    }

    /// `reject with tcp reset`.
    #[must_use]
    pub fn reject_tcp_reset() -> Self {
        Reject {
            kind: RejectType::TcpRst,
            code: None,
        }
        .into()
    }
}
