//! Arguments that several commands share, and how their texts are read.

use std::collections::BTreeMap;
use std::net::IpAddr;

use clap::Args;
use ipnet::IpNet;
use wharf_core::addr::Mac;
use wharf_core::attach::AttachRequest;
use wharf_core::network::DEFAULT_NETWORK;
use wharf_core::publish::PortRequest;
use wharf_engine::api::Mode;

use crate::output::error::CommandError;

/// For commands that change something.
#[derive(Debug, Clone, Copy, Args)]
pub struct ChangeArgs {
    /// Change nothing: print the commands that would do the same, each with its reason
    #[arg(long)]
    pub dry_run: bool,
}

impl ChangeArgs {
    /// As the engine takes it.
    pub fn mode(self) -> Mode {
        if self.dry_run {
            Mode::DryRun
        } else {
            Mode::Apply
        }
    }
}

/// Networks and ports of a new container.
#[derive(Debug, Clone, Args)]
pub struct AttachArgs {
    /// Put the container on this network (may be given again); `default` if none is named
    ///
    /// Behind the name, `:` and options with commas between: ip=ADDRESS, mac=MAC, interface=NAME,
    /// host-interface=NAME, gw-priority=N, alias=NAME.
    #[arg(long = "network", visible_alias = "net", value_name = "NET[:ip=A,…]")]
    pub networks: Vec<AttachRequest>,

    /// Address on the first network (IPv4 or IPv6; one of each may be given)
    #[arg(long = "ip", alias = "ip6", value_name = "ADDRESS")]
    pub ips: Vec<IpAddr>,

    /// MAC address on the first network
    #[arg(long = "mac-address", alias = "mac", value_name = "MAC")]
    pub mac: Option<Mac>,

    /// Publish a port on the host (may be given again)
    ///
    /// [HOSTIP:]HOSTPORT[-END]:PORT[-END][/tcp|udp|sctp], for example 8080:80, 127.0.0.1:5005:5000
    /// or 8000-8010:8000-8010/udp. Of several host ports for one port the first free one is taken (8000-8010:80);
    /// without HOSTPORT (80, 127.0.0.1::80) wharf chooses one, which `wharf port ls` shows.
    #[arg(short = 'p', long = "publish", alias = "port", value_name = "SPEC")]
    pub ports: Vec<PortRequest>,

    /// Label, kept and shown (may be given again)
    #[arg(short = 'l', long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
}

impl AttachArgs {
    /// The labels, of those of one name the last.
    pub fn labels(&self) -> BTreeMap<String, String> {
        self.labels.iter().cloned().collect()
    }

    /// The networks asked for, with what belongs to the first.
    ///
    /// # Errors
    /// The default network has no name that can be read, which a test rules out.
    pub fn requests(&self) -> Result<Vec<AttachRequest>, CommandError> {
        let mut requests = self.networks.clone();
        if self.ips.is_empty() && self.mac.is_none() {
            return Ok(requests);
        }
        if requests.is_empty() {
            let name = DEFAULT_NETWORK
                .parse()
                .map_err(|error| CommandError::internal(format!("{error}")))?;
            requests.push(AttachRequest::new(name));
        }
        if let Some(first) = requests.first_mut() {
            first.ips.extend(&self.ips);
            first.mac = self.mac.or(first.mac);
        }
        Ok(requests)
    }
}

/// `KEY=VALUE`.
///
/// # Errors
/// There is no key.
pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("KEY=VALUE is expected".to_owned()),
    }
}

/// `KEY` or `KEY=VALUE`, as Docker takes labels and options; a key alone has an empty value.
///
/// # Errors
/// There is no key.
pub fn label(text: &str) -> Result<(String, String), String> {
    if text.contains('=') {
        return key_value(text);
    }
    if text.is_empty() {
        return Err("KEY=VALUE is expected".to_owned());
    }
    Ok((text.to_owned(), String::new()))
}

/// A subnet.
///
/// # Errors
/// Not an address with a prefix length.
pub fn subnet(text: &str) -> Result<IpNet, String> {
    // Elsewhere 172.030.0.0 is 172.24.0.0.
    let is_plain = |addr: &str| addr.parse::<IpAddr>().is_ok();
    let plain = text.split_once('/').is_some_and(|(addr, _)| is_plain(addr));
    text.parse().ok().filter(|_| plain).ok_or_else(|| {
        "ADDRESS/LENGTH is expected, such as 172.18.0.0/16 or fd00:18::/64".to_owned()
    })
}

/// A process id.
///
/// # Errors
/// Not a number above zero.
pub fn pid(text: &str) -> Result<i32, String> {
    text.parse()
        .ok()
        .filter(|pid| *pid > 0)
        .ok_or_else(|| "a process id is expected".to_owned())
}
