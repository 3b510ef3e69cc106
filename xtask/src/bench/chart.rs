//! What is to be drawn of a section's figures. [`super::svg`] draws it.

use super::measure::Summary;

/// One picture.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Name of its file, without the ending.
    pub file: &'static str,
    /// What it shows.
    pub title: String,
    /// Unit of the figures.
    pub unit: &'static str,
    /// The figures.
    pub figures: Figures,
}

/// The figures of a picture.
#[derive(Clone, Debug)]
pub enum Figures {
    /// One bar each.
    Bars(Vec<(String, Summary)>),
    /// Figures over something that grows.
    Lines {
        /// What grows.
        over: &'static str,
        /// The lines.
        lines: Vec<Line>,
    },
}

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name.
    pub label: String,
    /// Its points, from left to right.
    pub points: Vec<(f64, Summary)>,
}

impl Chart {
    /// A picture of bars.
    pub fn bars(
        file: &'static str,
        title: impl Into<String>,
        unit: &'static str,
        bars: Vec<(String, Summary)>,
    ) -> Self {
        Self {
            file,
            title: title.into(),
            unit,
            figures: Figures::Bars(bars),
        }
    }

    /// A picture of lines.
    pub fn lines(
        file: &'static str,
        title: impl Into<String>,
        unit: &'static str,
        over: &'static str,
        lines: Vec<Line>,
    ) -> Self {
        Self {
            file,
            title: title.into(),
            unit,
            figures: Figures::Lines { over, lines },
        }
    }
}
