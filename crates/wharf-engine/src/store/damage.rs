//! Files that are not what they were when they were written.
//!
//! LMDB maps its file and trusts it. What can be told from outside is told before it is opened; what cannot ends the
//! process in the middle of reading, and then at least with words.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;

/// `MDB_MAGIC`, at the beginning of both first pages behind the page's header.
const MAGIC: u32 = 0xBEEF_C0DE;
/// Offsets in such a page, of the magic number.
const MAGIC_AT: usize = 16;
/// Of the size of a page.
const SIZE_AT: usize = 40;
/// Of the number of the last page.
const LAST_AT: usize = 136;
/// Of the number of the transaction.
const TRANSACTION_AT: usize = 144;

/// A file beside the store's: the store has been made in full, so that an empty one is not taken for a new one.
const MADE: &str = "made";

/// The file ends before its last page. That alone is no damage if nothing is on the pages that are not there.
pub(super) const CUT_SHORT: &str = "data.mdb is cut short";

/// Asks a child whether a store can be read, since what is damaged may end the reader.
pub(crate) fn can_be_read(read: impl FnOnce() -> bool) -> io::Result<bool> {
    // SAFETY: the processes of wharf have one thread when they open a store; the child leaves by _exit.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // Its words are of no use here.
            // SAFETY: neither takes pointers, and the second does not return.
            unsafe {
                libc::close(2);
                libc::_exit(i32::from(!read()))
            }
        }
        child => {
            let mut status = 0;
            // SAFETY: the pointer is to a live number.
            while unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            Ok(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0)
        }
    }
}

/// Whether the store at `path` has been made in full once.
pub(super) fn was_made(path: &Path) -> bool {
    path.join(MADE).exists()
}

/// Remembers that the store at `path` has been made in full.
pub(super) fn made(path: &Path) -> io::Result<()> {
    let file = path.join(MADE);
    if file.exists() {
        return Ok(());
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    options.mode(0o600).open(file).map(drop)
}

/// Why the store at `path` cannot be used, if that can be seen from its files.
pub(super) fn seen_from_outside(path: &Path) -> io::Result<Option<&'static str>> {
    let used = was_made(path);
    let file = match File::open(path.join("data.mdb")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(used.then_some("data.mdb is gone"));
        }
        other => other?,
    };
    if file.metadata()?.len() == 0 {
        return Ok(used.then_some("data.mdb is empty"));
    }
    let Some(first) = Meta::read(&file, 0)? else {
        return Ok(Some("data.mdb is no store"));
    };
    let Some(second) = Meta::read(&file, first.page)? else {
        return Ok(Some("data.mdb is no store"));
    };
    let newest = if first.transaction > second.transaction {
        first
    } else {
        second
    };
    let whole = newest.last.saturating_add(1).saturating_mul(newest.page);
    // Asked last: another process may be writing, and the file grows before the first pages tell.
    let length = file.metadata()?.len();
    Ok((length < whole).then_some(CUT_SHORT))
}

/// What is needed of a first page.
struct Meta {
    page: u64,
    last: u64,
    transaction: u64,
}

impl Meta {
    fn read(file: &File, at: u64) -> io::Result<Option<Self>> {
        let mut page = [0u8; TRANSACTION_AT + 8];
        match file.read_exact_at(&mut page, at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let word = |at: usize| {
            let bytes = page.get(at..at + 4).and_then(|b| b.try_into().ok());
            bytes.map_or(0, u32::from_ne_bytes)
        };
        let long = |at: usize| {
            let bytes = page.get(at..at + 8).and_then(|b| b.try_into().ok());
            bytes.map_or(0, u64::from_ne_bytes)
        };
        let size = u64::from(word(SIZE_AT));
        let sane =
            word(MAGIC_AT) == MAGIC && size.is_power_of_two() && (512..=65536).contains(&size);
        Ok(sane.then(|| Self {
            page: size,
            last: long(LAST_AT),
            transaction: long(TRANSACTION_AT),
        }))
    }
}

/// In memory that nobody can write to: LMDB, led astray by a damaged page, writes anywhere.
static WORDS: OnceLock<&'static [u8]> = OnceLock::new();

/// When reading a store ends the process, it says so, and what to do.
pub(super) fn end_with_words(path: &Path) {
    let text = format!(
        "error: the store in {} is damaged\nhint: `wharf repair --rebuild` makes it again from the kernel\n",
        path.parent().unwrap_or(path).display()
    );
    if WORDS.get().is_some() || sealed(text.as_bytes()).is_none_or(|text| WORDS.set(text).is_err())
    {
        return;
    }
    for signal in [libc::SIGBUS, libc::SIGSEGV, libc::SIGABRT] {
        let handler: extern "C" fn(libc::c_int) = say_and_end;
        // SAFETY: the handler makes only system calls that are allowed in one, and does not return.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

/// A copy in a page of its own that is read only, for the rest of the process.
fn sealed(text: &[u8]) -> Option<&'static [u8]> {
    let (size, both) = (text.len(), libc::PROT_READ | libc::PROT_WRITE);
    let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: new memory is asked for, wherever there is room.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), size, both, private, -1, 0) };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the mapping is new, as long as the text, and stays; nobody writes to it after this.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr(), page.cast(), size);
        libc::mprotect(page, size, libc::PROT_READ);
        Some(std::slice::from_raw_parts(page.cast(), size))
    }
}

extern "C" fn say_and_end(signal: libc::c_int) {
    // An abort of our own has said why.
    let told = signal == libc::SIGABRT && std::thread::panicking();
    if let (Some(bytes), false) = (WORDS.get(), told) {
        // SAFETY: pointer and length are those of a live string.
        unsafe { libc::write(2, bytes.as_ptr().cast(), bytes.len()) };
    }
    // SAFETY: takes no pointers and does not return.
    unsafe { libc::_exit(1) }
}
