//! The records that a child writes before the program takes its place, and how the parent reads them.
//!
//! The pipe is closed by a successful `execve`, so "end of file and no failure" means "the program runs".

use std::ffi::{OsStr, OsString};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::error::{Errno, Step, Warning};
use super::liveness::ProcessId;
use super::sys;

/// kind, step, errno, pid, start time, length of the path
const HEADER: usize = 1 + 1 + 4 + 4 + 8 + 4;
const FAILURE: u8 = b'f';
const WARNING: u8 = b'w';
const STARTED: u8 = b's';
const MONITOR: u8 = b'm';

/// What a child reported until its end of the pipe closed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    pub warnings: Vec<Warning>,
    pub failure: Option<Warning>,
    pub started: Option<ProcessId>,
    pub monitor: Option<ProcessId>,
}

fn encode(kind: u8, step: u8, errno: i32, id: ProcessId, path: &OsStr) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + path.len());
    out.extend([kind, step]);
    out.extend(errno.to_ne_bytes());
    out.extend(id.pid.to_ne_bytes());
    out.extend(id.start_time.to_ne_bytes());
    out.extend((path.len() as u32).to_ne_bytes());
    out.extend(path.as_bytes());
    out
}

const NOBODY: ProcessId = ProcessId {
    pid: 0,
    start_time: 0,
};

fn encode_event(kind: u8, event: &Warning) -> Vec<u8> {
    let path = event
        .path
        .as_deref()
        .map_or(OsStr::new(""), |p| p.as_os_str());
    encode(kind, event.step as u8, event.errno.0, NOBODY, path)
}

/// Says that the child gives up. Whoever should read it may be gone; there is nobody else to tell.
pub(super) fn send_failure(pipe: BorrowedFd<'_>, failure: &Warning) {
    let _ = sys::write_all(pipe, &encode_event(FAILURE, failure));
}

/// Says that something was left out.
pub(super) fn send_warning(pipe: BorrowedFd<'_>, warning: &Warning) {
    let _ = sys::write_all(pipe, &encode_event(WARNING, warning));
}

/// Says which process is the program.
pub(super) fn send_started(pipe: BorrowedFd<'_>, id: ProcessId) {
    let _ = sys::write_all(pipe, &encode(STARTED, 0, 0, id, OsStr::new("")));
}

/// Says which process watches the program.
pub(super) fn send_monitor(pipe: BorrowedFd<'_>, id: ProcessId) {
    let _ = sys::write_all(pipe, &encode(MONITOR, 0, 0, id, OsStr::new("")));
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// Reads one record, and returns what follows it. `None` when the rest is no whole record.
fn decode<'a>(bytes: &'a [u8], report: &mut Report) -> Option<&'a [u8]> {
    let length = u32::from_ne_bytes(number(bytes, 18)?) as usize;
    let path = bytes.get(HEADER..HEADER + length)?;
    if matches!(bytes[0], STARTED | MONITOR) {
        let id = ProcessId {
            pid: u32::from_ne_bytes(number(bytes, 6)?),
            start_time: u64::from_ne_bytes(number(bytes, 10)?),
        };
        match bytes[0] {
            STARTED => report.started = Some(id),
            _ => report.monitor = Some(id),
        }
    } else {
        let path = (!path.is_empty()).then(|| PathBuf::from(OsString::from_vec(path.to_vec())));
        let event = Warning {
            step: Step::from_number(bytes[1])?,
            path,
            errno: Errno(i32::from_ne_bytes(number(bytes, 2)?)),
        };
        match bytes[0] {
            FAILURE => report.failure = Some(event),
            _ => report.warnings.push(event),
        }
    }
    bytes.get(HEADER + length..)
}

impl Report {
    pub(super) fn parse(mut bytes: &[u8]) -> Self {
        let mut report = Self::default();
        while !bytes.is_empty() {
            match decode(bytes, &mut report) {
                Some(rest) => bytes = rest,
                // Cut short: the writer was killed in the middle of it.
                None => break,
            }
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(step: Step, path: Option<&str>, errno: i32) -> Warning {
        Warning {
            step,
            path: path.map(PathBuf::from),
            errno: Errno(errno),
        }
    }

    #[test]
    fn records_survive_the_pipe() {
        let skipped = event(Step::CoverFile, Some("/etc/resolv.conf"), libc::ENOENT);
        let failed = event(Step::Exec, None, libc::EACCES);
        let id = ProcessId {
            pid: 77,
            start_time: 1 << 40,
        };
        let mut bytes = encode_event(WARNING, &skipped);
        bytes.extend(encode_event(FAILURE, &failed));
        bytes.extend(encode(STARTED, 0, 0, id, OsStr::new("")));
        let report = Report::parse(&bytes);
        assert_eq!(report.warnings, [skipped]);
        assert_eq!(report.failure, Some(failed));
        assert_eq!(report.started, Some(id));
    }

    #[test]
    fn a_record_cut_short_anywhere_is_no_panic() {
        let mut bytes = encode_event(WARNING, &event(Step::Sysfs, Some("/sys"), 1));
        let one = bytes.len();
        bytes.extend(encode_event(FAILURE, &event(Step::Exec, Some("/x"), 2)));
        for length in 0..bytes.len() {
            let report = Report::parse(&bytes[..length]);
            assert_eq!(report.warnings.len(), usize::from(length >= one));
            assert_eq!(report.failure, None);
        }
    }
}
