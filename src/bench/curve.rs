//! How a cost grows: what a growth scenario hands out, and its picture as SVG.

use serde::{Deserialize, Serialize};

/// Figures at several sizes of one thing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Curve {
    /// Names it, also in file names: `lanes`, `queued`, …
    pub name: String,
    /// What grows, such as `lanes of one worker`.
    pub of: String,
    /// The sizes, rising.
    pub sizes: Vec<f64>,
    /// What was measured at each.
    pub series: Vec<Series>,
}

/// One figure at each size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Series {
    /// What it is.
    pub name: String,
    /// Its unit, such as `ms`.
    pub unit: String,
    /// Its value at each size. None: not measured there.
    pub values: Vec<Option<f64>>,
}

impl Curve {
    pub(super) fn new(name: &str, of: &str) -> Self {
        let (name, of) = (name.to_owned(), of.to_owned());
        Self { name, of, sizes: Vec::new(), series: Vec::new() }
    }

    /// Adds a size and what was measured there: name, unit, value.
    pub(super) fn add(&mut self, size: usize, figures: &[(&str, &str, Option<f64>)]) {
        #[allow(clippy::cast_precision_loss)]
        self.sizes.push(size as f64);
        for (name, unit, value) in figures {
            let known = self.series.iter().position(|series| series.name == *name);
            let at = known.unwrap_or_else(|| {
                let (name, unit) = ((*name).to_owned(), (*unit).to_owned());
                self.series.push(Series { name, unit, values: Vec::new() });
                self.series.len() - 1
            });
            self.series[at].values.push(*value);
        }
    }
}

impl Series {
    /// The last value divided by the first. None: one of them is missing or 0.
    pub fn growth(&self) -> Option<f64> {
        let mut values = self.values.iter().copied().flatten();
        let first = values.next().filter(|first| *first != 0.0)?;
        values.next_back().map(|last| last / first)
    }
}

const WIDTH: f64 = 640.0;
/// Height of the picture of one series.
const PANEL: f64 = 150.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 34.0;
/// Below each panel, for the sizes.
const BELOW: f64 = 28.0;
/// Of text; about what a letter of 12 pixels takes.
const INK: &str = "#333";
const LINE: &str = "#1f6feb";
const GRID: &str = "#ddd";

impl Curve {
    /// Draws one panel for each series, all over the same sizes on a logarithmic axis. Values start at
    /// zero, so that a flat curve looks flat.
    pub fn svg(&self) -> String {
        #[allow(clippy::cast_precision_loss)]
        let height = TOP + self.series.len() as f64 * (PANEL + BELOW + TOP);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
        );
        svg += &text(WIDTH / 2.0, 20.0, "middle", &format!("growing: {}", self.of));
        let mut top = TOP;
        for series in &self.series {
            svg += &self.panel(series, top + TOP);
            top += PANEL + BELOW + TOP;
        }
        svg + "</svg>\n"
    }

    fn panel(&self, series: &Series, top: f64) -> String {
        let most = series.values.iter().flatten().copied().fold(0.0, f64::max);
        let most = round_up(most);
        let y = |value: f64| top + PANEL * (1.0 - value / most);
        let mut svg = text(LEFT, top - 8.0, "start", &format!("{}, {}", series.name, series.unit));
        for part in [0.0, 0.5, 1.0] {
            let at = y(most * part);
            svg += &format!("<path d=\"M{LEFT} {at:.1}H{}\" stroke=\"{GRID}\"/>\n", WIDTH - RIGHT);
            svg += &text(LEFT - 6.0, at + 4.0, "end", &short(most * part));
        }
        let mut points = Vec::new();
        for (size, value) in self.sizes.iter().zip(&series.values) {
            let x = self.x(*size);
            svg += &text(x, top + PANEL + 16.0, "middle", &short(*size));
            if let Some(value) = value {
                points.push(format!("{x:.1},{:.1}", y(*value)));
                svg += &format!(
                    "<circle cx=\"{x:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{LINE}\"><title>{}: {}</title></circle>\n",
                    y(*value),
                    short(*size),
                    short(*value)
                );
            }
        }
        let points = points.join(" ");
        svg + &format!(
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{LINE}\" stroke-width=\"2\"/>\n"
        )
    }

    /// Where a size stands; 0 stands where the logarithm of 1 does.
    fn x(&self, size: f64) -> f64 {
        let log = |size: f64| size.max(1.0).ln();
        let first = log(self.sizes.first().copied().unwrap_or(1.0));
        let last = log(self.sizes.last().copied().unwrap_or(1.0));
        let part = if last > first { (log(size) - first) / (last - first) } else { 0.5 };
        LEFT + 12.0 + part * (WIDTH - LEFT - RIGHT - 24.0)
    }
}

fn text(x: f64, y: f64, anchor: &str, text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{INK}\">{text}</text>\n"
    )
}

/// The next of 1, 2, 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|step| *step >= value * 0.999).unwrap_or(value)
}

/// A number in few letters: 1 M, 50 k, 0.25.
fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        size if size >= 1e6 => (value / 1e6, " M"),
        size if size >= 1e4 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let digits = if value.abs() >= 100.0 || value.fract() == 0.0 { 0 } else { 2 };
    let text = format!("{value:.digits$}");
    let text = if digits > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve() -> Curve {
        let mut curve = Curve::new("lanes", "lanes & <more>");
        curve.add(1, &[("tasks", "/s", Some(1500.0)), ("server", "MB", None)]);
        curve.add(1000, &[("tasks", "/s", Some(750.0)), ("server", "MB", Some(40.0))]);
        curve
    }

    #[test]
    fn growth_is_from_the_first_to_the_last_value() {
        let curve = curve();
        assert_eq!(curve.series[0].growth(), Some(0.5));
        assert_eq!(curve.series[1].growth(), None);
    }

    #[test]
    fn a_picture_has_every_point_and_is_well_formed() {
        let svg = curve().svg();
        assert_eq!(svg.matches("<circle").count(), 3);
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("lanes &amp; &lt;more>"), "{svg}");
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        // 1500 of at most 2000 is a quarter below the top of the panel.
        let y = TOP + TOP + PANEL / 4.0;
        assert!(svg.contains(&format!("cy=\"{y:.1}\"")), "{svg}");
    }

    #[test]
    fn numbers_on_the_axes_are_short() {
        assert_eq!(
            [1e6, 50_000.0, 1000.0, 0.25, 12.5, 0.0].map(short),
            ["1 M", "50 k", "1000", "0.25", "12.5", "0"]
        );
        assert_eq!([1499.0, 2000.0, 0.3, 0.0].map(round_up), [2000.0, 2000.0, 0.5, 1.0]);
    }
}
