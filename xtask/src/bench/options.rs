//! The command line of the bench.

use std::path::PathBuf;

use super::{BENCHES, Bench};

/// The text of `--help`.
pub const USAGE: &str = "\
usage: cargo xtask bench [BENCH]… [--report DIR] [--rounds N] [--pause MS] [--quick]
                         [--attached LIST] [--state-dir DIR] [--json]

benches (when none is named: all but peers; for a report all, for a quick one the main ones):
  attach      an existing namespace onto an existing network with one published port, and off again;
              beside the CNI plugins, Netavark and dockerd too, where Debian's packages have put them
  ports       the same with 1 port, 20 ports and a range of 20
  scale       the same with 0, 100, 500 and 1000 containers attached already
  network-rm  a network with 100 containers, all of it removed
  connect     new connections per second through the last of 10,000 published ports; peers with fewer
  datapath    throughput, round trips and new connections: between containers, to the outside, through
              a published port; beside a plain bridge and all other engines
  guards      throughput and round trips beside a plain bridge
  exec        programs executed and netlink sends, counted with strace
  explain     wharf trace, doctor and exposure on a host with 100 containers and 10,000 foreign rules
  peers       wharf in the place of the CNI plugins and of Netavark beside them, with 1 and 20 ports,
              with 0, 100, 500 and 1000 containers attached already (filling takes the peers a quarter
              of an hour); and storms
  storms      100 containers attached and detached at the same moment: time, failures, leftovers

options:
  --report DIR     write DIR/report.md, its pictures and report.json instead of printing
  --attached LIST  how many are attached already in peers, at most 1021: --attached 0,100
  --rounds N       rounds that count, per bench (default 25)
  --pause MS       rest after every attach and detach (default 25, at least 5)
  --quick          few rounds, small sizes: a look, not a measurement
  --state-dir DIR  where wharf keeps its durable state (default: a tmpfs of the bench's own)
  --json           JSON on stdout instead of Markdown

Build first: cargo build --release -p wharf -p xtask. $WHARF names another wharf binary.
Needs root (or `unshare -Urnm`), and ip, iptables and strace for some rows.";

/// What the command line asks for.
#[derive(Default)]
pub struct Options {
    /// The benches, in their order.
    pub benches: Vec<(&'static str, Bench)>,
    /// Rounds that count.
    pub rounds: Option<usize>,
    /// Rest after every call, in milliseconds.
    pub pause: Option<u64>,
    /// A look, not a measurement.
    pub quick: bool,
    /// JSON instead of Markdown.
    pub json: bool,
    /// Where wharf keeps its durable state.
    pub state_dir: Option<PathBuf>,
    /// How many are attached already in `peers`.
    pub attached: Option<Vec<u32>>,
    /// Directory for a report.
    pub report: Option<PathBuf>,
}

/// Reads the command line; what is wrong with it is the error.
pub fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--json" => options.json = true,
            "--quick" => options.quick = true,
            "--rounds" => options.rounds = Some(number(value()?)?),
            "--pause" => options.pause = Some(number(value()?)?),
            "--state-dir" => options.state_dir = Some(value()?.into()),
            "--attached" => options.attached = Some(levels(value()?)?),
            "--report" => options.report = Some(value()?.into()),
            "peers" => options.benches.extend(named(&["peers", "storms"])),
            "all" => options.benches.extend(BENCHES),
            name => match BENCHES.iter().find(|(known, _)| *known == name) {
                Some(bench) => options.benches.push(*bench),
                None => return Err(format!("no such bench or option: {name}")),
            },
        }
    }
    if options.benches.is_empty() {
        let without: &[&str] = match (&options.report, options.quick) {
            (Some(_), false) => &[],
            (Some(_), true) => &["ports", "guards", "exec"],
            (None, _) => &["peers"],
        };
        options
            .benches
            .extend(BENCHES.iter().filter(|(name, _)| !without.contains(name)));
    }
    Ok(options)
}

fn named<'a>(names: &'a [&str]) -> impl Iterator<Item = (&'static str, Bench)> + 'a {
    let known = |name| BENCHES.iter().find(move |(known, _)| known == name);
    names.iter().filter_map(known).copied()
}

/// `0,100`, smallest first: what was attached for one level stays for the next.
fn levels(text: &str) -> Result<Vec<u32>, String> {
    /// A bridge has 1023 ports; one container is there anyhow, and one comes and goes.
    const MOST: u32 = 1021;
    let mut levels: Vec<u32> = text.split(',').map(number).collect::<Result<_, _>>()?;
    levels.sort_unstable();
    levels.dedup();
    match levels.last() {
        Some(last) if *last <= MOST => Ok(levels),
        _ => Err(format!("at most {MOST} can be attached: {text}")),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("not a number: {text}"))
}

#[cfg(test)]
mod tests {
    use super::{levels, parse};

    #[test]
    fn levels_are_sorted_and_limited() {
        assert_eq!(levels("500,0,500").unwrap(), [0, 500]);
        assert!(levels("1022").is_err());
        assert!(levels("many").is_err());
    }

    #[test]
    fn peers_brings_its_storms() {
        let options = parse(&["peers".to_owned()]).unwrap();
        let names: Vec<&str> = options.benches.iter().map(|bench| bench.0).collect();
        assert_eq!(names, ["peers", "storms"]);
    }

    #[test]
    fn a_quick_report_leaves_the_lesser_ones_out() {
        let names = |words: &[&str]| -> Vec<&str> {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            parse(&words)
                .unwrap()
                .benches
                .iter()
                .map(|bench| bench.0)
                .collect()
        };
        let quick = names(&["--quick", "--report", "x"]);
        assert!(
            quick.contains(&"peers") && quick.contains(&"datapath") && !quick.contains(&"exec")
        );
        assert_eq!(names(&["--report", "x"]).len(), super::BENCHES.len());
        assert!(!names(&[]).contains(&"peers"));
        assert_eq!(names(&["scale", "--report", "x"]), ["scale"]);
    }
}
