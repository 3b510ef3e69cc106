//! `storms`: many containers plugged in at the same moment, and all taken away at the same moment.
//!
//! What is asked beside the time: did every call succeed, has every container an address of its own, and is
//! everything as before in the end.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use serde_json::json;

use super::chart::Chart;
use super::engines::{self, Arm, Call, FloorKind};
use super::leftovers::{Left, Snapshot, settled};
use super::measure::{Cost, Summary, rest, timed};
use super::report::Section;
use super::world::{Container, GATEWAY, Host};
use super::{Context, Result, cni, netavark};
use crate::sys;

/// All that one engine went through.
#[derive(Default)]
struct Record {
    up: Vec<Cost>,
    down: Vec<Cost>,
    failures: usize,
    complaint: Option<String>,
    /// Containers with an address that another one has too, or with none though the call succeeded.
    wrong_addresses: usize,
    left: Left,
    /// One thing that is left, or lost.
    example: Option<String>,
}

/// `storms`
pub fn run(context: &Context) -> Result<Vec<Section>> {
    if !(engines::installed("ip") && engines::installed("nft")) {
        return Err("ip and nft are needed to see what is left".into());
    }
    let size: u32 = if context.quick { 20 } else { 100 };
    let rounds = context.rounds.min(if context.quick { 1 } else { 5 });
    let title = "containers with one port each, attached and detached all at once";
    let columns = [
        "engine",
        "attach all ms",
        "CPU ms",
        "÷ wharf",
        "detach all ms",
        "÷ wharf",
        "failures",
        "wrong addresses",
        "left: links, rules, leases; lost",
    ];
    let mut section = Section::new("storms", title, &columns);
    let (arms, missing) = arms(context)?;
    for name in missing {
        section.note(format!("{name}: not installed"));
    }
    let mut records: Vec<Record> = arms.iter().map(|_| Record::default()).collect();
    let mut guests = Vec::new();
    for arm in &arms {
        timed(&arm.host, &arm.engine.network_add())?;
        timed(
            &arm.host,
            &arm.engine
                .attach(&arm.host.container(0)?, &["7000:80".to_owned()]),
        )?;
        let all = arm.host.containers(1, size + 1)?;
        // Once up and down, for tables and chains that an engine makes at its first detach.
        timed(
            &arm.host,
            &arm.engine.attach(&all[0], &["7001:80".to_owned()]),
        )?;
        timed(
            &arm.host,
            &arm.engine.detach(&all[0], &["7001:80".to_owned()]),
        )?;
        guests.push(all);
    }
    rest(context);
    for round in 0..rounds {
        for ((arm, guests), record) in arms.iter().zip(&guests).zip(&mut records) {
            let label = arm.engine.label();
            context.progress(&format!("storms: round {} of {rounds}, {label}", round + 1));
            storm(context, arm, guests, record)?;
        }
    }
    fill_in(&mut section, &arms, &records);
    section.note(format!(
        "{size} at once, {rounds} rounds; from the first start to the last end, starting the processes included"
    ));
    section.note("failures, wrong addresses and what is left: sums of all rounds; one container stays attached throughout");
    section.note(
        "floor, script and Netavark's protocol are given the addresses; the others choose them",
    );
    Ok(vec![section])
}

fn arms(context: &Context) -> Result<(Vec<Arm>, Vec<&'static str>)> {
    let offers = [
        ("wharf", engines::wharf(context)?),
        ("wharf", cni::wharf(context)?),
        (cni::REFERENCE_LABEL, cni::reference(context)?),
        ("wharf", netavark::wharf(context)?),
        (netavark::REFERENCE_LABEL, netavark::reference(context)?),
        ("script", engines::script(context)?),
        ("floor", Some(engines::floor(context, FloorKind::Quiet)?)),
    ];
    let mut missing = Vec::new();
    let mut arms = Vec::new();
    for (name, arm) in offers {
        match arm {
            Some(arm) => arms.push(arm),
            None => missing.push(name),
        }
    }
    missing.dedup();
    Ok((arms, missing))
}

fn storm(context: &Context, arm: &Arm, guests: &[Container], record: &mut Record) -> Result<()> {
    let before = Snapshot::of(arm)?;
    let ports = |n: usize| vec![format!("{}:80", 10_000 + n)];
    let calls = |make: &dyn Fn(usize, &Container) -> Call| -> Vec<Call> {
        guests
            .iter()
            .enumerate()
            .map(|(n, guest)| make(n, guest))
            .collect()
    };
    let up = all_at_once(
        &arm.host,
        &calls(&|n, guest| arm.engine.attach(guest, &ports(n))),
    );
    rest(context);
    let attached: Vec<&Container> = guests
        .iter()
        .zip(&up.done)
        .filter(|(_, done)| **done)
        .map(|(g, _)| g)
        .collect();
    record.wrong_addresses += wrong_addresses(&attached)?;
    // Those that failed as well: that is how a runtime clears away.
    let down = all_at_once(
        &arm.host,
        &calls(&|n, guest| arm.engine.detach(guest, &ports(n))),
    );
    rest(context);
    for outcome in [&up, &down] {
        record.failures += outcome.done.iter().filter(|done| !**done).count();
        record.complaint = record.complaint.take().or(outcome.complaint.clone());
    }
    record.up.push(up.cost);
    record.down.push(down.cost);
    let after = settled(arm, &before)?;
    record.left = record.left + after.left_since(&before);
    record.example = record.example.take().or(after.example_since(&before));
    Ok(())
}

struct Outcome {
    cost: Cost,
    done: Vec<bool>,
    complaint: Option<String>,
}

/// A thread for every call, and all calls at the same moment. The wall clock runs from the first thread that
/// sets off to the last call that ends: whoever only watches may be given the processor long after that.
fn all_at_once(host: &Host, calls: &[Call]) -> Outcome {
    let start = Barrier::new(calls.len());
    let work = |call| {
        start.wait();
        let begun = Instant::now();
        let result = timed(host, call).map_err(|error| error.to_string());
        (begun, result, Instant::now())
    };
    let work = &work;
    let records: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = calls
            .iter()
            .map(|call| scope.spawn(move || work(call)))
            .collect();
        threads
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .collect()
    });
    let first = records.iter().map(|(begun, _, _)| *begun).min();
    let last = records.iter().map(|(_, _, ended)| *ended).max();
    let wall = first.zip(last).map(|(first, last)| last - first);
    let results = || records.iter().map(|(_, result, _)| result);
    let cost = Cost {
        wall: wall.unwrap_or_default(),
        cpu: results().flatten().map(|cost| cost.cpu).sum(),
    };
    // A caller that panicked would be missing here, and its call would be taken for another's.
    assert_eq!(records.len(), calls.len(), "a caller panicked");
    Outcome {
        cost,
        done: results().map(Result::is_ok).collect(),
        complaint: results().find_map(|result| result.clone().err()),
    }
}

/// How many of `containers` have no address, or one that another has too.
fn wrong_addresses(containers: &[&Container]) -> Result<usize> {
    let mut seen = BTreeMap::new();
    let mut without = 0;
    for container in containers {
        match sys::inside(container.open()?.as_fd(), own_address)? {
            Ok(address) => *seen.entry(address).or_insert(0_usize) += 1,
            Err(_) => without += 1,
        }
    }
    Ok(without + seen.values().filter(|count| **count > 1).sum::<usize>())
}

/// The address that the namespace we are in would use towards the gateway; nothing is sent.
fn own_address() -> std::io::Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((GATEWAY, 9))?;
    match socket.local_addr()? {
        SocketAddr::V4(own) => Ok(*own.ip()),
        SocketAddr::V6(_) => Err(std::io::ErrorKind::AddrNotAvailable.into()),
    }
}

fn fill_in(section: &mut Section, arms: &[Arm], records: &[Record]) {
    let medians = |record: &Record| {
        (
            Summary::wall(&record.up).median,
            Summary::wall(&record.down).median,
        )
    };
    let base_of = |label: &str| {
        // Each peer beside wharf in the same role.
        let role = match label {
            cni::REFERENCE_LABEL | cni::WHARF_LABEL => cni::WHARF_LABEL,
            netavark::REFERENCE_LABEL | netavark::WHARF_LABEL => netavark::WHARF_LABEL,
            _ => "wharf",
        };
        let place = arms.iter().position(|arm| arm.engine.label() == role);
        place.map(|place| medians(&records[place]))
    };
    let mut bars = Vec::new();
    for (arm, record) in arms.iter().zip(records) {
        let label = arm.engine.label();
        let (up, down) = (Summary::wall(&record.up), Summary::wall(&record.down));
        let cpu = Summary::cpu(&record.up);
        let Left {
            links,
            rules,
            books,
            lost,
        } = record.left;
        let ratio = |of: f64, to: Option<f64>| {
            to.map_or("–".to_owned(), |to| super::report::times(of, to))
        };
        let base = base_of(label);
        let cells = vec![
            label.to_owned(),
            up.text(0),
            format!("{:.0}", cpu.median),
            ratio(up.median, base.map(|base| base.0)),
            down.text(0),
            ratio(down.median, base.map(|base| base.1)),
            record.failures.to_string(),
            record.wrong_addresses.to_string(),
            format!("{links}, {rules}, {books}; {lost}"),
        ];
        let data = json!({
            "engine": label, "attach_ms": up.json(), "attach_cpu_ms": cpu.json(), "detach_ms": down.json(),
            "failures": record.failures, "complaint": record.complaint, "example": record.example, "wrong_addresses": record.wrong_addresses,
            "left": { "links": links, "rules": rules, "leases": books, "lost": lost },
        });
        section.row(cells, data);
        bars.push((label.to_owned(), up));
        if let Some(complaint) = &record.complaint {
            section.note(format!("{label}: {complaint}"));
        }
        if let Some(example) = &record.example {
            section.note(format!("{label}: {example}"));
        }
        if label.starts_with("wharf") {
            let faults = record.failures + record.wrong_addresses + links + rules + books + lost;
            section.goal(
                format!("{label}: failures, wrong addresses and leftovers"),
                faults as f64,
                0.0,
            );
        }
    }
    section.chart(Chart::bars(
        "storms-attach",
        "attaching all at once",
        "ms",
        bars,
    ));
}
