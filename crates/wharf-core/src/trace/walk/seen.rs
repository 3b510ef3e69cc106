//! A rule or policy that a live probe saw stopping a packet, as the cause the walk would have made of it.

use crate::trace::env::Blame;
use crate::trace::packet::Packet;
use crate::trace::query::Query;
use crate::trace::report::{Cause, Owner};
use crate::trace::ruleset::{Backend, Chain, Hook, TableFamily};
use crate::trace::seen::{Judged, Leg};
use crate::trace::state::ObservedState;

use super::hooks::{Site, Sort, hook_name};
use super::{Tracer, Walk};

/// A rule as a cause.
pub(in crate::trace) struct RuleSeen {
    /// To blame.
    pub cause: Cause,
    /// The hook, as hops name it.
    pub stage: &'static str,
    /// It refuses with an answer.
    pub rejects: bool,
}

/// What a rule that stopped a packet is; `None` if its space was not read.
pub(in crate::trace) fn rule(
    state: &ObservedState,
    query: &Query,
    judged: &Judged,
) -> Option<RuleSeen> {
    let space = state.spaces.get(judged.space)?;
    let chains = &space.ruleset.chains;
    let named = |name: &str| -> Option<&Chain> {
        let same = |c: &&Chain| c.family == judged.family && c.table == judged.table;
        chains.iter().filter(same).find(|c| c.name == name)
    };
    let (chain, base) = (named(&judged.chain), named(&judged.base));
    let hook = base
        .and_then(|b| b.base.as_ref())
        .map_or(Hook::Forward, |b| b.hook);
    let read = chain
        .zip(judged.handle)
        .and_then(|(c, handle)| c.rules.iter().find(|r| r.handle == handle));
    let text = match (read, judged.handle) {
        (Some(rule), _) => rule.text.get(),
        (None, Some(_)) => "a rule that was not there when the rules were read".to_owned(),
        (None, None) => String::new(),
    };
    let blame = Blame {
        backend: Backend::Nft,
        family: judged.family,
        table: judged.table.clone(),
        chain: judged.chain.clone(),
        base: judged.base.clone(),
        handle: judged.handle,
        comment: read.and_then(|r| r.comment.clone()),
        owner: chain.map_or(Owner::User, |c| c.owner),
        text,
    };
    let packet = packet(query, judged);
    let tracer = Tracer::new(state);
    let mut walk = Walk::new(&tracer, query);
    walk.reply = judged.leg != Leg::Question;
    walk.track(judged.space, &packet);
    let fault = walk.fault_of_rule(site(state, judged, hook), &blame, &packet);
    Some(RuleSeen {
        cause: fault.cause(&space.name),
        stage: hook_name(hook),
        rejects: blame.text.to_lowercase().contains("reject"),
    })
}

fn site(state: &ObservedState, judged: &Judged, hook: Hook) -> Site {
    let space = &state.spaces[judged.space];
    let is_bridge = |i: Option<u32>| {
        let link = i.and_then(|i| space.link(i));
        link.is_some_and(|l| l.bridge.is_some())
    };
    // IP rules see a frame that stays on its bridge as coming from and going to the bridge.
    let stays = hook == Hook::Forward && judged.iif == judged.oif && is_bridge(judged.iif);
    let sort = match judged.family {
        TableFamily::Bridge => Sort::Bridge,
        TableFamily::Netdev | TableFamily::Arp => Sort::Device,
        _ if stays => Sort::Bridged,
        _ => Sort::Ip,
    };
    let mut site = Site::new(judged.space, hook, sort);
    (site.iif, site.oif) = (judged.iif, judged.oif);
    if sort == Sort::Bridge {
        (site.port_in, site.port_out) = (judged.iif, judged.oif);
    }
    site.local = hook == Hook::Output;
    site
}

fn packet(query: &Query, judged: &Judged) -> Packet {
    let header = judged.header;
    Packet {
        src: header.src,
        dst: header.dst,
        l4: query.l4,
        sport: header.sport,
        dport: header.dport,
        reply: judged.leg != Leg::Question,
        ttl: 64,
        len: 0,
        mark: 0,
        tos: 0,
        src_mac: None,
        dst_mac: None,
        arp: None,
    }
}
