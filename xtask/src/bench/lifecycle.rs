//! `attach` and `ports`: what one container costs, up and down.

use serde_json::json;

use super::chart::Chart;
use super::docker::Proxy;
use super::engines::{self, Arm, FloorKind};
use super::measure::{Cost, Cycle, Entry, Summary, alternate, timed};
use super::report::{Section, times};
use super::world::Container;
use super::{Context, Result, cni, docker, netavark};

const COLUMNS: [&str; 7] = [
    "engine",
    "attach ms",
    "CPU ms",
    "÷ floor",
    "detach ms",
    "CPU ms",
    "÷ floor",
];

/// `attach`
pub fn attach(context: &Context) -> Result<Vec<Section>> {
    let mut arms: Vec<Arm> = engines::wharf(context)?.into_iter().collect();
    for kind in [FloorKind::Plain, FloorKind::Quiet, FloorKind::Waiting] {
        arms.push(engines::floor(context, kind)?);
    }
    arms.extend(engines::script(context)?);
    let title = "one container with one published port onto an existing network, and off";
    let mut section = Section::new("attach", title, &COLUMNS);
    for (name, arm) in [
        (cni::REFERENCE_LABEL, cni::reference(context)?),
        (netavark::REFERENCE_LABEL, netavark::reference(context)?),
        (docker::LABEL, docker::reference(context, Proxy::Userland)?),
    ] {
        match arm {
            Some(arm) => arms.push(arm),
            None => section.note(format!("{name}: not installed")),
        }
    }
    let port = vec!["8080:80".to_owned()];
    let arms = with_network(&mut section, arms, &port)?;
    let entries: Vec<Entry<'_>> = arms
        .iter()
        .map(|(arm, container)| Entry {
            arm,
            container,
            ports: port.clone(),
        })
        .collect();
    let cycles = alternate(context, "attach", &entries)?;

    let floor = place_of(&arms, "floor").ok_or("the floor program does not work")?;
    for ((arm, _), cycle) in arms.iter().zip(&cycles) {
        add_row(&mut section, arm.engine.label(), cycle, &cycles[floor]);
    }
    let bars = |of: fn(&Cycle) -> &Vec<Cost>| {
        let labels = arms.iter().map(|(arm, _)| arm.engine.label().to_owned());
        let figures = cycles.iter().map(|cycle| Summary::wall(of(cycle)));
        labels.zip(figures).collect::<Vec<_>>()
    };
    section.chart(Chart::bars(
        "attach",
        "attach, one port",
        "ms",
        bars(|cycle| &cycle.up),
    ));
    section.chart(Chart::bars(
        "detach",
        "detach, one port",
        "ms",
        bars(|cycle| &cycle.down),
    ));
    if let Some(wharf) = place_of(&arms, "wharf") {
        let (up, down) = ratios(&cycles[wharf], &cycles[floor]);
        section.goal("attach, wharf ÷ floor", up, 1.7);
        section.goal("detach, wharf ÷ floor", down, 1.5);
    }
    section
        .note("median (quartiles) of whole processes; the CPU time excludes children left behind");
    section.note(
        "Netavark gets its address from its caller; CNI: bridge with host-local, portmap, firewall, tuning; \
         dockerd: a running container connected and disconnected, the daemon's own CPU time not seen",
    );
    Ok(vec![section])
}

/// `ports`
pub fn ports(context: &Context) -> Result<Vec<Section>> {
    let twenty: Vec<String> = (0..20)
        .map(|n| format!("{}:{}", 8000 + n, 9000 - 2 * n))
        .collect();
    let cases = [
        ("1 port", vec!["8000:80".to_owned()]),
        ("20 ports", twenty),
        ("a range of 20", vec!["8000-8019:9000-9019".to_owned()]),
    ];
    let mut arms: Vec<Arm> = engines::wharf(context)?.into_iter().collect();
    arms.push(engines::floor(context, FloorKind::Plain)?);
    arms.extend(engines::script(context)?);

    let columns = [
        "engine",
        "attach ms",
        "CPU ms",
        "÷ 1 port",
        "detach ms",
        "CPU ms",
        "÷ 1 port",
    ];
    let mut section = Section::new("ports", "one container with more ports", &columns);
    let arms = with_network(&mut section, arms, &[])?;

    let mut entries = Vec::new();
    let mut labels = Vec::new();
    for (arm, container) in &arms {
        for (case, ports) in &cases {
            let scripted = arm.engine.label().starts_with("script");
            if scripted && ports.iter().any(|port| port.contains('-')) {
                continue;
            }
            entries.push(Entry {
                arm,
                container,
                ports: ports.clone(),
            });
            labels.push((arm.engine.label(), *case));
        }
    }
    let cycles = alternate(context, "ports", &entries)?;

    let mut one = &cycles[0];
    for ((engine, case), cycle) in labels.iter().zip(&cycles) {
        if *case == cases[0].0 {
            one = cycle;
        }
        add_row(&mut section, &format!("{engine}, {case}"), cycle, one);
        if *engine == "wharf" && *case != cases[0].0 {
            let (up, down) = ratios(cycle, one);
            section.goal(format!("attach, {case} ÷ 1 port"), up, 1.25);
            section.goal(format!("detach, {case} ÷ 1 port"), down, 1.25);
        }
    }
    Ok(vec![section])
}

/// Makes each arm's network, with one container with a port on it, and the container to play with.
/// An engine that cannot do even that is left out, with its complaint below the table.
fn with_network(
    section: &mut Section,
    arms: Vec<Arm>,
    ports: &[String],
) -> Result<Vec<(Arm, Container)>> {
    let first = ["7000:80".to_owned()];
    let mut ready = Vec::new();
    for arm in arms {
        let resident = arm.host.container(0)?;
        let guest = arm.host.container(1)?;
        let made = timed(&arm.host, &arm.engine.network_add())
            .and_then(|_| arm.engine.prepare(&resident, &first))
            .and_then(|()| arm.engine.prepare(&guest, ports))
            .and_then(|()| timed(&arm.host, &arm.engine.attach(&resident, &first)));
        match made {
            Ok(_) => ready.push((arm, guest)),
            Err(error) => section.note(format!("{} is left out: {error}", arm.engine.label())),
        }
    }
    Ok(ready)
}

fn place_of(arms: &[(Arm, Container)], label: &str) -> Option<usize> {
    arms.iter().position(|(arm, _)| arm.engine.label() == label)
}

fn ratios(cycle: &Cycle, base: &Cycle) -> (f64, f64) {
    let ratio = |of, to| Summary::wall(of).median / Summary::wall(to).median;
    (ratio(&cycle.up, &base.up), ratio(&cycle.down, &base.down))
}

fn add_row(section: &mut Section, label: &str, cycle: &Cycle, base: &Cycle) {
    let (up, down) = (Summary::wall(&cycle.up), Summary::wall(&cycle.down));
    let (up_cpu, down_cpu) = (Summary::cpu(&cycle.up), Summary::cpu(&cycle.down));
    let cells = vec![
        label.to_owned(),
        up.text(2),
        format!("{:.1}", up_cpu.median),
        times(up.median, Summary::wall(&base.up).median),
        down.text(2),
        format!("{:.1}", down_cpu.median),
        times(down.median, Summary::wall(&base.down).median),
    ];
    let data = json!({
        "engine": label,
        "attach_ms": up.json(), "attach_cpu_ms": up_cpu.json(),
        "detach_ms": down.json(), "detach_cpu_ms": down_cpu.json(),
    });
    section.row(cells, data);
}
