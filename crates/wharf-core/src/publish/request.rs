//! Ports asked for: as [`PortMapping`], but the host's may be left to wharf, as Docker leaves them to itself.
//!
//! Not for choosing: which ports are free the engine knows.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::{PortError, PortMapping, PortRange, Protocol};

/// Which of the host's ports are to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostPorts {
    /// These, equally many as the container's.
    These(PortRange),
    /// One of these that is free.
    OneOf(PortRange),
    /// Free ones of those that the host gives to programs that ask for none (`net.ipv4.ip_local_port_range`).
    Any,
}

/// A port or range of ports to be published:
/// `[[HOSTIP:][HOSTPORT[-END]]:]PORT[-END][/tcp|udp|sctp]`, as Docker's `--publish` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRequest {
    /// The host address; `None` is every address of the host. `0.0.0.0` and `::` limit it to one family.
    pub host_ip: Option<IpAddr>,
    /// The ports on the host.
    pub host: HostPorts,
    /// The ports in the container.
    pub container: PortRange,
    /// The protocol.
    pub protocol: Protocol,
}

impl PortRequest {
    /// The mapping that it is with these ports of the host.
    #[must_use]
    pub fn at(&self, host: PortRange) -> PortMapping {
        PortMapping {
            host_ip: self.host_ip,
            host,
            container: self.container,
            protocol: self.protocol,
        }
    }

    /// The mapping, if nothing is left to be chosen.
    pub fn exact(&self) -> Option<PortMapping> {
        match self.host {
            HostPorts::These(host) => Some(self.at(host)),
            HostPorts::OneOf(_) | HostPorts::Any => None,
        }
    }

    /// The mappings that it may become, the one with the lowest ports first; `any` are the ports for
    /// [`HostPorts::Any`].
    pub fn choices(self, any: PortRange) -> impl Iterator<Item = PortMapping> {
        let (among, count) = match self.host {
            HostPorts::These(host) => (host, host.count()),
            HostPorts::OneOf(host) => (host, 1),
            HostPorts::Any => (any, self.container.count()),
        };
        let more = u16::try_from(count - 1).unwrap_or(u16::MAX);
        (among.first()..=among.last().saturating_sub(more)).filter_map(move |first| {
            let host = PortRange::new(first, first.checked_add(more)?)?;
            Some(self.at(host))
        })
    }
}

impl From<PortMapping> for PortRequest {
    fn from(mapping: PortMapping) -> Self {
        Self {
            host_ip: mapping.host_ip,
            host: HostPorts::These(mapping.host),
            container: mapping.container,
            protocol: mapping.protocol,
        }
    }
}

impl fmt::Display for PortRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            None => {}
            Some(IpAddr::V4(ip)) => write!(f, "{ip}:")?,
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
        }
        match self.host {
            HostPorts::These(host) | HostPorts::OneOf(host) => write!(f, "{host}:")?,
            HostPorts::Any if self.host_ip.is_some() => write!(f, ":")?,
            HostPorts::Any => {}
        }
        write!(f, "{}/{}", self.container, self.protocol)
    }
}

impl FromStr for PortRequest {
    type Err = PortError;
    fn from_str(text: &str) -> Result<Self, PortError> {
        let (body, protocol) = match text.rsplit_once('/') {
            Some((body, protocol)) => (body, protocol.parse()?),
            None => (text, Protocol::Tcp),
        };
        let (rest, container) = body.rsplit_once(':').unwrap_or(("", body));
        let Ok(container) = container.parse::<PortRange>() else {
            // Without a colon it may be anything.
            return Err(match body.contains(':') {
                true => PortError::Port(container.to_owned()),
                false => PortError::Form(text.to_owned()),
            });
        };
        let (host_ip, host) = match rest.rsplit_once(':') {
            Some((ip, host)) => (Some(parse_host_ip(ip)?), host),
            None => (None, rest),
        };
        let host = host_ports(host, container)?;
        if host_ip.is_some_and(|ip| ip.is_ipv6() && ip.is_loopback()) {
            return Err(PortError::Loopback6(match host {
                HostPorts::These(host) | HostPorts::OneOf(host) => host,
                HostPorts::Any => container,
            }));
        }
        Ok(Self {
            host_ip,
            host,
            container,
            protocol,
        })
    }
}

fn host_ports(text: &str, container: PortRange) -> Result<HostPorts, PortError> {
    if text.is_empty() {
        return Ok(HostPorts::Any);
    }
    let host: PortRange = text.parse()?;
    match container.is_single() && !host.is_single() {
        true => Ok(HostPorts::OneOf(host)),
        false if host.count() == container.count() => Ok(HostPorts::These(host)),
        false => Err(PortError::Lengths { host, container }),
    }
}

/// `1.2.3.4`, `[::]`, and `::` without brackets, as Docker takes it too.
fn parse_host_ip(text: &str) -> Result<IpAddr, PortError> {
    let bare = text
        .strip_prefix('[')
        .and_then(|t| t.strip_suffix(']'))
        .unwrap_or(text);
    let ip: IpAddr = bare
        .parse()
        .map_err(|_| PortError::HostIp(text.to_owned()))?;
    let v4_mapped = matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    if ip.is_multicast() || v4_mapped || ip == IpAddr::from([255, 255, 255, 255]) {
        return Err(PortError::HostIp(text.to_owned()));
    }
    Ok(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> PortRequest {
        text.parse().unwrap()
    }

    #[test]
    fn reads_what_docker_reads() {
        for (text, shown) in [
            ("5000", "5000/tcp"),
            (":5000", "5000/tcp"),
            ("5000-5002/udp", "5000-5002/udp"),
            ("127.0.0.1::80", "127.0.0.1::80/tcp"),
            ("[::]::80", "[::]::80/tcp"),
            ("8000-8010:80", "8000-8010:80/tcp"),
            ("8080:80", "8080:80/tcp"),
        ] {
            assert_eq!(request(text).to_string(), shown);
            assert_eq!(request(shown), request(text));
        }
        for bad in [
            "",
            "x",
            "::80",
            "80-81:80-82",
            "[::1]::80",
            "80:",
            "0",
            "1.2.3.4:80",
        ] {
            assert!(bad.parse::<PortRequest>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn choices_lie_within() {
        let any = PortRange::new(65533, 65535).unwrap();
        let of = |text: &str| -> Vec<String> {
            let choices = request(text).choices(any);
            choices.map(|mapping| mapping.host.to_string()).collect()
        };
        assert_eq!(of("80"), ["65533", "65534", "65535"]);
        assert_eq!(of("80-81"), ["65533-65534", "65534-65535"]);
        assert_eq!(of("80-84"), [""; 0]);
        assert_eq!(of("10-12:80"), ["10", "11", "12"]);
        assert_eq!(of("10-12:80-82"), ["10-12"]);
    }
}
