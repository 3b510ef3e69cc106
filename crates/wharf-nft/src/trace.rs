//! Following single packets through the ruleset (`NFT_MSG_TRACE`, `enum nft_trace_attributes`). Packets are followed
//! once a rule has set `meta nftrace`.

use std::time::Duration;

use crate::chain::Policy;
use crate::error::NftError;
use crate::msg::{self, NFTABLES};
use crate::socket::NfSocket;
use crate::types::Family;
use crate::verdict::Verdict;
use crate::wire::{Attrs, Malformed, Message};

/// `NFNLGRP_NFTRACE` (`linux/netfilter/nfnetlink.h`).
const GROUP: i32 = 9;
/// Traces come in bursts; what does not fit is lost.
const RECV_SIZE: usize = 8 * 1024 * 1024;

const TABLE: u16 = 1;
const CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const TYPE: u16 = 4;
const VERDICT: u16 = 5;
const ID: u16 = 6;
const LL_HEADER: u16 = 7;
const NETWORK_HEADER: u16 = 8;
const TRANSPORT_HEADER: u16 = 9;
const IIF: u16 = 10;
const IIFTYPE: u16 = 11;
const OIF: u16 = 12;
const OIFTYPE: u16 = 13;
const MARK: u16 = 14;
const NFPROTO: u16 = 15;
const POLICY: u16 = 16;
const CT_ID: u16 = 18;
const CT_DIRECTION: u16 = 19;
const CT_STATUS: u16 = 20;
const CT_STATE: u16 = 21;

/// What a trace message reports (`enum nft_trace_types`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TraceKind {
    /// A base chain ended with its policy.
    Policy,
    /// A chain was left at its end or by `return`.
    Return,
    /// A rule matched; without [`TraceEvent::rule`], the end of the chain.
    Rule,
    /// A number this crate does not know.
    Other(u32),
}

/// The packet's connection, since Linux 6.16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CtTrace {
    /// `NFTA_TRACE_CT_ID`, the same as [`crate::conntrack::Entry::id`].
    pub id: Option<u32>,
    /// `NFTA_TRACE_CT_DIRECTION`: 0 original, 1 reply.
    pub direction: Option<u8>,
    /// `NFTA_TRACE_CT_STATUS`: `IPS_*` bits.
    pub status: Option<u32>,
    /// `NFTA_TRACE_CT_STATE`: `NF_CT_STATE_*` bit as in `ct state`.
    pub state: Option<u32>,
}

/// One step of one packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceEvent {
    /// `NFTA_TRACE_ID`: a hash of the packet and the interface it came in by. The same for all steps of a packet, until
    /// it passes to another interface, loopback included.
    pub id: u32,
    /// Family of the table.
    pub family: Family,
    /// `NFTA_TRACE_TYPE`.
    pub kind: TraceKind,
    /// `NFTA_TRACE_TABLE`.
    pub table: Option<String>,
    /// `NFTA_TRACE_CHAIN`.
    pub chain: Option<String>,
    /// `NFTA_TRACE_RULE_HANDLE`.
    pub rule: Option<u64>,
    /// `NFTA_TRACE_VERDICT`.
    pub verdict: Option<Verdict>,
    /// `NFTA_TRACE_POLICY`.
    pub policy: Option<Policy>,
    /// `NFTA_TRACE_MARK`.
    pub mark: Option<u32>,
    /// `NFTA_TRACE_NFPROTO`: family of the packet.
    pub nfproto: Option<u32>,
    /// `NFTA_TRACE_IIF`: index of the incoming interface.
    pub iif: Option<u32>,
    /// `NFTA_TRACE_IIFTYPE`: `ARPHRD_*`.
    pub iif_type: Option<u16>,
    /// `NFTA_TRACE_OIF`: index of the outgoing interface.
    pub oif: Option<u32>,
    /// `NFTA_TRACE_OIFTYPE`: `ARPHRD_*`.
    pub oif_type: Option<u16>,
    /// `NFTA_TRACE_LL_HEADER`; headers, interfaces and connection come only with the first step
    /// in a base chain.
    pub ll_header: Option<Vec<u8>>,
    /// `NFTA_TRACE_NETWORK_HEADER`.
    pub network_header: Option<Vec<u8>>,
    /// `NFTA_TRACE_TRANSPORT_HEADER`.
    pub transport_header: Option<Vec<u8>>,
    /// The packet's connection, if the kernel tells it.
    pub ct: Option<CtTrace>,
}

impl TraceEvent {
    pub(crate) fn decode(family: Family, attrs: &Attrs<'_>) -> Result<Self, Malformed> {
        let header = |id| attrs.get(id).map(<[u8]>::to_vec);
        Ok(Self {
            id: attrs.u32(ID)?.ok_or(Malformed("trace without id"))?,
            family,
            kind: match attrs.u32(TYPE)?.unwrap_or_default() {
                1 => TraceKind::Policy,
                2 => TraceKind::Return,
                3 => TraceKind::Rule,
                other => TraceKind::Other(other),
            },
            table: attrs.str(TABLE)?,
            chain: attrs.str(CHAIN)?,
            rule: attrs.u64(RULE_HANDLE)?,
            verdict: attrs
                .nested(VERDICT)?
                .map(|v| Verdict::decode(&v))
                .transpose()?,
            policy: attrs
                .u32(POLICY)?
                .map(|p| if p == 0 { Policy::Drop } else { Policy::Accept }),
            mark: attrs.u32(MARK)?,
            nfproto: attrs.u32(NFPROTO)?,
            iif: attrs.u32(IIF)?,
            iif_type: attrs.u16(IIFTYPE)?,
            oif: attrs.u32(OIF)?,
            oif_type: attrs.u16(OIFTYPE)?,
            ll_header: header(LL_HEADER),
            network_header: header(NETWORK_HEADER),
            transport_header: header(TRANSPORT_HEADER),
            ct: CtTrace::decode(attrs)?,
        })
    }
}

impl CtTrace {
    fn decode(attrs: &Attrs<'_>) -> Result<Option<Self>, Malformed> {
        let this = Self {
            id: attrs.u32(CT_ID)?,
            direction: attrs.u8(CT_DIRECTION)?,
            status: attrs.u32(CT_STATUS)?,
            state: attrs.u32(CT_STATE)?,
        };
        Ok((this != Self::default()).then_some(this))
    }
}

impl NfSocket {
    /// Begins to receive trace messages. Use a socket for nothing else afterwards: answers and traces would mix.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn subscribe_trace(&mut self) -> Result<(), NftError> {
        self.transport
            .enlarge(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, RECV_SIZE);
        self.transport.join(GROUP)
    }

    /// The next step of a followed packet; `None` if there is none within `timeout`, or if messages were lost because
    /// they were not taken fast enough.
    ///
    /// # Errors
    /// If the socket fails or the message cannot be read.
    pub fn recv_trace(&mut self, timeout: Duration) -> Result<Option<TraceEvent>, NftError> {
        let deadline = std::time::Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            let Some(bytes) = self.transport.recv(left)? else {
                return Ok(None);
            };
            let Some((message, _)) = Message::split(bytes)? else {
                continue;
            };
            if message.kind == NFTABLES | msg::TRACE {
                let (family, _, attrs) = message.netfilter()?;
                return Ok(Some(TraceEvent::decode(
                    Family::from_number(family),
                    &attrs,
                )?));
            }
        }
    }
}
