//! `scale`: what one more container costs when many are attached already.

use std::thread;
use std::time::Duration;

use serde_json::json;

use super::chart::{Chart, Line};
use super::engines::{self, Arm, FloorKind};
use super::measure::{Cycle, Entry, Summary, alternate, timed};
use super::report::{Section, times};
use super::{Context, Result};

const LEVELS: [u32; 4] = [0, 100, 500, 1000];
/// How long the bridges may calm down after they were filled.
const CALM: Duration = Duration::from_secs(5);

/// `scale`
pub fn run(context: &Context) -> Result<Vec<Section>> {
    let mut arms: Vec<Arm> = engines::wharf(context)?.into_iter().collect();
    arms.push(engines::floor(context, FloorKind::Quiet)?);
    arms.push(engines::floor(context, FloorKind::Plain)?);
    for arm in &arms {
        timed(&arm.host, &arm.engine.network_add())?;
    }

    let columns = [
        "attached",
        "engine",
        "attach ms",
        "÷ 0 attached",
        "detach ms",
        "÷ 0 attached",
    ];
    let mut section = Section::new("scale", "one more container, one port each", &columns);
    let levels = if context.quick {
        &LEVELS[..2]
    } else {
        &LEVELS[..]
    };
    let mut attached = 0;
    let mut first = Vec::new();
    let mut lines: Vec<Line> = arms
        .iter()
        .flat_map(|arm| ["attach", "detach"].map(|verb| format!("{}, {verb}", arm.engine.label())))
        .map(|label| Line {
            label,
            points: Vec::new(),
        })
        .collect();
    for &level in levels {
        fill(context, &arms, attached, level)?;
        attached = level;
        let cycles = one_more(context, &arms, level)?;
        if first.is_empty() {
            first = cycles.clone();
        }
        let figures = cycles.iter().flat_map(|cycle| [&cycle.up, &cycle.down]);
        for (line, costs) in lines.iter_mut().zip(figures) {
            line.points.push((f64::from(level), Summary::wall(costs)));
        }
        for ((arm, cycle), base) in arms.iter().zip(&cycles).zip(&first) {
            add_row(&mut section, level, arm.engine.label(), cycle, base);
        }
        if context.wharf.is_some() {
            let ratio = |of: fn(&Cycle) -> f64| of(&cycles[0]) / of(&cycles[1]);
            let (up, down) = (ratio(|c| median(&c.up)), ratio(|c| median(&c.down)));
            section.goal(format!("attach at {level}, wharf ÷ quiet floor"), up, 1.7);
            section.goal(format!("detach at {level}, wharf ÷ quiet floor"), down, 1.5);
        }
    }
    section.chart(Chart::lines(
        "scale",
        "one more container",
        "ms",
        "attached already",
        lines,
    ));
    section.note("the quiet floor has the IPv6 settings of wharf's IPv4 networks, the other one the kernel's");
    Ok(vec![section])
}

fn median(costs: &[super::measure::Cost]) -> f64 {
    Summary::wall(costs).median
}

/// Attaches containers `from` to `to` - 1 everywhere.
fn fill(context: &Context, arms: &[Arm], from: u32, to: u32) -> Result<()> {
    for arm in arms {
        for number in from..to {
            if number % 50 == 0 {
                context.progress(&format!(
                    "scale: filling {}, {number} of {to}",
                    arm.engine.label()
                ));
            }
            let container = arm.host.container(number)?;
            timed(&arm.host, &arm.engine.attach(&container, &[port(number)]))?;
        }
    }
    if to > from {
        thread::sleep(CALM);
    }
    Ok(())
}

fn one_more(context: &Context, arms: &[Arm], level: u32) -> Result<Vec<Cycle>> {
    // Numbers beyond all levels: the guests' namespaces are not those of any resident.
    let number = 5000 + level;
    let guests: Vec<_> = arms
        .iter()
        .map(|arm| arm.host.container(number))
        .collect::<Result<_, _>>()?;
    let entries: Vec<Entry<'_>> = arms
        .iter()
        .zip(&guests)
        .map(|(arm, container)| Entry {
            arm,
            container,
            ports: vec![port(number)],
        })
        .collect();
    alternate(context, &format!("scale: {level} attached"), &entries)
}

fn port(number: u32) -> String {
    format!("{}:80", 10_000 + number)
}

fn add_row(section: &mut Section, level: u32, label: &str, cycle: &Cycle, base: &Cycle) {
    let (up, down) = (Summary::wall(&cycle.up), Summary::wall(&cycle.down));
    let cells = vec![
        level.to_string(),
        label.to_owned(),
        up.text(2),
        times(up.median, median(&base.up)),
        down.text(2),
        times(down.median, median(&base.down)),
    ];
    let data = json!({
        "attached": level, "engine": label,
        "attach_ms": up.json(), "attach_cpu_ms": Summary::cpu(&cycle.up).json(),
        "detach_ms": down.json(), "detach_cpu_ms": Summary::cpu(&cycle.down).json(),
    });
    section.row(cells, data);
}
