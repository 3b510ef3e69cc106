//! Tables and goals, as Markdown for people and as JSON for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::chart::Chart;

/// The result of one bench.
pub struct Section {
    /// Its name on the command line.
    pub name: &'static str,
    title: &'static str,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
    data: Vec<Value>,
    goals: Vec<Goal>,
    notes: Vec<String>,
    /// Pictures of the same figures.
    pub charts: Vec<Chart>,
}

struct Goal {
    what: String,
    measured: f64,
    limit: f64,
    at_least: bool,
}

impl Goal {
    fn met(&self) -> bool {
        if self.at_least {
            self.measured >= self.limit
        } else {
            self.measured <= self.limit
        }
    }
}

impl Section {
    /// A table without rows.
    pub fn new(name: &'static str, title: &'static str, columns: &[&str]) -> Self {
        Self {
            name,
            title,
            columns: columns.iter().map(|column| (*column).to_owned()).collect(),
            rows: Vec::new(),
            data: Vec::new(),
            goals: Vec::new(),
            notes: Vec::new(),
            charts: Vec::new(),
        }
    }

    /// Adds a row: its cells, and the same as data.
    pub fn row(&mut self, cells: Vec<String>, data: Value) {
        self.rows.push(cells);
        self.data.push(data);
    }

    /// Adds a goal: `measured` ought to be at most `limit`.
    pub fn goal(&mut self, what: impl Into<String>, measured: f64, limit: f64) {
        self.goals.push(Goal {
            what: what.into(),
            measured,
            limit,
            at_least: false,
        });
    }

    /// Adds a goal: `measured` ought to be at least `limit`.
    pub fn goal_at_least(&mut self, what: impl Into<String>, measured: f64, limit: f64) {
        self.goals.push(Goal {
            what: what.into(),
            measured,
            limit,
            at_least: true,
        });
    }

    /// Adds a picture for the report.
    pub fn chart(&mut self, chart: Chart) {
        self.charts.push(chart);
    }

    /// Adds a sentence below the table.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// The table, the goals and the notes.
    pub fn markdown(&self) -> String {
        let mut text = format!("## {}: {}\n\n", self.name, self.title);
        table(&mut text, &self.columns, &self.rows);
        text.push('\n');
        for goal in &self.goals {
            let verdict = if goal.met() { "met" } else { "**missed**" };
            let sign = if goal.at_least { '≥' } else { '≤' };
            let Goal {
                what,
                measured,
                limit,
                ..
            } = goal;
            writeln!(
                text,
                "* {what}: {measured:.2}, goal {sign} {limit}: {verdict}"
            )
            .expect("a String takes all");
        }
        for note in &self.notes {
            writeln!(text, "* {note}").expect("a String takes all");
        }
        text
    }

    fn json(&self) -> Value {
        let goals: Vec<Value> = self
            .goals
            .iter()
            .map(|g| json!({ "what": g.what, "measured": g.measured, "limit": g.limit, "at_least": g.at_least, "met": g.met() }))
            .collect();
        json!({ "bench": self.name, "title": self.title, "rows": self.data, "goals": goals, "notes": self.notes })
    }
}

fn table(text: &mut String, columns: &[String], rows: &[Vec<String>]) {
    let width = |place: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(place))
            .chain(columns.get(place));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    for row in [columns, &rule]
        .into_iter()
        .chain(rows.iter().map(Vec::as_slice))
    {
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str("| ");
            text.push_str(cell);
            text.push_str(&" ".repeat(width - cell.chars().count() + 1));
        }
        text.push_str("|\n");
    }
}

/// All sections as one JSON array.
pub fn json(sections: &[Section]) -> String {
    format!(
        "{:#}",
        Value::Array(sections.iter().map(Section::json).collect())
    )
}

/// A ratio as `1.52×`; a dash when there is nothing to divide by.
pub fn times(of: f64, to: f64) -> String {
    if to > 0.0 {
        format!("{:.2}×", of / to)
    } else {
        "–".to_owned()
    }
}
