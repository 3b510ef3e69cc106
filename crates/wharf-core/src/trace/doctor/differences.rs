//! What the engine found when it compared the kernel with the store, as findings.

use crate::trace::report::{Code, Owner};

use super::{Finding, HostCode, Kind, Severity, sorted};

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
    /// Links of wharf's that systemd-networkd manages.
    pub managed: Vec<String>,
    /// systemd-networkd removes routing rules and routes that it did not make, wharf's too.
    pub rules_at_risk: bool,
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
            all.retain(|f| !misread(f));
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
        all.extend(managed(&self.managed));
        all.extend(self.rules_at_risk.then(at_risk));
        sorted(all)
    }
}

/// What is said of packets that met rules as they should not be; once they are mended it is seen whether it is so.
fn misread(found: &Finding) -> bool {
    let code = |c: Code| found.code == Kind::Flow(c);
    let ours = found.owner == Owner::Wharf;
    code(Code::NotPublished)
        || code(Code::MartianAddress)
        || code(Code::SpoofGuard) && found.fix.is_empty()
        || ours && (code(Code::FirewallRule) || code(Code::ForwardingDisabled))
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

/// What systemd-networkd manages it sets up as its own files say: ports are unplugged, addresses come and go.
fn managed(links: &[String]) -> Option<Finding> {
    let first = links.first()?;
    let what = format!(
        "systemd-networkd manages links that are wharf's, and unplugs or changes them: {}.",
        links.join(", ")
    );
    let finding = Finding::new(
        Severity::Warning,
        HostCode::LinkManaged,
        "host",
        first.clone(),
        what,
    );
    let names = format!("{} veth???????????", bridges(links));
    Some(
        finding
            .evidence("networkctl list")
            .fix(format!(
                "printf '[Match]\\nName={}\\n[Link]\\nUnmanaged=yes\\n' > /etc/systemd/network/05-wharf.network",
                names.trim()
            ))
            .fix("networkctl reload")
            .fix("wharf repair"),
    )
}

/// The names of bridges among links; those that wharf names itself have one pattern.
fn bridges(links: &[String]) -> String {
    let cables = |name: &&String| !name.starts_with("veth");
    let own = links.iter().filter(cables).map(String::as_str);
    let mut names = vec!["wharf0", "br-????????????"];
    names.extend(
        own.filter(|name| *name != "wharf0" && !(name.starts_with("br-") && name.len() == 15)),
    );
    names.join(" ")
}

fn at_risk() -> Finding {
    Finding::new(
        Severity::Info,
        HostCode::RulesAtRisk,
        "host",
        "networkd.conf",
        "systemd-networkd removes routing rules and routes that it did not make when it sets up a link, also those that \
         keep closed what is closed when packet rules are flushed; until the next repair they are missing then.",
    )
    .evidence("ip rule show; ip route show table 119")
    .fix("mkdir -p /etc/systemd/networkd.conf.d")
    .fix(
        "printf '[Network]\\nManageForeignRoutingPolicyRules=no\\nManageForeignRoutes=no\\n' > \
         /etc/systemd/networkd.conf.d/50-wharf.conf",
    )
    .fix("systemctl restart systemd-networkd")
}
