//! Small BPF programs on links, which no tool for rules shows: for drops that nobody can read.

use crate::netns::Netns;
use crate::sys;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// `BPF_PROG_LOAD`, `BPF_LINK_CREATE`.
const LOAD: libc::c_int = 5;
const ATTACH: libc::c_int = 28;
/// `BPF_PROG_TYPE_SCHED_CLS`, and its verdict to drop (`TC_ACT_SHOT`).
const CLASSIFIER: u32 = 3;
const DROP: i32 = 2;
/// `BPF_TCX_INGRESS`, `BPF_TCX_EGRESS` (Linux 6.6).
const INGRESS: u32 = 46;
const EGRESS: u32 = 47;

/// A program that drops every frame of a link, until it is dropped itself.
pub struct DropProgram {
    _link: OwnedFd,
}

/// The part of `union bpf_attr` that loading takes.
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    kind: u32,
    count: u32,
    code: u64,
    license: u64,
    log: [u32; 2],
    log_buffer: u64,
    version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected: u32,
}

/// The part that attaching takes.
#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    program: u32,
    interface: u32,
    place: u32,
    flags: u32,
    rest: [u64; 4],
}

impl DropProgram {
    /// Puts it where frames come in by a link.
    pub fn ingress(netns: &Netns, interface: &str) -> io::Result<Self> {
        netns.run(|| attach(interface, INGRESS))
    }

    /// Puts it where frames leave by a link.
    pub fn egress(netns: &Netns, interface: &str) -> io::Result<Self> {
        netns.run(|| attach(interface, EGRESS))
    }
}

fn attach(interface: &str, place: u32) -> io::Result<DropProgram> {
    // r0 = DROP; exit
    let mut code = vec![0xb7, 0, 0, 0];
    code.extend(DROP.to_ne_bytes());
    code.extend([0x95, 0, 0, 0, 0, 0, 0, 0]);
    let load = LoadAttr {
        kind: CLASSIFIER,
        count: 2,
        code: code.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        expected: place,
        ..LoadAttr::default()
    };
    let program = call(LOAD, &load)?;
    let attach = AttachAttr {
        program: u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?,
        interface: sys::interface_index(interface)?,
        place,
        ..AttachAttr::default()
    };
    Ok(DropProgram {
        _link: call(ATTACH, &attach)?,
    })
}

fn call<T>(command: libc::c_int, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: `attr` is a live part of the kernel's union, as long as is said; what it points to outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attr),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let raw = RawFd::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the descriptor is new and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}
