//! What the engine found when it compared the kernel with the store, as findings.

use crate::trace::report::Owner;

use super::{Finding, HostCode, Severity, sorted};

/// The most lines of evidence of one finding.
const MOST: usize = 12;

/// What differs between what wharf remembers and what the kernel has: the object, and how it is (`missing`,
/// `different`, or why it is taken for nobody's).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// What should be there and is not as it should be.
    pub changed: Vec<(String, String)>,
    /// What bears wharf's mark and belongs to nobody.
    pub left: Vec<(String, String)>,
}

/// How the names of packet rules begin; everything else is a link, an address, a setting.
const RULES: &[&str] = &["table ", "set ", "chain ", "an element ", "rule ", "map "];

/// How the name of a bridge of Docker's begins, of which the rules are told.
const DOCKER: &str = "Docker's bridge ";

fn is_rule(object: &str) -> bool {
    RULES.iter().any(|start| object.starts_with(start)) || object.contains(" of set ")
}

impl Differences {
    /// Adds what differs to what was found by looking.
    pub fn join(&self, findings: Vec<Finding>) -> Vec<Finding> {
        let mut all = findings;
        let known: Vec<String> = all.iter().map(|f| f.object.clone()).collect();
        let repaired: Vec<String> = all
            .iter()
            .filter(|f| f.fix.iter().any(|fix| fix == "wharf repair"))
            .map(|f| format!("/{}", f.netns))
            .collect();
        let told = |object: &str| {
            known
                .iter()
                .any(|k| k.len() > 3 && object.contains(k.as_str()))
                || repaired.iter().any(|netns| object.ends_with(netns))
        };
        let (docker, changed): (Vec<_>, Vec<_>) = self
            .changed
            .iter()
            .partition(|(o, _)| o.starts_with(DOCKER));
        let (rules, others): (Vec<_>, Vec<_>) = changed.into_iter().partition(|(o, _)| is_rule(o));
        if !rules.is_empty() {
            // What packets meet follows from it.
            all.retain(|f| f.owner != Owner::Wharf || f.fix != ["wharf repair"]);
        }
        all.extend(rules_changed(&rules));
        all.extend(docker.into_iter().map(docker_changed));
        let others: Vec<_> = others.into_iter().filter(|(o, _)| !told(o)).collect();
        all.extend(objects_changed(&others));
        for item in &self.left {
            let same = |f: &Finding| f.code == HostCode::Leftover.into() && f.object == item.0;
            all.retain(|f| !same(f));
            all.push(left(item));
        }
        sorted(all)
    }
}

fn lines(all: &[&(String, String)]) -> Vec<String> {
    let mut lines: Vec<String> = all
        .iter()
        .take(MOST)
        .map(|(object, was)| format!("{object}: {was}"))
        .collect();
    if all.len() > MOST {
        lines.push(format!("and {} more", all.len() - MOST));
    }
    lines.push("wharf repair --dry-run".to_owned());
    lines
}

fn rules_changed(rules: &[&(String, String)]) -> Option<Finding> {
    let (first, _) = rules.first()?;
    let summary = match rules.len() {
        1 => format!("A packet rule of wharf is not as wharf made it: {first}."),
        n => format!("Packet rules of wharf are not as wharf made them, in {n} places."),
    };
    let mut finding = Finding::new(
        Severity::Error,
        HostCode::RulesChanged,
        "host",
        first.clone(),
        summary,
    );
    finding.evidence = lines(rules);
    Some(finding.owner(Owner::Wharf).fix("wharf repair"))
}

fn docker_changed((bridge, why): &(String, String)) -> Finding {
    let summary = format!(
        "{bridge} is not as wharf's rules have it ({why}): who reaches its containers' unpublished ports may be wrong."
    );
    let mut finding = Finding::new(
        Severity::Warning,
        HostCode::RulesChanged,
        "host",
        bridge.clone(),
        summary,
    );
    finding.evidence = vec![
        "nft list set inet wharf docker".to_owned(),
        "wharf repair --dry-run".to_owned(),
    ];
    finding.owner(Owner::Docker).fix("wharf repair")
}

fn objects_changed(objects: &[&(String, String)]) -> Option<Finding> {
    let (first, was) = objects.first()?;
    let summary = match objects.len() {
        1 => format!("Something that wharf made is {was}: {first}."),
        n => format!("{n} things that wharf made are missing or changed."),
    };
    let mut finding = Finding::new(
        Severity::Error,
        HostCode::ObjectChanged,
        "host",
        first.clone(),
        summary,
    );
    finding.evidence = lines(objects);
    Some(finding.owner(Owner::Wharf).fix("wharf repair"))
}

fn left((object, why): &(String, String)) -> Finding {
    let what = format!("Nobody needs this any more ({why}): {object}.");
    Finding::new(
        Severity::Warning,
        HostCode::Leftover,
        "host",
        object.clone(),
        what,
    )
    .owner(Owner::Wharf)
    .evidence("wharf gc --dry-run")
    .fix("wharf gc")
}
