//! Limits of speed as traffic control messages (`linux/pkt_sched.h`, `linux/pkt_cls.h`, `linux/tc_act/tc_mirred.h`).

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};
use wharf_core::extras::Limit;

use super::socket::Request;

/// `TC_LINKLAYER_ETHERNET`: the kernel reckons with bytes, and needs no table.
const ETHERNET: u8 = 1;
/// How long a packet may wait, in milliseconds.
const LATENCY: u64 = 25;

fn message(index: u32, kind: &str) -> TcMessage {
    let mut message = TcMessage::with_index(index as i32);
    message.attributes.push(TcAttribute::Kind(kind.to_owned()));
    message
}

fn option(kind: u16, value: Vec<u8>) -> TcOption {
    TcOption::Other(DefaultNla::new(kind, value))
}

/// An attribute inside another, padded.
fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = value.len() as u16 + 4;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// `RTM_NEWQDISC`: a token bucket in the place of whatever sends out by the link.
pub(super) fn bucket(index: u32, limit: Limit) -> Request {
    // `TCA_TBF_PARMS`, `TCA_TBF_RATE64`, `TCA_TBF_BURST`.
    const PARMS: u16 = 1;
    const RATE64: u16 = 4;
    const BURST: u16 = 6;
    let waiting = limit.rate.saturating_mul(LATENCY) / 1000;
    let room = u32::try_from(waiting.saturating_add(limit.burst.into())).unwrap_or(u32::MAX);
    // struct tc_ratespec rate, peakrate; then limit, buffer, mtu.
    let mut parms = vec![0, ETHERNET, 0, 0, 0, 0, 0, 0];
    parms.extend(u32::try_from(limit.rate).unwrap_or(u32::MAX).to_ne_bytes());
    parms.extend([0; 12]);
    parms.extend(room.to_ne_bytes());
    parms.extend([0; 8]);
    let mut message = message(index, "tbf");
    message.header.handle = TcHandle { major: 1, minor: 0 };
    message.header.parent = TcHandle::ROOT;
    message.attributes.push(TcAttribute::Options(vec![
        option(PARMS, parms),
        option(RATE64, limit.rate.to_ne_bytes().to_vec()),
        option(BURST, limit.burst.to_ne_bytes().to_vec()),
    ]));
    Request {
        message: Message::NewQueueDiscipline(message),
        flags: NLM_F_CREATE | NLM_F_REPLACE,
    }
}

/// `RTM_NEWQDISC`: a place for filters of what comes in.
pub(super) fn ingress(index: u32) -> Request {
    let mut message = message(index, "ingress");
    message.header.handle = TcHandle {
        major: 0xffff,
        minor: 0,
    };
    message.header.parent = TcHandle::INGRESS;
    Request {
        message: Message::NewQueueDiscipline(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    }
}

/// `RTM_NEWTFILTER`: everything that comes in is sent out by another link, from where it comes back.
pub(super) fn redirect(index: u32, by: u32) -> Request {
    // `TCA_U32_SEL`, `TCA_U32_ACT`.
    const SEL: u16 = 5;
    const ACT: u16 = 7;
    // `TCA_ACT_KIND`, `TCA_ACT_OPTIONS`, `TCA_MIRRED_PARMS`.
    const KIND: u16 = 1;
    const OPTIONS: u16 = 2;
    const PARMS: u16 = 2;
    // `TC_ACT_STOLEN`, `TCA_EGRESS_REDIR`.
    const STOLEN: u32 = 4;
    const REDIRECT: u32 = 1;
    // The filter's priority, and `ETH_P_ALL` as it stands on the wire.
    const PRIORITY: u32 = 1;
    const ALL: u16 = 3;
    // struct tc_u32_sel: terminal, one key, which all packets have.
    let mut sel = vec![0; 32];
    (sel[0], sel[2]) = (1, 1);
    // struct tc_mirred: index, capabilities, action, two counters, what to do, the link.
    let mirred: Vec<u8> = [0, 0, STOLEN, 0, 0, REDIRECT, by]
        .into_iter()
        .flat_map(u32::to_ne_bytes)
        .collect();
    let mut action = nested(KIND, b"mirred\0");
    action.extend(nested(OPTIONS, &nested(PARMS, &mirred)));
    let mut message = message(index, "u32");
    message.header.parent = TcHandle {
        major: 0xffff,
        minor: 0,
    };
    message.header.info = PRIORITY << 16 | u32::from(ALL.to_be());
    message.attributes.push(TcAttribute::Options(vec![
        option(SEL, sel),
        option(ACT, nested(1, &action)),
    ]));
    Request {
        message: Message::NewTrafficFilter(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    }
}
