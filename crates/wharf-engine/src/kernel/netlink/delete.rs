//! Deleting links without waiting for the kernel to be done.
//!
//! `RTM_DELLINK` blocks for some 20 ms in `rcu_barrier`, long after the link is off all lists. A child process sends
//! the request and waits; this process goes on when the kernel announces that the link is gone.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use wharf_core::model::Netns;
use wharf_core::op::Op;

use super::child::{Ask, Job};
use super::run::{Run, place};
use super::socket::{Answer, Request, Rt, messages};
use super::{Failure, NetlinkKernel, message};

/// How long the kernel may take; it is busy for some ms, so this ends only a hang.
const PATIENCE_MS: i32 = 60_000;

impl NetlinkKernel {
    /// Sends a deletion; returns when all of `indexes` are gone.
    fn delete(&mut self, place: &Netns, request: Request, indexes: Vec<u32>) -> io::Result<Answer> {
        if self.wait {
            let answers = self.rt(place)?.exchange(vec![request])?;
            return Ok(answers.into_iter().next().unwrap_or_default());
        }
        let (mut ear, mouth) = self.inside(place, || Ok((Rt::hearing_links()?, Rt::open()?)))?;
        let (read, write) = pipe()?;
        let job = Job {
            ask: Some(Ask {
                socket: mouth.fd(),
                report: write.as_raw_fd(),
                request: Rt::encode(request, 1),
            }),
            // While the child has it, closing it here does not wait.
            hold: self.slow_to_close(),
        };
        self.children.start(job, self.nf.is_some())?;
        drop((mouth, write));
        let errno = announced(&mut ear, &read, indexes)?;
        Ok(Answer {
            errno,
            ..Answer::default()
        })
    }
}

/// Waits until all links are announced as gone (0), or the child reports an error number.
fn announced(ear: &mut Rt, report: &OwnedFd, mut indexes: Vec<u32>) -> io::Result<i32> {
    let mut deaf = false;
    loop {
        let poll = |fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        let mut both = [
            poll(report.as_raw_fd()),
            poll(if deaf { -1 } else { ear.fd() }),
        ];
        // SAFETY: pointer and length are those of `both`.
        let ready = unsafe { libc::poll(both.as_mut_ptr(), 2, PATIENCE_MS) };
        match ready {
            0 => return Ok(libc::ETIMEDOUT),
            n if n < 0 => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
                continue;
            }
            _ => {}
        }
        if both[1].revents != 0 {
            match ear.receive() {
                Ok(datagram) => {
                    for (family, index) in messages(datagram).filter_map(|m| m.gone()) {
                        // A bridge also announces a port that leaves it, in its own family.
                        indexes.retain(|i| i32::from(family) != libc::AF_UNSPEC || *i != index);
                    }
                }
                // Too much to hear: the child's word is left.
                Err(_) => deaf = true,
            }
            if indexes.is_empty() {
                return Ok(0);
            }
        } else if both[0].revents != 0 {
            let mut word = [0u8; 4];
            // SAFETY: pointer and length are those of `word`.
            let got = unsafe { libc::read(report.as_raw_fd(), word.as_mut_ptr().cast(), 4) };
            return Ok(match got {
                4 => i32::from_ne_bytes(word),
                _ => libc::EIO,
            });
        }
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: there is room for two descriptors.
    if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both were just made and belong to nobody else.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// A number for a group that nobody uses: from the clock and the process.
fn unique_group() -> u32 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.subsec_nanos());
    0x8000_0000 | (now ^ std::process::id().rotate_left(16))
}

impl Run<'_> {
    /// Deletes the links of all deletions that follow each other in one namespace, together.
    pub(super) fn delete_links(&mut self, at: usize) -> Result<usize, Failure> {
        let place = place(self.ops[at]).clone();
        let count = self.stretch(
            at,
            |op| matches!(op, Op::LinkDel { netns, .. } if *netns == place),
        );
        let end = at + count;
        let fail = |e: io::Error| Failure::io(at, &e);
        self.known.clear();
        // The socket must be there before the child is, see `delete`.
        if !self.kernel.wait && self.ops[end..].iter().any(|op| matches!(op, Op::Nft(_))) {
            self.kernel.nf().map_err(fail)?;
        }
        if !self.kernel.wait
            && self.ops[end..]
                .iter()
                .any(|op| matches!(op, Op::ConntrackFlush { .. } | Op::ConntrackForget(_)))
        {
            self.kernel
                .conntrack()
                .map_err(|e| fail(super::nft_apply::to_io(e)))?;
        }
        let rt = match self.kernel.rt(&place) {
            Ok(rt) => rt,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                self.applied[at..end].fill(true);
                return Ok(end);
            }
            Err(error) => return Err(fail(error)),
        };
        let mut there = Vec::new();
        for (i, op) in (at..end).zip(&self.ops[at..end]) {
            let Op::LinkDel { link, .. } = op else {
                continue;
            };
            match rt.index(link).map_err(|e| Failure::io(i, &e))? {
                Some(index) => there.push((i, index)),
                None => self.applied[i] = true,
            }
        }
        let request = match there.as_slice() {
            [] => return Ok(end),
            [(_, index)] => message::link_del(*index),
            _ => {
                let group = unique_group();
                self.regroup(&place, group, &mut there)?;
                message::group_del(group)
            }
        };
        if there.is_empty() {
            self.applied[at..end].fill(true);
            return Ok(end);
        }
        let indexes = there.iter().map(|(_, index)| *index).collect();
        let first = there.first().map_or(at, |(i, _)| *i);
        let answer = self.kernel.delete(&place, request, indexes);
        let answer = answer.map_err(|e| Failure::io(first, &e))?;
        if !matches!(answer.errno, 0 | libc::ENODEV) {
            return Err(Failure::new(first, answer.errno, answer.detail));
        }
        self.applied[at..end].fill(true);
        Ok(end)
    }

    fn regroup(
        &mut self,
        place: &Netns,
        group: u32,
        there: &mut Vec<(usize, u32)>,
    ) -> Result<(), Failure> {
        let first = there.first().map_or(0, |(i, _)| *i);
        let requests = there.iter().map(|(_, i)| message::group_set(*i, group));
        let answers = self
            .kernel
            .rt(place)
            .and_then(|rt| rt.exchange(requests.collect()))
            .map_err(|e| Failure::io(first, &e))?;
        let mut gone = Vec::new();
        for ((at, index), answer) in there.iter().zip(answers) {
            match answer.errno {
                0 => {}
                libc::ENODEV => gone.push(*index),
                errno => return Err(Failure::new(*at, errno, answer.detail)),
            }
        }
        there.retain(|(_, index)| !gone.contains(index));
        Ok(())
    }
}
