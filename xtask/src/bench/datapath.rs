//! `datapath`: an open connection and new ones, between containers, to the outside, and through a published port.
//!
//! Rates are per second of processor time (see [`super::traffic`]), beside a bridge with no rule at all.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd;
use std::time::Duration;

use serde_json::json;

use super::chart::Chart;
use super::docker::Proxy;
use super::engines::{self, Arm, FloorKind};
use super::measure::{Summary, paired_ratio, timed};
use super::report::Section;
use super::traffic::{self, ECHO, Load, SINK};
use super::world::{OUTSIDE, UPLINK};
use super::{Context, Result, cni, docker, netavark};
use crate::netlink::{Batch, Socket};
use crate::{rt, sys};

const LOADS: [(&str, Load, u16); 3] = [
    ("round trips/s", Load::RoundTrips, ECHO),
    ("Gbit/s", Load::Throughput, SINK),
    ("new connections/s", Load::Connections, ECHO),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Sibling,
    Out,
    In,
}

const WAYS: [(Way, &str, &str); 3] = [
    (Way::Sibling, "container → container", "datapath-containers"),
    (Way::Out, "container → outside", "datapath-out"),
    (Way::In, "outside → published port", "datapath-in"),
];

struct Bed {
    label: &'static str,
    arm: Arm,
    client: File,
    sibling: Ipv4Addr,
    /// Where the outside finds the sibling.
    published: Ipv4Addr,
}

/// `datapath`
pub fn run(context: &Context) -> Result<Vec<Section>> {
    let columns = ["path", "measure", "bed", "rate", "time ÷ plain bridge", "n"];
    let title = "traffic of containers, by way and by who set it up";
    let mut section = Section::new("datapath", title, &columns);
    let beds = beds(context, &mut section)?;
    let rounds = context.rounds.min(if context.quick { 3 } else { 9 });
    for (way, name, file) in WAYS {
        for (measure, load, port) in LOADS {
            let mut rates = vec![Vec::new(); beds.len()];
            for round in 0..rounds {
                context.progress(&format!("datapath: {name}, {measure}, round {}", round + 1));
                for turn in 0..beds.len() {
                    // Nobody always comes after the same neighbour.
                    let place = (turn + round) % beds.len();
                    rates[place].push(rate(context, &beds[place], way, load, port)?);
                }
            }
            add_rows(&mut section, name, measure, &beds, &rates);
            if measure == LOADS[2].0 {
                let bar = |(bed, own): (&Bed, &Vec<f64>)| {
                    (bed.label.to_owned(), Summary::of(own.clone()))
                };
                let bars = beds.iter().zip(&rates).map(bar).collect();
                section.chart(Chart::bars(
                    file,
                    format!("{name}, {measure}"),
                    "per second of processor time",
                    bars,
                ));
            }
        }
    }
    section.note("both ends on one processor, rates per second of processor time; quotients are medians (quartiles) of neighbours in time");
    section.note("plain bridge: made by hand, no rule; its containers' addresses are routed, so there is neither masquerade nor a published port");
    Ok(vec![section])
}

fn rate(context: &Context, bed: &Bed, way: Way, load: Load, port: u16) -> Result<f64> {
    let slice = Duration::from_millis(if context.quick { 100 } else { 300 });
    let (from, to) = match way {
        Way::Sibling => (&bed.client, bed.sibling),
        Way::Out => (&bed.client, OUTSIDE),
        Way::In => (&bed.arm.host.outside, bed.published),
    };
    let rate = traffic::rate(from, SocketAddrV4::new(to, port), load, slice);
    Ok(rate.map_err(|e| format!("{}, {way:?}: {e}", bed.label))?)
}

fn beds(context: &Context, section: &mut Section) -> Result<Vec<Bed>> {
    let plain = engines::floor(context, FloorKind::BridgeOnly)?;
    let outside = &plain.host.outside;
    sys::inside(outside.as_fd(), route_back)??;
    let offers = [
        ("wharf", engines::wharf(context)?),
        (
            "floor (nft map)",
            Some(engines::floor(context, FloorKind::Quiet)?),
        ),
        ("script (ip, iptables)", engines::script(context)?),
        (cni::REFERENCE_LABEL, cni::reference(context)?),
        (netavark::REFERENCE_LABEL, netavark::reference(context)?),
        (docker::LABEL, docker::reference(context, Proxy::Userland)?),
    ];
    let mut beds = vec![bed("plain bridge", plain, false)?];
    for (label, arm) in offers {
        match arm {
            Some(arm) => beds.push(bed(label, arm, true)?),
            None => section.note(format!("{label}: not installed")),
        }
    }
    Ok(beds)
}

/// Without masquerade the outside has to know the way to the containers.
fn route_back() -> std::io::Result<()> {
    let mut batch = Batch::new();
    rt::default_route_add(&mut batch, sys::link_index("eth0")?, UPLINK);
    Socket::route()?.request(&batch)
}

/// A network with two containers, and servers in one of them and outside.
fn bed(label: &'static str, arm: Arm, publish: bool) -> Result<Bed> {
    timed(&arm.host, &arm.engine.network_add())?;
    let containers = arm.host.containers(0, 2)?;
    let ports = [ECHO, SINK].map(|port| format!("{port}:{port}"));
    let ports = if publish { ports.as_slice() } else { &[] };
    for (container, ports) in containers.iter().zip([&[], ports]) {
        arm.engine.prepare(container, ports)?;
        timed(&arm.host, &arm.engine.attach_at(container, ports))?;
    }
    traffic::serve(&arm.engine.netns(&containers[1])?)?;
    traffic::serve(&arm.host.outside)?;
    let sibling = containers[1].address;
    Ok(Bed {
        label,
        client: arm.engine.netns(&containers[0])?,
        sibling,
        published: if publish { UPLINK } else { sibling },
        arm,
    })
}

fn add_rows(section: &mut Section, way: &str, measure: &str, beds: &[Bed], rates: &[Vec<f64>]) {
    for (bed, own) in beds.iter().zip(rates) {
        let rate = Summary::of(own.clone());
        let cost = paired_ratio(&rates[0], own);
        let digits = if rate.median < 1000.0 { 2 } else { 0 };
        let cells = [
            way,
            measure,
            bed.label,
            &rate.text(digits),
            &cost.text(2),
            &rate.n.to_string(),
        ];
        let data = json!({
            "path": way, "measure": measure, "bed": bed.label, "rate": rate.json(), "time_to_plain_bridge": cost.json(),
        });
        section.row(cells.map(str::to_owned).to_vec(), data);
    }
}
