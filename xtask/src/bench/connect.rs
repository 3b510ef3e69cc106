//! `connect`: new connections through a published port, when there is one and when there are 10,000.

use std::net::SocketAddrV4;
use std::time::Duration;

use serde_json::json;

use super::chart::Chart;
use super::docker::Proxy;
use super::engines::{self, Arm, FloorKind};
use super::measure::{Summary, paired_ratio, rest, timed};
use super::report::Section;
use super::traffic::{self, ECHO, Load};
use super::world::{Container, UPLINK};
use super::{Context, Result, cni, docker, netavark};

const FIRST_PORT: u16 = 20_000;
const SLICE: Duration = Duration::from_millis(400);

struct Case {
    label: String,
    arm: Arm,
    last_port: u16,
    rates: Vec<f64>,
}

/// `connect`
pub fn run(context: &Context) -> Result<Vec<Section>> {
    let many = if context.quick { 1_000 } else { 10_000 };
    let mut cases = Vec::new();
    let mut missing = Vec::new();
    for all in [false, true] {
        for (name, arm, most) in arms(context, many)? {
            match arm {
                Some(arm) => cases.push(case(context, arm, if all { most } else { 1 })?),
                None if all => missing.push(format!("{name}: not installed")),
                None => {}
            }
        }
    }
    for round in 0..context.rounds {
        context.progress(&format!(
            "connect: round {} of {}",
            round + 1,
            context.rounds
        ));
        for turn in 0..cases.len() {
            let place = (turn + round) % cases.len();
            let case = &mut cases[place];
            let to = SocketAddrV4::new(UPLINK, case.last_port);
            case.rates.push(traffic::rate(
                &case.arm.host.outside,
                to,
                Load::Connections,
                SLICE,
            )?);
        }
    }

    let columns = [
        "through the last of",
        "connections/s",
        "µs each",
        "÷ 1 port (time, paired)",
    ];
    let mut section = Section::new(
        "connect",
        "new connections from outside to a published port",
        &columns,
    );
    let half = cases.len() / 2;
    let mut bars = Vec::new();
    for (place, case) in cases.iter().enumerate() {
        let rate = Summary::of(case.rates.clone());
        let cost = paired_ratio(&cases[place % half].rates, &case.rates);
        let each = case.rates.iter().map(|rate| 1e6 / rate).collect();
        bars.push((case.label.clone(), Summary::of(each)));
        let cells = vec![
            case.label.clone(),
            rate.text(0),
            format!("{:.1}", 1e6 / rate.median),
            if place < half {
                "1".to_owned()
            } else {
                cost.text(2)
            },
        ];
        section.row(cells, json!({ "case": case.label, "per_second": rate.json(), "time_to_one_port": cost.json() }));
        if place >= half && case.label.starts_with("wharf") {
            section.goal(
                format!("connection time, {many} ports ÷ 1 port"),
                cost.median,
                1.05,
            );
        }
    }
    section.chart(Chart::bars(
        "connect",
        "a new connection through the last published port",
        "µs of processor time",
        bars,
    ));
    missing.into_iter().for_each(|line| section.note(line));
    section.note("connect, one byte each way, reset; client, path and server on one processor");
    Ok(vec![section])
}

/// Everybody, with the number of ports that can be published in bearable time: the peers start programs
/// for each port, which read all rules that are there.
fn arms(context: &Context, many: u16) -> Result<[(&'static str, Option<Arm>, u16); 5]> {
    let fewer = if context.quick { 100 } else { 1_000 };
    Ok([
        ("wharf", engines::wharf(context)?, many),
        (
            "floor",
            Some(engines::floor(context, FloorKind::Quiet)?),
            many,
        ),
        (cni::REFERENCE_LABEL, cni::reference(context)?, fewer),
        (
            netavark::REFERENCE_LABEL,
            netavark::reference(context)?,
            fewer,
        ),
        (
            docker::LABEL,
            docker::reference(context, Proxy::None)?,
            fewer,
        ),
    ])
}

fn case(context: &Context, arm: Arm, count: u16) -> Result<Case> {
    timed(&arm.host, &arm.engine.network_add())?;
    let container = arm.host.container(0)?;
    context.progress(&format!(
        "connect: publishing {count} ports with {}",
        arm.engine.label()
    ));
    publish(&arm, &container, count)?;
    rest(context);
    traffic::serve(&arm.engine.netns(&container)?)?;
    let label = format!(
        "{}, {count} {}",
        arm.engine.label(),
        if count == 1 { "port" } else { "ports" }
    );
    Ok(Case {
        label,
        arm,
        last_port: FIRST_PORT + count - 1,
        rates: Vec::new(),
    })
}

/// All host ports lead to one port of the container, so that no engine can store them as one range.
fn publish(arm: &Arm, container: &Container, count: u16) -> Result<()> {
    const CHUNK: usize = 1000;
    let specs: Vec<String> = (0..count)
        .map(|n| format!("{}:{ECHO}", FIRST_PORT + n))
        .collect();
    let mut chunks = specs.chunks(CHUNK);
    let first = chunks.next().unwrap_or_default();
    arm.engine.prepare(container, first)?;
    timed(&arm.host, &arm.engine.attach(container, first))?;
    for call in chunks.filter_map(|chunk| arm.engine.publish(container, chunk)) {
        timed(&arm.host, &call)?;
    }
    Ok(())
}
