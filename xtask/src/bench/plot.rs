//! The plot of how cost grows, as SVG: references across, milliseconds up, both logarithmic, one
//! line for each way.
//!
//! The background is transparent. The colours of the lines are readable on white and on black, and
//! text and grid follow the reader's colour scheme.

use std::fmt::Write;

use lsbuf_guest::bench::figures::{Measured, Results};

use crate::svg::escaped;

/// One way's line.
#[derive(Debug)]
struct PlotLine<'r> {
    way: &'r str,
    /// References and milliseconds, from few references to many.
    points: Vec<(f64, f64)>,
}

/// Pixels of the whole picture, and of the space around the axes.
const SIZE: (f64, f64) = (860.0, 460.0);
const LEFT: f64 = 70.0;
const RIGHT: f64 = 230.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 60.0;
/// The least distance between two labels of lines.
const LABEL: f64 = 16.0;

const COLOURS: &[&str] =
    &["#1f88d9", "#e0701a", "#2aa876", "#c956a6", "#b08900", "#7d78d8", "#d64545", "#808080"];

const STYLE: &str = "text { font: 13px sans-serif; fill: #222 } .grid { stroke: #8886; stroke-width: 1 } \
                     .line { fill: none; stroke-width: 2 } \
                     @media (prefers-color-scheme: dark) { text { fill: #ddd } }";

/// The plot of what commands took in `worlds`; `None` if no way was measured in two of them.
pub(super) fn of(worlds: &[Results]) -> Option<String> {
    let lines = lines(worlds);
    let points = || lines.iter().flat_map(|line| &line.points);
    let across = Axis::over(points().map(|point| point.0), LEFT, SIZE.0 - RIGHT)?;
    let up = Axis::over(points().map(|point| point.1), SIZE.1 - BOTTOM, TOP)?;
    let (width, height) = SIZE;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" role=\"img\">\n\
         <title>Time of one command by the number of references to memfds</title>\n\
         <style>{STYLE}</style>\n"
    );
    let (bottom, right) = (SIZE.1 - BOTTOM, SIZE.0 - RIGHT);
    for decade in across.decades() {
        let at = across.place(decade);
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom}\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 20.0,
            number(decade)
        );
    }
    for decade in up.decades() {
        let at = up.place(decade);
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            at + 4.0,
            number(decade)
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">references to memfds (10 holders each, at most \
         100)</text>\n\
         <text transform=\"translate(16 {:.1}) rotate(-90)\" text-anchor=\"middle\">ms, median of wall time</text>",
        f64::midpoint(LEFT, right),
        SIZE.1 - 14.0,
        f64::midpoint(TOP, bottom)
    );
    let ends: Vec<f64> =
        lines.iter().map(|line| line.points.last().map_or(bottom, |&(_, ms)| up.place(ms))).collect();
    for ((line, label), colour) in lines.iter().zip(apart(&ends)).zip(COLOURS.iter().cycle()) {
        let places: Vec<(f64, f64)> =
            line.points.iter().map(|&(references, ms)| (across.place(references), up.place(ms))).collect();
        let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        let _ = writeln!(svg, "<path class=\"line\" stroke=\"{colour}\" d=\"M{}\"/>", path.join("L"));
        for (x, y) in &places {
            let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
        if let Some((x, y)) = places.last() {
            let beside = right + 14.0;
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{:.1} {y:.1}L{beside} {label:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" style=\"fill:{colour}\">{}</text>",
                x + 4.0,
                beside + 4.0,
                label + 4.0,
                escaped(line.way)
            );
        }
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

/// The lines of all ways that were measured in two worlds or more.
fn lines(worlds: &[Results]) -> Vec<PlotLine<'_>> {
    let mut lines: Vec<PlotLine<'_>> = Vec::new();
    for world in worlds {
        let Some(references) = world.references else { continue };
        for way in &world.ways {
            let Measured::Figures(figures) = &way.one_shot else { continue };
            let point = (references.all() as f64, figures.wall);
            match lines.iter_mut().find(|line| line.way == way.way) {
                Some(line) => line.points.push(point),
                None => lines.push(PlotLine { way: &way.way, points: vec![point] }),
            }
        }
    }
    lines.retain(|line| line.points.len() > 1);
    for line in &mut lines {
        line.points.sort_by(|one, other| one.0.total_cmp(&other.0));
    }
    lines
}

/// A logarithmic axis over whole decades.
#[derive(Clone, Copy, Debug)]
struct Axis {
    /// The first and the last decade, as exponents of 10.
    decades: (i32, i32),
    /// Their places in the picture.
    places: (f64, f64),
}

impl Axis {
    /// The axis that has room for all figures; `None` if there are none.
    fn over(figures: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Option<Axis> {
        let logs = figures.filter(|figure| *figure > 0.0).map(f64::log10);
        let low = logs.clone().min_by(f64::total_cmp)?.floor();
        let high = logs.max_by(f64::total_cmp)?.ceil().max(low + 1.0);
        Some(Axis { decades: (low as i32, high as i32), places: (from, to) })
    }

    fn decades(self) -> impl Iterator<Item = f64> {
        (self.decades.0..=self.decades.1).map(|exponent| 10_f64.powi(exponent))
    }

    fn place(self, figure: f64) -> f64 {
        let (low, high) = (f64::from(self.decades.0), f64::from(self.decades.1));
        let part = (figure.log10() - low) / (high - low);
        self.places.0 + part * (self.places.1 - self.places.0)
    }
}

/// Places for labels as near to `wanted` as possible without one over another. The order of the
/// result is that of `wanted`.
fn apart(wanted: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|&one, &other| wanted[one].total_cmp(&wanted[other]));
    let mut places = wanted.to_vec();
    // Downwards first. Where that leaves the picture, upwards again from its end.
    for pair in order.windows(2) {
        places[pair[1]] = places[pair[1]].max(places[pair[0]] + LABEL);
    }
    let mut limit = SIZE.1 - BOTTOM;
    for &nth in order.iter().rev() {
        places[nth] = places[nth].min(limit);
        limit = places[nth] - LABEL;
    }
    places
}

/// A power of ten as people read it.
fn number(figure: f64) -> String {
    match figure {
        1e6.. => format!("{:.0} M", figure / 1e6),
        1e3.. => format!("{:.0} k", figure / 1e3),
        1.0.. => format!("{figure:.0}"),
        _ => format!("{figure}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::targets::tests::{figures, results};
    use super::*;
    use lsbuf_guest::bench::figures::References;

    fn world(references: u64, ways: &[(&str, Option<f64>)]) -> Results {
        let missing = || Measured::Missing("refused".to_owned());
        let ways = ways.iter().map(|&(way, ms)| (way, ms.map_or_else(missing, |ms| figures(ms, 1)), None));
        let references = Some(References { buffers: 1, fd: references, map: 0 });
        Results { references, ..results("some", ways.collect()) }
    }

    /// Check that a way has a line with its points in order, and that one with a single point has
    /// none.
    #[test]
    fn ways_have_lines() {
        let worlds = [
            world(1000, &[("a", Some(20.0)), ("b", None)]),
            world(100, &[("a", Some(3.0)), ("b", Some(5.0))]),
        ];
        let lines = lines(&worlds);
        assert_eq!(lines.len(), 1);
        assert_eq!((lines[0].way, &lines[0].points[..]), ("a", &[(100.0, 3.0), (1000.0, 20.0)][..]));
        let svg = of(&worlds).unwrap();
        assert_eq!(svg.matches("class=\"line\"").count(), 1, "{svg}");
        assert!(of(&worlds[..1]).is_none());
    }

    /// Check that an axis covers whole decades and that equal ratios have equal distances.
    #[test]
    fn axes_are_logarithmic() {
        let axis = Axis::over([3.0, 500.0].into_iter(), 0.0, 300.0).unwrap();
        assert_eq!(axis.decades().collect::<Vec<_>>(), [1.0, 10.0, 100.0, 1000.0]);
        assert_eq!([1.0, 10.0, 1000.0].map(|figure| axis.place(figure)), [0.0, 100.0, 300.0]);
    }

    /// Check that labels keep their distance, their order and the picture's end.
    #[test]
    fn labels_are_apart() {
        let bottom = SIZE.1 - BOTTOM;
        let places = apart(&[bottom, 50.0, bottom - 1.0, 52.0]);
        assert_eq!(places, [bottom, 50.0, bottom - LABEL, 50.0 + LABEL]);
    }
}
