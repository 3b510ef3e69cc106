//! The temporary table that sets `meta nftrace` on packets of one flow and on nothing else, and what the kernel tells
//! of them then.
//!
//! The table belongs to the socket that made it (`NFT_TABLE_F_OWNER`, Linux 5.12): the kernel removes it with the
//! socket, however the process ends. Before that, it bears the process in its comment, and the next call sweeps it.

use std::time::Duration;

use wharf_core::trace::L4;
use wharf_nft::expr::{CmpOp, MetaKey, PayloadBase};
use wharf_nft::{
    Batch, Chain, ChainType, Expr, Family, Hook, NfSocket, NftError, Policy, Reg, Rule, Table,
    TableFlags, TraceEvent,
};

use super::flow::{ERRORS4, ERRORS6, Flow};
use crate::process::ProcessId;

/// What all such tables are called, before a number.
pub(super) const PREFIX: &str = "wharf-trace-";
/// Before raw (-300) and connection tracking (-200).
const EARLY: i32 = -1000;
/// The most messages taken in one go.
const MOST: usize = 1024;
/// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const PROTO4: u8 = 2;
const PROTO6: u8 = 10;

/// The rule in place, and the messages about packets it marked.
pub(super) struct Traced {
    /// Owns the table; the kernel removes it with this.
    owner: NfSocket,
    events: NfSocket,
    name: String,
    bridged: bool,
    gone: bool,
}

/// How the table is bound to this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bond {
    /// The kernel removes it with the socket.
    Owner,
    /// The comment tells whose it is.
    Comment,
}

impl Traced {
    /// Puts the rule in place in the calling thread's namespace.
    pub(super) fn start(flow: &Flow, number: u32, bridged: bool) -> Result<Self, NftError> {
        match Self::bound(flow, number, bridged, Bond::Owner) {
            Err(error) if matches!(error.errno(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
                Self::bound(flow, number, bridged, Bond::Comment)
            }
            other => other,
        }
    }

    pub(super) fn bound(
        flow: &Flow,
        number: u32,
        bridged: bool,
        bond: Bond,
    ) -> Result<Self, NftError> {
        let mut events = NfSocket::open()?;
        events.subscribe_trace()?;
        let mut owner = NfSocket::open()?;
        let name = format!("{PREFIX}{number:08x}");
        owner.commit(&batch(flow, &name, bridged, bond))?;
        Ok(Self {
            owner,
            events,
            name,
            bridged,
            gone: false,
        })
    }

    pub(super) fn raw(&self) -> i32 {
        std::os::fd::AsRawFd::as_raw_fd(&self.events.as_fd())
    }

    /// Whether a table is one of these.
    pub(super) fn is_own(table: &str) -> bool {
        table.starts_with(PREFIX)
    }

    /// What has been told; never waits.
    pub(super) fn take(&mut self, into: &mut Vec<TraceEvent>) {
        for _ in 0..MOST {
            match self.events.recv_trace(Duration::ZERO) {
                Ok(Some(event)) => into.push(event),
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Takes the rule away. What a failure leaves goes with the socket, or is swept later.
    pub(super) fn stop(&mut self) -> Result<(), NftError> {
        if std::mem::replace(&mut self.gone, true) {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.del_table(Family::Inet, &self.name);
        if self.bridged {
            batch.del_table(Family::Bridge, &self.name);
        }
        self.owner.commit(&batch)
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _ = self.stop();
    }
}

/// Removes tables that were left by processes which are gone, in the calling thread's namespace.
pub(super) fn sweep(names: &[(Family, String)]) -> Result<usize, NftError> {
    if names.is_empty() {
        return Ok(0);
    }
    let mut socket = NfSocket::open()?;
    let mut batch = Batch::new();
    for table in socket.dump_tables()? {
        let listed = names.contains(&(table.family, table.name.clone()));
        let left =
            !table.flags.has(TableFlags::OWNER) && table.comment().is_some_and(|c| is_left(&c));
        if listed && left {
            batch.del_table(table.family, &table.name);
        }
    }
    socket.commit(&batch)?;
    Ok(batch.len())
}

/// What the comment says of whom the table belongs to.
fn comment() -> String {
    let pid = std::process::id();
    let since = ProcessId::of(pid).map_or(0, |own| own.start_time);
    format!("wharf trace, process {pid} started {since}; goes away by itself")
}

/// Whether the process that a comment names is gone.
fn is_left(comment: &str) -> bool {
    let rest = comment.strip_prefix("wharf trace, process ");
    let told = rest.and_then(|rest| {
        let (pid, rest) = rest.split_once(" started ")?;
        let since = rest.split(';').next()?;
        Some(ProcessId {
            pid: pid.parse().ok()?,
            start_time: since.parse().ok()?,
        })
    });
    told.is_some_and(|process| !process.is_alive())
}

fn batch(flow: &Flow, name: &str, bridged: bool, bond: Bond) -> Batch {
    let mut batch = Batch::new();
    let mut families = vec![Family::Inet];
    if bridged {
        families.push(Family::Bridge);
    }
    for family in families {
        let mut table = Table::new(family, name).with_comment(&comment());
        if bond == Bond::Owner {
            table.flags = TableFlags::OWNER;
        }
        batch.create_table(&table);
        for (chain, hook) in [("first", Hook::Prerouting), ("own", Hook::Output)] {
            let base = Chain::new(family, name, chain).with_base(
                ChainType::Filter,
                hook,
                EARLY,
                Policy::Accept,
            );
            batch.add_chain(&base);
            for exprs in rules(flow, family) {
                batch.add_rule(&Rule::new(family, name, chain, exprs));
            }
        }
    }
    batch
}

/// The rules, each for one sort of packet: question, answer, ICMP error.
fn rules(flow: &Flow, family: Family) -> Vec<Vec<Expr>> {
    let mut sorts = match flow.l4 {
        L4::Tcp => vec![
            vec![at(4, flow.first.to_be_bytes())],
            vec![at(8, flow.first.wrapping_add(1).to_be_bytes())],
        ],
        L4::Udp => vec![vec![at(8, flow.mark)], vec![at(2, flow.own.to_be_bytes())]],
        L4::Icmp => vec![vec![at(8, flow.mark)]],
    };
    for sort in &mut sorts {
        sort.insert(0, protocol(flow.protocol()));
    }
    let (errors, icmp, ip): (&[u8], u8, u32) = if flow.v6() {
        (&ERRORS6, 58, 40)
    } else {
        (&ERRORS4, 1, 20)
    };
    // What is quoted begins behind eight bytes, with an IP header.
    let quoted = match flow.l4 {
        L4::Tcp => at(8 + ip + 4, flow.first.to_be_bytes()),
        _ => at(8 + ip + 8, flow.mark),
    };
    for kind in errors {
        sorts.push(vec![protocol(icmp), at(0, [*kind]), quoted.clone()]);
    }
    sorts
        .into_iter()
        .map(|tests| {
            let mut exprs = version(flow, family).to_vec();
            exprs.extend(tests.into_iter().flatten());
            exprs.push(Expr::load(Reg::R1, [1]));
            exprs.push(Expr::meta_set(MetaKey::NfTrace, Reg::R1));
            exprs
        })
        .collect()
}

fn version(flow: &Flow, family: Family) -> [Expr; 2] {
    let (key, value) = match (family, flow.v6()) {
        (Family::Bridge, false) => (MetaKey::Protocol, 0x800_u16.to_be_bytes().to_vec()),
        (Family::Bridge, true) => (MetaKey::Protocol, 0x86dd_u16.to_be_bytes().to_vec()),
        (_, false) => (MetaKey::NfProto, vec![PROTO4]),
        (_, true) => (MetaKey::NfProto, vec![PROTO6]),
    };
    [
        Expr::meta(key, Reg::R1),
        Expr::cmp(Reg::R1, CmpOp::Eq, value),
    ]
}

fn protocol(number: u8) -> [Expr; 2] {
    [
        Expr::meta(MetaKey::L4Proto, Reg::R1),
        Expr::cmp(Reg::R1, CmpOp::Eq, [number]),
    ]
}

/// Bytes of the transport header, or what follows it.
fn at<const N: usize>(offset: u32, bytes: [u8; N]) -> [Expr; 2] {
    let len = u32::try_from(N).expect("a dozen bytes");
    [
        Expr::payload(PayloadBase::Transport, offset, len, Reg::R1),
        Expr::cmp(Reg::R1, CmpOp::Eq, bytes),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A namespace of the thread's own; false, with a word, where that cannot be had.
    fn apart() -> bool {
        // SAFETY: a plain system call that concerns this thread only.
        let done = unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0;
        assert!(
            done || std::env::var_os("CI").is_none(),
            "a network namespace is needed"
        );
        if !done {
            println!("SKIPPED: no network namespace of one's own");
        }
        done
    }

    fn tables() -> Vec<(Family, String)> {
        let read = NfSocket::open().unwrap().ruleset().unwrap();
        read.tables
            .into_iter()
            .map(|t| (t.family, t.name))
            .collect()
    }

    fn flows() -> Vec<Flow> {
        let mut all = Vec::new();
        for to in ["10.0.0.2", "fd00::2"] {
            for l4 in [L4::Icmp, L4::Tcp, L4::Udp] {
                all.push(Flow::new(
                    l4,
                    to.parse().unwrap(),
                    80,
                    0x1234_5678_9abc_def1,
                ));
            }
        }
        all
    }

    #[test]
    fn it_goes_with_its_socket() {
        if !apart() {
            return;
        }
        for flow in flows() {
            let mut traced = Traced::bound(&flow, 7, true, Bond::Owner).unwrap();
            let name = "wharf-trace-00000007".to_owned();
            let both = [Family::Inet, Family::Bridge].map(|f| (f, name.clone()));
            assert_eq!(tables().len(), 2);
            assert!(both.iter().all(|t| tables().contains(t)));
            // Nobody sweeps what is in use, and nobody else may touch it.
            assert_eq!(sweep(&both).unwrap(), 0);
            // As at the end of a process that has no time to say so.
            traced.gone = true;
            drop(traced);
            assert!(tables().is_empty());
        }
    }

    #[test]
    fn what_a_dead_process_left_is_swept() {
        if !apart() {
            return;
        }
        let flow = &flows()[1];
        let mut traced = Traced::bound(flow, 8, false, Bond::Comment).unwrap();
        let own = [(Family::Inet, "wharf-trace-00000008".to_owned())];
        assert_eq!(sweep(&own).unwrap(), 0, "this process lives");
        traced.gone = true;
        drop(traced);
        assert_eq!(tables(), own, "nobody owns it");
        let mut batch = Batch::new();
        for (name, comment) in [
            (
                "wharf-trace-00000009",
                "wharf trace, process 4194999 started 1; goes away by itself",
            ),
            ("wharf-trace-0000000a", "something else"),
        ] {
            batch.create_table(&Table::new(Family::Inet, name).with_comment(comment));
        }
        NfSocket::open().unwrap().commit(&batch).unwrap();
        let all = tables();
        assert_eq!(sweep(&all).unwrap(), 1);
        assert!(!tables().contains(&(Family::Inet, "wharf-trace-00000009".to_owned())));
        assert_eq!(tables().len(), 2);
        let mut traced = Traced::bound(flow, 11, false, Bond::Comment).unwrap();
        traced.stop().unwrap();
        assert_eq!(tables().len(), 2, "an end in order leaves nothing");
    }
}
