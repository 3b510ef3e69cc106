//! Tests of the codec with random input: both directions are inverse, and no bytes whatever make a decoder panic.
//! The generator is seeded, so that a failure comes again.

#[path = "../tests/common/mod.rs"]
mod common;

use crate::chain::Chain;
use crate::conntrack::Entry;
use crate::element::{Element, list};
use crate::expr::{Expr, get_exprs, put_exprs};
use crate::msg::{self, NFTABLES};
use crate::object::Object;
use crate::rule::Rule;
use crate::set::Set;
use crate::table::Table;
use crate::trace::TraceEvent;
use crate::transport::{Answer, DUMP, Request};
use crate::wire::{Attrs, Message, Writer};
use crate::{Family, NfSocket, SetRef, Userdata};

/// A small generator (xorshift).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() >> 8).unwrap() % n
    }
    pub(crate) fn flip(&mut self) -> bool {
        self.below(2) == 0
    }
    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}

#[test]
fn decoding_an_expression_undoes_encoding_it() {
    let mut random = Random(0x5eed);
    for _ in 0..50_000 {
        let exprs = vec![Expr::any(&mut random), Expr::any(&mut random)];
        let mut w = Writer::default();
        put_exprs(1, &exprs, &mut w);
        assert!(!w.overflow);
        let attrs = Attrs::parse(&w.buf).unwrap();
        assert_eq!(get_exprs(&attrs, 1).unwrap(), exprs);
    }
}

/// Gives the bytes of one message, without netlink header, to every decoder.
fn decode_all(body: &[u8]) {
    let message = Message {
        kind: 2,
        flags: 0x300,
        seq: 1,
        body,
    };
    let _ = Answer::read(&message);
    let _ = Answer::read(&Message {
        flags: 0x200,
        ..message
    });
    let _ = Userdata(body.to_vec()).read_comment();
    let Ok((family, _, attrs)) = message.netfilter() else {
        return;
    };
    let family = Family::from_number(family);
    let _ = Table::decode(family, &attrs);
    let _ = Chain::decode(family, &attrs);
    let _ = Rule::decode(family, &attrs);
    let _ = Object::decode(family, &attrs);
    let _ = TraceEvent::decode(family, &attrs);
    let _ = Entry::decode(family, &attrs);
    let set = Set::decode(family, &attrs);
    let elements = attrs.list(list::ELEMENTS).into_iter().flatten();
    let elements: Vec<_> = elements
        .filter_map(|e| Element::decode(&e.ok()?).ok())
        .collect();
    if let Ok(set) = set {
        let _ = crate::intervals(&set, &elements);
        let _ = set.comment();
    }
    let set = Set::new(family, "t", "s", &crate::DataType::mark()).with_intervals();
    let _ = crate::intervals(&set, &elements);
}

#[test]
fn random_bytes_do_no_harm() {
    let mut random = Random(0xbad);
    for _ in 0..100_000 {
        let len = random.below(200);
        // Mostly small numbers, which are plausible lengths and types.
        let bytes: Vec<u8> = (0..len)
            .map(|_| random.pick(&[0, 1, 2, 3, 4, 8, 12, 0x80, 0xff]))
            .collect();
        decode_all(&bytes);
        let mut rest = bytes.as_slice();
        while let Ok(Some((message, tail))) = Message::split(rest) {
            decode_all(message.body);
            assert!(tail.len() < rest.len(), "no progress");
            rest = tail;
        }
    }
}

/// The same by coverage, with inputs that are kept: `__fuzz__` beside this file holds messages of a real ruleset, of its
/// traces and of connection tracking. `cargo bolero test -s NONE fuzz::any_message_is_read_or_refused` goes on for longer.
#[test]
fn any_message_is_read_or_refused() {
    bolero::check!()
        .with_iterations(20_000)
        .with_test_time(std::time::Duration::from_secs(3))
        .for_each(|bytes: &[u8]| {
            decode_all(bytes);
            let mut rest = bytes;
            while let Ok(Some((message, tail))) = Message::split(rest) {
                decode_all(message.body);
                assert!(tail.len() < rest.len(), "no progress");
                rest = tail;
            }
        });
}

#[test]
fn deep_nesting_is_refused() {
    let mut bytes = Vec::new();
    for _ in 0..4000 {
        // An `inner` expression in an `inner` expression: name, data, NFTA_INNER_EXPR.
        let mut w = Writer::default();
        w.str(crate::expr::EXPR_NAME, "inner");
        w.nest(crate::expr::EXPR_DATA, |w| {
            w.nest(5, |w| w.buf.extend_from_slice(&bytes))
        });
        if w.overflow {
            break;
        }
        bytes = w.buf;
    }
    assert!(bytes.len() > 60_000);
    assert!(Expr::decode(&Attrs::parse(&bytes).unwrap()).is_ok());
}

/// The bodies of all messages of a real ruleset.
fn real_messages() -> Vec<Vec<u8>> {
    let mut socket = NfSocket::open().unwrap();
    let sets = socket.dump_sets().unwrap();
    let mut bodies = Vec::new();
    let mut ask = |kind, family, attrs| {
        let request = Request {
            kind: NFTABLES | kind,
            flags: DUMP,
            family,
            attrs,
            label: "test",
        };
        let each = |message: &Message<'_>| {
            bodies.push(message.body.to_vec());
            Ok(())
        };
        socket.transport.request(&request, each).unwrap();
    };
    for kind in [
        msg::GETTABLE,
        msg::GETCHAIN,
        msg::GETRULE,
        msg::GETSET,
        msg::GETOBJ,
    ] {
        ask(kind, 0, Writer::default());
    }
    for set in sets {
        let SetRef {
            family,
            table,
            name,
        } = SetRef::from(&set);
        let mut attrs = Writer::default();
        attrs.str(list::TABLE, &table);
        attrs.str(list::SET, &name);
        ask(msg::GETSETELEM, family.number(), attrs);
    }
    bodies
}

#[test]
fn damaged_real_messages_do_no_harm() {
    if !common::private_netns() {
        return;
    }
    common::load_corpus();
    let bodies = real_messages();
    assert!(bodies.len() > 100);
    let mut random = Random(0xdead);
    for body in &bodies {
        for len in 0..body.len() {
            decode_all(&body[..len]);
        }
        for _ in 0..200 {
            let mut damaged = body.clone();
            for _ in 0..=random.below(4) {
                let at = random.below(damaged.len());
                damaged[at] = random.pick(&[0, 1, 3, 4, 5, 0x7f, 0x80, 0xff]);
            }
            decode_all(&damaged);
        }
    }
}
