//! Published ports: Docker's `[HOSTIP:]HOSTPORT[-END]:PORT[-END][/tcp|udp|sctp]`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::addr::Family;

mod request;

pub use request::{HostPorts, PortRequest};

/// A transport protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP, IP protocol 6.
    Tcp,
    /// UDP, IP protocol 17.
    Udp,
    /// SCTP, IP protocol 132.
    Sctp,
}

impl Protocol {
    /// The IP protocol number (IANA).
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The lower-case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Protocol {
    type Err = PortError;
    fn from_str(text: &str) -> Result<Self, PortError> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(PortError::Protocol(text.to_owned())),
        }
    }
}

/// One or more consecutive ports, 1 to 65535, `first <= last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// A range; `None` if it is empty or holds port 0.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first != 0 && first <= last).then_some(Self { first, last })
    }

    /// The lowest port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    pub fn last(self) -> u16 {
        self.last
    }

    /// The smallest range that holds both.
    #[must_use]
    pub fn hull(self, other: Self) -> Self {
        Self {
            first: self.first.min(other.first),
            last: self.last.max(other.last),
        }
    }

    /// How many ports, 1 to 65535.
    pub fn count(self) -> u32 {
        u32::from(self.last - self.first) + 1
    }

    /// Whether it is one port.
    pub fn is_single(self) -> bool {
        self.first == self.last
    }

    /// Whether two ranges share a port.
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_single() {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl FromStr for PortRange {
    type Err = PortError;
    fn from_str(text: &str) -> Result<Self, PortError> {
        let err = || PortError::Port(text.to_owned());
        let port = |t: &str| -> Result<u16, PortError> {
            if t.is_empty() || !t.bytes().all(|b| b.is_ascii_digit()) {
                return Err(err());
            }
            t.parse().map_err(|_| err())
        };
        let (first, last) = match text.split_once('-') {
            Some((a, b)) => (port(a)?, port(b)?),
            None => (port(text)?, port(text)?),
        };
        Self::new(first, last).ok_or_else(err)
    }
}

impl TryFrom<String> for PortRange {
    type Error = PortError;
    fn try_from(text: String) -> Result<Self, PortError> {
        text.parse()
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> String {
        range.to_string()
    }
}

/// Why a text is not a port mapping.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Not of the form at all.
    #[error("`{0}` is not a port mapping: [HOSTIP:]HOSTPORT[-END]:PORT[-END][/tcp|udp|sctp]")]
    Form(String),
    /// A container's port alone.
    #[error(
        "`{0}` names one port: which of the host's is to lead there is said before it, such as {0}:{0}"
    )]
    NoHostPort(String),
    /// A port or range that is none.
    #[error("`{0}` is not a port or port range: 1 to 65535, the first not above the last")]
    Port(String),
    /// An unknown protocol.
    #[error("`{0}` is not a protocol: tcp, udp or sctp")]
    Protocol(String),
    /// A host address that is none.
    #[error("`{0}` is not a host address")]
    HostIp(String),
    /// Ranges of different lengths.
    #[error("host ports {host} and container ports {container} are not equally many")]
    Lengths {
        /// The host's side.
        host: PortRange,
        /// The container's side.
        container: PortRange,
    },
    /// `::1` was asked for.
    #[error(
        "[::1]:{0} cannot be published: the kernel does not translate packets to ::1; publish on 127.0.0.1 or on a host address"
    )]
    Loopback6(PortRange),
}

/// One published port or range of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortMapping {
    /// The host address; `None` is every address of the host. `0.0.0.0` and `::` limit it to one family.
    pub host_ip: Option<IpAddr>,
    /// The ports on the host.
    pub host: PortRange,
    /// The ports in the container, equally many.
    pub container: PortRange,
    /// The protocol.
    pub protocol: Protocol,
}

impl PortMapping {
    /// Whether the mapping serves packets of this family.
    pub fn serves(&self, family: Family) -> bool {
        self.host_ip.is_none_or(|ip| Family::of(ip) == family)
    }

    /// The one host address it is bound to, if it is bound to one.
    pub fn bound_to(&self) -> Option<IpAddr> {
        self.host_ip.filter(|ip| !ip.is_unspecified())
    }

    /// What a container lacks that cannot publish it.
    pub fn lacks(&self) -> String {
        match self.host_ip {
            Some(ip) => format!(
                "the container has no {} address on a network that lets others in",
                Family::of(ip)
            ),
            None => "none of the container's networks lets others in".to_owned(),
        }
    }

    /// Whether the host's own 127.0.0.0/8 is among the addresses it answers on.
    pub fn needs_loopback(&self) -> bool {
        self.serves(Family::V4) && self.bound_to().is_none_or(|ip| ip.is_loopback())
    }

    /// Whether the two cannot both exist: same protocol, a shared port, and a shared host address.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        let address = Family::BOTH.into_iter().any(|family| {
            self.serves(family)
                && other.serves(family)
                && match (self.bound_to(), other.bound_to()) {
                    (Some(a), Some(b)) => a == b,
                    _ => true,
                }
        });
        self.protocol == other.protocol && address && self.host.overlaps(other.host)
    }

    /// The host and container ports are the same numbers.
    pub fn is_identity(&self) -> bool {
        self.host == self.container
    }
}

impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            None => {}
            Some(IpAddr::V4(ip)) => write!(f, "{ip}:")?,
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
        }
        write!(f, "{}:{}/{}", self.host, self.container, self.protocol)
    }
}

impl FromStr for PortMapping {
    type Err = PortError;
    fn from_str(text: &str) -> Result<Self, PortError> {
        let wanted: PortRequest = text.parse()?;
        match wanted.host {
            HostPorts::These(host) => Ok(wanted.at(host)),
            HostPorts::OneOf(host) => Err(PortError::Lengths {
                host,
                container: wanted.container,
            }),
            HostPorts::Any => Err(PortError::NoHostPort(wanted.container.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> PortMapping {
        text.parse().unwrap()
    }

    #[test]
    fn reads_what_docker_reads() {
        for (text, shown) in [
            ("5005:5000", "5005:5000/tcp"),
            ("127.0.0.1:5005:5000/udp", "127.0.0.1:5005:5000/udp"),
            ("8000-8010:9000-9010", "8000-8010:9000-9010/tcp"),
            ("[::]:80:80/SCTP", "[::]:80:80/sctp"),
            ("[2001:db8::1]:80:81", "[2001:db8::1]:80:81/tcp"),
        ] {
            assert_eq!(spec(text).to_string(), shown);
            assert_eq!(spec(shown), spec(text));
        }
    }

    #[test]
    fn refuses_what_is_none() {
        for bad in [
            "",
            "80",
            ":80",
            "80:",
            "0:80",
            "80:0",
            "65536:1",
            "a:b",
            "80:81:82",
            "10-5:10-5",
            "80-81:80",
            "80:80/icmp",
            "80:80/",
            "256.1.1.1:80:80",
            "1.2.3.4:80",
            "+80:80",
            "80 :80",
            "[::1]:80:80",
            "224.0.0.1:1:1",
        ] {
            assert!(bad.parse::<PortMapping>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_port_alone_is_told_from_other_nonsense() {
        let error = |text: &str| text.parse::<PortMapping>().unwrap_err().to_string();
        assert!(
            error("5000/udp").ends_with("such as 5000:5000"),
            "{}",
            error("5000/udp")
        );
        assert!(error("80-90").ends_with("such as 80-90:80-90"));
        assert!(error("x").contains("[HOSTIP:]HOSTPORT"));
    }

    #[test]
    fn conflicts() {
        assert!(spec("80:80").conflicts_with(&spec("80:81")));
        assert!(spec("80:80").conflicts_with(&spec("10.0.0.1:80:81")));
        assert!(!spec("10.0.0.2:80:80").conflicts_with(&spec("10.0.0.1:80:81")));
        assert!(!spec("80:80/udp").conflicts_with(&spec("80:80/tcp")));
        assert!(spec("80-90:80-90").conflicts_with(&spec("85:1")));
        assert!(!spec("0.0.0.0:80:80").conflicts_with(&spec("[::]:80:80")));
        assert!(spec("[::]:80:80").conflicts_with(&spec("80:80")));
    }
}
