//! `guards`: what wharf's rules and guards cost on the path, beside a plain bridge.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd;
use std::time::Duration;

use serde_json::json;

use super::engines::{self, Arm, FloorKind};
use super::measure::{Summary, paired_ratio, timed};
use super::report::Section;
use super::traffic::{self, ECHO, Load, SINK};
use super::world::GATEWAY;
use super::{Context, Result};
use crate::sys;

const SLICE: Duration = Duration::from_millis(300);
const LOADS: [(&str, Load, u16); 2] = [
    ("round trips/s", Load::RoundTrips, ECHO),
    ("Gbit/s", Load::Throughput, SINK),
];

const PLAIN: usize = 0;
const NAT: usize = 1;

/// Where traffic goes, whether the bridge shows its frames to the IP hooks, and which bed is the base of
/// the goal: where connection tracking sees the packets it is there with or without guards.
const PATHS: [(&str, bool, bool, usize); 3] = [
    (
        "container → container, bridge-nf-call 0",
        false,
        false,
        PLAIN,
    ),
    ("container → container, bridge-nf-call 1", false, true, NAT),
    ("container → host", true, false, NAT),
];

struct Bed {
    arm: Arm,
    client: File,
    sibling: Ipv4Addr,
}

/// `guards`
pub fn run(context: &Context) -> Result<Vec<Section>> {
    let mut beds = vec![
        bed(engines::floor(context, FloorKind::BridgeOnly)?)?,
        bed(engines::floor(context, FloorKind::Quiet)?)?,
    ];
    if let Some(arm) = engines::wharf(context)? {
        beds.push(bed(arm)?);
    }
    let columns = [
        "path",
        "bed",
        "measure",
        "rate",
        "time ÷ plain bridge",
        "time ÷ NAT only",
    ];
    let mut section = Section::new("guards", "an open connection from a container", &columns);
    for (path, to_host, nf_call, base) in PATHS {
        for bed in &beds {
            sys::inside(bed.arm.host.netns.as_fd(), || set_nf_call(nf_call))?;
        }
        for (measure, load, port) in LOADS {
            let mut rates = vec![Vec::new(); beds.len()];
            for round in 0..context.rounds {
                context.progress(&format!("guards: {path}, {measure}, round {}", round + 1));
                for turn in 0..beds.len() {
                    // Nobody always comes after the same neighbour.
                    let place = (turn + round) % beds.len();
                    let server = if to_host {
                        GATEWAY
                    } else {
                        beds[place].sibling
                    };
                    let to = SocketAddrV4::new(server, port);
                    rates[place].push(traffic::rate(&beds[place].client, to, load, SLICE)?);
                }
            }
            for (bed, own) in beds.iter().zip(&rates) {
                let cost = [PLAIN, NAT].map(|bed| paired_ratio(&rates[bed], own));
                let label = bed.arm.engine.label();
                add_row(&mut section, path, label, measure, own, cost);
                if label == "wharf" {
                    let to = ["plain bridge", "NAT only"][base];
                    section.goal(
                        format!("{path}, {measure}: time ÷ {to}"),
                        cost[base].median,
                        1.05,
                    );
                }
            }
        }
    }
    section.note(
        "both ends on one processor, rates per second of processor time; quotients are medians (quartiles) of neighbours in time",
    );
    section.note("plain bridge: no nf_tables rules; NAT only: the floor's table, so connection tracking is on");
    Ok(vec![section])
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
    [to_plain, to_nat]: [Summary; 2],
) {
    let bed = if bed.starts_with("floor") {
        "NAT only (floor)"
    } else {
        bed
    };
    let rate = Summary::of(rates.to_vec());
    let digits = if rate.median < 1000.0 { 2 } else { 0 };
    let cells = [
        path,
        bed,
        measure,
        &rate.text(digits),
        &to_plain.text(3),
        &to_nat.text(3),
    ];
    let data = json!({
        "path": path, "bed": bed, "measure": measure, "rate": rate.json(),
        "time_to_plain": to_plain.json(), "time_to_nat_only": to_nat.json(),
    });
    section.row(cells.map(str::to_owned).to_vec(), data);
}
