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
    fn limit(&self) -> String {
        let sign = if self.at_least { '≥' } else { '≤' };
        format!("{sign} {}", self.limit)
    }

    fn verdict(&self) -> &'static str {
        if self.met() { "met" } else { "**missed**" }
    }

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
        self.rows
            .push(cells.iter().map(|cell| escaped(cell)).collect());
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
        let mut text = self.heading_and_table();
        for goal in &self.goals {
            let (limit, verdict) = (goal.limit(), goal.verdict());
            let Goal { what, measured, .. } = goal;
            writeln!(text, "* {what}: {measured:.2}, goal {limit}: {verdict}")
                .expect("a String takes all");
        }
        self.add_notes(&mut text);
        text
    }

    /// The table and the notes, for a report that has the goals elsewhere.
    pub fn table_and_notes(&self) -> String {
        let mut text = self.heading_and_table();
        self.add_notes(&mut text);
        text
    }

    /// The goals as rows: bench, what, measured, goal, verdict.
    pub fn goal_rows(&self) -> Vec<Vec<String>> {
        let row = |goal: &Goal| {
            vec![
                self.name.to_owned(),
                escaped(&goal.what),
                format!("{:.2}", goal.measured),
                goal.limit(),
                goal.verdict().to_owned(),
            ]
        };
        self.goals.iter().map(row).collect()
    }

    fn heading_and_table(&self) -> String {
        let mut text = format!("## {}: {}\n\n", self.name, self.title);
        table(&mut text, &self.columns, &self.rows);
        text.push('\n');
        text
    }

    fn add_notes(&self, text: &mut String) {
        for note in &self.notes {
            writeln!(text, "* {note}").expect("a String takes all");
        }
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let goals: Vec<Value> = self
            .goals
            .iter()
            .map(|g| json!({ "what": g.what, "measured": g.measured, "limit": g.limit, "at_least": g.at_least, "met": g.met() }))
            .collect();
        json!({ "bench": self.name, "title": self.title, "rows": self.data, "goals": goals, "notes": self.notes })
    }
}

/// A table; the cells are Markdown already.
pub fn table(text: &mut String, columns: &[String], rows: &[Vec<String>]) {
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

/// A text as a cell of a table.
pub fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// A ratio as `1.52×`; a dash when there is nothing to divide by.
pub fn times(of: f64, to: f64) -> String {
    if to > 0.0 {
        format!("{:.2}×", of / to)
    } else {
        "–".to_owned()
    }
}
