//! The descriptions of tracepoints, from a mount of tracefs that is attached nowhere and ends with its descriptor.

use std::collections::HashMap;
use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// `FSOPEN_CLOEXEC`, `FSMOUNT_CLOEXEC`.
const CLOEXEC: libc::c_uint = 1;
/// `FSCONFIG_CMD_CREATE`.
const CREATE: libc::c_uint = 6;

/// The file system.
pub(super) struct Tracefs {
    fd: OwnedFd,
}

/// How a tracepoint's record is laid out.
#[derive(Debug, Clone, Default)]
pub(super) struct Format {
    pub(super) id: u32,
    /// Offset and size by name.
    fields: HashMap<String, (usize, usize)>,
    /// Words for the numbers of the one field that has any.
    pub(super) symbols: HashMap<u64, String>,
}

impl Tracefs {
    pub(super) fn open() -> io::Result<Self> {
        // SAFETY: the name is NUL-terminated; the results are checked.
        let context =
            owned(unsafe { libc::syscall(libc::SYS_fsopen, c"tracefs".as_ptr(), CLOEXEC) })?;
        let none = std::ptr::null::<libc::c_char>();
        // SAFETY: this command takes no key and no value.
        let made = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                context.as_raw_fd(),
                CREATE,
                none,
                none,
                0,
            )
        };
        if made < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a plain system call; the result is checked.
        let fd =
            owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), CLOEXEC, 0) })?;
        Ok(Self { fd })
    }

    /// The description of `group/event`.
    pub(super) fn format(&self, event: &str) -> io::Result<Format> {
        let path = CString::new(format!("events/{event}/format")).map_err(io::Error::other)?;
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        // SAFETY: the path is NUL-terminated; the result is checked.
        let raw = unsafe { libc::openat(self.fd.as_raw_fd(), path.as_ptr(), flags) };
        let mut text = String::new();
        std::fs::File::from(owned(raw.into())?).read_to_string(&mut text)?;
        parse(&text).ok_or_else(|| io::Error::other(format!("{event} is not understood")))
    }
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let raw = RawFd::try_from(result).map_err(io::Error::other)?;
    // SAFETY: called only with the fresh result of a system call; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn parse(text: &str) -> Option<Format> {
    let mut format = Format::default();
    for line in text.lines() {
        let line = line.trim();
        if let Some(id) = line.strip_prefix("ID: ") {
            format.id = id.parse().ok()?;
        } else if let Some(rest) = line.strip_prefix("field:") {
            let mut parts = rest.split(';').map(str::trim);
            let name = parts.next()?.rsplit([' ', '*']).next()?;
            let mut number = |key: &str| parts.next()?.strip_prefix(key)?.parse().ok();
            let place = (number("offset:")?, number("size:")?);
            format.fields.insert(name.to_owned(), place);
        } else if let Some((_, list)) = line.split_once("__print_symbolic(") {
            for pair in list.split('{').skip(1) {
                let pair = pair.split('}').next()?;
                let (number, word) = pair.split_once(',')?;
                if let Ok(number) = number.trim().parse() {
                    let word = word.trim().trim_matches('"').to_owned();
                    format.symbols.insert(number, word);
                }
            }
        }
    }
    (format.id != 0).then_some(format)
}

impl Format {
    /// A number in a record.
    pub(super) fn number(&self, raw: &[u8], name: &str) -> Option<u64> {
        let (at, size) = *self.fields.get(name)?;
        let bytes = raw.get(at..at + size)?;
        Some(match size {
            2 => u16::from_ne_bytes(bytes.try_into().ok()?).into(),
            4 => u32::from_ne_bytes(bytes.try_into().ok()?).into(),
            8 => u64::from_ne_bytes(bytes.try_into().ok()?),
            _ => return None,
        })
    }

    /// A text whose place and length the record tells (`__data_loc`).
    pub(super) fn text(&self, raw: &[u8], name: &str) -> Option<String> {
        let (at, _) = *self.fields.get(name)?;
        let place = u32::from_ne_bytes(raw.get(at..at + 4)?.try_into().ok()?);
        let (at, len) = ((place & 0xffff) as usize, (place >> 16) as usize);
        let bytes = raw.get(at..at + len)?;
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(len);
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "name: kfree_skb\nID: 2310\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
        \tfield:void * skbaddr;\toffset:8;\tsize:8;\tsigned:0;\n\
        \tfield:__data_loc char[] name;\toffset:16;\tsize:4;\tsigned:0;\n\
        \tfield:enum skb_drop_reason reason;\toffset:20;\tsize:4;\tsigned:0;\n\n\
        print fmt: \"reason: %s\", __print_symbolic(REC->reason, { 2, \"NOT_SPECIFIED\" }, { 16, \"IP_RPFILTER\" })\n";

    #[test]
    fn a_record_is_read_by_its_description() {
        let format = parse(TEXT).unwrap();
        assert_eq!(format.id, 2310);
        assert_eq!(format.symbols[&16], "IP_RPFILTER");
        let mut raw = vec![0; 24];
        raw[8..16].copy_from_slice(&77_u64.to_ne_bytes());
        raw[16..20].copy_from_slice(&(5 << 16 | 24_u32).to_ne_bytes());
        raw[20..24].copy_from_slice(&16_u32.to_ne_bytes());
        raw.extend(b"eth0\0");
        assert_eq!(format.number(&raw, "skbaddr"), Some(77));
        assert_eq!(format.number(&raw, "reason"), Some(16));
        assert_eq!(format.text(&raw, "name").as_deref(), Some("eth0"));
        assert_eq!(format.number(&raw[..22], "reason"), None, "cut off");
        assert!(parse("nothing").is_none());
    }
}
