//! The loss of a run as a picture: one SVG file without scripts or outside parts.

use std::fmt::Write;

/// One line of the picture.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its colour, as SVG understands it.
    pub colour: &'static str,
    /// Step and value, by step.
    pub points: Vec<(u64, f64)>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const MARGIN: f64 = 48.0;
/// More points than this are thinned out: no screen shows them.
const POINTS_MAX: usize = 1000;

/// Draws the series over their common range of steps and values.
#[must_use]
pub fn svg(title: &str, series: &[Series]) -> String {
    let points = || series.iter().flat_map(|s| &s.points).filter(|p| p.1.is_finite());
    #[expect(clippy::cast_precision_loss, reason = "a place on a screen")]
    let x_max = points().map(|p| p.0).max().unwrap_or(1).max(1) as f64;
    let (low, high) = points().fold((f64::MAX, f64::MIN), |(l, h), p| (l.min(p.1), h.max(p.1)));
    let (low, high) = if low < high { (low, high) } else { (low.min(0.0), low.max(0.0) + 1.0) };
    #[expect(clippy::cast_precision_loss, reason = "a place on a screen")]
    let x = |step: u64| MARGIN + step as f64 / x_max * (WIDTH - 2.0 * MARGIN);
    let y = |value: f64| HEIGHT - MARGIN - (value - low) / (high - low) * (HEIGHT - 2.0 * MARGIN);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{MARGIN}\" y=\"24\" font-size=\"14\">{}</text>\n",
        escape(title)
    );
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    for i in 0..=4 {
        let value = low + (high - low) * f64::from(i) / 4.0;
        let (right, y) = (WIDTH - MARGIN, y(value));
        line(format!("<path d=\"M{MARGIN} {y:.1}H{right}\" stroke=\"#ddd\"/>"));
        let left = MARGIN - 6.0;
        line(format!(
            "<text x=\"{left}\" y=\"{:.1}\" text-anchor=\"end\">{value:.2}</text>",
            y + 4.0
        ));
    }
    let below = HEIGHT - MARGIN + 18.0;
    line(format!("<text x=\"{MARGIN}\" y=\"{below}\">step 0</text>"));
    let right = WIDTH - MARGIN;
    line(format!("<text x=\"{right}\" y=\"{below}\" text-anchor=\"end\">{x_max}</text>"));
    for (index, one) in series.iter().enumerate() {
        let every = one.points.len().div_ceil(POINTS_MAX).max(1);
        let mut path = String::new();
        for (step, value) in one.points.iter().step_by(every).filter(|p| p.1.is_finite()) {
            let command = if path.is_empty() { 'M' } else { 'L' };
            write!(path, "{command}{:.1} {:.1}", x(*step), y(*value)).expect("text takes any text");
        }
        let colour = one.colour;
        line(format!(
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>"
        ));
        #[expect(clippy::cast_precision_loss, reason = "a few series")]
        let y = 24.0 + 16.0 * index as f64;
        let name = escape(&one.name);
        line(format!(
            "<text x=\"{right}\" y=\"{y}\" text-anchor=\"end\" fill=\"{colour}\">{name}</text>"
        ));
    }
    out.push_str("</svg>\n");
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
