//! Draws a [`Chart`] as SVG: bars and lines, nothing more.

use std::fmt::Write as _;

use super::chart::{Chart, Figures, Line};
use super::measure::Summary;

const WIDTH: f64 = 760.0;
const TOP: f64 = 48.0;
const COLOURS: [&str; 8] = [
    "#1f6feb", "#d1242f", "#2da44e", "#bf8700", "#8250df", "#57606a", "#1b7c83", "#bc4c00",
];
/// Where the largest figure is more than that many times the smallest, the scale is logarithmic.
const WIDE: f64 = 20.0;

/// The whole file.
pub fn draw(chart: &Chart) -> String {
    match &chart.figures {
        Figures::Bars(bars) => draw_bars(chart, bars),
        Figures::Lines { over, lines } => draw_lines(chart, over, lines),
    }
}

/// From figures to places.
#[derive(Clone, Copy, Debug)]
struct Scale {
    low: f64,
    high: f64,
    /// Where `low` and `high` are drawn.
    from: f64,
    to: f64,
    logarithmic: bool,
}

impl Scale {
    /// For all of `values`; from zero, unless they lie so far apart that only powers can be told apart.
    fn of(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let positive = values.filter(|value| value.is_finite() && *value > 0.0);
        let (low, high) = positive.fold((f64::INFINITY, 0.0_f64), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let logarithmic = high > low * WIDE;
        let (low, high) = if high == 0.0 {
            (0.0, 1.0)
        } else if logarithmic {
            let power = |value: f64| 10f64.powf(value);
            (power(low.log10().floor()), power(high.log10().ceil()))
        } else {
            (0.0, high * 1.05)
        };
        Self {
            low,
            high,
            from,
            to,
            logarithmic,
        }
    }

    fn at(&self, value: f64) -> f64 {
        let part = if self.logarithmic {
            let low = self.low.log10();
            (value.max(self.low).log10() - low) / (self.high.log10() - low)
        } else {
            // One place only: all is there.
            let whole = self.high - self.low;
            if whole > 0.0 {
                (value - self.low) / whole
            } else {
                0.0
            }
        };
        self.from + part.clamp(0.0, 1.0) * (self.to - self.from)
    }

    fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let powers = self.low.log10().round() as i32..=self.high.log10().round() as i32;
            return powers.map(|power| 10f64.powi(power)).collect();
        }
        let rough = self.high / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * power)
            .find(|step| *step >= rough)
            .unwrap_or(rough);
        let count = (self.high / step).floor() as u32;
        (0..=count).map(|n| f64::from(n) * step).collect()
    }
}

/// A figure with three digits that mean something.
pub fn short(value: f64) -> String {
    let digits = match value.abs() {
        100.0.. => 0,
        10.0..100.0 => 1,
        1.0..10.0 => 2,
        0.0 => 0,
        _ => 3,
    };
    format!("{value:.digits$}")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// A file in the making.
struct Drawing {
    text: String,
}

impl Drawing {
    fn new(chart: &Chart, height: f64, logarithmic: bool) -> Self {
        let mut drawing = Self {
            text: format!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
                 font-family=\"sans-serif\" font-size=\"12\" fill=\"#1f2328\">\n\
                 <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
            ),
        };
        let kind = if logarithmic { ", logarithmic" } else { "" };
        let title = format!("{} ({}{kind})", chart.title, chart.unit);
        drawing.element(format_args!(
            "<text x=\"12\" y=\"24\" font-size=\"15\" font-weight=\"bold\">{}</text>",
            escape(&title)
        ));
        drawing
    }

    fn element(&mut self, element: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{element}").expect("a String takes all");
    }

    fn line(&mut self, [x1, y1, x2, y2]: [f64; 4], colour: &str) {
        self.element(format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>"
        ));
    }

    fn label(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        let text = escape(text);
        self.element(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    fn finish(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }
}

fn draw_bars(chart: &Chart, bars: &[(String, Summary)]) -> String {
    const ROW: f64 = 26.0;
    const LEFT: f64 = 250.0;
    const RIGHT: f64 = WIDTH - 80.0;
    let scale = Scale::of(bars.iter().map(|(_, figure)| figure.median), LEFT, RIGHT);
    let bottom = TOP + ROW * bars.len() as f64;
    let mut drawing = Drawing::new(chart, bottom + 30.0, scale.logarithmic);
    for tick in scale.ticks() {
        let x = scale.at(tick);
        drawing.line([x, TOP, x, bottom], "#d0d7de");
        drawing.label(x, bottom + 16.0, "middle", &short(tick));
    }
    for (place, (label, figure)) in bars.iter().enumerate() {
        let y = TOP + ROW * place as f64;
        let (end, middle) = (scale.at(figure.median), y + ROW / 2.0);
        let colour = if label.starts_with("wharf") {
            COLOURS[0]
        } else {
            "#8c959f"
        };
        drawing.label(LEFT - 8.0, middle + 4.0, "end", label);
        drawing.element(format_args!(
            "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>",
            y + 4.0,
            end - LEFT,
            ROW - 8.0
        ));
        let (low, high) = (scale.at(figure.q1), scale.at(figure.q3));
        drawing.line([low, middle, high, middle], "#1f2328");
        drawing.label(
            end.max(high) + 6.0,
            middle + 4.0,
            "start",
            &short(figure.median),
        );
    }
    drawing.finish()
}

fn draw_lines(chart: &Chart, over: &str, lines: &[Line]) -> String {
    const LEFT: f64 = 64.0;
    const RIGHT: f64 = WIDTH - 24.0;
    const BOTTOM: f64 = 340.0;
    const ROW: f64 = 18.0;
    let points = || lines.iter().flat_map(|line| &line.points);
    let y = Scale::of(points().map(|(_, figure)| figure.median), BOTTOM, TOP);
    let mut places: Vec<f64> = points().map(|(x, _)| *x).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let x = Scale {
        low: places.first().copied().unwrap_or(0.0),
        high: places.last().copied().unwrap_or(1.0),
        from: LEFT,
        to: RIGHT,
        logarithmic: false,
    };
    let height = BOTTOM + 52.0 + ROW * lines.len().div_ceil(2) as f64;
    let mut drawing = Drawing::new(chart, height, y.logarithmic);
    for tick in y.ticks() {
        let at = y.at(tick);
        drawing.line([LEFT, at, RIGHT, at], "#d0d7de");
        drawing.label(LEFT - 6.0, at + 4.0, "end", &short(tick));
    }
    for place in &places {
        drawing.label(x.at(*place), BOTTOM + 16.0, "middle", &format!("{place}"));
    }
    drawing.label((LEFT + RIGHT) / 2.0, BOTTOM + 34.0, "middle", over);
    for (number, line) in lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        // Beyond the colours, a second look.
        let dash = if number < COLOURS.len() {
            "none"
        } else {
            "5 4"
        };
        let at = |(place, figure): &(f64, Summary)| (x.at(*place), y.at(figure.median));
        let path: Vec<String> = line
            .points
            .iter()
            .map(at)
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let path = path.join(" ");
        drawing.element(format_args!(
            "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"/>"
        ));
        for (x, y) in line.points.iter().map(at) {
            drawing.element(format_args!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
            ));
        }
        let (column, row) = (number % 2, number / 2);
        let left = LEFT + column as f64 * (RIGHT - LEFT) / 2.0;
        let down = BOTTOM + 56.0 + ROW * row as f64;
        drawing.element(format_args!(
            "<line x1=\"{left}\" y1=\"{:.1}\" x2=\"{}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"3\" stroke-dasharray=\"{dash}\"/>",
            down - 4.0, left + 20.0, down - 4.0
        ));
        drawing.label(left + 26.0, down, "start", &line.label);
    }
    drawing.finish()
}

#[cfg(test)]
mod tests {
    use super::{Scale, draw, short};
    use crate::bench::chart::{Chart, Line};
    use crate::bench::measure::Summary;

    fn figure(value: f64) -> Summary {
        Summary::of(vec![value * 0.9, value, value * 1.1])
    }

    /// Every element that is opened is closed, and no text breaks out of its element.
    fn well_formed(text: &str) -> bool {
        let mut open = Vec::new();
        for part in text.split('<').skip(1) {
            let Some((tag, _)) = part.split_once('>') else {
                return false;
            };
            match (tag.strip_prefix('/'), tag.ends_with('/')) {
                (Some(name), _) if open.pop() != Some(name) => return false,
                (None, false) => open.extend(tag.split_whitespace().next()),
                _ => {}
            }
        }
        open.is_empty()
    }

    #[test]
    fn bars_have_their_lengths() {
        let bars = vec![
            ("a & <b>".to_owned(), figure(10.0)),
            ("wharf".to_owned(), figure(5.0)),
        ];
        let text = draw(&Chart::bars("x", "title", "ms", bars));
        assert!(well_formed(&text), "{text}");
        assert!(text.contains("a &amp; &lt;b&gt;"));
        let widths: Vec<f64> = text
            .lines()
            .filter(|line| line.starts_with("<rect x="))
            .map(|line| {
                let (_, rest) = line.split_once("width=\"").unwrap();
                rest.split_once('"').unwrap().0.parse().unwrap()
            })
            .collect();
        assert_eq!(widths.len(), 2);
        assert!((widths[0] - 2.0 * widths[1]).abs() < 0.2, "{widths:?}");
    }

    #[test]
    fn figures_far_apart_are_drawn_by_their_powers() {
        let line = |label: &str, values: [f64; 2]| Line {
            label: label.to_owned(),
            points: vec![(0.0, figure(values[0])), (1000.0, figure(values[1]))],
        };
        let lines = vec![line("slow", [100.0, 900.0]), line("fast", [3.0, 4.0])];
        let text = draw(&Chart::lines("x", "title", "ms", "attached", lines));
        assert!(well_formed(&text), "{text}");
        assert!(text.contains("(ms, logarithmic)"));
        assert_eq!(text.matches("<circle").count(), 4);
        let scale = Scale::of([3.0, 900.0].into_iter(), 0.0, 300.0);
        assert_eq!(scale.ticks(), [1.0, 10.0, 100.0, 1000.0]);
        assert!((scale.at(10.0) - 100.0).abs() < 1e-6);
    }

    #[test]
    fn a_chart_without_figures_is_a_file_all_the_same() {
        assert!(well_formed(&draw(&Chart::bars("x", "t", "ms", Vec::new()))));
        assert!(well_formed(&draw(&Chart::lines(
            "x",
            "t",
            "ms",
            "n",
            Vec::new()
        ))));
        let single = vec![Line {
            label: "one".to_owned(),
            points: vec![(5.0, figure(1.0))],
        }];
        let text = draw(&Chart::lines("x", "t", "ms", "n", single));
        assert!(well_formed(&text) && !text.contains("NaN"), "{text}");
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(
            Scale::of([47.0].into_iter(), 0.0, 1.0).ticks(),
            [0.0, 10.0, 20.0, 30.0, 40.0]
        );
        assert_eq!(
            [123.4, 12.34, 1.234, 0.1234, 0.0].map(short),
            ["123", "12.3", "1.23", "0.123", "0"]
        );
    }
}
