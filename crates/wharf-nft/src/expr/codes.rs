//! Codes inside expressions, named after the kernel's enumerations.

use super::field::{Field, codes};
use crate::wire::{Attrs, Malformed, Writer};

codes! {
    /// What `meta` reads or writes (`enum nft_meta_keys`).
    MetaKey {
        Len = 0, Protocol = 1, Priority = 2, Mark = 3, Iif = 4, Oif = 5, IifName = 6, OifName = 7, IifType = 8,
        OifType = 9, SkUid = 10, SkGid = 11, NfTrace = 12, RtClassId = 13, SecMark = 14, NfProto = 15, L4Proto = 16,
        BriIifName = 17, BriOifName = 18, PktType = 19, Cpu = 20, IifGroup = 21, OifGroup = 22, Cgroup = 23,
        PRandom = 24, SecPath = 25, IifKind = 26, OifKind = 27, BriIifPvid = 28, BriIifVproto = 29, TimeNs = 30,
        TimeDay = 31, TimeHour = 32, Sdif = 33, SdifName = 34, BriBroute = 35,
    }
    /// Where a payload offset counts from (`enum nft_payload_bases`).
    PayloadBase { LinkLayer = 0, Network = 1, Transport = 2, Inner = 3, Tunnel = 4 }
    /// Checksum to be corrected after a payload write (`enum nft_payload_csum_types`).
    CsumType { None = 0, Inet = 1, Sctp = 2 }
    /// Which kind of extension header (`enum nft_exthdr_op`).
    ExtHdrOp { Ipv6 = 0, TcpOpt = 1, Ipv4 = 2, Sctp = 3, Dccp = 4 }
    /// Comparison (`enum nft_cmp_ops`).
    CmpOp { Eq = 0, Neq = 1, Lt = 2, Lte = 3, Gt = 4, Gte = 5 }
    /// Range test (`enum nft_range_ops`).
    RangeOp { Eq = 0, Neq = 1 }
    /// Bit operation (`enum nft_bitwise_ops`).
    BitwiseOp { MaskXor = 0, LShift = 1, RShift = 2, And = 3, Or = 4, Xor = 5 }
    /// Byte order conversion (`enum nft_byteorder_ops`).
    ByteorderOp { Ntoh = 0, Hton = 1 }
    /// What `ct` reads or writes (`enum nft_ct_keys`).
    CtKey {
        State = 0, Direction = 1, Status = 2, Mark = 3, SecMark = 4, Expiration = 5, Helper = 6, L3Protocol = 7,
        Src = 8, Dst = 9, Protocol = 10, ProtoSrc = 11, ProtoDst = 12, Labels = 13, Packets = 14, Bytes = 15,
        AvgPkt = 16, Zone = 17, EventMask = 18, SrcIp = 19, DstIp = 20, SrcIp6 = 21, DstIp6 = 22, Id = 23,
    }
    /// What a FIB lookup returns (`enum nft_fib_result`).
    FibResult { Oif = 1, OifName = 2, AddrType = 3 }
    /// Direction of translation (`enum nft_nat_types`).
    NatType { Snat = 0, Dnat = 1 }
    /// How a packet is refused (`enum nft_reject_types`).
    RejectType { IcmpUnreach = 0, TcpRst = 1, IcmpxUnreach = 2 }
    /// Unit of a limit (`enum nft_limit_type`).
    LimitType { Packets = 0, Bytes = 1 }
    /// Change of a dynamic set (`enum nft_dynset_ops`).
    DynsetOp { Add = 0, Update = 1, Delete = 2 }
    /// What `rt` reads (`enum nft_rt_keys`).
    RtKey { ClassId = 0, NextHop4 = 1, NextHop6 = 2, TcpMss = 3, Xfrm = 4 }
    /// What `socket` reads (`enum nft_socket_keys`).
    SocketKey { Transparent = 0, Mark = 1, Wildcard = 2, CgroupV2 = 3 }
    /// Hash function (`enum nft_hash_types`).
    HashType { Jenkins = 0, Sym = 1 }
    /// Number generator (`enum nft_ng_types`).
    NumgenType { Incremental = 0, Random = 1 }
    /// What `tunnel` reads (`enum nft_tunnel_keys`).
    TunnelKey { Path = 0, Id = 1 }
    /// What `ipsec` reads (`enum nft_xfrm_keys`).
    XfrmKey { DaddrIp4 = 1, DaddrIp6 = 2, SaddrIp4 = 3, SaddrIp6 = 4, ReqId = 5, Spi = 6 }
}
