//! What is wrong with a host as a whole, without a question about a flow.
//!
//! ```text
//! ObservedState ──┬─ promises: what wharf promises is walked, as `trace` does ──┐
//!                 └─ links, segments, subnets, mtu, host, ports: state alone ───┴─> [Finding], the worst first
//! ```
//!
//! Each finding has a severity: an error is something that does not work, a warning something that will not or that
//! hardly anybody wants, an info something to know. Only of the first two a host is unwell.
//!
//! Not here: comparing the kernel with the store (the engine's `repair` and `gc` do, and [`Differences`] brings it).

mod bound;
mod differences;
mod host;
mod links;
mod mtu;
mod ports;
mod promises;
mod segments;
mod subnets;

use serde::Serialize;

use crate::attach::{Attachment, Container, Phase};
use crate::compile::port_alias;
use crate::network::NetworkSpec;
use crate::trace::Tracer;
use crate::trace::report::{Cause, Code, Owner};
use crate::trace::state::{HOST, Link, ObservedState, Place, Space, SpaceId};

pub(super) use bound::nobodys;
pub use differences::Differences;
pub(super) use promises::{of_program, walked};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something does not work.
    Error,
    /// Something will not work, or is hardly meant to be so.
    Warning,
    /// Something to know.
    Info,
}

/// What only a look at the whole host finds, besides the causes of single flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostCode {
    /// A container subnet and another prefix of the host overlap.
    SubnetCollision,
    /// A firewall says that a port is closed, and a published port goes past it.
    FirewallBypassed,
    /// Packet rules of wharf are missing, changed, or mixed with others.
    RulesChanged,
    /// Something else that wharf made is missing or changed.
    ObjectChanged,
    /// Another program manages links that are wharf's.
    LinkManaged,
    /// Another program removes routing rules that are wharf's.
    RulesAtRisk,
    /// Something that belongs to nobody any more.
    Leftover,
    /// What wharf remembers cannot be read.
    StoreDamaged,
    /// Something could not be read, so that nothing is known of it.
    Unread,
}

/// What a finding is: a cause that `trace` knows too, or one of the whole host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(untagged)]
pub enum Kind {
    /// As in `trace`.
    Flow(Code),
    /// Only here.
    Host(HostCode),
}

impl From<Code> for Kind {
    fn from(code: Code) -> Self {
        Self::Flow(code)
    }
}

impl From<HostCode> for Kind {
    fn from(code: HostCode) -> Self {
        Self::Host(code)
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is.
    pub code: Kind,
    /// Where: a container's name, `host`, or a path.
    pub netns: String,
    /// The object to blame, as its own tool prints it.
    pub object: String,
    /// Whose it is.
    pub owner: Owner,
    /// One sentence a newcomer understands.
    pub summary: String,
    /// What was read, with the command that shows it.
    pub evidence: Vec<String>,
    /// Commands that mend it.
    pub fix: Vec<String>,
}

impl Finding {
    /// A finding of nobody in particular, without evidence or fix.
    pub fn new(
        severity: Severity,
        code: impl Into<Kind>,
        netns: &str,
        object: impl Into<String>,
        summary: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            code: code.into(),
            netns: netns.to_owned(),
            object: object.into(),
            owner: Owner::User,
            summary: summary.into(),
            evidence: Vec::new(),
            fix: Vec::new(),
        }
    }

    /// What a trace found.
    pub fn of(cause: Cause, severity: Severity) -> Self {
        Self {
            severity,
            code: cause.code.into(),
            netns: cause.netns,
            object: cause.object,
            owner: cause.owner,
            summary: cause.summary,
            evidence: cause.evidence,
            fix: cause.fix,
        }
    }

    /// With an owner.
    #[must_use]
    pub fn owner(mut self, owner: Owner) -> Self {
        self.owner = owner;
        self
    }

    /// With one more line of evidence.
    #[must_use]
    pub fn evidence(mut self, text: impl Into<String>) -> Self {
        self.evidence.push(text.into());
        self
    }

    /// With one more command.
    #[must_use]
    pub fn fix(mut self, command: impl Into<String>) -> Self {
        self.fix.push(command.into());
        self
    }
}

/// The most commands of one finding.
const MOST_FIXES: usize = 24;

/// The findings so far, each once.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    /// Adds; of two that are the same the first stays, with the worse severity and what mends both.
    fn add(&mut self, finding: Finding) {
        let same = |f: &&mut Finding| {
            (f.code, &f.netns, &f.object) == (finding.code, &finding.netns, &finding.object)
        };
        match self.0.iter_mut().find(same) {
            Some(known) => {
                known.severity = known.severity.min(finding.severity);
                for fix in finding.fix {
                    if known.fix.len() < MOST_FIXES && !known.fix.contains(&fix) {
                        known.fix.push(fix);
                    }
                }
            }
            None => self.0.push(finding),
        }
    }

    /// Something was found that a code says of a namespace, whatever the object was called.
    fn knows(&self, code: Code, netns: &str) -> bool {
        let all = &self.0;
        all.iter()
            .any(|f| f.code == Kind::Flow(code) && f.netns == netns)
    }
}

/// A container on a network, with what was read of it.
struct Member<'a> {
    container: &'a Container,
    attachment: &'a Attachment,
    net: &'a NetworkSpec,
    /// Its namespace.
    id: SpaceId,
    space: &'a Space,
    /// Its interface.
    link: Option<&'a Link>,
    /// The host's end of its cable.
    cable: Option<&'a Link>,
}

impl Member<'_> {
    fn name(&self) -> &str {
        self.container.name.as_str()
    }

    fn place(&self) -> Option<Place> {
        let index = self.link?.index;
        Some(Place {
            space: self.id,
            index,
        })
    }
}

/// What was read, arranged by network.
struct Scene<'a> {
    state: &'a ObservedState,
    tracer: Tracer<'a>,
    members: Vec<Member<'a>>,
}

impl<'a> Scene<'a> {
    fn of(state: &'a ObservedState) -> Self {
        let mut members = Vec::new();
        for container in &state.containers {
            let Some(id) = state.container_space(container.name.as_str()) else {
                continue;
            };
            let space = &state.spaces[id];
            let active = container.attachments.iter();
            for attachment in active.filter(|a| a.phase == Phase::Active) {
                let mut nets = state.networks.iter();
                let Some(net) = nets.find(|n| n.name == attachment.network) else {
                    continue;
                };
                members.push(Member {
                    container,
                    attachment,
                    net,
                    id,
                    space,
                    link: space.link_named(attachment.interface.as_str()),
                    cable: state.host().link_named(attachment.host_interface.as_str()),
                });
            }
        }
        Self {
            state,
            tracer: Tracer::new(state),
            members,
        }
    }

    fn host(&self) -> &'a Space {
        self.state.host()
    }

    fn bridge(&self, net: &NetworkSpec) -> Option<&'a Link> {
        self.host().link_named(net.bridge.as_str())
    }

    /// A network's bridge, under the name that somebody else gave it.
    fn renamed_bridge(&self, net: &NetworkSpec) -> Option<&'a Link> {
        let is = |l: &&Link| l.bridge.is_some() && l.mac == Some(net.bridge_mac);
        let own = net.has_own_bridge() && self.bridge(net).is_none();
        self.host().links.iter().find(|l| own && is(l))
    }

    /// A cable, under the name that somebody else gave it.
    fn renamed_cable(&self, member: &Member) -> Option<&'a Link> {
        let alias = port_alias(member.container, member.attachment);
        let mut links = self.host().links.iter();
        links.find(|l| member.cable.is_none() && l.alias.as_deref() == Some(alias.as_str()))
    }

    /// Something of a container's own links, or of its bridge, was found: what else would be found follows from that.
    fn is_broken(&self, member: &Member, found: &Findings) -> bool {
        let bridge = member.net.bridge.as_str();
        let cable = member.attachment.host_interface.as_str();
        let of_link = |code: Kind| {
            matches!(
                code,
                Kind::Flow(
                    Code::LinkDown
                        | Code::NoCarrier
                        | Code::NotOnBridge
                        | Code::BridgeDown
                        | Code::BridgePortBlocked
                        | Code::NoAddress
                        | Code::WrongPrefixLength
                        | Code::NoRoute
                        | Code::DuplicateAddress
                        | Code::DuplicateMac
                        | Code::Ipv6Disabled
                        | Code::SpoofGuard
                )
            )
        };
        found.0.iter().any(|f| {
            let here = f.netns == member.name() && f.netns != "host";
            let outside = f.netns == "host" && (f.object == bridge || f.object == cable);
            let lost = f.code == Code::RouteConflict.into() && f.netns == "host" && {
                let prefix = f.object.split(' ').next().unwrap_or_default();
                let prefix = prefix.parse::<ipnet::IpNet>().ok();
                let mut own = member.attachment.addresses.iter();
                prefix.is_some_and(|p| own.any(|a| p.contains(&a.addr())))
            };
            f.severity == Severity::Error && (of_link(f.code) && (here || outside) || lost)
        })
    }

    fn of_net<'s>(&'s self, net: &'s NetworkSpec) -> impl Iterator<Item = &'s Member<'a>> {
        self.members.iter().filter(|m| m.net.name == net.name)
    }
}

/// Everything that is wrong, the worst first.
pub fn diagnose(state: &ObservedState) -> Vec<Finding> {
    let mut found = Findings::default();
    if state.spaces.is_empty() {
        return found.0;
    }
    let scene = Scene::of(state);
    links::check(&scene, &mut found);
    segments::check(&scene, &mut found);
    subnets::check(&scene, &mut found);
    host::check(&scene, &mut found);
    promises::check(&scene, &mut found);
    mtu::check(&scene, &mut found);
    ports::check(&scene, &mut found);
    bound::check(&scene, &mut found);
    unread(state, &mut found);
    sorted(found.0)
}

/// The worst first; what is equally bad as it was found.
pub fn sorted(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(|f| f.severity);
    findings
}

/// Whether a host with these findings is unwell.
pub fn is_unwell(findings: &[Finding]) -> bool {
    findings.iter().any(|f| f.severity != Severity::Info)
}

fn unread(state: &ObservedState, found: &mut Findings) {
    for item in &state.unread {
        let what = format!("{} of {} could not be read.", item.what, item.netns);
        let mut letters = what.chars();
        let summary: String = letters
            .next()
            .map(|first| first.to_uppercase().chain(letters).collect())
            .unwrap_or_default();
        let finding = Finding::new(
            Severity::Info,
            HostCode::Unread,
            &item.netns,
            item.what.clone(),
            summary,
        );
        found.add(finding.owner(Owner::Kernel).evidence(item.why.clone()));
    }
}

/// The host's link of a number.
fn host_place(index: u32) -> Place {
    Place { space: HOST, index }
}
