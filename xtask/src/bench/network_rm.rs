//! `network-rm`: a network with a hundred containers, all of it removed.

use std::time::Duration;

use serde_json::json;

use super::chart::Chart;
use super::engines::{self, Arm, FloorKind};
use super::measure::{Cost, Summary, rest, timed};
use super::report::{Section, times};
use super::{Context, Result};

/// `network-rm`
pub fn run(context: &Context) -> Result<Vec<Section>> {
    let size = if context.quick { 20 } else { 100 };
    let rounds = context.rounds.min(5);
    let mut arms: Vec<Arm> = engines::wharf(context)?.into_iter().collect();
    arms.push(engines::floor(context, FloorKind::Plain)?);
    arms.extend(engines::script(context)?);
    let containers: Vec<_> = arms
        .iter()
        .map(|arm| arm.host.containers(0, size))
        .collect::<Result<_, _>>()?;
    let ports = |n: usize| vec![format!("{}:80", 10_000 + n)];

    let mut costs = vec![Vec::new(); arms.len()];
    for round in 0..rounds {
        for (place, arm) in arms.iter().enumerate() {
            let label = arm.engine.label();
            context.progress(&format!(
                "network-rm: round {} of {rounds}, {label}",
                round + 1
            ));
            timed(&arm.host, &arm.engine.network_add())?;
            for (n, container) in containers[place].iter().enumerate() {
                timed(&arm.host, &arm.engine.attach(container, &ports(n)))?;
            }
            rest(context);
            let mut total = Cost::default();
            for call in arm.engine.network_del(&containers[place], &ports) {
                let cost = timed(&arm.host, &call)?;
                total = Cost {
                    wall: total.wall + cost.wall,
                    cpu: total.cpu + cost.cpu,
                };
            }
            costs[place].push(total);
            // A barrier that an orphan sits out, for every container if need be.
            std::thread::sleep(Duration::from_millis(500));
            rest(context);
        }
    }

    let columns = ["engine", "ms", "CPU ms", "÷ floor"];
    let mut section = Section::new(
        "network-rm",
        "a network with its containers removed",
        &columns,
    );
    let floor = arms
        .iter()
        .position(|arm| arm.engine.label() == "floor")
        .expect("this arm was just added");
    let base = Summary::wall(&costs[floor]).median;
    let mut bars = Vec::new();
    for (arm, costs) in arms.iter().zip(&costs) {
        let (wall, cpu) = (Summary::wall(costs), Summary::cpu(costs));
        let label = arm.engine.label();
        bars.push((label.to_owned(), wall));
        let cells = vec![
            label.to_owned(),
            wall.text(1),
            format!("{:.1}", cpu.median),
            times(wall.median, base),
        ];
        section.row(
            cells,
            json!({ "engine": label, "ms": wall.json(), "cpu_ms": cpu.json() }),
        );
        if label == "wharf" {
            section.goal(
                format!("ms to remove {size} containers and the network"),
                wall.median,
                200.0,
            );
        }
    }
    section.chart(Chart::bars(
        "network-rm",
        format!("a network with {size} containers removed"),
        "ms",
        bars,
    ));
    section.note(format!(
        "{size} containers, one port each; floor: one group deletion, answered"
    ));
    section.note("wharf: `rm -f` of all names in one call, then `network rm`; script: one detach after another");
    Ok(vec![section])
}
