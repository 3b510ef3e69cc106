//! Tracked connections (`linux/netfilter/nfnetlink_conntrack.h`): list, count, delete, flush by filter.
//! For Linux 5.8 or newer: before, the kernel did not look at `CTA_FILTER` at all.

mod codec;
mod filter;

use std::os::fd::BorrowedFd;

use crate::error::NftError;
use crate::transport::{ACK, DUMP, Request, Transport};
use crate::types::Family;
use crate::wire::Writer;

pub use codec::{Entry, Icmp, Tuple};
pub use filter::ConntrackFilter;

/// `NFNL_SUBSYS_CTNETLINK << 8`.
const CTNETLINK: u16 = 1 << 8;
/// `IPCTNL_MSG_CT_GET`.
const GET: u16 = 1;
/// `IPCTNL_MSG_CT_DELETE`.
const DELETE: u16 = 2;
/// `IPCTNL_MSG_CT_GET_STATS`.
const GET_STATS: u16 = 5;
/// `CTA_STATS_GLOBAL_ENTRIES`.
const STATS_ENTRIES: u16 = 1;

/// A socket for connection tracking, in the network namespace in which it was opened.
#[derive(Debug)]
pub struct Conntrack {
    transport: Transport,
}

/// How a flush was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// By the kernel in one call, which does not tell how many entries it found.
    InKernel,
    /// By listing and deleting this many entries: by IPv6 addresses, or on a kernel without filtered flush (before 6.12).
    OneByOne(usize),
}

impl Conntrack {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// If the system refuses the socket.
    pub fn open() -> Result<Self, NftError> {
        Ok(Self {
            transport: Transport::open()?,
        })
    }

    /// The socket, for a process that must hold it open.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.transport.as_fd()
    }

    /// All entries of both families.
    ///
    /// # Errors
    /// If the kernel refuses or its answer cannot be read.
    pub fn dump(&mut self) -> Result<Vec<Entry>, NftError> {
        self.list(0, Writer::default(), |_| true)
    }

    /// The entries that `filter` selects; the kernel sorts out the others where it can (5.8).
    ///
    /// # Errors
    /// If the kernel refuses or its answer cannot be read.
    pub fn dump_matching(&mut self, filter: &ConntrackFilter) -> Result<Vec<Entry>, NftError> {
        filter.check()?;
        let mut attrs = Writer::default();
        filter.sound_part().encode(&mut attrs);
        match self.list(filter.family.number(), attrs, |e| filter.matches(e)) {
            Err(error) if unsupported(&error) => {
                self.list(filter.family.number(), Writer::default(), |e| {
                    filter.matches(e)
                })
            }
            other => other,
        }
    }

    fn list(
        &mut self,
        family: u8,
        attrs: Writer,
        keep: impl Fn(&Entry) -> bool,
    ) -> Result<Vec<Entry>, NftError> {
        let request = Request {
            kind: CTNETLINK | GET,
            flags: DUMP,
            family,
            attrs,
            label: "list conntrack entries",
        };
        let mut entries = Vec::new();
        // Entries come and go all the time: a list is never of one piece, and is not repeated for that.
        let _interrupted = self.transport.request(&request, |message| {
            let (family, _, attrs) = message.netfilter()?;
            let entry = Entry::decode(Family::from_number(family), &attrs)?;
            if keep(&entry) {
                entries.push(entry);
            }
            Ok(())
        })?;
        Ok(entries)
    }

    /// The number of entries in this namespace.
    ///
    /// # Errors
    /// If the kernel refuses or its answer cannot be read.
    pub fn count(&mut self) -> Result<u32, NftError> {
        let attrs = Writer::default();
        let request = Request {
            kind: CTNETLINK | GET_STATS,
            flags: ACK,
            family: 0,
            attrs,
            label: "count conntrack entries",
        };
        let mut count = None;
        self.transport.request(&request, |message| {
            let (_, _, attrs) = message.netfilter()?;
            count = attrs.u32(STATS_ENTRIES)?;
            Ok(())
        })?;
        count.ok_or(crate::wire::Malformed("no entry count").into())
    }

    /// Deletes the entry with this original tuple, and this id if given. False if there is none (any more).
    ///
    /// # Errors
    /// If the kernel refuses for another reason.
    pub fn delete(&mut self, tuple: &Tuple, id: Option<u32>) -> Result<bool, NftError> {
        let mut attrs = Writer::default();
        codec::put_tuple(codec::TUPLE_ORIG, tuple, &mut attrs);
        if let Some(zone) = tuple.zone {
            attrs.u16(codec::ZONE, zone);
        }
        self.delete_one(tuple.family(), attrs, id)
    }

    /// Deletes an entry that was read, whatever its zones. False if it is gone.
    ///
    /// # Errors
    /// If the kernel refuses for another reason.
    pub fn delete_entry(&mut self, entry: &Entry) -> Result<bool, NftError> {
        let mut attrs = Writer::default();
        codec::put_zoned(codec::TUPLE_ORIG, &entry.orig, &mut attrs);
        if let Some(zone) = entry.zone {
            attrs.u16(codec::ZONE, zone);
        }
        self.delete_one(entry.family, attrs, entry.id)
    }

    fn delete_one(
        &mut self,
        family: Family,
        mut attrs: Writer,
        id: Option<u32>,
    ) -> Result<bool, NftError> {
        if let Some(id) = id {
            attrs.u32(codec::ID, id);
        }
        match self.send_delete(family.number(), attrs, "delete conntrack entry") {
            Ok(()) => Ok(true),
            Err(NftError::Refused {
                errno: libc::ENOENT,
                ..
            }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes all entries that `filter` selects. Entries in a flow table stay.
    ///
    /// # Errors
    /// If the kernel refuses or its answer cannot be read.
    pub fn flush(&mut self, filter: &ConntrackFilter) -> Result<Flushed, NftError> {
        filter.check()?;
        if !filter.is_sound() {
            return self.flush_one_by_one(filter).map(Flushed::OneByOne);
        }
        let mut attrs = Writer::default();
        filter.encode(&mut attrs);
        match self.send_delete(filter.family.number(), attrs, "flush conntrack entries") {
            Ok(()) => Ok(Flushed::InKernel),
            Err(error) if unsupported(&error) => {
                self.flush_one_by_one(filter).map(Flushed::OneByOne)
            }
            Err(error) => Err(error),
        }
    }

    /// As [`Conntrack::flush`], by listing and deleting; tells how many there were.
    ///
    /// # Errors
    /// If the kernel refuses or its answer cannot be read.
    pub fn flush_one_by_one(&mut self, filter: &ConntrackFilter) -> Result<usize, NftError> {
        let mut deleted = 0;
        for entry in self.dump_matching(filter)? {
            deleted += usize::from(self.delete_entry(&entry)?);
        }
        Ok(deleted)
    }

    fn send_delete(&mut self, family: u8, attrs: Writer, label: &str) -> Result<(), NftError> {
        let request = Request {
            kind: CTNETLINK | DELETE,
            flags: ACK,
            family,
            attrs,
            label,
        };
        self.transport.request(&request, |_| Ok(())).map(|_| ())
    }
}

/// What kernels without the filter answer: they take the partial tuple for a whole one. None of them takes it for
/// "everything", since a filter with conditions always has a tuple, a mark or a status.
fn unsupported(error: &NftError) -> bool {
    matches!(
        error.errno(),
        Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOENT | libc::EPROTONOSUPPORT)
    )
}
