//! Records of tracepoints, by perf events: one ring per processor.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// `PERF_TYPE_TRACEPOINT`.
const TRACEPOINT: u32 = 2;
/// `PERF_SAMPLE_TIME`, `PERF_SAMPLE_RAW`.
const SAMPLE: u64 = 1 << 2 | 1 << 10;
/// `disabled`, `use_clockid` of `struct perf_event_attr`.
const DISABLED: u64 = 1;
const USE_CLOCKID: u64 = 1 << 25;
/// `PERF_FLAG_FD_CLOEXEC`.
const CLOEXEC: libc::c_ulong = 8;
/// `PERF_EVENT_IOC_*`.
const ENABLE: libc::Ioctl = 0x2400;
const DISABLE: libc::Ioctl = 0x2401;
const SET_OUTPUT: libc::Ioctl = 0x2405;
const SET_FILTER: libc::Ioctl = 0x4008_2406;
/// `PERF_RECORD_SAMPLE`.
const RECORD: u32 = 9;
/// Pages of a ring besides the first; a power of two.
const PAGES: usize = 32;
/// `data_head` and `data_tail` in the first page (`struct perf_event_mmap_page`).
const HEAD: usize = 1024;
/// The most processors; on larger machines there are no reasons.
const MOST: usize = 128;

/// `struct perf_event_attr`, of which the kernel takes the first version that has what is needed.
#[repr(C)]
#[derive(Default)]
struct Attr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup: u32,
    bp_type: u32,
    bp_addr: u64,
    bp_len: u64,
    branch_sample_type: u64,
    sample_regs_user: u64,
    sample_stack_user: u32,
    clockid: i32,
    sample_regs_intr: u64,
}

/// One record.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// Which tracepoint.
    pub(super) kind: u32,
    /// Nanoseconds of the wall clock.
    pub(super) at: u64,
    /// As the tracepoint's description lays it out.
    pub(super) raw: Vec<u8>,
}

/// A mapped ring.
struct Ring {
    start: *mut u8,
    len: usize,
    page: usize,
}

/// Tracepoints being recorded on all processors.
pub(super) struct Rings {
    events: Vec<OwnedFd>,
    rings: Vec<Ring>,
}

impl Rings {
    /// Begins to record tracepoints, each with a filter.
    pub(super) fn start(tracepoints: &[(u32, String)]) -> io::Result<Self> {
        let mut this = Self {
            events: Vec::new(),
            rings: Vec::new(),
        };
        // SAFETY: sysconf takes a number and gives one.
        let cpus = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) };
        let cpus = usize::try_from(cpus).unwrap_or(0);
        if cpus > MOST {
            return Err(io::Error::other("there are too many processors"));
        }
        for cpu in 0..cpus {
            let mut first: Option<RawFd> = None;
            for (id, filter) in tracepoints {
                let event = match open(*id, cpu) {
                    Ok(event) => event,
                    // A processor that is switched off.
                    Err(e) if e.raw_os_error() == Some(libc::ENODEV) => break,
                    Err(e) => return Err(e),
                };
                let filter = std::ffi::CString::new(filter.as_str()).map_err(io::Error::other)?;
                // SAFETY: the filter is NUL-terminated and outlives the call.
                check(unsafe { libc::ioctl(event.as_raw_fd(), SET_FILTER, filter.as_ptr()) })?;
                if let Some(first) = first {
                    // SAFETY: a plain call with an open descriptor.
                    check(unsafe { libc::ioctl(event.as_raw_fd(), SET_OUTPUT, first) })?;
                } else {
                    this.rings.push(Ring::map(&event)?);
                    first = Some(event.as_raw_fd());
                }
                this.events.push(event);
            }
        }
        this.all(ENABLE)?;
        Ok(this)
    }

    fn all(&self, command: libc::Ioctl) -> io::Result<()> {
        for event in &self.events {
            // SAFETY: a plain call with an open descriptor.
            check(unsafe { libc::ioctl(event.as_raw_fd(), command, 0) })?;
        }
        Ok(())
    }

    /// Ends, and gives what was recorded, in order of time.
    pub(super) fn stop(&self) -> Vec<Sample> {
        // An event that goes on does no harm to what is read now.
        let _ = self.all(DISABLE);
        let offset = wall().saturating_sub(now(libc::CLOCK_MONOTONIC));
        let mut samples: Vec<Sample> = self.rings.iter().flat_map(|r| r.read(offset)).collect();
        samples.sort_by_key(|s| s.at);
        samples
    }
}

fn open(id: u32, cpu: usize) -> io::Result<OwnedFd> {
    let attr = Attr {
        kind: TRACEPOINT,
        size: size_of::<Attr>() as u32,
        config: id.into(),
        sample_period: 1,
        sample_type: SAMPLE,
        flags: DISABLED | USE_CLOCKID,
        clockid: libc::CLOCK_MONOTONIC,
        ..Attr::default()
    };
    let (anybody, alone) = (-1, -1);
    // SAFETY: `attr` is alive and as long as it says; the result is checked.
    let raw = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attr,
            anybody,
            cpu as libc::c_int,
            alone,
            CLOEXEC,
        )
    };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    let raw = RawFd::try_from(raw).map_err(io::Error::other)?;
    // SAFETY: the descriptor is new and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn wall() -> u64 {
    now(libc::CLOCK_REALTIME)
}

fn now(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a live timespec; these clocks are always there.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}

impl Ring {
    fn map(event: &OwnedFd) -> io::Result<Self> {
        // SAFETY: sysconf takes a number and gives one.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page = usize::try_from(page).map_err(io::Error::other)?;
        let len = (PAGES + 1) * page;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of an event's ring; the result is checked.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                access,
                libc::MAP_SHARED,
                event.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            start: start.cast(),
            len,
            page,
        })
    }

    /// What is in it, once.
    fn read(&self, offset: u64) -> Vec<Sample> {
        // SAFETY: the first page holds this aligned word, which the kernel writes atomically.
        let head = unsafe { &*self.start.add(HEAD).cast::<AtomicU64>() };
        let head = head.load(Ordering::Acquire) as usize;
        let size = PAGES * self.page;
        // Nothing was taken before, and without room the kernel leaves records out: it never comes around.
        // SAFETY: the data lies behind the first page, and the kernel has finished the part before `head`.
        let data = unsafe { std::slice::from_raw_parts(self.start.add(self.page), head.min(size)) };
        let mut samples = Vec::new();
        let mut rest = data;
        while let Some((record, after)) = split(rest) {
            samples.extend(sample(record, offset));
            rest = after;
        }
        samples
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping is this ring's own, and nothing borrows from it any more.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}

/// A record with its header (type, misc, size), and what follows.
fn split(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let size = u16::from_ne_bytes(data.get(6..8)?.try_into().ok()?);
    (size >= 8).then(|| data.split_at_checked(size.into()))?
}

/// Time, length of the raw part, the raw part; that begins with the number of the tracepoint.
fn sample(record: &[u8], offset: u64) -> Option<Sample> {
    let word = |at: usize| Some(u32::from_ne_bytes(record.get(at..at + 4)?.try_into().ok()?));
    if word(0)? != RECORD {
        return None;
    }
    let at = u64::from_ne_bytes(record.get(8..16)?.try_into().ok()?);
    let len = word(16)? as usize;
    let raw = record.get(20..20 + len)?.to_vec();
    let kind = u16::from_ne_bytes(raw.get(..2)?.try_into().ok()?);
    Some(Sample {
        kind: kind.into(),
        at: at.wrapping_add(offset),
        raw,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_one_after_the_other() {
        let mut data = Vec::new();
        for at in [5_u64, 9] {
            data.extend(RECORD.to_ne_bytes());
            data.extend(0_u16.to_ne_bytes());
            data.extend(28_u16.to_ne_bytes());
            data.extend(at.to_ne_bytes());
            data.extend(8_u32.to_ne_bytes());
            data.extend(77_u16.to_ne_bytes());
            data.extend([0; 6]);
        }
        let (first, rest) = split(&data).unwrap();
        let one = sample(first, 100).unwrap();
        assert_eq!((one.kind, one.at, one.raw.len()), (77, 105, 8));
        assert_eq!(sample(split(rest).unwrap().0, 0).unwrap().at, 9);
        assert!(split(&rest[..20]).is_none(), "cut off");
        assert!(split(&[0; 8]).is_none(), "no endless loop");
    }
}
