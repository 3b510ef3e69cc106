//! Verdicts, statements and sets as text.

use wharf_nft::expr::{self, DynsetOp, Expr, LimitType, NatType, NumgenType, RejectType};
use wharf_nft::{Data, Element, ElementFlags, Family, ObjectKind, Reg, Set, Verdict, intervals};

use super::super::names::Field;
use super::super::values::{Kind, of_type, range, value};
use super::{OVER, Operand, Writer, slot};

/// `NFT_SET_ANONYMOUS`.
const ANONYMOUS: wharf_nft::SetFlags = wharf_nft::SetFlags::ANONYMOUS;

/// A verdict.
pub fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Continue => "continue".to_owned(),
        Verdict::Break => "break".to_owned(),
        Verdict::Return => "return".to_owned(),
        Verdict::Jump(chain) => format!("jump {chain}"),
        Verdict::Goto(chain) => format!("goto {chain}"),
        Verdict::Queue(n) => format!("queue to {n}"),
        Verdict::Other(code) => format!("verdict {code}"),
    }
}

/// A set by its name, or its elements if it has none of its own.
pub fn set((set, elements): &(Set, Vec<Element>), key: &[Field], most: usize) -> String {
    if !set.flags.has(ANONYMOUS) {
        return format!("@{}", set.name);
    }
    let kind = set.data_type.map_or(Kind::Net, of_type);
    let mut all = intervals(set, elements);
    all.sort_by(|a, b| a.0.cmp(b.0));
    let one = |(from, to, element): &(&[u8], Vec<u8>, &Element)| {
        with_data(fields(key, from, to), kind, element)
    };
    let mut texts: Vec<String> = all.iter().take(most).map(one).collect();
    if all.len() > most {
        texts.push("…".to_owned());
    }
    if let Some(rest) = elements
        .iter()
        .find(|e| e.flags.has(ElementFlags::CATCHALL))
    {
        texts.push(with_data("*".to_owned(), kind, rest));
    }
    format!("{{ {} }}", texts.join(", "))
}

fn with_data(key: String, kind: Kind, element: &Element) -> String {
    match &element.data {
        None => key,
        Some(Data::Verdict(v)) => format!("{key} : {}", verdict(v)),
        Some(Data::Value(bytes)) => {
            let (first, last) = bytes.split_at(bytes.len() / 2);
            let text = match (kind, bytes.len()) {
                (Kind::Ip4, 8) | (Kind::Ip6, 32) => range(kind, first, last),
                _ => value(kind, bytes),
            };
            format!("{key} : {text}")
        }
    }
}

/// A key, field by field.
fn fields(key: &[Field], from: &[u8], to: &[u8]) -> String {
    let [_, _, ..] = key else {
        let kind = key.first().map_or(Kind::Net, |f| f.kind);
        return range(kind, from, to);
    };
    let mut at = 0;
    let mut texts = Vec::new();
    for field in key {
        let end = at + field.len;
        if let (Some(a), Some(b)) = (from.get(at..end), to.get(at..end)) {
            texts.push(range(field.kind, a, b));
        }
        at = end.next_multiple_of(4);
    }
    texts.join(" . ")
}

impl<'a> Writer<'_, 'a> {
    /// What is no test.
    pub(super) fn act(&mut self, expr: &'a Expr) {
        let text = match expr {
            Expr::Counter(_) => "counter".to_owned(),
            Expr::Notrack(_) => "notrack".to_owned(),
            Expr::Limit(e) => limit(e),
            Expr::Quota(e) => quota(e),
            Expr::Connlimit(e) => format!("ct count {}{}", over(e.flags), e.count),
            Expr::Log(e) => log(e),
            Expr::Reject(e) => reject(e, self.rule.family),
            Expr::Nat(e) => self.nat(e),
            Expr::Masq(e) => format!("masquerade{}", self.ports(e.proto_min, e.proto_max, " to ")),
            Expr::Redir(e) => format!("redirect{}", self.ports(e.proto_min, e.proto_max, " to ")),
            Expr::Queue(e) => {
                let bypass = if e.flags.unwrap_or(0) & 1 != 0 {
                    "flags bypass "
                } else {
                    ""
                };
                format!("queue {bypass}to {}", e.num.unwrap_or(0))
            }
            Expr::Tproxy(e) => format!("tproxy to {}", self.ports(e.port, e.port, "")),
            Expr::FlowOffload(e) => format!("flow add @{}", e.table),
            Expr::Dynset(e) => self.dynset(e),
            Expr::Objref(e) => self.objref(e),
            Expr::ExtHdr(e) => return self.exthdr(e),
            Expr::Numgen(e) => {
                let kind = match e.kind {
                    NumgenType::Random => "random",
                    _ => "inc",
                };
                let text = format!("numgen {kind} mod {}", e.modulus);
                return self.load(e.dreg, vec![Field::new(text, Kind::Host, 4)]);
            }
            Expr::Hash(e) => {
                let text = format!("jhash mod {}", e.modulus);
                return self.load(e.dreg, vec![Field::new(text, Kind::Host, 4)]);
            }
            Expr::Rt(e) => {
                return self.load(e.dreg, vec![Field::new("rt", Kind::Net, 4)]);
            }
            Expr::Socket(e) => {
                return self.load(e.dreg, vec![Field::new("socket", Kind::Host, 4)]);
            }
            Expr::Match(e) => format!("xt match \"{}\"", e.name),
            Expr::Target(e) => format!("xt target \"{}\"", e.name),
            other => other.name().to_owned(),
        };
        self.say(text);
    }

    /// A constant address or port of a translation, or where it comes from.
    fn argument(&self, reg: Reg, kind: Kind, len: usize) -> String {
        match self.get(slot(reg)) {
            Some(Operand::Bytes(bytes)) => value(kind, bytes.get(..len).unwrap_or(bytes)),
            _ => self.field(reg, len).text.into_owned(),
        }
    }

    fn ports(&self, min: Option<Reg>, max: Option<Reg>, before: &str) -> String {
        let Some(min) = min else {
            return String::new();
        };
        let first = self.argument(min, Kind::Net, 2);
        match max.filter(|m| *m != min) {
            Some(max) => format!("{before}:{first}-{}", self.argument(max, Kind::Net, 2)),
            None => format!("{before}:{first}"),
        }
    }

    fn nat(&self, e: &expr::Nat) -> String {
        let six = e.family == u32::from(Family::Ip6.number());
        let (kind, len) = if six { (Kind::Ip6, 16) } else { (Kind::Ip4, 4) };
        let word = if e.kind == NatType::Snat {
            "snat"
        } else {
            "dnat"
        };
        let netmap = e.flags.has(expr::Nat::NETMAP);
        let family = match self.rule.family {
            Family::Inet if e.addr_min.is_some() => {
                if six {
                    " ip6"
                } else {
                    " ip"
                }
            }
            // Of a prefix nft prints the family everywhere.
            Family::Ip if netmap => " ip",
            Family::Ip6 if netmap => " ip6",
            _ => "",
        };
        let prefix = if netmap { " prefix" } else { "" };
        let mut to = match (e.addr_min, e.addr_max) {
            (Some(min), Some(max)) if max != min && !netmap => {
                format!(
                    "{}-{}",
                    self.argument(min, kind, len),
                    self.argument(max, kind, len)
                )
            }
            (Some(min), Some(max)) if netmap => match (self.get(slot(min)), self.get(slot(max))) {
                (Some(Operand::Bytes(first)), Some(Operand::Bytes(last))) => {
                    range(kind, first, last)
                }
                _ => self.argument(min, kind, len),
            },
            (Some(min), _) => self.argument(min, kind, len),
            (None, _) => String::new(),
        };
        let ports = self.ports(e.proto_min, e.proto_max, "");
        if six && !ports.is_empty() && e.addr_min.is_some() {
            to = format!("[{to}]");
        }
        let flags = [
            (expr::Nat::RANDOM, " random"),
            (expr::Nat::FULLY_RANDOM, " fully-random"),
            (expr::Nat::PERSISTENT, " persistent"),
        ];
        let flags: String = flags
            .iter()
            .filter(|(flag, _)| e.flags.has(*flag))
            .map(|(_, text)| *text)
            .collect();
        format!("{word}{family}{prefix} to {to}{ports}{flags}")
    }

    fn dynset(&self, e: &'a expr::Dynset) -> String {
        let word = match e.op {
            DynsetOp::Update => "update",
            DynsetOp::Delete => "delete",
            _ => "add",
        };
        let len = self
            .dump
            .set(self.rule, &e.set)
            .map_or(4, |(set, _)| set.key_len as usize);
        let fields = self.key(e.sreg_key, len);
        let key: Vec<&str> = fields.iter().map(|f| f.text.as_ref()).collect();
        let mut text = format!("{word} @{} {{ {}", e.set, key.join(" . "));
        for inner in e.expr.iter().map(AsRef::as_ref).chain(&e.exprs) {
            let inner = match inner {
                Expr::Limit(e) => limit(e),
                Expr::Quota(e) => quota(e),
                Expr::Connlimit(e) => format!("ct count {}{}", over(e.flags), e.count),
                other => other.name().to_owned(),
            };
            text = format!("{text} {inner}");
        }
        text + " }"
    }

    fn objref(&self, e: &'a expr::Objref) -> String {
        let Some(name) = &e.object else {
            return format!("object @{}", e.set.as_deref().unwrap_or_default());
        };
        let kind = self.dump.object(self.rule, name).map(|o| o.kind);
        let word = match kind {
            Some(ObjectKind::Counter) => "counter name",
            Some(ObjectKind::Quota) => "quota name",
            Some(ObjectKind::Limit) => "limit name",
            Some(ObjectKind::CtHelper) => "ct helper set",
            Some(ObjectKind::CtTimeout) => "ct timeout set",
            Some(ObjectKind::CtExpect) => "ct expectation set",
            Some(ObjectKind::Synproxy) => "synproxy name",
            _ => "object",
        };
        format!("{word} \"{name}\"")
    }

    fn exthdr(&mut self, e: &expr::ExtHdr) {
        let tcp = e.op == Some(expr::ExtHdrOp::TcpOpt);
        let name = match (tcp, e.kind) {
            (true, 2) => "tcp option maxseg size".to_owned(),
            (true, kind) => format!("tcp option {kind}"),
            (false, 0) => "exthdr hbh".to_owned(),
            (false, 43) => "exthdr rt".to_owned(),
            (false, 44) => "exthdr frag".to_owned(),
            (false, 60) => "exthdr dst".to_owned(),
            (false, kind) => format!("exthdr {kind}"),
        };
        let kind = if e.flags.0 & 1 != 0 {
            Kind::Exists
        } else {
            Kind::Net
        };
        let len = e.len.unwrap_or(1) as usize;
        let field = Field::new(name, kind, len);
        self.imply(&[if tcp {
            super::Needed::Transport
        } else {
            super::Needed::Network
        }]);
        match (e.dreg, e.sreg) {
            (Some(dreg), _) => self.load(dreg, vec![field]),
            (None, Some(sreg)) => self.assign(field, sreg),
            (None, None) => self.say(format!("reset {}", field.text)),
        }
    }
}

fn over(flags: expr::Bits) -> &'static str {
    if flags.has(OVER) { "over " } else { "" }
}

fn limit(e: &expr::Limit) -> String {
    let unit = match e.unit {
        1 => "second",
        60 => "minute",
        3600 => "hour",
        86400 => "day",
        604_800 => "week",
        _ => "period",
    };
    let over = over(e.flags);
    if e.kind == LimitType::Bytes {
        let burst = if e.burst == 0 {
            String::new()
        } else {
            format!(" burst {}", bytes(u64::from(e.burst)))
        };
        return format!("limit rate {over}{}/{unit}{burst}", bytes(e.rate));
    }
    // nft takes 5 where none is said, and does not print it.
    let burst = match e.burst {
        0 | 5 => String::new(),
        burst => format!(" burst {burst} packets"),
    };
    format!("limit rate {over}{}/{unit}{burst}", e.rate)
}

fn quota(e: &expr::Quota) -> String {
    format!("quota {}{}", over(e.flags), bytes(e.bytes))
}

fn bytes(count: u64) -> String {
    match count {
        n if n > 0 && n % (1 << 20) == 0 => format!("{} mbytes", n >> 20),
        n if n > 0 && n % (1 << 10) == 0 => format!("{} kbytes", n >> 10),
        n => format!("{n} bytes"),
    }
}

fn log(e: &expr::Log) -> String {
    const LEVELS: [&str; 8] = [
        "emerg", "alert", "crit", "err", "warn", "notice", "info", "debug",
    ];
    let mut text = "log".to_owned();
    if let Some(prefix) = &e.prefix {
        text = format!("{text} prefix \"{prefix}\"");
    }
    if let Some(group) = e.group {
        text = format!("{text} group {group}");
    }
    match e.level.and_then(|l| LEVELS.get(l as usize)) {
        Some(level) if *level != "warn" => format!("{text} level {level}"),
        _ => text,
    }
}

fn reject(e: &expr::Reject, family: Family) -> String {
    let code = e.code.unwrap_or_default();
    let name = |names: &[(u8, &'static str)]| {
        let found = names.iter().find(|(c, _)| *c == code);
        found.map_or_else(|| code.to_string(), |(_, n)| (*n).to_owned())
    };
    const V4: &[(u8, &str)] = &[
        (0, "net-unreachable"),
        (1, "host-unreachable"),
        (2, "prot-unreachable"),
        (3, "port-unreachable"),
        (9, "net-prohibited"),
        (10, "host-prohibited"),
        (13, "admin-prohibited"),
    ];
    const V6: &[(u8, &str)] = &[
        (0, "no-route"),
        (1, "admin-prohibited"),
        (3, "addr-unreachable"),
        (4, "port-unreachable"),
        (5, "policy-fail"),
        (6, "reject-route"),
    ];
    const BOTH: &[(u8, &str)] = &[
        (0, "no-route"),
        (1, "port-unreachable"),
        (2, "host-unreachable"),
        (3, "admin-prohibited"),
    ];
    match (e.kind, family, code) {
        (RejectType::TcpRst, ..) => "reject with tcp reset".to_owned(),
        (RejectType::IcmpxUnreach, _, 1)
        | (RejectType::IcmpUnreach, Family::Ip, 3)
        | (RejectType::IcmpUnreach, Family::Ip6, 4) => "reject".to_owned(),
        (RejectType::IcmpxUnreach, ..) => format!("reject with icmpx {}", name(BOTH)),
        (_, Family::Ip6, _) => format!("reject with icmpv6 {}", name(V6)),
        _ => format!("reject with icmp {}", name(V4)),
    }
}
