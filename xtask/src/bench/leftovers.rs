//! What an engine leaves on its host: links, rules, and what it remembers.

use std::collections::BTreeMap;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::Result;
use super::engines::Arm;
use super::world::output_of;
use crate::sys;

/// What is there afterwards and was not before, and the other way round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Links of the host.
    pub links: usize,
    /// Rules, and elements of sets.
    pub rules: usize,
    /// What the engine remembers.
    pub books: usize,
    /// What was there before and is not now.
    pub lost: usize,
}

impl std::ops::Add for Left {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            links: self.links + other.links,
            rules: self.rules + other.rules,
            books: self.books + other.books,
            lost: self.lost + other.lost,
        }
    }
}

/// A host's links and rules, and what its engine remembers, each with how often it is there.
#[derive(Default)]
pub struct Snapshot {
    links: Counted,
    rules: Counted,
    books: Counted,
}

type Counted = BTreeMap<String, usize>;

impl Snapshot {
    /// As it is now.
    pub fn of(arm: &Arm) -> Result<Self> {
        let links = output_of(&arm.host, Command::new("ip").args(["-o", "link", "show"]))?;
        let names = links
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1));
        let rules = output_of(
            &arm.host,
            Command::new("nft").args(["-s", "list", "ruleset"]),
        )?;
        Ok(Self {
            links: counted(names.map(str::to_owned)),
            rules: counted(rule_parts(&rules)),
            books: counted(arm.engine.books(&arm.host)?),
        })
    }

    fn beside<'a>(&'a self, before: &'a Self) -> [(&'a Counted, &'a Counted); 3] {
        [
            (&before.links, &self.links),
            (&before.rules, &self.rules),
            (&before.books, &self.books),
        ]
    }

    /// How much is left that `before` had not.
    pub fn left_since(&self, before: &Self) -> Left {
        let pairs = self.beside(before);
        let [links, rules, books] = pairs.map(|(old, new)| surplus(new, old).count());
        Left {
            links,
            rules,
            books,
            lost: pairs
                .map(|(old, new)| surplus(old, new).count())
                .iter()
                .sum(),
        }
    }

    /// One thing of it.
    pub fn example_since(&self, before: &Self) -> Option<String> {
        let pairs = self.beside(before);
        let left = pairs.iter().find_map(|(old, new)| surplus(new, old).next());
        let lost = || pairs.iter().find_map(|(old, new)| surplus(old, new).next());
        left.map(|item| format!("left: {item}"))
            .or_else(|| lost().map(|item| format!("lost: {item}")))
    }
}

/// Rules are lines, elements of sets stand between commas; entries that run out by themselves are not told.
fn rule_parts(ruleset: &str) -> impl Iterator<Item = String> + '_ {
    ruleset
        .split(['\n', ',', '{', '}'])
        .map(|part| part.trim().trim_start_matches("elements =").trim())
        .filter(|part| !part.is_empty() && !part.contains("expires") && !part.contains("timeout"))
        .map(str::to_owned)
}

fn counted(items: impl IntoIterator<Item = String>) -> Counted {
    let mut counts = Counted::new();
    for item in items {
        *counts.entry(item).or_default() += 1;
    }
    counts
}

/// What of `of` is not in `beyond`, each as often as it is missing there.
fn surplus<'a>(of: &'a Counted, beyond: &'a Counted) -> impl Iterator<Item = &'a str> {
    of.iter().flat_map(|(item, count)| {
        let more = count.saturating_sub(beyond.get(item).copied().unwrap_or(0));
        std::iter::repeat_n(item.as_str(), more)
    })
}

/// What is there once the kernel has had its time: links go after their last reference.
pub fn settled(arm: &Arm, before: &Snapshot) -> Result<Snapshot> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let begun = Instant::now();
    loop {
        let after = Snapshot::of(arm)?;
        if after.left_since(before) == Left::default() || begun.elapsed() > PATIENCE {
            return Ok(after);
        }
        thread::sleep(Duration::from_millis(200));
        sys::collect_orphans();
    }
}

#[cfg(test)]
mod tests {
    use super::{Left, Snapshot, counted, rule_parts};

    #[test]
    fn rules_and_elements_are_compared_one_by_one() {
        let before = "table inet t {\n\tmap m {\n\t\telements = { 1 : 2, 3 : 4 }\n\t}\n}";
        let after = "table inet t {\n\tmap m {\n\t\telements = { 3 : 4,\n\t\t\t5 : 6 expires 3s,\n\t\t\t7 : 8 }\n\t}\n}";
        let snapshot = |text: &str| Snapshot {
            rules: counted(rule_parts(text)),
            ..Snapshot::default()
        };
        let left = snapshot(after).left_since(&snapshot(before));
        assert_eq!(
            left,
            Left {
                rules: 1,
                lost: 1,
                ..Left::default()
            }
        );
    }

    #[test]
    fn the_same_thing_twice_is_two_things() {
        let snapshot = |links: &[&str]| Snapshot {
            links: counted(links.iter().map(|link| (*link).to_owned())),
            ..Snapshot::default()
        };
        assert_eq!(snapshot(&["a", "a"]).left_since(&snapshot(&["a"])).links, 1);
    }
}
