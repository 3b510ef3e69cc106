//! The floor's nf_tables messages: one table, one map from published port to container, one transaction.

use std::net::Ipv4Addr;

use crate::netlink::Batch;

/// A published TCP port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Port on the host.
    pub host: u16,
    /// Port in the container.
    pub container: u16,
}

const TABLE: &str = "floor";
const MAP: &str = "publish";
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = 0;
const DEL_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENTS: u16 = 12;
const DEL_ELEMENTS: u16 = 14;
const INET: u8 = 1;
const IPV4: u8 = 2;
/// Elements per message: one list is one attribute, which must stay below 64 KiB.
const CHUNK: usize = 1000;

/// One atomic change; the kernel applies all of what `fill` adds, or nothing.
pub fn transaction(fill: impl FnOnce(&mut Batch)) -> Batch {
    let mut batch = Batch::new();
    let subsystem = SUBSYSTEM.to_be_bytes();
    let header = [0, 0, subsystem[0], subsystem[1]];
    batch.message(BATCH_BEGIN, 0, &header);
    fill(&mut batch);
    batch.message(BATCH_END, 0, &header);
    batch
}

fn message(batch: &mut Batch, kind: u16, flags: i32) -> &mut Batch {
    batch.message(
        SUBSYSTEM << 8 | kind,
        flags | libc::NLM_F_ACK,
        &[INET, 0, 0, 0],
    )
}

/// The floor's whole table, for the network `subnet`/`prefix` on `bridge`. As `nft` writes it:
///
/// ```text
/// table inet floor {
///   map publish { type inet_proto . inet_service : ipv4_addr . inet_service; }
///   chain prerouting { type nat hook prerouting priority -100;
///     meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @publish }
///   chain output { type nat hook output priority -100; … the same … }
///   chain postrouting { type nat hook postrouting priority 100;
///     oifname != "BRIDGE" ip saddr SUBNET masquerade }
///   chain forward { type filter hook forward priority 0; policy accept; }
/// }
/// ```
pub fn table_add(batch: &mut Batch, bridge: &str, subnet: Ipv4Addr, prefix: u8) {
    message(batch, NEW_TABLE, libc::NLM_F_CREATE).attr_str(1, TABLE);
    map_add(batch);
    for (chain, hook) in [("prerouting", 0), ("output", 3)] {
        chain_add(batch, chain, "nat", hook, -100);
        rule_add(batch, chain, |rule| {
            require_ipv4(rule);
            require_local_destination(rule);
            translate_by_map(rule);
        });
    }
    chain_add(batch, "postrouting", "nat", 4, 100);
    rule_add(batch, "postrouting", |rule| {
        require_other_interface(rule, bridge);
        require_ipv4(rule);
        require_source(rule, subnet, prefix);
        expression(rule, "masq", |_| ());
    });
    chain_add(batch, "forward", "filter", 2, 0);
}

/// `delete table inet floor`
pub fn table_del(batch: &mut Batch) {
    message(batch, DEL_TABLE, 0).attr_str(1, TABLE);
}

/// `add element inet floor publish { tcp . HOST : ADDRESS . CONTAINER, … }`
pub fn elements_add(batch: &mut Batch, ports: &[Publish], address: Ipv4Addr) {
    elements(
        batch,
        NEW_ELEMENTS,
        libc::NLM_F_CREATE | libc::NLM_F_EXCL,
        ports,
        Some(address),
    );
}

/// `delete element inet floor publish { tcp . HOST, … }`
pub fn elements_del(batch: &mut Batch, ports: &[Publish]) {
    elements(batch, DEL_ELEMENTS, 0, ports, None);
}

fn elements(
    batch: &mut Batch,
    kind: u16,
    flags: i32,
    ports: &[Publish],
    address: Option<Ipv4Addr>,
) {
    for chunk in ports.chunks(CHUNK) {
        message(batch, kind, flags)
            .attr_str(1, TABLE)
            .attr_str(2, MAP)
            .nested(3, |list| {
                for port in chunk {
                    list.nested(1, |element| {
                        let host = port.host.to_be_bytes();
                        let key = [libc::IPPROTO_TCP as u8, 0, 0, 0, host[0], host[1], 0, 0];
                        data(element, 1, &key);
                        if let Some(address) = address {
                            let [a, b, c, d] = address.octets();
                            let to = port.container.to_be_bytes();
                            data(element, 2, &[a, b, c, d, to[0], to[1], 0, 0]);
                        }
                    });
                }
            });
    }
}

fn map_add(batch: &mut Batch) {
    const IS_MAP: u32 = 8;
    const CONCATENATED: u32 = 6;
    let (inet_proto, inet_service, ipv4_addr) = (12, 13, 7);
    message(batch, NEW_SET, libc::NLM_F_CREATE)
        .attr_str(1, TABLE)
        .attr_str(2, MAP)
        .attr_be32(3, IS_MAP)
        .attr_be32(4, inet_proto << CONCATENATED | inet_service)
        .attr_be32(5, 8)
        .attr_be32(6, ipv4_addr << CONCATENATED | inet_service)
        .attr_be32(7, 8)
        .attr_be32(10, 1);
}

fn chain_add(batch: &mut Batch, name: &str, kind: &str, hook: u32, priority: i32) {
    message(batch, NEW_CHAIN, libc::NLM_F_CREATE)
        .attr_str(1, TABLE)
        .attr_str(3, name)
        .nested(4, |at| {
            at.attr_be32(1, hook).attr(2, &priority.to_be_bytes());
        })
        .attr_str(7, kind);
}

fn rule_add(batch: &mut Batch, chain: &str, fill: impl FnOnce(&mut Batch)) {
    message(batch, NEW_RULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND)
        .attr_str(1, TABLE)
        .attr_str(2, chain)
        .nested(4, fill);
}

fn expression(rule: &mut Batch, name: &str, fill: impl FnOnce(&mut Batch)) {
    rule.nested(1, |element| {
        element.attr_str(1, name).nested(2, fill);
    });
}

fn data(batch: &mut Batch, kind: u16, value: &[u8]) {
    batch.nested(kind, |data| {
        data.attr(1, value);
    });
}

/// The first register, and its second four bytes: concatenated keys are laid out there.
const REGISTER: u32 = 1;
const REGISTER_WORD_0: u32 = 8;
const REGISTER_WORD_1: u32 = 9;

fn meta(rule: &mut Batch, key: u32, register: u32) {
    expression(rule, "meta", |e| {
        e.attr_be32(1, register).attr_be32(2, key);
    });
}

fn payload(rule: &mut Batch, base: u32, offset: u32, length: u32, register: u32) {
    expression(rule, "payload", |e| {
        e.attr_be32(1, register)
            .attr_be32(2, base)
            .attr_be32(3, offset)
            .attr_be32(4, length);
    });
}

fn compare(rule: &mut Batch, equal: bool, value: &[u8]) {
    expression(rule, "cmp", |e| {
        e.attr_be32(1, REGISTER).attr_be32(2, u32::from(!equal));
        data(e, 3, value);
    });
}

fn require_ipv4(rule: &mut Batch) {
    const NFPROTO: u32 = 15;
    meta(rule, NFPROTO, REGISTER);
    compare(rule, true, &[IPV4]);
}

fn require_other_interface(rule: &mut Batch, bridge: &str) {
    const OIFNAME: u32 = 7;
    let mut name = [0; libc::IFNAMSIZ];
    name[..bridge.len()].copy_from_slice(bridge.as_bytes());
    meta(rule, OIFNAME, REGISTER);
    compare(rule, false, &name);
}

fn require_local_destination(rule: &mut Batch) {
    const RESULT_ADDRTYPE: u32 = 3;
    const FLAG_DADDR: u32 = 2;
    expression(rule, "fib", |e| {
        e.attr_be32(1, REGISTER)
            .attr_be32(2, RESULT_ADDRTYPE)
            .attr_be32(3, FLAG_DADDR);
    });
    compare(rule, true, &u32::from(libc::RTN_LOCAL).to_ne_bytes());
}

fn require_source(rule: &mut Batch, subnet: Ipv4Addr, prefix: u8) {
    const NETWORK_HEADER: u32 = 1;
    const SADDR: u32 = 12;
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    payload(rule, NETWORK_HEADER, SADDR, 4, REGISTER);
    expression(rule, "bitwise", |e| {
        e.attr_be32(1, REGISTER)
            .attr_be32(2, REGISTER)
            .attr_be32(3, 4);
        data(e, 4, &mask.to_be_bytes());
        data(e, 5, &[0; 4]);
    });
    compare(rule, true, &(u32::from(subnet) & mask).to_be_bytes());
}

fn translate_by_map(rule: &mut Batch) {
    const L4PROTO: u32 = 16;
    const TRANSPORT_HEADER: u32 = 2;
    const DNAT: u32 = 1;
    meta(rule, L4PROTO, REGISTER_WORD_0);
    payload(rule, TRANSPORT_HEADER, 2, 2, REGISTER_WORD_1);
    expression(rule, "lookup", |e| {
        e.attr_str(1, MAP)
            .attr_be32(2, REGISTER)
            .attr_be32(3, REGISTER)
            .attr_be32(4, 1);
    });
    expression(rule, "nat", |e| {
        e.attr_be32(1, DNAT)
            .attr_be32(2, u32::from(IPV4))
            .attr_be32(3, REGISTER_WORD_0)
            .attr_be32(5, REGISTER_WORD_1);
    });
}
