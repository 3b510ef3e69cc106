//! The report: one Markdown file with its pictures beside it, and the same as JSON.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::report::{Section, escaped, table};
use super::{Context, Result, engines, svg};

/// Where it was measured, and what.
pub struct Setting {
    facts: Vec<(&'static str, String)>,
    took: Vec<String>,
    failures: Vec<String>,
}

impl Setting {
    /// Asks the machine, and every program that may be measured for its version.
    pub fn of(context: &Context) -> Self {
        let read = |path: &str| {
            fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let mut facts = vec![
            (
                "date",
                first_line("date", &["-u", "+%Y-%m-%d %H:%M UTC"]).unwrap_or_default(),
            ),
            ("kernel", read("/proc/sys/kernel/osrelease")),
            ("processors", processors(&read("/proc/cpuinfo"))),
            ("load before", read("/proc/loadavg")),
            ("rounds", context.rounds.to_string()),
            (
                "rest after each call",
                format!("{} ms", context.pause.as_millis()),
            ),
        ];
        if context.quick {
            facts.push((
                "quick",
                "few rounds, small sizes: a look, not a measurement".to_owned(),
            ));
        }
        let wharf = context
            .wharf
            .as_ref()
            .map(|path| path.display().to_string());
        let programs = [
            (
                "wharf",
                wharf.as_deref().unwrap_or("/nonexistent"),
                "--version",
            ),
            ("CNI plugins", "/usr/lib/cni/bridge", ""),
            ("netavark", "/usr/lib/podman/netavark", "--version"),
            ("dockerd", "dockerd", "--version"),
            ("iproute2", "ip", "-V"),
            ("iptables", "iptables", "--version"),
        ];
        for (name, program, question) in programs {
            let arguments: &[&str] = if question.is_empty() {
                &[]
            } else {
                &[question]
            };
            facts.push((name, version(program, arguments)));
        }
        // The plugins themselves do not know, as Debian builds them.
        let package = ["-W", "-f", "${Version}", "containernetworking-plugins"];
        let known = engines::installed("dpkg-query").then(|| first_line("dpkg-query", &package));
        if let Some(version) = known
            .flatten()
            .filter(|line| line.starts_with(char::is_numeric))
        {
            facts.push(("package containernetworking-plugins", version));
        }
        Self {
            facts,
            took: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Notes how long a bench took.
    pub fn took(&mut self, bench: &str, time: Duration) {
        self.took.push(format!("{bench} {} s", time.as_secs()));
    }

    /// Notes that a bench could not be run.
    pub fn failed(&mut self, bench: &str, why: &str) {
        self.failures.push(format!("{bench}: {why}"));
    }

    /// Whether every bench could be run.
    pub fn complete(&self) -> bool {
        self.failures.is_empty()
    }

    /// All that is known, as names and values.
    fn all(&self) -> Vec<(&'static str, String)> {
        let mut all = self.facts.clone();
        all.push(("time taken", self.took.join(", ")));
        let failures = self.failures.iter().cloned();
        all.extend(failures.map(|failure| ("could not be measured", failure)));
        all
    }
}

/// What a program says of itself, or that it is not there.
fn version(program: &str, arguments: &[&str]) -> String {
    if !(Path::new(program).exists() || engines::installed(program)) {
        return "not installed".to_owned();
    }
    first_line(program, arguments)
        .unwrap_or_else(|| "installed, does not tell its version".to_owned())
}

/// The first line that a program prints, wherever it prints it.
fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| !line.trim().is_empty())?;
    Some(line.trim().to_owned())
}

/// `2 × MODEL`
fn processors(cpuinfo: &str) -> String {
    let models: Vec<&str> = cpuinfo
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map(|(_, model)| model.trim())
        .collect();
    format!(
        "{} × {}",
        models.len(),
        models.first().unwrap_or(&"unknown")
    )
}

/// Writes `report.md`, `report.json` and the pictures into `directory`; tells the first's path.
pub fn write(directory: &Path, setting: &Setting, sections: &[Section]) -> Result<PathBuf> {
    fs::create_dir_all(directory)?;
    for chart in sections.iter().flat_map(|section| &section.charts) {
        fs::write(
            directory.join(format!("{}.svg", chart.file)),
            svg::draw(chart),
        )?;
    }
    fs::write(directory.join("report.json"), json(setting, sections))?;
    let path = directory.join("report.md");
    fs::write(&path, markdown(setting, sections))?;
    Ok(path)
}

/// The report for programs.
pub fn json(setting: &Setting, sections: &[Section]) -> String {
    let facts: Value = setting
        .all()
        .into_iter()
        .map(|(name, value)| json!([name, value]))
        .collect();
    let sections: Vec<Value> = sections.iter().map(Section::json).collect();
    format!("{:#}", json!({ "setting": facts, "sections": sections }))
}

fn markdown(setting: &Setting, sections: &[Section]) -> String {
    let mut text = "# wharf, measured\n\n".to_owned();
    text.push_str(
        "All figures are from one run on one machine, in namespaces of the run's own, with the contestants taking turns: \
         compare them with each other, not with those of another run.\n\n",
    );
    let rows: Vec<Vec<String>> = setting
        .all()
        .into_iter()
        .map(|(name, value)| vec![name.to_owned(), escaped(&value)])
        .collect();
    table(&mut text, &["".to_owned(), "".to_owned()], &rows);
    let goals: Vec<Vec<String>> = sections.iter().flat_map(Section::goal_rows).collect();
    if !goals.is_empty() {
        text.push_str("\n## Goals\n\n");
        table(
            &mut text,
            &["bench", "what", "measured", "goal", ""].map(str::to_owned),
            &goals,
        );
    }
    for section in sections {
        text.push('\n');
        text.push_str(&section.table_and_notes());
        for chart in &section.charts {
            writeln!(text, "\n![{}]({}.svg)", escaped(&chart.title), chart.file)
                .expect("a String takes all");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Setting, json, markdown, processors, write};
    use crate::bench::chart::Chart;
    use crate::bench::measure::Summary;
    use crate::bench::report::Section;

    fn section() -> Section {
        let mut section = Section::new("attach", "one | container", &["engine", "ms"]);
        section.row(
            vec!["wharf".to_owned(), "3 | 4".to_owned()],
            serde_json::json!({ "engine": "wharf", "ms": 3 }),
        );
        section.goal("ms", 3.0, 4.0);
        section.goal_at_least("times faster", 9.0, 10.0);
        section.note("a note");
        let bars = vec![("wharf".to_owned(), Summary::of(vec![3.0]))];
        section.chart(Chart::bars("attach", "attach", "ms", bars));
        section
    }

    fn setting() -> Setting {
        Setting {
            facts: vec![("kernel", "6.1 | x".to_owned())],
            took: vec!["attach 1 s".to_owned()],
            failures: vec!["exec: strace is not installed".to_owned()],
        }
    }

    #[test]
    fn every_row_of_a_table_has_as_many_cells() {
        let text = markdown(&setting(), &[section()]);
        let mut tables = text.split("\n\n").filter(|part| part.starts_with("| "));
        assert_eq!(tables.clone().count(), 3, "{text}");
        let cells = |line: &str| line.replace("\\|", "").matches('|').count();
        assert!(
            tables.all(|table| {
                let mut counts = table
                    .lines()
                    .filter(|line| line.starts_with('|'))
                    .map(cells);
                let first = counts.next();
                counts.all(|count| Some(count) == first)
            }),
            "{text}"
        );
        assert!(
            text.contains("| **missed** |") && text.contains("| met"),
            "{text}"
        );
        assert!(text.contains("![attach](attach.svg)"), "{text}");
    }

    #[test]
    fn json_has_the_figures() {
        let value: serde_json::Value =
            serde_json::from_str(&json(&setting(), &[section()])).unwrap();
        assert_eq!(value["sections"][0]["rows"][0]["ms"], 3);
        assert_eq!(value["sections"][0]["goals"][1]["met"], false);
        assert_eq!(
            value["setting"][0],
            serde_json::json!(["kernel", "6.1 | x"])
        );
        assert_eq!(value["setting"][2][1], "exec: strace is not installed");
    }

    #[test]
    fn every_picture_that_is_shown_is_there() {
        let directory = std::env::temp_dir().join(format!("wharf-report-{}", std::process::id()));
        let path = write(&directory, &setting(), &[section()]).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let shown: Vec<&str> = text
            .split("](")
            .skip(1)
            .filter_map(|part| part.split(')').next())
            .collect();
        assert_eq!(shown, ["attach.svg"]);
        assert!(shown.iter().all(|file| directory.join(file).exists()));
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn processors_are_counted() {
        let text = "processor : 0\nmodel name\t: EPYC\n\nprocessor : 1\nmodel name\t: EPYC\n";
        assert_eq!(processors(text), "2 × EPYC");
    }
}
