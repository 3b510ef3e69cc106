//! Rules that iptables-nft wrote, as iptables-save prints them.
//!
//! It has native expressions for addresses, interfaces, protocols, ports, marks and limits, a counter always, and the
//! blobs of xtables for the rest. What has another form was written by somebody else, and has no text here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wharf_core::trace::ruleset::TableFamily;
use wharf_nft::expr::{Cmp, CmpOp, Log, MetaKey, PayloadBase, RangeOp};
use wharf_nft::{Data, Expr, Family, Reg, Rule, Verdict};

use super::text::{network, protocol, quoted, span};
use super::{SetNames, decode_match, decode_target, text};

/// What is in a register.
#[derive(Clone, PartialEq, Eq)]
enum Load {
    Meta(MetaKey),
    /// Base, offset and length.
    Payload(PayloadBase, u32, u32),
    /// A number, for setting something.
    Value(Vec<u8>),
}

/// A register with what was loaded, and the mask that was laid over it.
struct Loaded {
    reg: Reg,
    what: Load,
    mask: Option<Vec<u8>>,
}

/// Ports and flags of one protocol, which are one match however many expressions they are.
#[derive(Default)]
struct Ports {
    sport: Option<String>,
    dport: Option<String>,
    flags: Option<String>,
}

/// A rule as it is read.
struct Saved<'a> {
    family: TableFamily,
    sets: &'a SetNames,
    /// `-s`, `-d`, `-i`, `-o`, `-p`, `-f`.
    head: [Option<String>; 6],
    matches: Vec<String>,
    /// The protocol's name, its ports, and where among the matches they are.
    proto: Option<String>,
    ports: Option<(usize, Ports)>,
    target: Option<String>,
    counted: bool,
    loaded: Option<Loaded>,
}

/// The text after `-A CHAIN` of a rule that iptables-nft or ip6tables-nft wrote; `None` for any other.
#[must_use]
pub fn as_saved(rule: &Rule, sets: &SetNames) -> Option<String> {
    let family = match rule.family {
        Family::Ip => TableFamily::Ip,
        Family::Ip6 => TableFamily::Ip6,
        _ => return None,
    };
    let mut saved = Saved {
        family,
        sets,
        head: Default::default(),
        matches: Vec::new(),
        proto: None,
        ports: None,
        target: None,
        counted: false,
        loaded: None,
    };
    for expr in &rule.exprs {
        saved.expr(expr)?;
    }
    // Ports belong to a protocol's match.
    let named = saved.proto.is_some() || saved.ports.is_none();
    (saved.counted && named).then(|| saved.text())
}

fn not(invert: bool, option: &str) -> String {
    let not = if invert { "! " } else { "" };
    format!("{not}{option}")
}

/// `Some(true)` if it is inverted; `None` for an order.
fn inverted(op: CmpOp) -> Option<bool> {
    match op {
        CmpOp::Eq => Some(false),
        CmpOp::Neq => Some(true),
        _ => None,
    }
}

fn number16(bytes: &[u8]) -> Option<u16> {
    bytes.try_into().ok().map(u16::from_be_bytes)
}

fn number32(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

/// A name of an interface, or the beginning of one, which has no zero byte.
fn interface(bytes: &[u8]) -> String {
    let name = text_of(bytes);
    let whole = bytes.len() == 16 || bytes.contains(&0);
    format!("{name}{}", if whole { "" } else { "+" })
}

fn text_of(bytes: &[u8]) -> String {
    super::info::text(bytes)
}

/// An address of which the first bytes are given, and those of its mask.
fn address(family: TableFamily, bytes: &[u8], mask: &[u8]) -> Option<String> {
    fn whole<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
        let mut all = [0; N];
        all.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(all)
    }
    let (addr, mask): (IpAddr, IpAddr) = match family {
        TableFamily::Ip6 => (
            Ipv6Addr::from(whole(bytes)?).into(),
            Ipv6Addr::from(whole(mask)?).into(),
        ),
        _ => (
            Ipv4Addr::from(whole(bytes)?).into(),
            Ipv4Addr::from(whole(mask)?).into(),
        ),
    };
    Some(network(addr, mask))
}

impl Saved<'_> {
    fn text(self) -> String {
        let mut words: Vec<String> = self.head.into_iter().flatten().collect();
        let mut matches = self.matches;
        if let Some((at, ports)) = self.ports {
            let proto = self.proto.unwrap_or_default();
            let options = [ports.sport, ports.dport, ports.flags];
            let options: Vec<String> = options.into_iter().flatten().collect();
            matches.insert(at, format!("-m {proto} {}", options.join(" ")));
        }
        words.extend(matches);
        words.extend(self.target);
        words.join(" ")
    }

    fn expr(&mut self, expr: &Expr) -> Option<()> {
        match expr {
            Expr::Counter(_) => self.counted = true,
            Expr::Meta(meta) => match (meta.dreg, meta.sreg) {
                (Some(reg), None) => self.load(reg, Load::Meta(meta.key)),
                (None, Some(reg)) => self.set(meta.key, reg)?,
                _ => return None,
            },
            Expr::Payload(p) if p.sreg.is_none() => {
                self.load(p.dreg?, Load::Payload(p.base, p.offset, p.len));
            }
            Expr::Bitwise(b) => {
                let loaded = self.loaded.as_mut().filter(|l| l.reg == b.sreg)?;
                let plain = b.xor.iter().flatten().all(|byte| *byte == 0);
                loaded.mask = Some(b.mask.clone().filter(|_| plain)?);
                loaded.reg = b.dreg;
            }
            Expr::Cmp(cmp) => self.cmp(cmp)?,
            Expr::Range(r) => {
                let (loaded, _) = self.take(r.sreg)?;
                let range = span((number16(&r.from)?, number16(&r.to)?), ':');
                self.port(&loaded, r.op == RangeOp::Neq, range)?;
            }
            Expr::Limit(l) => {
                let units = [(1, "sec"), (60, "min"), (3600, "hour"), (86400, "day")];
                let unit = units.iter().find(|(seconds, _)| *seconds == l.unit)?.1;
                let mut text = format!("-m limit --limit {}/{unit}", l.rate);
                if l.burst != 5 {
                    text += &format!(" --limit-burst {}", l.burst);
                }
                self.matches.push(text);
            }
            Expr::Match(m) => {
                let sets = self.sets;
                let decoded = decode_match(&m.name, m.rev, &m.info.0, self.family, sets);
                self.matches.push(decoded.text);
            }
            Expr::Target(t) => {
                let sets = self.sets;
                let decoded = decode_target(&t.name, t.rev, &t.info.0, self.family, sets);
                self.aim(decoded.text)?;
            }
            Expr::Log(l) => self.aim(nflog(l)?)?,
            Expr::Immediate(i) => match &i.data {
                Data::Value(value) => self.load(i.dreg, Load::Value(value.clone())),
                Data::Verdict(verdict) => self.aim(standard(verdict)?)?,
            },
            _ => return None,
        }
        Some(())
    }

    fn load(&mut self, reg: Reg, what: Load) {
        let mask = None;
        self.loaded = Some(Loaded { reg, what, mask });
    }

    /// What is in the register, and its mask.
    fn take(&mut self, reg: Reg) -> Option<(Load, Option<Vec<u8>>)> {
        let loaded = self.loaded.take().filter(|l| l.reg == reg)?;
        Some((loaded.what, loaded.mask))
    }

    fn aim(&mut self, target: String) -> Option<()> {
        self.target.replace(target).is_none().then_some(())
    }

    /// `-j TRACE` is the one thing that is set natively.
    fn set(&mut self, key: MetaKey, reg: Reg) -> Option<()> {
        let (value, _) = self.take(reg)?;
        let one = matches!(value, Load::Value(v) if v.first() == Some(&1));
        (key == MetaKey::NfTrace && one).then_some(())?;
        self.aim("-j TRACE".to_owned())
    }

    fn cmp(&mut self, cmp: &Cmp) -> Option<()> {
        let (loaded, mask) = self.take(cmp.sreg)?;
        let data = &cmp.data;
        match loaded {
            Load::Meta(key) => self.meta(key, inverted(cmp.op)?, data, mask)?,
            Load::Payload(PayloadBase::Network, 6, 2) if mask.as_deref() == Some(&[0x1f, 0xff]) => {
                (data[..] == [0, 0]).then_some(())?;
                self.put(5, not(!inverted(cmp.op)?, "-f"))?;
            }
            Load::Payload(PayloadBase::Network, offset, len) => {
                let at = match (self.family, offset) {
                    (TableFamily::Ip, 12) | (TableFamily::Ip6, 8) => 0,
                    (TableFamily::Ip, 16) | (TableFamily::Ip6, 24) => 1,
                    _ => return None,
                };
                let mask = mask.unwrap_or_else(|| vec![u8::MAX; len as usize]);
                let net = address(self.family, data, &mask)?;
                let option = not(inverted(cmp.op)?, ["-s", "-d"][at]);
                self.put(at, format!("{option} {net}"))?;
            }
            Load::Payload(PayloadBase::Transport, 13, 1) => {
                let (mask, comp) = (*mask?.first()?, *data.first()?);
                let names = text::tcp_flags;
                let option = not(inverted(cmp.op)?, "--tcp-flags");
                let flags = format!("{option} {} {}", names(mask), names(comp));
                self.ports().flags = Some(flags);
            }
            Load::Payload(PayloadBase::Transport, ..) => {
                let port = number16(data)?;
                let (invert, range) = match cmp.op {
                    CmpOp::Eq => (false, (port, port)),
                    CmpOp::Neq => (true, (port, port)),
                    CmpOp::Lt => (false, (0, port.checked_sub(1)?)),
                    CmpOp::Lte => (false, (0, port)),
                    CmpOp::Gt => (false, (port.checked_add(1)?, u16::MAX)),
                    CmpOp::Gte => (false, (port, u16::MAX)),
                    CmpOp::Other(_) => return None,
                };
                self.port(&loaded, invert, span(range, ':'))?;
            }
            _ => return None,
        }
        Some(())
    }

    fn meta(
        &mut self,
        key: MetaKey,
        invert: bool,
        data: &[u8],
        mask: Option<Vec<u8>>,
    ) -> Option<()> {
        match key {
            MetaKey::IifName => self.put(2, format!("{} {}", not(invert, "-i"), interface(data))),
            MetaKey::OifName => self.put(3, format!("{} {}", not(invert, "-o"), interface(data))),
            MetaKey::L4Proto => {
                let name = protocol(*data.first()?);
                self.put(4, format!("{} {name}", not(invert, "-p")))?;
                self.proto = Some(name);
                Some(())
            }
            MetaKey::Mark => {
                let mask = mask.map_or(Some(u32::MAX), |m| number32(&m))?;
                let mark = text::mark(number32(data)?, mask);
                let option = not(invert, "--mark");
                self.matches.push(format!("-m mark {option} {mark}"));
                Some(())
            }
            _ => None,
        }
    }

    fn put(&mut self, at: usize, text: String) -> Option<()> {
        self.head[at].replace(text).is_none().then_some(())
    }

    fn ports(&mut self) -> &mut Ports {
        let at = self.matches.len();
        &mut self.ports.get_or_insert_with(|| (at, Ports::default())).1
    }

    fn port(&mut self, loaded: &Load, invert: bool, range: String) -> Option<()> {
        let Load::Payload(PayloadBase::Transport, offset @ (0 | 2), 2) = loaded else {
            return None;
        };
        let ports = self.ports();
        let (place, option) = if *offset == 0 {
            (&mut ports.sport, "--sport")
        } else {
            (&mut ports.dport, "--dport")
        };
        let text = format!("{} {range}", not(invert, option));
        place.replace(text).is_none().then_some(())
    }
}

fn standard(verdict: &Verdict) -> Option<String> {
    Some(match verdict {
        Verdict::Accept => "-j ACCEPT".to_owned(),
        Verdict::Drop => "-j DROP".to_owned(),
        Verdict::Return => "-j RETURN".to_owned(),
        Verdict::Jump(chain) => format!("-j {chain}"),
        Verdict::Goto(chain) => format!("-g {chain}"),
        _ => return None,
    })
}

/// `-j NFLOG`; `-j LOG` is a blob.
fn nflog(log: &Log) -> Option<String> {
    let group = log.group?;
    let mut out = "-j NFLOG".to_owned();
    if let Some(prefix) = log.prefix.as_deref().filter(|p| !p.is_empty()) {
        out += &format!(" --nflog-prefix {}", quoted(prefix));
    }
    let threshold = log.qthreshold.map_or(0, u32::from);
    for (option, value) in [
        ("--nflog-group", group.into()),
        ("--nflog-size", log.snaplen.unwrap_or(0)),
        ("--nflog-threshold", threshold),
    ] {
        if value != 0 {
            out += &format!(" {option} {value}");
        }
    }
    Some(out)
}
