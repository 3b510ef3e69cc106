//! `guards`: what wharf's rules and guards cost on the path, beside a plain bridge.

use std::fs::File;
use std::net::SocketAddrV4;
use std::time::Duration;

use serde_json::json;

use super::engines::{self, Arm, FloorKind};
use super::measure::{Summary, paired_ratio, timed};
use super::report::Section;
use super::traffic::{self, ECHO, Load, SINK};
use super::world::GATEWAY;
use super::{Context, Result};

const SLICE: Duration = Duration::from_millis(300);
const LOADS: [(&str, Load, u16); 2] = [
    ("round trips/s", Load::RoundTrips, ECHO),
    ("Gbit/s", Load::Throughput, SINK),
];

struct Bed {
    arm: Arm,
    client: File,
    sibling: SocketAddrV4,
}

/// `guards`
pub fn run(context: &Context) -> Result<Section> {
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
        "time ÷ plain bridge (paired)",
    ];
    let mut section = Section::new("guards", "an open connection from a container", &columns);
    for path in ["container → container", "container → host"] {
        for (measure, load, port) in LOADS {
            let mut rates = vec![Vec::new(); beds.len()];
            for round in 0..context.rounds {
                context.progress(&format!("guards: {path}, {measure}, round {}", round + 1));
                for (bed, rates) in beds.iter().zip(&mut rates) {
                    let server = if path.ends_with("host") {
                        GATEWAY
                    } else {
                        *bed.sibling.ip()
                    };
                    let to = SocketAddrV4::new(server, port);
                    rates.push(traffic::rate(&bed.client, to, load, SLICE)?);
                }
            }
            for (bed, own) in beds.iter().zip(&rates) {
                let cost = paired_ratio(&rates[0], own);
                add_row(
                    &mut section,
                    path,
                    bed.arm.engine.label(),
                    measure,
                    own,
                    cost,
                );
            }
        }
    }
    section.note("both ends on one processor; the plain bridge has no nf_tables rules, the floor has NAT rules");
    Ok(section)
}

/// A network with two containers and servers in one of them and on the host.
fn bed(arm: Arm) -> Result<Bed> {
    timed(&arm.host, &arm.engine.network_add())?;
    let containers = arm.host.containers(0, 2)?;
    for container in &containers {
        timed(&arm.host, &arm.engine.attach_at(container))?;
    }
    let client = containers[0].open()?;
    traffic::serve(&containers[1].open()?)?;
    traffic::serve(&arm.host.netns)?;
    Ok(Bed {
        arm,
        client,
        sibling: SocketAddrV4::new(containers[1].address, ECHO),
    })
}

fn add_row(
    section: &mut Section,
    path: &str,
    bed: &str,
    measure: &str,
    rates: &[f64],
    cost: Summary,
) {
    let rate = Summary::of(rates.to_vec());
    let digits = if rate.median < 1000.0 { 2 } else { 0 };
    let cells = [path, bed, measure, &rate.text(digits), &cost.text(3)]
        .map(str::to_owned)
        .to_vec();
    let data = json!({
        "path": path, "bed": bed, "measure": measure, "rate": rate.json(), "time_to_plain": cost.json(),
    });
    section.row(cells, data);
    if bed == "wharf" {
        section.goal(
            format!("{path}, {measure}: time ÷ plain bridge"),
            cost.median,
            1.05,
        );
    }
}
