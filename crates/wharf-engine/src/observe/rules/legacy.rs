//! iptables-legacy and ip6tables-legacy: tables read by the interface of `ip_tables` and `ip6_tables`.
//!
//! Only tables that are there are asked for, because the kernel makes a table that somebody asks for. `/proc` lists
//! them, and reading that makes and loads nothing.
//!
//! Not here: what the blobs of matches and targets mean (`xtables`), taking a table apart (`blob`).

mod blob;
mod entry;

use std::fs;
use std::io;
use std::os::fd::AsRawFd;

use wharf_core::model::Netns;
use wharf_core::trace::ruleset::{Chain, TableFamily};

use super::ipset;
use super::owner;
use super::sockopt::{self, Raw};
use super::xtables::SetNames;

use crate::kernel::netlink::NetlinkKernel;

pub use self::blob::{Table, parse};

/// `IPT_SO_GET_INFO`, `IPT_SO_GET_ENTRIES`, and the same numbers for IPv6.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;

/// `XT_TABLE_MAXNAMELEN`.
const NAME_LEN: usize = 32;
/// Bytes of `struct ipt_getinfo`.
const INFO_LEN: usize = NAME_LEN + 4 + 5 * 4 + 5 * 4 + 4 + 4;
/// Where the entries begin in `struct ipt_get_entries`, which has its fields aligned to 8.
const ENTRIES_AT: usize = NAME_LEN + 8;

/// How often a table is read again that changed meanwhile.
const ATTEMPTS: usize = 20;

/// The chains of all legacy tables in the namespace of the calling thread.
///
/// # Errors
/// If the kernel refuses, or a table changes all the time.
pub fn read() -> io::Result<Vec<Chain>> {
    let mut chains = Vec::new();
    for family in [TableFamily::Ip, TableFamily::Ip6] {
        let names = table_names(family)?;
        if names.is_empty() {
            continue;
        }
        let socket = Raw::open(domain(family))?;
        for name in names {
            if let Some(table) = read_table(&socket, family, &name)? {
                let sets = set_names(&table)?;
                chains.extend(parse(&table, &sets).ok_or(io::ErrorKind::InvalidData)?);
            }
        }
    }
    owner::assign(&mut chains);
    Ok(chains)
}

impl NetlinkKernel {
    /// The chains of iptables-legacy and ip6tables-legacy in a namespace.
    ///
    /// # Errors
    /// If the namespace cannot be entered, the kernel refuses, or a table changes all the time.
    pub fn legacy_rules(&mut self, place: &Netns) -> io::Result<Vec<Chain>> {
        self.inside(place, read)
    }
}

/// One table as it is; `None` if it is not there.
///
/// # Errors
/// If the kernel refuses, or the table changes all the time.
pub fn read_raw(family: TableFamily, name: &str) -> io::Result<Option<Table>> {
    if !table_names(family)?.iter().any(|n| n == name) {
        return Ok(None);
    }
    read_table(&Raw::open(domain(family))?, family, name)
}

fn domain(family: TableFamily) -> libc::c_int {
    match family {
        TableFamily::Ip6 => libc::AF_INET6,
        _ => libc::AF_INET,
    }
}

fn level(family: TableFamily) -> libc::c_int {
    match family {
        TableFamily::Ip6 => libc::IPPROTO_IPV6,
        _ => libc::IPPROTO_IP,
    }
}

/// The tables that are there. `/proc/net` would be the namespace of the process, not of the thread.
fn table_names(family: TableFamily) -> io::Result<Vec<String>> {
    let file = match family {
        TableFamily::Ip6 => "/proc/thread-self/net/ip6_tables_names",
        _ => "/proc/thread-self/net/ip_tables_names",
    };
    match fs::read_to_string(file) {
        Ok(names) => Ok(names.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn set_names(table: &Table) -> io::Result<SetNames> {
    let mut numbers = Vec::new();
    table.each_blob(|name, info| numbers.extend(ipset::numbers(name, info)));
    ipset::names(numbers)
}

/// A buffer that begins with a table's name.
fn ask(name: &str, len: usize) -> Option<Vec<u8>> {
    let mut buffer = vec![0; len];
    let place = buffer.get_mut(..name.len())?;
    place.copy_from_slice(name.as_bytes());
    (name.len() < NAME_LEN).then_some(buffer)
}

/// A table, whole and of one moment; `None` if it went away.
fn read_table(socket: &Raw, family: TableFamily, name: &str) -> io::Result<Option<Table>> {
    let too_long = || io::Error::from(io::ErrorKind::InvalidInput);
    let (fd, level) = (socket.as_raw_fd(), level(family));
    for _ in 0..ATTEMPTS {
        let mut info = ask(name, INFO_LEN).ok_or_else(too_long)?;
        match sockopt::get(fd, level, GET_INFO, &mut info) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut table = Table::from_info(family, name, &info).ok_or(io::ErrorKind::InvalidData)?;
        let mut all = ask(name, ENTRIES_AT + table.size).ok_or_else(too_long)?;
        let size = u32::try_from(table.size).map_err(|_| too_long())?;
        all[NAME_LEN..NAME_LEN + 4].copy_from_slice(&size.to_ne_bytes());
        match sockopt::get(fd, level, GET_ENTRIES, &mut all) {
            Ok(_) => {
                table.entries = all.split_off(ENTRIES_AT);
                // What has the same size may have other hooks by now.
                let mut again = ask(name, INFO_LEN).ok_or_else(too_long)?;
                sockopt::get(fd, level, GET_INFO, &mut again)?;
                if again == info {
                    return Ok(Some(table));
                }
            }
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EAGAIN))
}
