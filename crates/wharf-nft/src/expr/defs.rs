//! The expressions, one table line per attribute: field, type, number, name in the kernel's header.

use std::num::NonZeroU64;

use super::codes::*;
use super::field::{Bits, Field, Raw};
use super::reg::Reg;
use crate::verdict::Data;
use crate::wire::{Attrs, Malformed, Writer};

macro_rules! exprs {
    ($( $(#[$m:meta])* $Var:ident $name:literal { $( $f:ident : $t:ty = $id:literal $attr:literal ),* $(,)? } )*) => {
        $(
            $(#[$m])*
            #[derive(Debug, Clone, PartialEq, Eq, Hash)]
            pub struct $Var { $( #[doc = concat!("`", $attr, "`.")] pub $f: $t, )* }

            impl $Var {
                fn encode(&self, w: &mut Writer) {
                    let _ = &w; // unused where there are no attributes
                    $( self.$f.put($id, w); )*
                }
                fn decode(attrs: &Attrs<'_>) -> Result<Self, Malformed> {
                    attrs.only(&[$($id),*])?;
                    Ok(Self { $( $f: Field::get(attrs, $id)?, )* })
                }
                #[cfg(test)]
                fn any(random: &mut crate::fuzz::Random) -> Self {
                    let _ = &random;
                    Self { $( $f: Field::any(random), )* }
                }
            }

            impl From<$Var> for Expr {
                fn from(expr: $Var) -> Self {
                    Self::$Var(expr)
                }
            }
        )*

        /// One instruction of a rule.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum Expr {
            $( #[doc = concat!("`", $name, "`.")] $Var($Var), )*
            /// An expression this crate does not know, or with attributes it does not know.
            Unknown {
                /// `NFTA_EXPR_NAME`.
                name: String,
                /// The bytes of `NFTA_EXPR_DATA`.
                raw: Option<Vec<u8>>,
            },
        }

        impl Expr {
            /// `NFTA_EXPR_NAME`.
            #[must_use]
            pub fn name(&self) -> &str {
                match self { $( Self::$Var(_) => $name, )* Self::Unknown { name, .. } => name }
            }

            pub(crate) fn encode_data(&self, w: &mut Writer) {
                match self {
                    $( Self::$Var(expr) => expr.encode(w), )*
                    Self::Unknown { raw, .. } => w.buf.extend_from_slice(raw.as_deref().unwrap_or_default()),
                }
            }

            /// Any expression, for tests.
            #[cfg(test)]
            pub(crate) fn any(random: &mut crate::fuzz::Random) -> Self {
                let all: &[fn(&mut crate::fuzz::Random) -> Self] = &[$( |r| Self::$Var($Var::any(r)) ),*];
                random.pick(all)(random)
            }

            /// `None` if the name is not known.
            pub(crate) fn decode_data(name: &str, data: &Attrs<'_>) -> Result<Option<Self>, Malformed> {
                Ok(Some(match name {
                    $( $name => Self::$Var($Var::decode(data)?), )*
                    _ => return Ok(None),
                }))
            }
        }
    };
}

exprs! {
    /// Reads packet metadata into `dreg`, or sets it from `sreg` (`enum nft_meta_attributes`).
    Meta "meta" {
        dreg: Option<Reg> = 1 "NFTA_META_DREG", key: MetaKey = 2 "NFTA_META_KEY", sreg: Option<Reg> = 3 "NFTA_META_SREG",
    }
    /// Reads bytes of the packet into `dreg`, or writes them from `sreg` (`enum nft_payload_attributes`).
    Payload "payload" {
        dreg: Option<Reg> = 1 "NFTA_PAYLOAD_DREG", base: PayloadBase = 2 "NFTA_PAYLOAD_BASE",
        offset: u32 = 3 "NFTA_PAYLOAD_OFFSET", len: u32 = 4 "NFTA_PAYLOAD_LEN",
        sreg: Option<Reg> = 5 "NFTA_PAYLOAD_SREG", csum_type: Option<CsumType> = 6 "NFTA_PAYLOAD_CSUM_TYPE",
        csum_offset: Option<u32> = 7 "NFTA_PAYLOAD_CSUM_OFFSET", csum_flags: Bits = 8 "NFTA_PAYLOAD_CSUM_FLAGS",
    }
    /// Reads, tests or writes an extension header or TCP option (`enum nft_exthdr_attributes`).
    ExtHdr "exthdr" {
        dreg: Option<Reg> = 1 "NFTA_EXTHDR_DREG", kind: u8 = 2 "NFTA_EXTHDR_TYPE",
        offset: Option<u32> = 3 "NFTA_EXTHDR_OFFSET", len: Option<u32> = 4 "NFTA_EXTHDR_LEN",
        flags: Bits = 5 "NFTA_EXTHDR_FLAGS", op: Option<ExtHdrOp> = 6 "NFTA_EXTHDR_OP",
        sreg: Option<Reg> = 7 "NFTA_EXTHDR_SREG",
    }
    /// Compares a register with a value; the rule ends if it does not hold (`enum nft_cmp_attributes`).
    Cmp "cmp" { sreg: Reg = 1 "NFTA_CMP_SREG", op: CmpOp = 2 "NFTA_CMP_OP", data: Vec<u8> = 3 "NFTA_CMP_DATA" }
    /// Tests whether a register lies in a range (`enum nft_range_attributes`).
    Range "range" {
        sreg: Reg = 1 "NFTA_RANGE_SREG", op: RangeOp = 2 "NFTA_RANGE_OP", from: Vec<u8> = 3 "NFTA_RANGE_FROM_DATA",
        to: Vec<u8> = 4 "NFTA_RANGE_TO_DATA",
    }
    /// Bit operations: `dreg = (sreg & mask) ^ xor`, shifts, or and/or/xor of registers (`enum nft_bitwise_attributes`).
    Bitwise "bitwise" {
        sreg: Reg = 1 "NFTA_BITWISE_SREG", dreg: Reg = 2 "NFTA_BITWISE_DREG", len: u32 = 3 "NFTA_BITWISE_LEN",
        mask: Option<Vec<u8>> = 4 "NFTA_BITWISE_MASK", xor: Option<Vec<u8>> = 5 "NFTA_BITWISE_XOR",
        op: Option<BitwiseOp> = 6 "NFTA_BITWISE_OP", data: Option<Vec<u8>> = 7 "NFTA_BITWISE_DATA",
        sreg2: Option<Reg> = 8 "NFTA_BITWISE_SREG2",
    }
    /// Changes byte order (`enum nft_byteorder_attributes`).
    Byteorder "byteorder" {
        sreg: Reg = 1 "NFTA_BYTEORDER_SREG", dreg: Reg = 2 "NFTA_BYTEORDER_DREG", op: ByteorderOp = 3 "NFTA_BYTEORDER_OP",
        len: u32 = 4 "NFTA_BYTEORDER_LEN", size: u32 = 5 "NFTA_BYTEORDER_SIZE",
    }
    /// Looks a register up in a set or map; `dreg` takes the map's data (`enum nft_lookup_attributes`).
    Lookup "lookup" {
        set: String = 1 "NFTA_LOOKUP_SET", sreg: Reg = 2 "NFTA_LOOKUP_SREG", dreg: Option<Reg> = 3 "NFTA_LOOKUP_DREG",
        set_id: Option<u32> = 4 "NFTA_LOOKUP_SET_ID", flags: Bits = 5 "NFTA_LOOKUP_FLAGS",
    }
    /// Loads a value or gives a verdict (`enum nft_immediate_attributes`).
    Immediate "immediate" { dreg: Reg = 1 "NFTA_IMMEDIATE_DREG", data: Data = 2 "NFTA_IMMEDIATE_DATA" }
    /// Reads connection tracking data into `dreg`, or sets it from `sreg` (`enum nft_ct_attributes`).
    Ct "ct" {
        dreg: Option<Reg> = 1 "NFTA_CT_DREG", key: CtKey = 2 "NFTA_CT_KEY", dir: Option<u8> = 3 "NFTA_CT_DIRECTION",
        sreg: Option<Reg> = 4 "NFTA_CT_SREG",
    }
    /// Asks the routing table (`enum nft_fib_attributes`).
    Fib "fib" { dreg: Reg = 1 "NFTA_FIB_DREG", result: FibResult = 2 "NFTA_FIB_RESULT", flags: Bits = 3 "NFTA_FIB_FLAGS" }
    /// Source or destination translation (`enum nft_nat_attributes`).
    Nat "nat" {
        kind: NatType = 1 "NFTA_NAT_TYPE", family: u32 = 2 "NFTA_NAT_FAMILY",
        addr_min: Option<Reg> = 3 "NFTA_NAT_REG_ADDR_MIN", addr_max: Option<Reg> = 4 "NFTA_NAT_REG_ADDR_MAX",
        proto_min: Option<Reg> = 5 "NFTA_NAT_REG_PROTO_MIN", proto_max: Option<Reg> = 6 "NFTA_NAT_REG_PROTO_MAX",
        flags: Bits = 7 "NFTA_NAT_FLAGS",
    }
    /// Source translation to the outgoing interface's address (`enum nft_masq_attributes`).
    Masq "masq" {
        flags: Bits = 1 "NFTA_MASQ_FLAGS", proto_min: Option<Reg> = 2 "NFTA_MASQ_REG_PROTO_MIN",
        proto_max: Option<Reg> = 3 "NFTA_MASQ_REG_PROTO_MAX",
    }
    /// Destination translation to this host (`enum nft_redir_attributes`).
    Redir "redir" {
        proto_min: Option<Reg> = 1 "NFTA_REDIR_REG_PROTO_MIN", proto_max: Option<Reg> = 2 "NFTA_REDIR_REG_PROTO_MAX",
        flags: Bits = 3 "NFTA_REDIR_FLAGS",
    }
    /// Drops with an answer (`enum nft_reject_attributes`).
    Reject "reject" { kind: RejectType = 1 "NFTA_REJECT_TYPE", code: Option<u8> = 2 "NFTA_REJECT_ICMP_CODE" }
    /// Token bucket (`enum nft_limit_attributes`).
    Limit "limit" {
        rate: u64 = 1 "NFTA_LIMIT_RATE", unit: u64 = 2 "NFTA_LIMIT_UNIT", burst: u32 = 3 "NFTA_LIMIT_BURST",
        kind: LimitType = 4 "NFTA_LIMIT_TYPE", flags: Bits = 5 "NFTA_LIMIT_FLAGS",
    }
    /// Byte quota (`enum nft_quota_attributes`).
    Quota "quota" {
        bytes: u64 = 1 "NFTA_QUOTA_BYTES", flags: Bits = 2 "NFTA_QUOTA_FLAGS", consumed: Option<u64> = 4 "NFTA_QUOTA_CONSUMED",
    }
    /// Counts packets and bytes (`enum nft_counter_attributes`).
    Counter "counter" { bytes: u64 = 1 "NFTA_COUNTER_BYTES", packets: u64 = 2 "NFTA_COUNTER_PACKETS" }
    /// Logs the packet (`enum nft_log_attributes`).
    Log "log" {
        group: Option<u16> = 1 "NFTA_LOG_GROUP", prefix: Option<String> = 2 "NFTA_LOG_PREFIX",
        snaplen: Option<u32> = 3 "NFTA_LOG_SNAPLEN", qthreshold: Option<u16> = 4 "NFTA_LOG_QTHRESHOLD",
        level: Option<u32> = 5 "NFTA_LOG_LEVEL", flags: Bits = 6 "NFTA_LOG_FLAGS",
    }
    /// Counts connections (`enum nft_connlimit_attributes`).
    Connlimit "connlimit" { count: u32 = 1 "NFTA_CONNLIMIT_COUNT", flags: Bits = 2 "NFTA_CONNLIMIT_FLAGS" }
    /// Changes a set from the packet path (`enum nft_dynset_attributes`).
    Dynset "dynset" {
        set: String = 1 "NFTA_DYNSET_SET_NAME", set_id: Option<u32> = 2 "NFTA_DYNSET_SET_ID",
        op: DynsetOp = 3 "NFTA_DYNSET_OP", sreg_key: Reg = 4 "NFTA_DYNSET_SREG_KEY",
        sreg_data: Option<Reg> = 5 "NFTA_DYNSET_SREG_DATA", timeout: Option<NonZeroU64> = 6 "NFTA_DYNSET_TIMEOUT",
        expr: Option<Box<Expr>> = 7 "NFTA_DYNSET_EXPR", flags: Bits = 9 "NFTA_DYNSET_FLAGS",
        exprs: Vec<Expr> = 10 "NFTA_DYNSET_EXPRESSIONS",
    }
    /// Uses a named object, by name or by map (`enum nft_objref_attributes`).
    Objref "objref" {
        kind: Option<u32> = 1 "NFTA_OBJREF_IMM_TYPE", object: Option<String> = 2 "NFTA_OBJREF_IMM_NAME",
        sreg: Option<Reg> = 3 "NFTA_OBJREF_SET_SREG", set: Option<String> = 4 "NFTA_OBJREF_SET_NAME",
        set_id: Option<u32> = 5 "NFTA_OBJREF_SET_ID",
    }
    /// Exempts the packet from connection tracking.
    Notrack "notrack" {}
    /// Hands the packet to user space (`enum nft_queue_attributes`).
    Queue "queue" {
        num: Option<u16> = 1 "NFTA_QUEUE_NUM", total: Option<u16> = 2 "NFTA_QUEUE_TOTAL",
        flags: Option<u16> = 3 "NFTA_QUEUE_FLAGS", sreg: Option<Reg> = 4 "NFTA_QUEUE_SREG_QNUM",
    }
    /// Transparent proxy (`enum nft_tproxy_attributes`).
    Tproxy "tproxy" {
        family: Option<u32> = 1 "NFTA_TPROXY_FAMILY", addr: Option<Reg> = 2 "NFTA_TPROXY_REG_ADDR",
        port: Option<Reg> = 3 "NFTA_TPROXY_REG_PORT",
    }
    /// Reads the socket the packet belongs to (`enum nft_socket_attributes`).
    Socket "socket" {
        key: SocketKey = 1 "NFTA_SOCKET_KEY", dreg: Reg = 2 "NFTA_SOCKET_DREG", level: Option<u32> = 3 "NFTA_SOCKET_LEVEL",
    }
    /// Reads the packet's route (`enum nft_rt_attributes`).
    Rt "rt" { dreg: Reg = 1 "NFTA_RT_DREG", key: RtKey = 2 "NFTA_RT_KEY" }
    /// Hashes a register or the packet's flow (`enum nft_hash_attributes`).
    Hash "hash" {
        sreg: Option<Reg> = 1 "NFTA_HASH_SREG", dreg: Reg = 2 "NFTA_HASH_DREG", len: Option<u32> = 3 "NFTA_HASH_LEN",
        modulus: u32 = 4 "NFTA_HASH_MODULUS", seed: Option<u32> = 5 "NFTA_HASH_SEED",
        offset: Option<u32> = 6 "NFTA_HASH_OFFSET", kind: Option<HashType> = 7 "NFTA_HASH_TYPE",
    }
    /// Generates a number (`enum nft_ng_attributes`).
    Numgen "numgen" {
        dreg: Reg = 1 "NFTA_NG_DREG", modulus: u32 = 2 "NFTA_NG_MODULUS", kind: NumgenType = 3 "NFTA_NG_TYPE",
        offset: Option<u32> = 4 "NFTA_NG_OFFSET",
    }
    /// Sends a copy (`enum nft_dup_attributes`).
    Dup "dup" { addr: Option<Reg> = 1 "NFTA_DUP_SREG_ADDR", dev: Option<Reg> = 2 "NFTA_DUP_SREG_DEV" }
    /// Sends the packet out of another device (`enum nft_fwd_attributes`).
    Fwd "fwd" {
        dev: Option<Reg> = 1 "NFTA_FWD_SREG_DEV", addr: Option<Reg> = 2 "NFTA_FWD_SREG_ADDR",
        nfproto: Option<u32> = 3 "NFTA_FWD_NFPROTO",
    }
    /// Remembers when it last ran (`enum nft_last_attributes`).
    Last "last" { set: Option<u32> = 1 "NFTA_LAST_SET", msecs: Option<u64> = 2 "NFTA_LAST_MSECS" }
    /// Guesses the sender's system (`enum nft_osf_attributes`).
    Osf "osf" { dreg: Reg = 1 "NFTA_OSF_DREG", ttl: Option<u8> = 2 "NFTA_OSF_TTL", flags: Bits = 3 "NFTA_OSF_FLAGS" }
    /// Reads tunnel metadata (`enum nft_tunnel_attributes`).
    Tunnel "tunnel" {
        key: TunnelKey = 1 "NFTA_TUNNEL_KEY", dreg: Reg = 2 "NFTA_TUNNEL_DREG", mode: Option<u32> = 3 "NFTA_TUNNEL_MODE",
    }
    /// Reads IPsec state (`enum nft_xfrm_attributes`).
    Xfrm "xfrm" {
        dreg: Reg = 1 "NFTA_XFRM_DREG", key: XfrmKey = 2 "NFTA_XFRM_KEY", dir: u8 = 3 "NFTA_XFRM_DIR",
        spnum: Option<u32> = 4 "NFTA_XFRM_SPNUM",
    }
    /// Answers TCP handshakes by itself (`enum nft_synproxy_attributes`).
    Synproxy "synproxy" {
        mss: Option<u16> = 1 "NFTA_SYNPROXY_MSS", wscale: Option<u8> = 2 "NFTA_SYNPROXY_WSCALE",
        flags: Bits = 3 "NFTA_SYNPROXY_FLAGS",
    }
    /// Hands the connection to a flow table (`enum nft_offload_attributes`).
    FlowOffload "flow_offload" { table: String = 1 "NFTA_FLOW_TABLE_NAME" }
    /// Runs an expression on an inner header (`enum nft_inner_attributes`).
    Inner "inner" {
        num: Option<u32> = 1 "NFTA_INNER_NUM", kind: Option<u32> = 2 "NFTA_INNER_TYPE", flags: Bits = 3 "NFTA_INNER_FLAGS",
        hdrsize: Option<u32> = 4 "NFTA_INNER_HDRSIZE", expr: Option<Box<Expr>> = 5 "NFTA_INNER_EXPR",
    }
    /// An xtables match (`enum nft_match_attributes`, `nf_tables_compat.h`).
    Match "match" { name: String = 1 "NFTA_MATCH_NAME", rev: u32 = 2 "NFTA_MATCH_REV", info: Raw = 3 "NFTA_MATCH_INFO" }
    /// An xtables target (`enum nft_target_attributes`, `nf_tables_compat.h`).
    Target "target" { name: String = 1 "NFTA_TARGET_NAME", rev: u32 = 2 "NFTA_TARGET_REV", info: Raw = 3 "NFTA_TARGET_INFO" }
}
