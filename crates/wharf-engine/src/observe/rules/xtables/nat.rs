//! Targets that translate addresses and ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use wharf_core::trace::ruleset::{Expr, NatArg, NatKind};

use super::info::Info;
use super::text::{Decoded, span};

/// By name.
pub fn decode(name: &str, info: &Info<'_>) -> Option<Decoded> {
    match name {
        "DNAT" => translate(info, "DNAT", "--to-destination", NatKind::Destination),
        "SNAT" => translate(info, "SNAT", "--to-source", NatKind::Source),
        "MASQUERADE" => ports_only(info, "MASQUERADE", NatKind::Masquerade),
        "REDIRECT" => ports_only(info, "REDIRECT", NatKind::Redirect),
        "NETMAP" => netmap(info),
        "DNPT" | "SNPT" => prefix_translation(info, name),
        _ => None,
    }
}

const MAP_IPS: u32 = 1;
const PORTS: u32 = 2;
const PORT_OFFSET: u32 = 32;

/// What the structures of a range have in common.
struct Range {
    flags: u32,
    first: IpAddr,
    last: IpAddr,
    ports: (u16, u16),
    base: u16,
}

/// `struct nf_nat_ipv4_multi_range_compat`, `struct nf_nat_range`, `struct nf_nat_range2`, by revision and family.
fn range(info: &Info<'_>, name: &str) -> Option<Range> {
    let both = matches!(name, "DNAT" | "SNAT");
    if info.rev == 0 && (both || !info.v6()) {
        return Some(Range {
            flags: info.u32(4)?,
            first: info.v4_addr(8)?,
            last: info.v4_addr(12)?,
            ports: (info.be16(16)?, info.be16(18)?),
            base: 0,
        });
    }
    let last = if both { 2 } else { 0 };
    if info.rev > last {
        return None;
    }
    Some(Range {
        flags: info.u32(0)?,
        first: info.addr(4)?,
        last: info.addr(20)?,
        ports: (info.be16(36)?, info.be16(38)?),
        base: if info.rev == 2 { info.be16(40)? } else { 0 },
    })
}

fn addr_arg(range: &Range) -> Option<NatArg> {
    if range.flags & MAP_IPS == 0 {
        return None;
    }
    Some(if range.first == range.last {
        NatArg::Addr(range.first)
    } else {
        NatArg::Addrs(range.first, range.last)
    })
}

fn port_arg(range: &Range) -> Option<NatArg> {
    if range.flags & PORTS == 0 {
        return None;
    }
    let (first, last) = range.ports;
    Some(if range.flags & PORT_OFFSET != 0 {
        NatArg::PortShift {
            first,
            last,
            base: range.base,
        }
    } else if first == last {
        NatArg::Port(first)
    } else {
        NatArg::Ports(first, last)
    })
}

/// Addresses and ports as `--to-destination` takes them.
fn place(range: &Range) -> String {
    let with_ports = range.flags & PORTS != 0;
    let mut out = String::new();
    if range.flags & MAP_IPS != 0 {
        out = span((range.first, range.last), '-');
        if with_ports && range.first.is_ipv6() {
            out = format!("[{out}]");
        }
    }
    if with_ports {
        out += &format!(":{}", span(range.ports, '-'));
        if range.flags & PORT_OFFSET != 0 {
            out += &format!("/{}", range.base);
        }
    }
    out
}

/// How a port is chosen.
fn choice(out: &mut Decoded, flags: u32) {
    for (bit, option) in [(4, "--random"), (16, "--random-fully"), (8, "--persistent")] {
        if flags & bit != 0 {
            out.flag(false, option);
        }
    }
}

fn translate(info: &Info<'_>, name: &str, option: &str, kind: NatKind) -> Option<Decoded> {
    let range = range(info, name)?;
    let mut out = Decoded::of_target(name);
    out.opt(false, option, place(&range));
    choice(&mut out, range.flags);
    out.push(Expr::Nat {
        kind,
        addr: addr_arg(&range),
        port: port_arg(&range),
    });
    Some(out)
}

fn ports_only(info: &Info<'_>, name: &str, kind: NatKind) -> Option<Decoded> {
    let range = range(info, name)?;
    let mut out = Decoded::of_target(name);
    if range.flags & PORTS != 0 {
        out.opt(false, "--to-ports", span(range.ports, '-'));
    }
    choice(&mut out, range.flags);
    out.push(Expr::Nat {
        kind,
        addr: None,
        port: port_arg(&range),
    });
    Some(out)
}

/// The net that lies between two addresses, if they are its first and last.
fn net_between(first: IpAddr, last: IpAddr) -> Option<IpNet> {
    let mask = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            IpAddr::from(Ipv4Addr::from_bits(!(a.to_bits() ^ b.to_bits())))
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            IpAddr::from(Ipv6Addr::from_bits(!(a.to_bits() ^ b.to_bits())))
        }
        _ => return None,
    };
    IpNet::with_netmask(first, mask).ok()
}

fn netmap(info: &Info<'_>) -> Option<Decoded> {
    let range = range(info, "NETMAP")?;
    let net = net_between(range.first, range.last)?;
    let mut out = Decoded::of_target("NETMAP");
    // iptables writes the length of an IPv4 prefix always, that of an IPv6 address alone never.
    if net.prefix_len() == 128 {
        out.opt(false, "--to", net.addr());
    } else {
        out.opt(false, "--to", net);
    }
    out.push(Expr::Nat {
        kind: NatKind::Netmap(net),
        addr: None,
        port: None,
    });
    Some(out)
}

/// `struct ip6t_npt_tginfo`: translation without connections, which has no instruction.
fn prefix_translation(info: &Info<'_>, name: &str) -> Option<Decoded> {
    let mut out = Decoded::of_target(name);
    for (option, at, bits) in [("--src-pfx", 0, 32), ("--dst-pfx", 16, 33)] {
        let (addr, bits) = (info.addr(at)?, info.u8(bits)?);
        out.opt(false, option, format!("{addr}/{bits}"));
    }
    Some(out.opaque_target())
}
