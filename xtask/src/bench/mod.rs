//! `cargo xtask bench`: wharf beside the floor program and a shell script of `ip` and `iptables`.
//!
//! Everything happens in namespaces that the bench makes for itself, and that end with it. Figures of one
//! run may be compared with each other, not with those of another run or machine; so every goal is a ratio.
//! A missed goal is printed and never fails the run: this is a measurement, not a test.

mod chart;
mod cni;
mod connect;
mod engines;
mod exec;
mod guards;
mod lifecycle;
mod measure;
mod netavark;
mod network_rm;
mod peers;
mod report;
mod scale;
mod storms;
mod traffic;
mod world;

use std::error::Error;
use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use report::Section;
use world::World;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// The text of `--help`.
const USAGE: &str = "\
usage: cargo xtask bench [BENCH]… [--rounds N] [--pause MS] [--quick] [--state-dir DIR] [--json]

benches (all but peers when none is named):
  attach      an existing namespace onto an existing network with one published port, and off again;
              beside the CNI plugins and Netavark too, where Debian's packages have put them
  ports       the same with 1 port, 20 ports and a range of 20
  scale       the same with 0, 100, 500 and 1000 containers attached already
  network-rm  a network with 100 containers, all of it removed
  connect     new connections per second through the last of 10,000 published ports
  guards      throughput and round trips beside a plain bridge
  exec        programs executed and netlink sends, counted with strace
  peers       wharf in the place of the CNI plugins and of Netavark beside them, with 1 and 20 ports,
              with 0, 100, 500 and 1000 containers attached already (filling takes the peers a quarter
              of an hour); and storms
  storms      100 containers attached and detached at the same moment: time, failures, leftovers

options:
  --attached LIST  how many are attached already in peers, at most 1021: --attached 0,100
  --rounds N       rounds that count, per bench (default 25)
  --pause MS       rest after every attach and detach (default 25, at least 5)
  --quick          few rounds, small sizes: a look, not a measurement
  --state-dir DIR  where wharf keeps its durable state (default: a tmpfs of the bench's own)
  --json           JSON on stdout instead of Markdown

Build first: cargo build --release -p wharf -p xtask. $WHARF names another wharf binary.
Needs root (or `unshare -Urnm`), and ip, iptables and strace for some rows.";

type Bench = fn(&Context) -> Result<Vec<Section>>;

const BENCHES: [(&str, Bench); 9] = [
    ("attach", lifecycle::attach),
    ("ports", lifecycle::ports),
    ("scale", scale::run),
    ("network-rm", network_rm::run),
    ("connect", connect::run),
    ("guards", guards::run),
    ("exec", exec::run),
    ("peers", peers::run),
    ("storms", storms::run),
];

/// What every bench gets to know.
struct Context {
    world: World,
    /// The wharf binary, if there is one.
    wharf: Option<PathBuf>,
    floor: PathBuf,
    rounds: usize,
    pause: Duration,
    quick: bool,
    state_dir: Option<PathBuf>,
    /// How many are attached already in `peers`, smallest first.
    attached: Option<Vec<u32>>,
    /// When something was last said to a stderr that is no terminal.
    said: Mutex<Option<Instant>>,
}

impl Context {
    /// Says what is being done: all of it on a terminal, a line now and then elsewhere.
    fn progress(&self, what: &str) {
        const NOW_AND_THEN: Duration = Duration::from_secs(20);
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K{what}");
            return;
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if !what.is_empty() && said.is_none_or(|then| then.elapsed() > NOW_AND_THEN) {
            eprintln!("{what}");
            *said = Some(Instant::now());
        }
    }
}

#[derive(Default)]
struct Options {
    benches: Vec<(&'static str, Bench)>,
    rounds: Option<usize>,
    pause: Option<u64>,
    quick: bool,
    json: bool,
    state_dir: Option<PathBuf>,
    attached: Option<Vec<u32>>,
}

/// Runs the benches that `arguments` name.
pub fn main(arguments: &[String]) -> ExitCode {
    if arguments
        .iter()
        .any(|word| word == "--help" || word == "-h")
    {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match parse(arguments) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Result<Options, String> {
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
            "peers" => options.benches.extend(named(&["peers", "storms"])),
            "all" => options.benches.extend(BENCHES),
            name => match BENCHES.iter().find(|(known, _)| *known == name) {
                Some(bench) => options.benches.push(*bench),
                None => return Err(format!("no such bench or option: {name}")),
            },
        }
    }
    if options.benches.is_empty() {
        let quick_enough = |bench: &&(&str, Bench)| bench.0 != "peers";
        options.benches.extend(BENCHES.iter().filter(quick_enough));
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

/// False when a bench could not be run at all.
fn run(options: Options) -> Result<bool> {
    let (floor, wharf) = binaries()?;
    if wharf.is_none() {
        eprintln!(
            "bench: no wharf binary (cargo build --release -p wharf, or set WHARF): measuring without it"
        );
    }
    let world =
        World::enter().map_err(|e| format!("cannot make private namespaces (not root?): {e}"))?;
    let context = Context {
        world,
        wharf,
        floor,
        rounds: options
            .rounds
            .unwrap_or(if options.quick { 5 } else { 25 })
            .max(1),
        pause: Duration::from_millis(options.pause.unwrap_or(25).max(5)),
        quick: options.quick,
        state_dir: options
            .state_dir
            .map(|dir| dir.join(format!("wharf-bench-{}", std::process::id()))),
        attached: options.attached,
        said: Mutex::default(),
    };
    let mut complete = true;
    let mut sections = Vec::new();
    for (name, bench) in options.benches {
        match bench(&context) {
            Ok(more) => {
                context.progress("");
                for section in more {
                    if !options.json {
                        print(&section.markdown());
                    }
                    sections.push(section);
                }
            }
            Err(error) => {
                context.progress("");
                eprintln!("bench: {name}: {error}");
                complete = false;
            }
        }
    }
    if let Some(directory) = &context.state_dir {
        // Nothing is there if wharf was not measured.
        drop(std::fs::remove_dir_all(directory));
    }
    if options.json {
        print(&report::json(&sections));
    }
    Ok(complete)
}

/// Writes to stdout. A reader that has gone away is no failure: the measurement is done all the same.
fn print(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

/// The floor program and, if it is there, wharf: release builds, wherever this program itself lies.
fn binaries() -> Result<(PathBuf, Option<PathBuf>)> {
    let own = std::env::current_exe()?;
    let target = own
        .parent()
        .and_then(Path::parent)
        .ok_or("this program lies in no target directory")?;
    let release = target.join("release");
    let floor = release.join("floor");
    if !floor.exists() {
        let path = floor.display();
        return Err(format!("{path} is missing: cargo build --release -p xtask").into());
    }
    let wharf = match std::env::var_os("WHARF") {
        Some(path) => Some(
            std::fs::canonicalize(&path).map_err(|e| format!("WHARF={}: {e}", path.display()))?,
        ),
        None => Some(release.join("wharf")).filter(|path| path.exists()),
    };
    Ok((floor, wharf))
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
}
