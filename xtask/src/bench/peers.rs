//! `peers`: wharf in the place of the CNI reference plugins and of Netavark, beside them.
//!
//! Both sides get the same calls with the same input, in turns, on hosts of their own.

use std::thread;
use std::time::Duration;

use serde_json::json;

use super::chart::{Chart, Line};
use super::engines::Arm;
use super::measure::{Cost, Cycle, Entry, Summary, alternate_rounds, paired_ratio, timed};
use super::report::Section;
use super::world::Container;
use super::{Context, Result, cni, netavark};

/// How many are attached already, unless `--attached` says otherwise.
pub const LEVELS: [u32; 4] = [0, 100, 500, 1000];
/// The same for a quick look.
const QUICK_LEVELS: [u32; 2] = [0, 50];
/// How long the bridges may calm down after they were filled.
const CALM: Duration = Duration::from_secs(5);
/// Ports of the container that comes and goes.
const PORTS: [u16; 2] = [1, 20];

/// A protocol, with wharf and the program that usually answers it.
struct Pair {
    protocol: &'static str,
    verbs: [&'static str; 2],
    wharf: Arm,
    peer: Arm,
}

/// `peers`
pub fn run(context: &Context) -> Result<Vec<Section>> {
    let columns = [
        "attached",
        "call",
        "ports",
        "peer ms",
        "wharf ms",
        "peer ÷ wharf",
        "peer CPU ms",
        "wharf CPU ms",
        "peer ÷ wharf, CPU",
        "n",
    ];
    let mut section = Section::new(
        "peers",
        "wharf in the place of the CNI plugins and of Netavark, beside them",
        &columns,
    );
    let pairs = pairs(context, &mut section)?;
    for arm in pairs.iter().flat_map(Pair::arms) {
        timed(&arm.host, &arm.engine.network_add())?;
        // Bridge and base chains exist, as on a host in use.
        let resident = arm.host.container(0)?;
        timed(
            &arm.host,
            &arm.engine.attach(&resident, &published(7000, 1)),
        )?;
    }
    let levels = match &context.attached {
        Some(levels) => levels.as_slice(),
        None if context.quick => &QUICK_LEVELS,
        None => &LEVELS,
    };
    let mut lines = Vec::new();
    let mut attached = 0;
    for &level in levels {
        fill(context, &pairs, attached, level)?;
        attached = level.max(attached);
        for (place, ports) in PORTS.into_iter().enumerate() {
            let cycles = one_more(context, &pairs, level, ports, place)?;
            for (pair, cycles) in pairs.iter().zip(cycles.chunks(2)) {
                add_rows(&mut section, pair, level, ports, cycles);
                add_goal(&mut section, pair, level, ports, cycles);
                add_points(&mut lines, pair, level, ports, cycles);
            }
        }
    }
    if levels.len() > 1 {
        section.chart(Chart::lines(
            "peers-scale",
            "one more container, one port",
            "ms",
            "attached already",
            lines,
        ));
    }
    section.note("whole processes, all of a chain together; median (quartiles) of runs in turns, quotients of neighbours in time");
    section.note("one container with one port is attached besides; those counted in the first column have one port each");
    section.note("CNI: bridge with host-local, portmap, firewall, tuning, one after the other; Netavark's protocol gives the address, so nobody chooses one");
    Ok(vec![section])
}

impl Pair {
    fn arms(&self) -> [&Arm; 2] {
        [&self.wharf, &self.peer]
    }
}

fn pairs(context: &Context, section: &mut Section) -> Result<Vec<Pair>> {
    const NO_WHARF: &str = "there is no wharf to measure: cargo build --release -p wharf";
    let mut pairs = Vec::new();
    match cni::reference(context)? {
        Some(peer) => pairs.push(Pair {
            protocol: "CNI",
            verbs: ["ADD", "DEL"],
            wharf: cni::wharf(context)?.ok_or(NO_WHARF)?,
            peer,
        }),
        None => section.note(format!("{}: not installed", cni::REFERENCE_LABEL)),
    }
    match netavark::reference(context)? {
        Some(peer) => pairs.push(Pair {
            protocol: "netavark",
            verbs: ["setup", "teardown"],
            wharf: netavark::wharf(context)?.ok_or(NO_WHARF)?,
            peer,
        }),
        None => section.note(format!("{}: not installed", netavark::REFERENCE_LABEL)),
    }
    Ok(pairs)
}

/// Attaches containers until there are `to` beside the first. The hosts fill up side by side, which nobody times.
fn fill(context: &Context, pairs: &[Pair], from: u32, to: u32) -> Result<()> {
    let fill_one = |arm: &Arm| -> Result<(), String> {
        for number in from..to {
            if number % 20 == 0 {
                let label = arm.engine.label();
                context.progress(&format!("peers: filling {label}, {number} of {to}"));
            }
            let container = arm.host.container(number + 1).map_err(|e| e.to_string())?;
            let ports = published(u32::from(FIRST_RESIDENT) + number, 1);
            timed(&arm.host, &arm.engine.attach(&container, &ports)).map_err(|e| e.to_string())?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = pairs
            .iter()
            .flat_map(Pair::arms)
            .map(|arm| scope.spawn(|| fill_one(arm)))
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err("filling a host panicked".to_owned()))
        })
    })?;
    if to > from {
        thread::sleep(CALM);
    }
    Ok(())
}

/// Ports from here on belong to containers that stay.
const FIRST_RESIDENT: u16 = 10_000;

fn published(first: u32, count: u16) -> Vec<String> {
    (0..u32::from(count))
        .map(|n| format!("{}:{}", first + n, 80 + n))
        .collect()
}

/// Cycles of wharf and peer, pair by pair.
fn one_more(
    context: &Context,
    pairs: &[Pair],
    level: u32,
    ports: u16,
    place: usize,
) -> Result<Vec<Cycle>> {
    // Numbers beyond all levels: the guests' namespaces are not those of any resident.
    let number = 5000 + level * 2 + u32::try_from(place)?;
    let arms: Vec<&Arm> = pairs.iter().flat_map(Pair::arms).collect();
    let guests: Vec<Container> = arms
        .iter()
        .map(|arm| arm.host.container(number))
        .collect::<Result<_, _>>()?;
    let entries: Vec<Entry<'_>> = arms
        .into_iter()
        .zip(&guests)
        .map(|(arm, container)| Entry {
            arm,
            container,
            ports: published(8000, ports),
        })
        .collect();
    let what = format!("peers: {level} attached, {ports} ports");
    alternate_rounds(context, &what, &entries, wanted(context, level))
}

fn wanted(context: &Context, level: u32) -> usize {
    let most = if context.quick { 3 } else { usize::MAX };
    rounds(context.rounds.min(most), level)
}

/// Fewer where each takes long, but not so few that a median means nothing.
fn rounds(wanted: usize, level: u32) -> usize {
    let part = match level {
        0..250 => 1,
        250..750 => 2,
        _ => 3,
    };
    (wanted / part).max(wanted.min(5))
}

fn wall(costs: &[Cost]) -> Vec<f64> {
    costs.iter().map(|cost| cost.wall.as_secs_f64()).collect()
}

fn cpu(costs: &[Cost]) -> Vec<f64> {
    costs.iter().map(|cost| cost.cpu.as_secs_f64()).collect()
}

fn add_rows(section: &mut Section, pair: &Pair, level: u32, ports: u16, cycles: &[Cycle]) {
    let (wharf, peer) = (&cycles[0], &cycles[1]);
    let directions = [(&wharf.up, &peer.up), (&wharf.down, &peer.down)];
    for (verb, (wharf, peer)) in pair.verbs.into_iter().zip(directions) {
        let by_wall = paired_ratio(&wall(peer), &wall(wharf));
        let by_cpu = paired_ratio(&cpu(peer), &cpu(wharf));
        let (peer_ms, wharf_ms) = (Summary::wall(peer), Summary::wall(wharf));
        let (peer_cpu, wharf_cpu) = (Summary::cpu(peer), Summary::cpu(wharf));
        let call = format!("{} {verb}", pair.protocol);
        let cells = vec![
            level.to_string(),
            call.clone(),
            ports.to_string(),
            peer_ms.text(1),
            wharf_ms.text(2),
            by_wall.text(1),
            format!("{:.1}", peer_cpu.median),
            format!("{:.2}", wharf_cpu.median),
            by_cpu.text(1),
            by_wall.n.to_string(),
        ];
        let data = json!({
            "attached": level, "call": call, "ports": ports, "peer": pair.peer.engine.label(),
            "peer_ms": peer_ms.json(), "wharf_ms": wharf_ms.json(), "ratio": by_wall.json(),
            "peer_cpu_ms": peer_cpu.json(), "wharf_cpu_ms": wharf_cpu.json(), "cpu_ratio": by_cpu.json(),
        });
        section.row(cells, data);
    }
}

/// What was set as the aim: tenfold, and fiftyfold beside a chain that walks a thousand containers' rules.
fn add_goal(section: &mut Section, pair: &Pair, level: u32, ports: u16, cycles: &[Cycle]) {
    let factor = match (pair.protocol, level) {
        ("CNI", 1000..) => 50.0,
        _ => 10.0,
    };
    let ratio = paired_ratio(&wall(&cycles[1].up), &wall(&cycles[0].up));
    let what = format!(
        "{} {} at {level} attached, {ports} ports: peer ÷ wharf",
        pair.protocol, pair.verbs[0]
    );
    section.goal_at_least(what, ratio.median, factor);
}

fn add_points(lines: &mut Vec<Line>, pair: &Pair, level: u32, ports: u16, cycles: &[Cycle]) {
    if ports != PORTS[0] {
        return;
    }
    for (arm, cycle) in pair.arms().into_iter().zip(cycles) {
        let directions = [&cycle.up, &cycle.down];
        for (verb, costs) in pair.verbs.into_iter().zip(directions) {
            let label = format!("{}, {verb}", arm.engine.label());
            let point = (f64::from(level), Summary::wall(costs));
            match lines.iter_mut().find(|line| line.label == label) {
                Some(line) => line.points.push(point),
                None => lines.push(Line {
                    label,
                    points: vec![point],
                }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{published, rounds};

    #[test]
    fn large_levels_get_fewer_rounds_but_five() {
        assert_eq!(
            [0, 100, 500, 1000].map(|level| rounds(24, level)),
            [24, 24, 12, 8]
        );
        assert_eq!(rounds(6, 1000), 5);
        assert_eq!(rounds(2, 1000), 2);
    }

    #[test]
    fn ports_are_pairs() {
        assert_eq!(published(8000, 2), ["8000:80", "8001:81"]);
    }
}
