//! The socket as callers see it: transactions and the generation number. Reading is in `dump`, tracing in `trace`.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use crate::batch::Batch;
use crate::error::NftError;
use crate::msg::{self, NFTABLES};
use crate::transport::{ACK, Answer, FIRST_TYPE, NLMSG_ERROR, REQUEST, Request, Transport};
use crate::wire::{HEADER, Malformed, Message, Writer};

/// `NFNL_MSG_BATCH_BEGIN` (`linux/netfilter/nfnetlink.h`).
const BATCH_BEGIN: u16 = FIRST_TYPE;
/// `NFNL_MSG_BATCH_END`.
const BATCH_END: u16 = FIRST_TYPE + 1;
/// `NFNL_BATCH_GENID`.
const BATCH_GENID: u16 = 1;
/// `NFNL_SUBSYS_NFTABLES`, as resource id of a batch.
const SUBSYS: u16 = NFTABLES >> 8;
/// `NFTA_GEN_ID`.
const GEN_ID: u16 = 1;
/// Answers are in the queue before `send` returns; this only bounds a hang.
const ANSWER: Duration = Duration::from_secs(10);

/// A netfilter netlink socket. It acts on the network namespace in which it was opened.
#[derive(Debug)]
pub struct NfSocket {
    pub(crate) transport: Transport,
}

impl NfSocket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// If the system refuses the socket.
    pub fn open() -> Result<Self, NftError> {
        Ok(Self {
            transport: Transport::open()?,
        })
    }

    /// For polling.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.transport.as_fd()
    }

    /// Applies the whole batch, or nothing of it.
    ///
    /// # Errors
    /// [`NftError::Refused`] with the message at fault, [`NftError::StaleGeneration`], or a socket error.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), NftError> {
        if let Some((index, reason)) = batch.broken {
            let label = label(batch, index);
            return Err(NftError::Unencodable {
                index,
                label,
                reason,
            });
        }
        if batch.is_empty() && batch.generation.is_none() {
            return Ok(());
        }
        let count =
            u32::try_from(batch.len()).map_err(|_| Malformed("too many messages in one batch"))?;
        let first = self.transport.seq;
        self.transport.seq = first.wrapping_add(count).wrapping_add(2);
        let bytes = serialise(batch, first, count);
        self.transport.send(&bytes)?;
        self.outcome(batch, first, count)
    }

    /// Reads the answers. Only the last message asks for one, so that any other answer is an error; errors come in
    /// the order of messages, except that one about the whole batch names its first header.
    fn outcome(&mut self, batch: &Batch, first: u32, count: u32) -> Result<(), NftError> {
        let mut failed: Option<NftError> = None;
        loop {
            // Once there is an error the rest is already queued or was dropped for want of room.
            let patience = if failed.is_some() {
                Duration::ZERO
            } else {
                ANSWER
            };
            let Some(mut bytes) = self.transport.recv(patience)? else {
                return Err(failed.unwrap_or(NftError::NoAnswer {
                    label: "commit".to_owned(),
                }));
            };
            while let Some((message, rest)) = Message::split(bytes)? {
                bytes = rest;
                let at = message.seq.wrapping_sub(first);
                if message.kind != NLMSG_ERROR || at > count {
                    continue;
                }
                let answer = Answer::read(&message)?;
                if answer.errno != 0 {
                    failed.get_or_insert(failure(batch, at, answer));
                } else if at == count && failed.is_none() {
                    return Ok(());
                }
            }
        }
    }

    /// The number of the current ruleset; it grows with every transaction of anybody in this namespace.
    ///
    /// # Errors
    /// If the kernel refuses or its answer cannot be read.
    pub fn generation(&mut self) -> Result<u32, NftError> {
        let attrs = Writer::default();
        let request = Request {
            kind: NFTABLES | msg::GETGEN,
            flags: ACK,
            family: 0,
            attrs,
            label: "get generation",
        };
        let mut generation = None;
        self.transport.request(&request, |message| {
            let (_, _, attrs) = message.netfilter()?;
            generation = attrs.u32(GEN_ID)?;
            Ok(())
        })?;
        generation.ok_or(Malformed("no generation number").into())
    }
}

impl AsFd for NfSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.transport.as_fd()
    }
}

fn label(batch: &Batch, index: usize) -> String {
    batch
        .entries
        .get(index)
        .map(|e| e.label.clone())
        .unwrap_or_default()
}

/// Puts begin and end around the messages and numbers them: `first` is the beginning, `first + 1` message 0.
fn serialise(batch: &Batch, first: u32, count: u32) -> Vec<u8> {
    let mut w = Writer {
        buf: Vec::with_capacity(batch.writer.buf.len() + 64),
        overflow: false,
    };
    // An empty batch is only a check of the generation; its beginning is then the message to be answered.
    let ack = if count == 0 { ACK } else { 0 };
    let at = w.start(BATCH_BEGIN, REQUEST | ack, first, 0, SUBSYS);
    if let Some(generation) = batch.generation {
        w.u32(BATCH_GENID, generation);
    }
    w.finish(at);
    let base = w.buf.len();
    w.buf.extend_from_slice(&batch.writer.buf);
    let mut seq = first;
    for (i, entry) in batch.entries.iter().enumerate() {
        seq = seq.wrapping_add(1);
        let header = &mut w.buf[base + entry.offset..][..HEADER];
        header[8..12].copy_from_slice(&seq.to_ne_bytes());
        if i + 1 == batch.entries.len() {
            let flags = u16::from_ne_bytes([header[6], header[7]]) | ACK;
            header[6..8].copy_from_slice(&flags.to_ne_bytes());
        }
    }
    let at = w.start(BATCH_END, REQUEST, seq.wrapping_add(1), 0, SUBSYS);
    w.finish(at);
    w.buf
}

/// Turns an answer about message `at` (0 is the beginning of the batch) into an error.
fn failure(batch: &Batch, at: u32, answer: Answer) -> NftError {
    let Answer { errno, ext_ack } = answer;
    if let (0, libc::ERESTART, Some(expected)) = (at, errno, batch.generation) {
        return NftError::StaleGeneration { expected };
    }
    let index = (at as usize).checked_sub(1);
    let label = index.map_or_else(|| "commit the transaction".to_owned(), |i| label(batch, i));
    NftError::Refused {
        index,
        label,
        errno,
        ext_ack,
    }
}
