//! The old iptables' tables, which nftables does not show: whether FORWARD drops by policy, of what links its rules
//! speak, and where rules for links lead. They are read as the `iptables-legacy` program reads them, by socket options (`linux/netfilter_ipv4/ip_tables.h`,
//! `linux/netfilter_ipv6/ip6_tables.h`). Not for: writing there, or understanding rules.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use wharf_core::addr::Family;

/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO`.
const GET_INFO: i32 = 64;
/// `IPT_SO_GET_ENTRIES` and `IP6T_SO_GET_ENTRIES`.
const GET_ENTRIES: i32 = 65;
/// `XT_TABLE_MAXNAMELEN`, with which both answers begin.
const NAME: usize = 32;
/// `sizeof(struct ipt_getinfo)`: name, `valid_hooks`, `hook_entry[5]`, `underflow[5]`, `num_entries`, `size`.
const INFO: usize = NAME + 4 + 20 + 20 + 4 + 4;
/// Where the entries begin in `struct ipt_get_entries`, behind the name and the size.
const HEAD: usize = 40;
/// `NF_INET_FORWARD`.
const FORWARD: usize = 2;
/// A standard target's verdict for `NF_DROP`.
const DROP: i32 = -1;
/// `XT_ERROR_TARGET`: what begins a chain of the user's own, and names it.
const ERROR: &[u8] = b"ERROR";

/// The filter table of one family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// FORWARD has policy DROP.
    pub forward_drops: bool,
    /// The links that rules name.
    pub links: Vec<String>,
    /// The chains that are not built in.
    pub chains: Vec<String>,
    /// The rules for links by which packets leave.
    pub outward: Vec<Outward>,
}

/// A rule for a link by which packets leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outward {
    /// The chain it is in; empty for those that are built in.
    pub chain: String,
    /// The link.
    pub link: String,
    /// What it does.
    pub target: Target,
}

/// Where a rule leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To another chain.
    Chain(String),
    /// To nowhere.
    Drop,
}

/// Reads the filter table; `None` if there is none, or nobody may read it.
pub fn filter(family: Family) -> Option<Filter> {
    let (names, domain, level) = match family {
        Family::V4 => ("ip_tables_names", libc::AF_INET, libc::IPPROTO_IP),
        Family::V6 => ("ip6_tables_names", libc::AF_INET6, libc::IPPROTO_IPV6),
    };
    // To ask for a table that is not there would make it.
    let there = fs::read_to_string(format!("/proc/thread-self/net/{names}")).ok()?;
    if !there.lines().any(|name| name == "filter") {
        return None;
    }
    let socket = raw_socket(domain).ok()?;
    let mut info = [0; INFO];
    info[..6].copy_from_slice(b"filter");
    ask(&socket, level, GET_INFO, &mut info).ok()?;
    let size = u32_at(&info, INFO - 4)?;
    let policy = u32_at(&info, NAME + 4 + 20 + 4 * FORWARD)?;
    let mut table = vec![0; HEAD + usize::try_from(size).ok()?];
    table[..6].copy_from_slice(b"filter");
    table[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
    ask(&socket, level, GET_ENTRIES, &mut table).ok()?;
    Some(parse(family, &table[HEAD..], policy as usize))
}

/// Reads the entries of a filter table; `policy` is the offset of FORWARD's last one.
pub fn parse(family: Family, entries: &[u8], policy: usize) -> Filter {
    let layout = Layout::of(family);
    let mut found = Filter::default();
    let mut at = 0;
    // Where chains begin: that is what jumps name.
    let mut begins: Vec<usize> = Vec::new();
    let mut verdicts: Vec<(String, String, i32)> = Vec::new();
    while let Some(entry) = entries.get(at..).and_then(|rest| layout.entry(rest)) {
        found.forward_drops |= at == policy && entry.verdict() == Some(DROP);
        found.links.extend(entry.links(&layout));
        if let (Some(link), Some(verdict)) = (entry.link(&layout, 1), entry.verdict()) {
            let chain = found.chains.last().cloned().unwrap_or_default();
            verdicts.push((chain, link, verdict));
        }
        at += entry.bytes.len();
        if let Some(chain) = entry.chain() {
            found.chains.push(chain);
            begins.push(at);
        }
    }
    let chain_at = |verdict: i32| {
        let at = begins
            .iter()
            .position(|at| usize::try_from(verdict) == Ok(*at))?;
        Some(Target::Chain(found.chains[at].clone()))
    };
    let leads = |(chain, link, verdict)| {
        let target = match verdict {
            DROP => Target::Drop,
            _ => chain_at(verdict)?,
        };
        Some(Outward {
            chain,
            link,
            target,
        })
    };
    found.outward = verdicts.into_iter().filter_map(leads).collect();
    found
}

/// Where things are in an entry.
struct Layout {
    links: usize,
    target_offset: usize,
    size: usize,
}

struct Entry<'a> {
    bytes: &'a [u8],
    target: &'a [u8],
}

impl Layout {
    fn of(family: Family) -> Self {
        match family {
            // struct ipt_entry: struct ipt_ip (84 bytes), nfcache, the offsets, comefrom, counters.
            Family::V4 => Self {
                links: 16,
                target_offset: 88,
                size: 112,
            },
            // struct ip6t_entry: struct ip6t_ip6 (136 bytes), nfcache, the offsets, comefrom, counters.
            Family::V6 => Self {
                links: 64,
                target_offset: 140,
                size: 168,
            },
        }
    }

    fn entry<'a>(&self, rest: &'a [u8]) -> Option<Entry<'a>> {
        let target = usize::from(u16_at(rest, self.target_offset)?);
        let next = usize::from(u16_at(rest, self.target_offset + 2)?);
        if target < self.size || next < target {
            return None;
        }
        let bytes = rest.get(..next)?;
        Some(Entry {
            bytes,
            target: bytes.get(target..)?,
        })
    }
}

impl Entry<'_> {
    /// The target's name, behind its size.
    fn name(&self) -> &[u8] {
        until_zero(self.target.get(2..31).unwrap_or_default())
    }

    fn verdict(&self) -> Option<i32> {
        let verdict = self.target.get(32..36).filter(|_| self.name().is_empty())?;
        Some(i32::from_ne_bytes(verdict.try_into().ok()?))
    }

    fn chain(&self) -> Option<String> {
        let name = until_zero(self.target.get(32..62)?);
        let own = self.name() == ERROR && name != ERROR;
        own.then(|| String::from_utf8_lossy(name).into_owned())
    }

    /// The link it is for by which packets come in (0) or leave (1).
    fn link(&self, layout: &Layout, n: usize) -> Option<String> {
        let name = until_zero(self.bytes.get(layout.links + 16 * n..)?);
        (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
    }

    fn links(&self, layout: &Layout) -> impl Iterator<Item = String> {
        [self.link(layout, 0), self.link(layout, 1)]
            .into_iter()
            .flatten()
    }
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| *byte == 0);
    &bytes[..end.unwrap_or(bytes.len())]
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn raw_socket(domain: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain integers.
    let fd = unsafe {
        libc::socket(
            domain,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::IPPROTO_RAW,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn ask(socket: &OwnedFd, level: i32, option: i32, buffer: &mut [u8]) -> io::Result<()> {
    let mut size = libc::socklen_t::try_from(buffer.len()).map_err(io::Error::other)?;
    let pointer = buffer.as_mut_ptr().cast();
    // SAFETY: the pointer and `size` describe `buffer`, which outlives the call.
    match unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, pointer, &raw mut size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One entry with these links and a target.
    fn entry(family: Family, links: [&str; 2], name: &[u8], data: &[u8]) -> Vec<u8> {
        let layout = Layout::of(family);
        let mut bytes = vec![0; layout.size];
        for (n, link) in links.iter().enumerate() {
            let at = layout.links + 16 * n;
            bytes[at..at + link.len()].copy_from_slice(link.as_bytes());
        }
        let mut target = vec![0; 32];
        target[2..2 + name.len()].copy_from_slice(name);
        target.extend(data);
        let (offset, next) = (layout.size as u16, (layout.size + target.len()) as u16);
        bytes[layout.target_offset..layout.target_offset + 2]
            .copy_from_slice(&offset.to_ne_bytes());
        bytes[layout.target_offset + 2..layout.target_offset + 4]
            .copy_from_slice(&next.to_ne_bytes());
        bytes.extend(target);
        bytes
    }

    #[test]
    fn policy_links_and_chains_are_read() {
        for family in Family::BOTH {
            let mut door = [0; 32];
            door[..11].copy_from_slice(b"DOCKER-USER");
            let first = entry(family, ["wharf0", ""], b"", &(-2_i32).to_ne_bytes());
            let policy = entry(family, ["", ""], b"", &DROP.to_ne_bytes());
            let all = [first.clone(), policy, entry(family, ["", ""], ERROR, &door)].concat();
            let expected = Filter {
                forward_drops: true,
                links: vec!["wharf0".to_owned()],
                chains: vec!["DOCKER-USER".to_owned()],
                outward: Vec::new(),
            };
            assert_eq!(parse(family, &all, first.len()), expected);
            assert!(!parse(family, &all, 0).forward_drops);
        }
    }

    #[test]
    fn where_rules_for_links_lead_is_read() {
        for family in Family::BOTH {
            let mut docker = [0; 32];
            docker[..6].copy_from_slice(b"DOCKER");
            let chain = entry(family, ["", ""], ERROR, &docker);
            let drop = entry(family, ["", "docker0"], b"", &DROP.to_ne_bytes());
            let size = drop.len() + chain.len();
            let jump = (size as i32).to_ne_bytes();
            let all = [entry(family, ["", "docker0"], b"", &jump), chain, drop].concat();
            let rule = |chain: &str, target| Outward {
                chain: chain.to_owned(),
                link: "docker0".to_owned(),
                target,
            };
            let expected = [
                rule("", Target::Chain("DOCKER".to_owned())),
                rule("DOCKER", Target::Drop),
            ];
            assert_eq!(parse(family, &all, 0).outward, expected);
        }
    }
}
