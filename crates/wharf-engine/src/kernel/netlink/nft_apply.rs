//! Transactions of nftables, and flows that connection tracking shall forget.

use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use wharf_core::model::Netns;
use wharf_core::nft::{CT_STATUS_SNAT, Change};
use wharf_core::op::Op;
use wharf_core::publish::Protocol;
use wharf_nft::conntrack::{Conntrack, ConntrackFilter, Entry};
use wharf_nft::{Family, NftError};

use super::NetlinkKernel;
use super::nft_encode::batch;
use crate::kernel::OpError;

/// Error number (0 if none) and text.
pub(super) type Refusal = (i32, Option<String>);

/// As an error of the system where there is a number.
pub(crate) fn to_io(error: NftError) -> io::Error {
    match error.errno() {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::other(error.to_string()),
    }
}

pub(super) fn refusal(error: NftError) -> Refusal {
    match error {
        NftError::Refused {
            errno,
            label,
            ext_ack,
            ..
        } => {
            let text = match ext_ack {
                Some(words) => format!("{label}: {words}"),
                None => label,
            };
            (errno, Some(text))
        }
        other => (other.errno().unwrap_or(0), Some(other.to_string())),
    }
}

impl NetlinkKernel {
    /// The socket to connection tracking.
    pub(super) fn conntrack(&mut self) -> Result<&mut Conntrack, NftError> {
        if self.conntrack.is_none() {
            self.conntrack = Some(Conntrack::open()?);
        }
        Ok(self.conntrack.as_mut().expect("just opened"))
    }

    /// One transaction on the ruleset of this generation; `false` if it is another one by now.
    pub(crate) fn nft_at(&mut self, generation: u32, changes: &[Change]) -> Result<bool, OpError> {
        let op = || Box::new(Op::Nft(changes.to_vec()));
        let fail = |(errno, detail): Refusal| OpError {
            op: op(),
            netns: Netns::Host,
            errno,
            detail,
        };
        self.nf_deleted = true;
        let nf = self
            .nf()
            .map_err(|e| fail((e.raw_os_error().unwrap_or(0), Some(e.to_string()))))?;
        let all: Vec<(usize, &Change)> = changes.iter().enumerate().collect();
        let (mut batch, _) = batch(&all);
        batch.expect_generation(generation);
        match nf.commit(&batch) {
            Ok(()) => Ok(true),
            Err(NftError::StaleGeneration { .. }) => Ok(false),
            Err(error) => Err(fail(refusal(error))),
        }
    }

    /// One transaction. Deletions of what is not there are taken out of it, and it is tried again.
    pub(super) fn nft(&mut self, changes: &[Change]) -> Result<(), Refusal> {
        self.nf_deleted |= changes.iter().any(|c| !matches!(c, Change::Add(_)));
        let nf = self
            .nf()
            .map_err(|e| (e.raw_os_error().unwrap_or(0), Some(e.to_string())))?;
        let mut left: Vec<(usize, &Change)> = changes.iter().enumerate().collect();
        loop {
            let (batch, origin) = batch(&left);
            let error = match nf.commit(&batch) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let missing = match &error {
                NftError::Refused {
                    index: Some(index),
                    errno: libc::ENOENT,
                    ..
                } => origin.get(*index).copied(),
                _ => None,
            };
            let skip = missing.filter(|at| matches!(changes.get(*at), Some(Change::Del(_))));
            let Some(at) = skip else {
                return Err(refusal(error));
            };
            left.retain(|(i, _)| *i != at);
        }
    }
}

/// Has connection tracking forget the flows that came to these ports of the host, and those over UDP that went out from
/// them with a source of the host's.
pub(super) fn forget(
    kernel: &mut NetlinkKernel,
    protocol: Protocol,
    host_ip: Option<IpAddr>,
    ports: RangeInclusive<u16>,
) -> Result<(), Refusal> {
    let Some(conntrack) = tracked(kernel)? else {
        return Ok(());
    };
    let families: &[Family] = match host_ip {
        Some(IpAddr::V4(_)) => &[Family::Ip],
        Some(IpAddr::V6(_)) => &[Family::Ip6],
        None => &[Family::Ip, Family::Ip6],
    };
    for family in families {
        let mut filter = ConntrackFilter::new(*family);
        filter.proto = Some(protocol.number());
        filter.orig_dst = host_ip;
        if ports.start() == ports.end() {
            filter.orig_dport = Some(*ports.start());
        }
        forget_ports(conntrack, &filter, |e| e.orig.dport, &ports)?;
        if protocol == Protocol::Udp {
            let mut filter = ConntrackFilter::new(*family);
            filter.proto = Some(protocol.number());
            filter.reply_dst = host_ip;
            filter.status = Some(CT_STATUS_SNAT);
            if ports.start() == ports.end() {
                filter.reply_dport = Some(*ports.start());
            }
            forget_ports(conntrack, &filter, |e| e.reply.dport, &ports)?;
        }
    }
    Ok(())
}

/// The flows that `filter` finds; those whose port is one of several, if there are several.
fn forget_ports(
    conntrack: &mut Conntrack,
    filter: &ConntrackFilter,
    port: impl Fn(&Entry) -> Option<u16>,
    ports: &RangeInclusive<u16>,
) -> Result<(), Refusal> {
    if ports.start() == ports.end() {
        return conntrack.flush(filter).map(|_| ()).map_err(refusal);
    }
    for entry in conntrack.dump_matching(filter).map_err(refusal)? {
        if port(&entry).is_some_and(|port| ports.contains(&port)) {
            conntrack.delete_entry(&entry).map_err(refusal)?;
        }
    }
    Ok(())
}

/// So many addresses are cheaper to look for in one list of all flows.
const MANY: usize = 16;

/// Forgets the flows that came from these addresses, and those that went to them.
pub(super) fn forget_addrs(kernel: &mut NetlinkKernel, addrs: &[IpAddr]) -> Result<(), Refusal> {
    let Some(conntrack) = tracked(kernel)? else {
        return Ok(());
    };
    if addrs.len() > MANY {
        let addrs: std::collections::HashSet<&IpAddr> = addrs.iter().collect();
        for family in [Family::Ip, Family::Ip6] {
            let all = ConntrackFilter::new(family);
            for entry in conntrack.dump_matching(&all).map_err(refusal)? {
                if addrs.contains(&entry.orig.src) || addrs.contains(&entry.reply.src) {
                    conntrack.delete_entry(&entry).map_err(refusal)?;
                }
            }
        }
        return Ok(());
    }
    for addr in addrs {
        let family = if addr.is_ipv4() {
            Family::Ip
        } else {
            Family::Ip6
        };
        let mut from = ConntrackFilter::new(family);
        from.orig_src = Some(*addr);
        let mut to = ConntrackFilter::new(family);
        to.reply_src = Some(*addr);
        for filter in [from, to] {
            conntrack.flush(&filter).map_err(refusal)?;
        }
    }
    Ok(())
}

/// Connection tracking, where it has anything: there may be nothing, or none in this kernel (yet).
fn tracked(kernel: &mut NetlinkKernel) -> Result<Option<&mut Conntrack>, Refusal> {
    let conntrack = kernel.conntrack().map_err(refusal)?;
    match conntrack.count() {
        Ok(0) | Err(NftError::Refused { .. }) => Ok(None),
        Ok(_) => Ok(Some(conntrack)),
        Err(error) => Err(refusal(error)),
    }
}
