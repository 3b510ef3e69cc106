//! Where the tour plays: a kernel to make things in by hand, and ways to try them.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use wharf_core::diff::diff;
use wharf_core::model::{Link, LinkKind, Netns, Resource, RouteMore};
use wharf_core::name::IfName;
use wharf_core::op::Op;
use wharf_core::plan::{Plan, Undo};
use wharf_core::{ErrorKind, render};
use wharf_engine::api::Dirs;
use wharf_engine::engine::Engine;
use wharf_engine::kernel::execute;
use wharf_engine::kernel::netlink::NetlinkKernel;
use wharf_engine::probe::{self, Answer, Service};

use super::{Step, Try};
use crate::output::error::CommandError;

/// How long a try waits for an answer that should come, and for one that should not.
const PATIENCE: Duration = Duration::from_secs(3);
const IMPATIENCE: Duration = Duration::from_millis(600);

/// What is expected of a try.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    Works,
    Fails,
}

/// The private host.
pub struct Stage {
    kernel: NetlinkKernel,
    /// What was made by hand and still stands.
    made: Vec<Resource>,
    commands: Vec<String>,
    tries: Vec<Try>,
    services: Vec<Service>,
    /// What the host was like before wharf came.
    pub before: Vec<String>,
}

impl Stage {
    pub fn new() -> Result<Self, CommandError> {
        let kernel = NetlinkKernel::new();
        Ok(Self {
            kernel,
            made: Vec::new(),
            commands: Vec::new(),
            tries: Vec::new(),
            services: Vec::new(),
            before: Vec::new(),
        })
    }

    /// The step that was played since the last one.
    pub fn step(&mut self, title: &'static str, why: &'static str) -> Step {
        Step {
            title,
            commands: std::mem::take(&mut self.commands),
            tries: std::mem::take(&mut self.tries),
            why,
        }
    }

    /// Makes things by hand.
    pub fn make(&mut self, resources: Vec<Resource>) -> Result<(), CommandError> {
        self.carry_out(&diff(&resources, &[], ""))?;
        self.made.extend(resources);
        Ok(())
    }

    /// Removes everything made by hand that `which` names.
    pub fn unmake(&mut self, which: impl Fn(&Resource) -> bool) -> Result<(), CommandError> {
        let (gone, kept): (Vec<_>, Vec<_>) = self.made.drain(..).partition(which);
        self.made = kept;
        self.carry_out(&diff(&[], &gone, ""))
    }

    /// One operation.
    pub fn op(&mut self, op: Op) -> Result<(), CommandError> {
        let mut plan = Plan::default();
        plan.push(
            op,
            Undo::Irreversible("the stage is taken down as a whole"),
            "",
        );
        self.carry_out(&plan)
    }

    fn carry_out(&mut self, plan: &Plan) -> Result<(), CommandError> {
        self.show(plan);
        execute(&mut self.kernel, plan).map_err(|e| {
            let failed = CommandError::new(ErrorKind::Kernel, "the tour cannot go on");
            failed.cause(format!("{}: {}", render::command(&e.error.op), e.error))
        })
    }

    /// Records a plan's commands as those of this step.
    pub fn show(&mut self, plan: &Plan) {
        self.commands
            .extend(plan.steps.iter().map(|s| render::command(&s.op)));
    }

    /// A command of this step that is none of a plan.
    pub fn typed(&mut self, command: &str) {
        self.commands.push(command.to_owned());
    }

    pub fn ping(&mut self, from: &str, to: &str, expect: Expect) {
        let addr: IpAddr = to.parse().expect("the tour's own address");
        let answer = probe::ping(place(from).as_deref(), addr, patience(expect));
        self.tried(format!("{from} pings {to}"), expect, &answer);
    }

    pub fn connect(&mut self, from: &str, to: &str, expect: Expect) {
        let addr: SocketAddr = to.parse().expect("the tour's own address");
        let answer = probe::connect(place(from).as_deref(), addr, patience(expect));
        self.tried(format!("{from} connects to {to}"), expect, &answer);
    }

    fn tried(&mut self, what: String, expect: Expect, answer: &Answer) {
        self.note(
            what,
            expect,
            answer.to_string(),
            answer.is_reached() == (expect == Expect::Works),
        );
    }

    /// Records something tried.
    pub fn note(&mut self, what: String, expect: Expect, happened: String, as_expected: bool) {
        let expected = if expect == Expect::Works {
            "works"
        } else {
            "fails"
        };
        self.tries.push(Try {
            what,
            expected,
            happened,
            as_expected,
        });
    }

    /// What the host knows of its neighbours, for showing.
    pub fn show_neighbours(&mut self, netns: &str) {
        let table = probe::within(place(netns).as_deref(), || {
            std::fs::read_to_string("/proc/thread-self/net/arp")
        });
        let text = table.and_then(|t| t).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if let [addr, _, _, mac, _, dev] = fields[..] {
                let known = mac != "00:00:00:00:00:00";
                self.note(
                    format!("{netns}'s neighbours"),
                    Expect::Works,
                    format!("{addr} dev {dev} lladdr {mac}"),
                    known,
                );
            }
        }
    }

    /// A service in a namespace, which tells each client the address it sees.
    pub fn serve(&mut self, netns: &str, port: u16) -> Result<(), CommandError> {
        let path = place(netns).expect("services are in containers");
        let service = Service::start(&path, port);
        self.services.push(
            service.map_err(|e| CommandError::internal(format!("cannot serve in {netns}: {e}")))?,
        );
        Ok(())
    }

    /// The engine, on this stage.
    pub fn engine(&self) -> Result<Engine, CommandError> {
        let dirs = Dirs {
            state: PathBuf::from("/run/wharf-state"),
            run: PathBuf::from("/run/wharf"),
        };
        Ok(Engine::open(&dirs)?)
    }

    /// The host's links, addresses, routes, tables and forwarding, a line each.
    pub fn snapshot(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let host = Netns::Host;
        lines.extend(
            self.kernel
                .links(&host)
                .unwrap_or_default()
                .iter()
                .map(|l| format!("link {}", l.name)),
        );
        lines.extend(
            self.kernel
                .addrs(&host)
                .unwrap_or_default()
                .iter()
                .filter(|(_, a)| !is_link_local(a.addr()))
                .map(|(_, a)| format!("address {a}")),
        );
        lines.extend(
            self.kernel
                .routes(&host)
                .unwrap_or_default()
                .iter()
                .filter(|r| !is_link_local(r.dst.addr()))
                .map(|r| format!("route {}", r.dst)),
        );
        let tables = self
            .kernel
            .nftables()
            .and_then(|nft| nft.dump_tables())
            .unwrap_or_default();
        lines.extend(
            tables
                .iter()
                .map(|t| format!("table {} {}", t.family, t.name)),
        );
        for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            lines.push(format!(
                "{key} = {}",
                self.kernel
                    .sysctl(&host, key)
                    .ok()
                    .flatten()
                    .unwrap_or_default()
            ));
        }
        lines.sort();
        lines
    }
}

/// Link-local addresses come and go by the kernel's own will.
fn is_link_local(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.is_multicast())
}

fn patience(expect: Expect) -> Duration {
    if expect == Expect::Works {
        PATIENCE
    } else {
        IMPATIENCE
    }
}

/// The namespace of a name of the tour; the host is the own one.
pub fn place(name: &str) -> Option<PathBuf> {
    (name != "host").then(|| Path::new("/run/netns").join(name))
}

/// The same, for operations.
pub fn netns(name: &str) -> Netns {
    place(name).map_or(Netns::Host, Netns::Path)
}

pub fn ifname(name: &str) -> IfName {
    name.parse().expect("the tour's own name")
}

/// A named namespace with its loopback up.
pub fn namespace(name: &str) -> Vec<Resource> {
    let path = place(name).expect("not the host");
    vec![
        Resource::Netns(path),
        Resource::Up {
            netns: netns(name),
            link: IfName::loopback(),
        },
    ]
}

/// A cable from the host to `eth0` of a namespace, both ends up; a port of `master` if one is given.
pub fn cable(host_end: &str, to: &str, master: Option<&str>) -> Vec<Resource> {
    let link = Link {
        netns: Netns::Host,
        name: ifname(host_end),
        kind: LinkKind::Veth {
            peer: ifname("eth0"),
            peer_netns: netns(to),
            peer_mac: None,
        },
        mac: None,
        mtu: None,
        master: master.map(ifname),
        group: 0,
        up: true,
    };
    vec![
        Resource::Link(link),
        Resource::Up {
            netns: netns(to),
            link: ifname("eth0"),
        },
    ]
}

pub fn addr(at: &str, link: &str, addr: &str) -> Resource {
    Resource::Addr {
        netns: netns(at),
        link: ifname(link),
        addr: addr.parse().expect("the tour's own address"),
    }
}

pub fn route(at: &str, dst: &str, via: &str, link: &str) -> Resource {
    Resource::Route {
        netns: netns(at),
        dst: dst.parse().expect("the tour's own prefix"),
        via: Some(via.parse().expect("the tour's own address")),
        link: ifname(link),
        metric: None,
        more: RouteMore::default(),
    }
}
