//! Rules of wharf's in the chains that other tools keep for users' rules.
//!
//! What the user wrote there is asked first: wharf's rules stand behind it. Docker (before 28) ends its chain with a
//! `RETURN`, behind which no rule is asked; there they stand before that.

use wharf_core::addr;
use wharf_core::name::IfName;
use wharf_core::op::DoorChange;
use wharf_nft::expr::{CmpOp, MetaKey, Reg};
use wharf_nft::{Batch, Data, Expr, Family, NftError, Rule, Verdict};

use super::NetlinkKernel;
use super::nft_apply::{Refusal, refusal};

/// The table that other tools' chains for users' rules are in.
pub(crate) const FILTER: &str = "filter";
/// By what wharf knows its rules in others' chains.
pub(crate) const OURS: &str = "wharf";
/// The match of xtables that is a comment.
const COMMENT: &str = "comment";

/// How a rule of wharf's stands in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is not there.
    Missing,
    /// Rules of the user's stand behind it.
    Early,
    /// It stands where it should, or the user wrote the same.
    Right,
}

/// `-i LINK -j ACCEPT` or `-o LINK -j ACCEPT` in a chain of table `filter`, in the form iptables-nft writes and reads:
/// names are compared with their final zero, and every rule counts.
pub(crate) fn door_rule(family: Family, chain: &str, link: &IfName, inward: bool) -> Rule {
    let mut name = link.as_str().as_bytes().to_vec();
    name.push(0);
    let key = if inward {
        MetaKey::IifName
    } else {
        MetaKey::OifName
    };
    let exprs = vec![
        Expr::meta(key, Reg::R1),
        Expr::cmp(Reg::R1, CmpOp::Eq, name),
        Expr::counter(),
        Expr::verdict(Verdict::Accept),
    ];
    Rule::new(family, FILTER, chain, exprs)
}

/// How `rule` stands among the rules of its chain.
pub(crate) fn standing(there: &[Rule], rule: &Rule) -> Standing {
    let (asked, _) = there.split_at(end(there));
    if asked.iter().any(|r| same(r, rule) && !is_ours(r)) {
        return Standing::Right;
    }
    // Other bridges' rules may stand behind it.
    let behind = asked
        .iter()
        .rposition(|r| !is_ours(r))
        .map_or(0, |at| at + 1);
    if asked[behind..].iter().any(|r| same(r, rule)) {
        Standing::Right
    } else if there.iter().any(|r| same(r, rule) && is_ours(r)) {
        Standing::Early
    } else {
        Standing::Missing
    }
}

/// The link and the direction that a rule of wharf's in another tool's chain is for.
pub(crate) fn is_for(rule: &Rule) -> Option<(IfName, bool)> {
    if !is_ours(rule) {
        return None;
    }
    rule.exprs.iter().find_map(|e| {
        let Expr::Cmp(cmp) = e else { return None };
        let name = String::from_utf8_lossy(&cmp.data);
        let link: IfName = name.trim_end_matches('\0').parse().ok()?;
        [true, false].into_iter().find_map(|inward| {
            let own = door_rule(rule.family, &rule.chain, &link, inward);
            same(rule, &own).then(|| (link.clone(), inward))
        })
    })
}

/// Puts a rule for a link into another tool's chain, behind the user's rules, and takes away those of wharf's that are
/// there for it already.
pub(super) fn set_door(
    kernel: &mut NetlinkKernel,
    (family, chain): (addr::Family, &str),
    (link, inward): (&IfName, bool),
    change: DoorChange,
) -> Result<(), Refusal> {
    let family = match family {
        addr::Family::V4 => Family::Ip,
        addr::Family::V6 => Family::Ip6,
    };
    let rule = door_rule(family, chain, link, inward).with_comment(OURS);
    let nf = kernel
        .nf()
        .map_err(|e| (e.raw_os_error().unwrap_or(0), Some(e.to_string())))?;
    let mut put = || -> Result<(), NftError> {
        let there = nf.dump_chain_rules(family, FILTER, chain)?;
        let mut batch = Batch::new();
        for old in there.iter().filter(|r| same(r, &rule) && is_ours(r)) {
            if let Some(handle) = old.handle {
                batch.del_rule(family, FILTER, chain, handle);
            }
        }
        if change != DoorChange::Shut {
            match there.get(end(&there)).and_then(|last| last.handle) {
                Some(handle) => batch.insert_rule(&Rule {
                    position: Some(handle),
                    ..rule.clone()
                }),
                None => batch.add_rule(&rule),
            };
        }
        match batch.is_empty() {
            true => Ok(()),
            false => nf.commit(&batch),
        }
    };
    // The tool may put its chains in order meanwhile.
    let is_gone = |e: &NftError| e.errno() == Some(libc::ENOENT);
    let done = match put() {
        Err(error) if is_gone(&error) => put(),
        done => done,
    };
    match done {
        Err(error) if is_gone(&error) && change == DoorChange::Shut => Ok(()),
        done => done.map_err(refusal),
    }
}

/// Where the rules end that are asked: at the first `RETURN` of everything.
fn end(rules: &[Rule]) -> usize {
    let returns = |e: &Expr| matches!(e, Expr::Immediate(i) if matches!(i.data, Data::Verdict(Verdict::Return)));
    let plain = |e: &Expr| matches!(e, Expr::Counter(_)) || returns(e);
    let all = |r: &Rule| r.exprs.iter().all(plain) && r.exprs.iter().any(returns);
    rules.iter().position(all).unwrap_or(rules.len())
}

/// Whether wharf put it there. Rules that were saved and restored by the iptables programs have the comment as a match.
pub(crate) fn is_ours(rule: &Rule) -> bool {
    let says_so = |e: &Expr| match e {
        Expr::Match(m) if m.name == COMMENT => {
            let text = m.info.0.split(|byte| *byte == 0).next();
            text == Some(OURS.as_bytes())
        }
        _ => false,
    };
    rule.comment().as_deref() == Some(OURS) || rule.exprs.iter().any(says_so)
}

/// Whether an expression decides anything.
fn decides(expr: &Expr) -> bool {
    match expr {
        Expr::Counter(_) => false,
        Expr::Match(m) => m.name != COMMENT,
        _ => true,
    }
}

/// Whether two rules do the same, counters and comments apart, and how many zeros a whole name ends with: nft writes 16 bytes.
pub(crate) fn same(a: &Rule, b: &Rule) -> bool {
    let short = |expr: &Expr| {
        let mut expr = expr.clone();
        if let Expr::Cmp(cmp) = &mut expr {
            while cmp.data.ends_with(&[0, 0]) {
                cmp.data.pop();
            }
        }
        expr
    };
    let plain = |rule: &Rule| {
        let exprs = rule.exprs.iter().filter(|e| decides(e));
        exprs.map(short).collect::<Vec<_>>()
    };
    plain(a) == plain(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(link: &str, ours: bool) -> Rule {
        let link = link.parse().expect("a name");
        let rule = door_rule(Family::Ip, "DOCKER-USER", &link, true);
        if ours { rule.with_comment(OURS) } else { rule }
    }

    fn ends() -> Rule {
        let exprs = vec![Expr::counter(), Expr::verdict(Verdict::Return)];
        Rule::new(Family::Ip, FILTER, "DOCKER-USER", exprs)
    }

    #[test]
    fn the_users_rules_come_first() {
        let (a, b, user) = (rule("a", true), rule("b", true), rule("up0", false));
        let of = |there: &[Rule]| standing(there, &a);
        assert_eq!(of(&[]), Standing::Missing);
        assert_eq!(of(&[user.clone(), a.clone(), b.clone()]), Standing::Right);
        assert_eq!(of(&[user.clone(), a.clone(), ends()]), Standing::Right);
        assert_eq!(of(&[a.clone(), user.clone(), ends()]), Standing::Early);
        assert_eq!(of(&[a.clone(), b, user.clone()]), Standing::Early);
        assert_eq!(of(&[ends(), a.clone()]), Standing::Early, "never asked");
        // Rules behind it that are never asked refuse nothing.
        assert_eq!(of(&[a.clone(), ends(), user.clone()]), Standing::Right);
        assert_eq!(
            of(&[rule("a", false), user]),
            Standing::Right,
            "the user's own"
        );
    }
}
