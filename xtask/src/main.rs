//! Tasks of this workspace: `cargo xtask bench`, `cargo xtask layout`.

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask TASK

tasks:
  bench   measure wharf beside the floor program and a shell script; see `cargo xtask bench --help`
  layout  write crates/wharf/layout.ld anew: which functions the everyday calls run
          (x86_64, needs root; a speed-up only, so after large changes is enough)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((task, rest)) if task == "bench" => xtask::bench::main(rest),
        #[cfg(target_arch = "x86_64")]
        Some((task, [])) if task == "layout" => match xtask::layout::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("layout: {error}");
                ExitCode::FAILURE
            }
        },
        Some((task, _)) if ["help", "--help", "-h"].contains(&task.as_str()) => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}
