//! Names of ipsets, which rules know by number.

use std::io;
use std::os::fd::AsRawFd;

use super::sockopt::{self, Raw};
use super::xtables::SetNames;

/// `SO_IP_SET`, and its operation `IP_SET_OP_GET_BYINDEX` (`linux/netfilter/ipset/ip_set.h`).
const SO_IP_SET: libc::c_int = 83;
const GET_BYINDEX: u32 = 7;
/// The least protocol version the kernel takes.
const PROTOCOL: u32 = 6;
const NAME_LEN: usize = 32;

/// The number of the sets that a match or target of xtables names.
pub fn numbers(name: &str, info: &[u8]) -> Vec<u16> {
    let places: &[usize] = match name {
        "set" => &[0],
        "SET" => &[0, 4, 8],
        _ => return Vec::new(),
    };
    let number = |at: &usize| {
        let bytes = info.get(*at..*at + 2)?;
        Some(u16::from_ne_bytes(bytes.try_into().ok()?))
    };
    let there = |number: &u16| *number != u16::MAX;
    places.iter().filter_map(number).filter(there).collect()
}

/// The names of sets in the namespace of the calling thread. Those that are not there are left out.
///
/// # Errors
/// If the kernel refuses a socket.
pub fn names(numbers: impl IntoIterator<Item = u16>) -> io::Result<SetNames> {
    let mut numbers = numbers.into_iter().peekable();
    let mut names = SetNames::new();
    if numbers.peek().is_none() {
        return Ok(names);
    }
    let socket = Raw::open(libc::AF_INET)?;
    for number in numbers {
        if names.contains_key(&number) {
            continue;
        }
        // struct ip_set_req_get_set: operation, version, and a number that is answered by a name.
        let mut ask = Vec::with_capacity(8 + NAME_LEN);
        ask.extend(GET_BYINDEX.to_ne_bytes());
        ask.extend(PROTOCOL.to_ne_bytes());
        ask.extend(number.to_ne_bytes());
        ask.resize(8 + NAME_LEN, 0);
        let fd = socket.as_raw_fd();
        if sockopt::get(fd, libc::IPPROTO_IP, SO_IP_SET, &mut ask).is_ok() {
            let name = super::xtables::c_string(&ask[8..]);
            if !name.is_empty() {
                names.insert(number, name);
            }
        }
    }
    Ok(names)
}
