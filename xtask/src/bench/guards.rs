//! `guards`: what the guards at a container's port cost on its path, and what all of wharf's rules cost beside a plain
//! bridge.
//!
//! The guards are what believes no container its own word: the check of address and MAC at the port of the bridge, the
//! `locked` port, and the check of the source where the bridge hands a packet to the host. Their cost is told by the
//! same network with just these taken away: two networks made alike differ by more, for throughput depends on where
//! their memory came to be.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::engines::{self, Arm, FloorKind};
use super::measure::{Summary, paired_ratio, timed};
use super::report::Section;
use super::traffic::{self, ECHO, Load, SINK};
use super::world::GATEWAY;
use super::{Context, Result};
use crate::sys;

/// Short, and many of them: what else the machine does comes in spells that are longer, and hits neighbours alike.
const SLICE: Duration = Duration::from_millis(60);
const SLICES: usize = 5;
const LOADS: [(&str, Load, u16); 2] = [
    ("round trips/s", Load::RoundTrips, ECHO),
    ("Gbit/s", Load::Throughput, SINK),
];

/// Where traffic goes, and whether the bridge shows its frames to the IP hooks.
const PATHS: [(&str, bool, bool); 3] = [
    ("container → container, bridge-nf-call 0", false, false),
    ("container → container, bridge-nf-call 1", false, true),
    ("container → host", true, false),
];

/// Taken away: the chain at the ports and the one for packets that leave the bridge. The lock of a port costs nothing that
/// could be measured, and stays.
const UNGUARD: &str = "delete chain bridge wharf ports\ndelete chain inet wharf raw\n";

/// Who takes turns, as the tables call them.
const ENTRIES: [&str; 4] = [
    "plain bridge",
    "NAT only (floor)",
    "wharf without guards",
    "wharf",
];
const UNGUARDED: usize = 2;
const GUARDED: usize = 3;

struct Beds {
    plain: Bed,
    nat: Bed,
    wharf: Bed,
}

struct Bed {
    arm: Arm,
    client: File,
    sibling: Ipv4Addr,
}

/// `guards`
pub fn run(context: &Context) -> Result<Vec<Section>> {
    let columns = [
        "path",
        "bed",
        "measure",
        "rate",
        "time ÷ plain bridge",
        "time ÷ NAT only",
        "time ÷ without guards",
    ];
    let mut section = Section::new("guards", "an open connection from a container", &columns);
    let Some(wharf) = engines::wharf(context)? else {
        section.note("not measured: no wharf");
        return Ok(vec![section]);
    };
    let beds = Beds {
        plain: bed(engines::floor(context, FloorKind::BridgeOnly)?)?,
        nat: bed(engines::floor(context, FloorKind::Quiet)?)?,
        wharf: bed(wharf)?,
    };
    let guard = guards_of(&beds.wharf)?;
    for (path, to_host, nf_call) in PATHS {
        for bed in [&beds.plain, &beds.nat, &beds.wharf] {
            sys::inside(bed.arm.host.netns.as_fd(), || set_nf_call(nf_call))?;
        }
        for (measure, load, port) in LOADS {
            let what = format!("guards: {path}, {measure}");
            let rates = rates(context, &what, |entry| {
                let bed = match entry {
                    0 => &beds.plain,
                    1 => &beds.nat,
                    UNGUARDED => {
                        nft(&beds.wharf, UNGUARD)?;
                        &beds.wharf
                    }
                    _ => &beds.wharf,
                };
                let server = if to_host { GATEWAY } else { bed.sibling };
                let to = SocketAddrV4::new(server, port);
                let rate = traffic::rate(&bed.client, to, load, SLICE)?;
                if entry == UNGUARDED {
                    nft(&beds.wharf, &guard)?;
                }
                Ok(rate)
            })?;
            for (entry, own) in ENTRIES.into_iter().zip(&rates) {
                let cost = [0, 1, UNGUARDED].map(|base| paired_ratio(&rates[base], own));
                add_row(&mut section, path, entry, measure, own, cost);
            }
            section.goal(
                format!("{path}, {measure}: time ÷ without guards"),
                paired_ratio(&rates[UNGUARDED], &rates[GUARDED]).median,
                1.05,
            );
        }
    }
    section.note(
        "both ends on one processor, rates per second of processor time; quotients are medians (quartiles) of neighbours in time",
    );
    section.note("plain bridge: no nf_tables rules; NAT only: the floor's table, so connection tracking is on");
    section.note("without guards: without the chains `ports` and `raw`, in the same network");
    Ok(vec![section])
}

/// The rates of each entry, taken in turns.
fn rates(
    context: &Context,
    what: &str,
    rate: impl Fn(usize) -> Result<f64>,
) -> Result<[Vec<f64>; ENTRIES.len()]> {
    let mut rates: [Vec<f64>; ENTRIES.len()] = Default::default();
    for round in 0..context.rounds {
        context.progress(&format!("{what}, round {}", round + 1));
        for slice in 0..SLICES {
            for turn in 0..ENTRIES.len() {
                // Nobody always comes after the same neighbour.
                let place = (turn + slice + round) % ENTRIES.len();
                rates[place].push(rate(place)?);
            }
        }
    }
    Ok(rates)
}

/// What brings back what [`UNGUARD`] takes away.
fn guards_of(bed: &Bed) -> Result<String> {
    let list = |what: &[&str]| {
        let mut command = Command::new("nft");
        super::world::output_of(&bed.arm.host, command.arg("list").args(what))
    };
    Ok(list(&["chain", "bridge", "wharf", "ports"])? + &list(&["chain", "inet", "wharf", "raw"])?)
}

fn nft(bed: &Bed, commands: &str) -> Result<()> {
    let mut command = Command::new("nft");
    super::world::output_of(&bed.arm.host, command.arg(commands)).map(drop)
}

/// A kernel without that module never shows frames to the IP hooks, which is the same as 0.
fn set_nf_call(on: bool) {
    for family in ["iptables", "ip6tables"] {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{family}");
        drop(fs::write(path, if on { "1" } else { "0" }));
    }
}

/// A network with two containers and servers in one of them and on the host.
fn bed(arm: Arm) -> Result<Bed> {
    timed(&arm.host, &arm.engine.network_add())?;
    let containers = arm.host.containers(0, 2)?;
    for container in &containers {
        timed(&arm.host, &arm.engine.attach_at(container, &[]))?;
    }
    let client = containers[0].open()?;
    traffic::serve(&containers[1].open()?)?;
    traffic::serve(&arm.host.netns)?;
    Ok(Bed {
        arm,
        client,
        sibling: containers[1].address,
    })
}

fn add_row(
    section: &mut Section,
    path: &str,
    bed: &str,
    measure: &str,
    rates: &[f64],
    [to_plain, to_nat, to_unguarded]: [Summary; 3],
) {
    let rate = Summary::of(rates.to_vec());
    let digits = if rate.median < 1000.0 { 2 } else { 0 };
    let cells = [
        path,
        bed,
        measure,
        &rate.text(digits),
        &to_plain.text(3),
        &to_nat.text(3),
        &to_unguarded.text(3),
    ];
    let data = json!({
        "path": path, "bed": bed, "measure": measure, "rate": rate.json(),
        "time_to_plain": to_plain.json(), "time_to_nat_only": to_nat.json(),
        "time_to_unguarded": to_unguarded.json(),
    });
    section.row(cells.map(str::to_owned).to_vec(), data);
}
