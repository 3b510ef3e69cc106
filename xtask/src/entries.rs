//! Which functions a program enters: each begins with a breakpoint, which goes when it is met (`ptrace`, x86_64).
//!
//! Its children are looked at too, whether they share its memory or have a copy. Not a profile: a function is met once.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// `int3`
const BREAKPOINT: u8 = 0xcc;

/// Those of `entries`, the addresses where functions begin, that a program and its children came by.
///
/// # Errors
/// The program cannot be started or traced, or fails.
pub fn entered(command: &mut Command, entries: &[u64]) -> io::Result<HashSet<u64>> {
    // SAFETY: between fork and exec only this system call is made.
    unsafe { command.pre_exec(|| ptrace(libc::PTRACE_TRACEME, 0, 0)) };
    let child = command.spawn()?;
    let first = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    // It stands at the program's first instruction.
    wait(first)?;
    let options = libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_EXITKILL;
    ptrace(libc::PTRACE_SETOPTIONS, first, options)?;
    let breakpoints = Breakpoints::set(first, entries)?;
    ptrace(libc::PTRACE_CONT, first, 0)?;
    let mut met = HashSet::new();
    let mut success = false;
    while let Some((pid, status)) = wait(-1)? {
        if !libc::WIFSTOPPED(status) {
            success |= pid == first && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0;
            continue;
        }
        let signal = match libc::WSTOPSIG(status) {
            // Also what says that there is a new child, which begins with a stop.
            libc::SIGTRAP => {
                if status >> 16 == 0 {
                    met.insert(breakpoints.step_over(pid)?);
                }
                0
            }
            libc::SIGSTOP => 0,
            other => other,
        };
        ptrace(libc::PTRACE_CONT, pid, signal)?;
    }
    match success {
        true => Ok(met),
        false => Err(io::Error::other(format!("{command:?} failed"))),
    }
}

struct Breakpoints {
    /// Where the lowest is.
    start: u64,
    /// What is there without them.
    code: Vec<u8>,
}

impl Breakpoints {
    fn set(pid: libc::pid_t, entries: &[u64]) -> io::Result<Self> {
        let (Some(start), Some(last)) = (entries.iter().min(), entries.iter().max()) else {
            return Err(io::Error::other("no function to look at"));
        };
        let (start, mut code) = (*start, vec![0; (last - start) as usize + 1]);
        let memory = memory(pid)?;
        memory.read_exact_at(&mut code, start)?;
        let mut with = code.clone();
        for entry in entries {
            with[(entry - start) as usize] = BREAKPOINT;
        }
        memory.write_all_at(&with, start)?;
        Ok(Self { start, code })
    }

    /// Takes away the breakpoint that the process has just met, and puts it before the instruction there. Says where.
    fn step_over(&self, pid: libc::pid_t) -> io::Result<u64> {
        // SAFETY: all zeroes is a valid set of registers, a struct of integers.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        let place = (&raw mut registers).cast::<libc::c_void>();
        // SAFETY: `place` is room for what this request writes.
        check(unsafe { libc::ptrace(libc::PTRACE_GETREGS, pid, 0usize, place) })?;
        registers.rip -= 1;
        let at = registers.rip.wrapping_sub(self.start) as usize;
        let byte = self.code.get(at).ok_or(io::ErrorKind::NotFound)?;
        memory(pid)?.write_all_at(&[*byte], registers.rip)?;
        // SAFETY: `place` holds what this request reads.
        check(unsafe { libc::ptrace(libc::PTRACE_SETREGS, pid, 0usize, place) })?;
        Ok(registers.rip)
    }
}

fn memory(pid: libc::pid_t) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .open(format!("/proc/{pid}/mem"))
}

/// The next change of a process, of any one if -1; `None` when there is none left.
fn wait(whose: libc::pid_t) -> io::Result<Option<(libc::pid_t, libc::c_int)>> {
    let mut status = 0;
    // SAFETY: the pointer is to a local that outlives the call.
    match unsafe { libc::waitpid(whose, &raw mut status, libc::__WALL) } {
        pid if pid > 0 => Ok(Some((pid, status))),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
            error => Err(error),
        },
    }
}

/// A request that takes a number.
fn ptrace(request: libc::c_uint, pid: libc::pid_t, data: libc::c_int) -> io::Result<()> {
    // SAFETY: as said.
    check(unsafe { libc::ptrace(request, pid, 0usize, data as usize) })
}

fn check(result: libc::c_long) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
