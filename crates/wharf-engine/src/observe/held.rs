//! What the host itself holds of who is behind which port, and which namespace a cable ends in.
//!
//! No container can change any of it. Not here: what containers say (the other readers), and what follows (the engine's
//! `claims`).

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use netlink_packet_route::AddressFamily;
use wharf_core::addr::Mac;
use wharf_core::model::Netns;
use wharf_core::nft::Table;
use wharf_nft::{Element, Family, SetRef};

use super::LinkInfo;
use super::state::{forwarding, neighbour};
use crate::kernel::netlink::NetlinkKernel;
use crate::kernel::netlink::nft_apply::to_io;
use crate::process::netns;

/// `RTM_GETNSID`.
const GET_NUMBER: u16 = 90;
/// `NETNSA_NSID`, `NETNSA_FD`.
const NUMBER: u16 = 1;
const DESCRIPTOR: u16 = 3;
/// Namespaces that are open at once.
const OPEN: usize = 64;
/// Where the network address begins in a key of the guard: a hardware address takes whole words.
const BEHIND_MAC: usize = 8;

/// What the host holds.
#[derive(Debug, Clone, Default)]
pub struct Held {
    /// Hardware and network addresses that belong together, by the guard's sets.
    pub guarded: HashSet<(Mac, IpAddr)>,
    /// Permanent neighbours, by the number of their link.
    pub neighbours: HashMap<(u32, IpAddr), Mac>,
    /// Static entries of bridges' tables, by the number of the port.
    pub forwarding: HashMap<u32, Vec<Mac>>,
    /// The host's own addresses.
    pub addresses: HashSet<IpAddr>,
    /// The hardware addresses of its links.
    pub macs: HashSet<Mac>,
}

impl NetlinkKernel {
    /// What the host holds; `links` are its links.
    ///
    /// # Errors
    /// If the kernel refuses to tell.
    pub fn held_of_ports(&mut self, links: &[LinkInfo]) -> io::Result<Held> {
        let mut held = Held {
            addresses: self
                .addrs(&Netns::Host)?
                .into_iter()
                .map(|(_, net)| net.addr())
                .collect(),
            macs: links.iter().filter_map(|l| l.mac).collect(),
            ..Held::default()
        };
        for message in self.neighbours(AddressFamily::Unspec)? {
            held.neighbours.extend(neighbour(&message));
        }
        for message in self.neighbours(AddressFamily::Bridge)? {
            if let Some((port, mac)) = forwarding(&message) {
                held.forwarding.entry(port).or_default().push(mac);
            }
        }
        for set in ["guard4", "guard6"] {
            let set = SetRef::new(Family::Bridge, Table::NAME, set);
            let elements = match self.nf()?.dump_elements(&set) {
                Err(error) if error.errno() == Some(libc::ENOENT) => Vec::new(),
                other => other.map_err(to_io)?,
            };
            held.guarded.extend(elements.iter().filter_map(pair));
        }
        Ok(held)
    }

    /// The numbers by which the host counts the namespaces at these paths, each with the namespace it was found to be. One
    /// without a number has no end of a link of the host's.
    ///
    /// # Errors
    /// If the kernel refuses to tell.
    pub fn space_numbers(&mut self, paths: &[&Path]) -> io::Result<HashMap<u64, i32>> {
        // It numbers a namespace when it tells of the first link that ends there.
        self.links(&Netns::Host)?;
        let mut numbers = HashMap::new();
        for part in paths.chunks(OPEN) {
            let doors: Vec<netns::Netns> =
                part.iter().filter_map(|p| netns::open(p).ok()).collect();
            let questions: Vec<Vec<u8>> = doors.iter().map(question).collect();
            let rt = self.rt(&Netns::Host)?;
            rt.ask_raw(GET_NUMBER, &questions, |at, body| {
                let number = body.and_then(number);
                if let (Some(number), Some(door)) = (number, doors.get(at)) {
                    numbers.insert(door.inode(), number);
                }
            })?;
        }
        Ok(numbers)
    }
}

/// Which number a namespace has: `struct rtgenmsg`, padded, and its descriptor.
fn question(door: &netns::Netns) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(8_u16.to_ne_bytes());
    body.extend(DESCRIPTOR.to_ne_bytes());
    body.extend(door.as_fd().as_raw_fd().to_ne_bytes());
    body
}

/// The answer: the same header and attributes. A namespace without a number has a negative one.
fn number(body: &[u8]) -> Option<i32> {
    let mut rest = body.get(4..)?;
    loop {
        let [a, b, c, d] = *rest.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        if u16::from_ne_bytes([c, d]) == NUMBER {
            let value = rest.get(4..length)?.first_chunk()?;
            return Some(i32::from_ne_bytes(*value)).filter(|n| *n >= 0);
        }
        rest = rest.get(length.next_multiple_of(4).max(4)..)?;
    }
}

fn pair(element: &Element) -> Option<(Mac, IpAddr)> {
    let mac = Mac(*element.key.first_chunk()?);
    let addr = element.key.get(BEHIND_MAC..)?;
    let addr = match addr.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(addr).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(addr).ok()?),
        _ => return None,
    };
    Some((mac, addr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_without_a_number_has_none() {
        let answer = |n: i32| {
            let mut body = vec![0; 4];
            body.extend([8, 0, 1, 0]);
            body.extend(n.to_ne_bytes());
            body
        };
        assert_eq!(number(&answer(7)), Some(7));
        assert_eq!(number(&answer(-1)), None);
        assert_eq!(number(&answer(7)[..10]), None);
        assert_eq!(number(&[0; 12]), None);
    }

    #[test]
    fn keys_of_the_guard_are_pairs() {
        let key = |addr: &[u8]| {
            let mut key = vec![2, 1, 10, 88, 1, 66, 0, 0];
            key.extend(addr);
            Element {
                key,
                ..Element::default()
            }
        };
        let mac = Mac([2, 1, 10, 88, 1, 66]);
        let v4: IpAddr = "10.88.1.66".parse().unwrap();
        assert_eq!(pair(&key(&[10, 88, 1, 66])), Some((mac, v4)));
        let v6: IpAddr = "fe80::1".parse().unwrap();
        let IpAddr::V6(octets) = v6 else {
            unreachable!()
        };
        assert_eq!(pair(&key(&octets.octets())), Some((mac, v6)));
        assert_eq!(pair(&key(&[1, 2, 3])), None);
    }
}
