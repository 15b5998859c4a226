//! Curves as a self-contained SVG: panels of lines over one common axis.

use std::fmt::Write;

/// Lines drawn into one frame.
pub struct Panel {
    pub title: String,
    pub series: Vec<Series>,
}

/// One line.
pub struct Series {
    pub name: String,
    /// Ascending in x; values that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// Colours told apart by everyone (Okabe and Ito, 2008).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const PANEL: (f64, f64) = (420.0, 250.0);
/// Left, top, right and bottom of a panel's frame.
const MARGIN: (f64, f64, f64, f64) = (64.0, 34.0, 14.0, 34.0);
/// More points than this are averaged together.
const MOST_POINTS: usize = 300;

/// Draws the panels that have points, two in a row.
pub fn svg(title: &str, x_label: &str, panels: &[Panel]) -> String {
    let panels: Vec<&Panel> =
        panels.iter().filter(|p| p.series.iter().any(|s| !s.points.is_empty())).collect();
    let columns = panels.len().clamp(1, 2);
    let (width, head) = (columns as f64 * PANEL.0, 30.0);
    let height = head + panels.len().div_ceil(columns) as f64 * PANEL.1;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\" \
         fill=\"#333\" role=\"img\">\n<title>{0}</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"12\" y=\"21\" font-size=\"15\">{0}</text>\n",
        escape(title)
    );
    for (i, panel) in panels.iter().enumerate() {
        let x = (i % columns) as f64 * PANEL.0;
        let y = head + (i / columns) as f64 * PANEL.1;
        let _ = writeln!(out, "<g transform=\"translate({x} {y})\">");
        draw(panel, x_label, &mut out);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

fn draw(panel: &Panel, x_label: &str, out: &mut String) {
    let (left, top) = (MARGIN.0, MARGIN.1);
    let (right, bottom) = (PANEL.0 - MARGIN.2, PANEL.1 - MARGIN.3);
    let lines: Vec<(&str, Vec<(f64, f64)>)> =
        panel.series.iter().map(|s| (s.name.as_str(), thin(&s.points))).collect();
    let all = || lines.iter().flat_map(|(_, points)| points);
    let (x_low, x_high) = range(all().map(|p| p.0));
    let (y_low, y_high) = range(all().map(|p| p.1));
    let to_x = |x: f64| left + (x - x_low) / (x_high - x_low) * (right - left);
    let to_y = |y: f64| bottom - (y - y_low) / (y_high - y_low) * (bottom - top);
    let _ = writeln!(out, "<text x=\"{left}\" y=\"14\">{}</text>", escape(&panel.title));
    for tick in ticks(y_low, y_high) {
        let y = to_y(tick);
        let _ = writeln!(
            out,
            "<path d=\"M{left} {y:.1}H{right}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"end\">{}</text>",
            left - 5.0,
            y + 4.0,
            number(tick)
        );
    }
    for tick in ticks(x_low, x_high) {
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            to_x(tick),
            bottom + 14.0,
            number(tick)
        );
    }
    let _ = writeln!(
        out,
        "<path d=\"M{left} {top}V{bottom}H{right}\" fill=\"none\" stroke=\"#999\"/><text \
         x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#777\">{}</text>",
        bottom + 28.0,
        escape(x_label)
    );
    let mut legend = left;
    for (i, (name, points)) in lines.iter().filter(|(_, points)| !points.is_empty()).enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let path: Vec<String> =
            points.iter().map(|(x, y)| format!("{:.1},{:.1}", to_x(*x), to_y(*y))).collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>",
            path.join(" ")
        );
        // Few points are measurements of their own; one would not be seen as a line.
        for (x, y) in points.iter().filter(|_| points.len() < 60) {
            let (x, y) = (to_x(*x), to_y(*y));
            let _ =
                writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2\" fill=\"{colour}\"/>");
        }
        if panel.series.len() > 1 {
            let _ = writeln!(
                out,
                "<text x=\"{legend:.1}\" y=\"28\" fill=\"{colour}\">{}</text>",
                escape(name)
            );
            legend += 7.0 * name.chars().count() as f64 + 14.0;
        }
    }
}

/// At most [`MOST_POINTS`] means of neighbouring finite points.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let finite: Vec<(f64, f64)> =
        points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
    let each = finite.len().div_ceil(MOST_POINTS).max(1);
    let mean = |part: &[(f64, f64)]| {
        let count = part.len() as f64;
        let sum = part.iter().fold((0.0, 0.0), |sum, p| (sum.0 + p.0, sum.1 + p.1));
        (sum.0 / count, sum.1 / count)
    };
    finite.chunks(each).map(mean).collect()
}

/// Least and greatest, apart from each other.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    match high - low {
        span if span > 0.0 => (low, high),
        _ if low.is_finite() => (low - low.abs().max(1.0) / 2.0, low + low.abs().max(1.0) / 2.0),
        _ => (0.0, 1.0),
    }
}

/// Round numbers between `low` and `high`.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    let step = steps.into_iter().find(|step| *step >= rough).unwrap_or(rough);
    let first = (low / step).ceil() as i64;
    (first..).map(|i| i as f64 * step).take_while(|tick| *tick <= high + step * 1e-9).collect()
}

fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if (1e-3..1e5).contains(&size) => format!("{}", (value * 1e6).round() / 1e6),
        _ => format!("{value:.0e}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(points: Vec<(f64, f64)>) -> Panel {
        let series = vec![Series { name: "a<b".to_owned(), points }];
        Panel { title: "R & D".to_owned(), series }
    }

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 100.0), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(ticks(0.13, 0.28).first(), Some(&0.15000000000000002));
        assert_eq!(number(0.15000000000000002), "0.15");
        assert_eq!(number(2e-5), "2e-5");
    }

    #[test]
    fn odd_values_draw_too() {
        let cases = [
            vec![],
            vec![(1.0, 5.0)],
            vec![(1.0, f64::NAN), (2.0, f64::INFINITY), (3.0, 0.0)],
            (0..5000).map(|i| (f64::from(i), f64::from(i).sin())).collect(),
        ];
        for points in cases {
            let count = points.len();
            let text = svg("<run>", "steps", &[panel(points)]);
            assert!(text.contains("&lt;run&gt;") && text.ends_with("</svg>\n"));
            assert_eq!(text.contains("R &amp; D"), count > 0);
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
            assert!(text.len() < 20_000, "{}", text.len());
        }
    }
}
