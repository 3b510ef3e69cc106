//! `cargo xtask layout`: which functions the everyday calls run, written as the linker script that puts them side by
//! side (`crates/wharf/layout.ld`, used by `crates/wharf/build.rs`).
//!
//! A call of 3 ms feels every stretch of 64 KiB of its program that it touches: a page fault, and work when it ends. One
//! attach has 151 page faults with the functions in the order in which the compiler leaves them, 104 with this, and
//! takes a sixth less time. Names are kept without the hashes that a compiler gives them, so that the script outlives
//! changes of code and compiler: what no longer fits is put where it would have been without it.
//!
//! Not a profile of how often something runs, only that it did (see `entries.rs`).

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::bench::Result;
use crate::bench::world::{Container, Host, SCRATCH, World, output_of};
use crate::{entries, sys};

/// Where the program with names goes: it has its own hashes, so it may not lie beside the one without.
const TARGET: &str = "target/layout";
const SCRIPT: &str = "crates/wharf/layout.ld";

/// Builds, runs, writes.
///
/// # Errors
/// Not the workspace's root, not root, no `nm`, or a call that fails.
pub fn run() -> Result<()> {
    let script = fs::canonicalize(SCRIPT).map_err(|error| format!("{SCRIPT}: {error}"))?;
    build()?;
    let program = fs::canonicalize(Path::new(TARGET).join("release/wharf"))?;
    let all = symbols(&program)?;
    let world = World::enter()?;
    let functions = Functions {
        members: libc_members()?,
        run: names_run(&world, &program, &all)?,
        all,
    };
    fs::write(script, linker_script(&functions))?;
    eprintln!("{SCRIPT}: {} functions", functions.run.len());
    Ok(())
}

/// Who runs a function: a bit for each front end.
type Users = u8;

#[derive(Clone, Copy, Debug)]
enum FrontEnd {
    Command,
    Cni,
    Netavark,
}

impl FrontEnd {
    fn bit(self) -> Users {
        1 << self as u8
    }

    /// The name to call wharf by: it says that it is Netavark's; CNI's environment says that it is a plugin.
    fn name(self) -> &'static str {
        match self {
            Self::Command | Self::Cni => "wharf",
            Self::Netavark => "netavark",
        }
    }
}

/// The functions of the program.
struct Functions {
    all: Vec<Symbol>,
    /// Those that were run.
    run: HashMap<String, Users>,
    /// Those of the C library, and its file they come from.
    members: HashMap<String, String>,
}

fn build() -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args([
            "build",
            "--release",
            "--package",
            "wharf",
            "--target-dir",
            TARGET,
        ])
        .env("CARGO_PROFILE_RELEASE_STRIP", "none")
        .status()?;
    if !status.success() {
        return Err("wharf did not build".into());
    }
    Ok(())
}

/// Everything that the front ends run when a container comes and goes.
fn names_run(world: &World, program: &Path, table: &[Symbol]) -> Result<HashMap<String, Users>> {
    let host = world.host()?;
    let observed = Observed {
        program,
        table,
        host: &host,
        names: RefCell::default(),
    };
    let [container, other] = [host.container(0)?, host.container(1)?];
    observed.command(&container, &other)?;
    observed.cni(&container)?;
    observed.netavark(&container)?;
    Ok(observed.names.into_inner())
}

struct Observed<'a> {
    program: &'a Path,
    table: &'a [Symbol],
    host: &'a Host,
    names: RefCell<HashMap<String, Users>>,
}

impl Observed<'_> {
    /// A call of the front end, looked at.
    fn call(
        &self,
        front_end: FrontEnd,
        env: &[(&str, &str)],
        args: &[&str],
        stdin: &str,
    ) -> Result<()> {
        let link = PathBuf::from(SCRATCH).join(front_end.name());
        if !link.exists() {
            std::os::unix::fs::symlink(self.program, &link)?;
        }
        let input = PathBuf::from(SCRATCH).join("stdin");
        fs::write(&input, stdin)?;
        let mut command = self.with_state(Command::new(&link));
        command
            .args(args)
            .envs(env.iter().copied())
            .stdin(fs::File::open(input)?)
            .stdout(Stdio::null());
        let entries: Vec<u64> = self.table.iter().map(|symbol| symbol.start).collect();
        let netns = self.host.netns.as_fd();
        let entered = sys::inside(netns, || entries::entered(&mut command, &entries))??;
        let mut names = self.names.borrow_mut();
        for symbol in self.table {
            if entered.contains(&symbol.start) {
                *names.entry(symbol.name.clone()).or_default() |= front_end.bit();
            }
        }
        Ok(())
    }

    fn with_state(&self, mut command: Command) -> Command {
        command
            .env("WHARF_STATE_DIR", format!("{SCRATCH}/state"))
            .env("WHARF_RUN_DIR", format!("{SCRATCH}/run"));
        command
    }

    fn command(&self, container: &Container, other: &Container) -> Result<()> {
        let prepare = |args: &[&str]| {
            let mut command = self.with_state(Command::new(self.program));
            output_of(self.host, command.args(args)).map(drop)
        };
        let call = |args: &[&str]| self.call(FrontEnd::Command, &[], args, "");
        prepare(&["network", "create", "one"])?;
        prepare(&["network", "create", "six", "--ipv6"])?;
        prepare(&[
            "create",
            "other",
            "--netns",
            &other.netns,
            "--network",
            "one",
        ])?;
        let netns = &container.netns;
        for network in ["one", "six"] {
            call(&[
                "create",
                "c",
                "--netns",
                netns,
                "--network",
                network,
                "-p",
                "5005:5000",
            ])?;
            call(&["rm", "c"])?;
        }
        prepare(&["rm", "other"])?;
        prepare(&["network", "rm", "one", "six"])?;
        Ok(())
    }

    fn cni(&self, container: &Container) -> Result<()> {
        let conf = r#"{"cniVersion": "1.1.0", "name": "layout", "type": "wharf", "isGateway": true, "ipMasq": true,
            "ipam": {"ranges": [[{"subnet": "10.88.0.0/16"}]]},
            "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}}"#;
        for verb in ["ADD", "DEL"] {
            let env = [
                ("CNI_COMMAND", verb),
                ("CNI_CONTAINERID", "layout"),
                ("CNI_NETNS", container.netns.as_str()),
                ("CNI_IFNAME", "eth0"),
                ("CNI_PATH", "/usr/lib/cni"),
            ];
            self.call(FrontEnd::Cni, &env, &[], conf)?;
        }
        Ok(())
    }

    fn netavark(&self, container: &Container) -> Result<()> {
        let network = r#"{"name": "layout", "id": "6f9d3a1b", "driver": "bridge", "network_interface": "podman9",
            "subnets": [{"subnet": "10.89.0.0/24", "gateway": "10.89.0.1"}], "ipv6_enabled": false,
            "internal": false, "dns_enabled": false, "ipam_options": {"driver": "host-local"}}"#;
        let options = format!(
            r#"{{"container_id": "layout", "container_name": "layout",
            "networks": {{"layout": {{"interface_name": "eth0", "static_ips": ["10.89.0.2"]}}}},
            "network_info": {{"layout": {network}}},
            "port_mappings": [{{"container_port": 80, "host_ip": "", "host_port": 8080, "protocol": "tcp", "range": 1}}]}}"#
        );
        for verb in ["setup", "teardown"] {
            let args = ["--config", SCRATCH, verb, container.netns.as_str()];
            self.call(FrontEnd::Netavark, &[], &args, &options)?;
        }
        Ok(())
    }
}

/// A function of the program.
struct Symbol {
    start: u64,
    /// Bytes.
    size: u64,
    name: String,
}

/// The functions of a program by their place.
fn symbols(program: &Path) -> Result<Vec<Symbol>> {
    let listed = Command::new("nm")
        .args(["--numeric-sort", "--print-size", "--defined-only"])
        .arg(program)
        .output()?;
    let listed = String::from_utf8(listed.stdout)?;
    // 00000000002f4d8f 0000000000014dda t _RNvNtCs1TBwjvw3q3P_5wharf3cli8dispatch
    let symbols = listed.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (start, size) = (words.next()?, words.next()?);
        let (kind, name) = (words.next()?, words.next()?);
        "tTwWi".contains(kind).then_some(())?;
        Some(Symbol {
            start: u64::from_str_radix(start, 16).ok()?,
            size: u64::from_str_radix(size, 16).ok()?,
            name: name.to_owned(),
        })
    });
    Ok(symbols.collect())
}

/// Which file of `libc.a` has which function.
fn libc_members() -> Result<HashMap<String, String>> {
    let said = Command::new("cc").arg("-print-file-name=libc.a").output()?;
    let archive = String::from_utf8(said.stdout)?;
    let listed = Command::new("nm")
        .args(["--print-file-name", "--defined-only", archive.trim()])
        .output()?;
    let listed = String::from_utf8(listed.stdout)?;
    // /usr/lib/libc.a:malloc.o:0000000000002950 T malloc
    let members = listed.lines().filter_map(|line| {
        let (place, rest) = line.split_once(".a:")?.1.split_once(':')?;
        let mut words = rest.split_whitespace().skip(1);
        let (kind, name) = (words.next()?, words.next()?);
        "tTwWi"
            .contains(kind)
            .then(|| (name.to_owned(), place.to_owned()))
    });
    Ok(members.collect())
}

/// What stands behind a pattern; sizes in bytes.
#[derive(Default)]
struct Section {
    size: u64,
    run: u64,
    users: Users,
}

/// What all front ends run comes first, then what each runs alone; last come patterns that stand for much that is not
/// run, like a file of the C library of which one function is.
fn linker_script(functions: &Functions) -> String {
    let mut sections: HashMap<String, Section> = HashMap::new();
    for Symbol { name, size, .. } in &functions.all {
        let Some(pattern) = input_section(name, &functions.members) else {
            continue;
        };
        let section = sections.entry(pattern).or_default();
        section.size += size;
        if let Some(users) = functions.run.get(name) {
            section.run += size;
            section.users |= users;
        }
    }
    let order: BTreeSet<(bool, Reverse<Users>, &str)> = sections
        .iter()
        .filter(|(_, section)| section.run > 0)
        .map(|(pattern, section)| {
            (
                section.run * 2 < section.size,
                Reverse(section.users),
                pattern.as_str(),
            )
        })
        .collect();
    let mut text = String::from(
        "/* Generated by `cargo xtask layout`: the functions of the everyday calls, side by side.\n   \
         Why, and what becomes of names that no longer fit: xtask/src/layout.rs. */\n\
         SECTIONS\n{\n  .text.everyday :\n  {\n",
    );
    for (_, _, line) in order {
        text.push_str("    ");
        text.push_str(line);
        text.push('\n');
    }
    text.push_str("  }\n}\nINSERT BEFORE .text;\n");
    text
}

/// The input sections in which a function may lie; `None` for those that are no function of a file, like `0x0000...`.
///
/// rustc gives each function a section of its name; what is `#[cold]` has `unlikely.` before it.
fn input_section(name: &str, members: &HashMap<String, String>) -> Option<String> {
    // Behind a dot is what the compiler's optimiser or the linker added.
    let plain = name.split('.').next().unwrap_or(name);
    if name.starts_with("_R") {
        return Some(format!(
            "*(.text.*{}*)",
            without_crate_hashes(without_maker(plain))
        ));
    }
    if name.trim_start_matches('_').starts_with("mdb_") {
        return Some("*liblmdb*:*(.text .text.*)".to_owned());
    }
    if name == "main" {
        return Some("*(.text.main)".to_owned());
    }
    let member = members.get(name).or_else(|| members.get(plain))?;
    // memmove-evex-unaligned-erms.o: another processor takes another one.
    let member = match member.split_once('-') {
        Some((family, _)) => format!("{family}-*.o"),
        None => member.clone(),
    };
    Some(format!("*libc.a:{member}(.text .text.*)"))
}

/// The name of a generic function's instance ends in the crate that first made it, and which one that was is chance
/// where several made the same.
fn without_maker(name: &str) -> &str {
    let maker = |at: &usize| {
        let word = name[*at..].split_once('_').map_or("", |(_, word)| word);
        let letters = word.trim_start_matches(|c: char| c.is_ascii_digit());
        let length = &word[..word.len() - letters.len()];
        !letters.is_empty() && length.parse() == Ok(letters.len())
    };
    match name.rfind("Cs").filter(maker) {
        Some(at) => &name[..at],
        None => name,
    }
}

/// A name of rustc's scheme (`.cargo/config.toml` chooses it) has the hash of each crate in it: `CsjrHSEGnQ3l9_3std` is `std`.
/// <https://doc.rust-lang.org/rustc/symbol-mangling/v0.html>
fn without_crate_hashes(name: &str) -> String {
    let mut parts = name.split("Cs");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once('_') {
            Some((hash, rest)) if hash.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                text.push_str("Cs*_");
                text.push_str(rest);
            }
            _ => {
                text.push_str("Cs");
                text.push_str(part);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_hashes() {
        let members = HashMap::from([("malloc".to_owned(), "malloc.o".to_owned())]);
        for (name, section) in [
            (
                "_RNvNtCsjrHSEGnQ3l9_3std2rt.41",
                "*(.text.*_RNvNtCs*_3std2rt*)",
            ),
            (
                "_RNvXs1i_NtCsgEmfK2I1SDS_4core3fmtRReNtB6_7Display3fmtCs1w7pBOQiCla_17annotate_snippets",
                "*(.text.*_RNvXs1i_NtCs*_4core3fmtRReNtB6_7Display3fmt*)",
            ),
            ("mdb_env_close0.constprop.0", "*liblmdb*:*(.text .text.*)"),
            ("malloc.part.0", "*libc.a:malloc.o(.text .text.*)"),
        ] {
            assert_eq!(input_section(name, &members).as_deref(), Some(section));
        }
        assert_eq!(input_section("0x00000000002f0d40", &members), None);
    }
}
