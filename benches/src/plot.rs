//! Charts as SVG: a straight x axis, a logarithmic y axis, one line for each series.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::sink::Histogram;
use crate::trial::Outcome;

const SIZE: (u32, u32) = (900, 520);
/// Losses below this are drawn here: a logarithmic axis knows no zero.
const NO_LOSS_PERCENT: f64 = 0.0005;

/// One line.
#[derive(Debug, Clone)]
pub struct Series {
    /// What it is of.
    pub name: String,
    /// Its points; y above zero.
    pub points: Vec<(f64, f64)>,
}

/// What stands around the lines.
pub struct Chart<'a> {
    /// Title.
    pub title: &'a str,
    /// What x is.
    pub x: &'a str,
    /// What y is.
    pub y: &'a str,
    /// How a mark on the x axis is written.
    pub mark: &'a dyn Fn(&f64) -> String,
}

impl Chart<'_> {
    /// Draws the lines.
    ///
    /// # Errors
    /// There is no point in any of them.
    pub fn draw(&self, series: &[Series]) -> Result<String> {
        let points = || series.iter().flat_map(|line| line.points.iter().copied());
        let span = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::MAX, f64::MIN), |(least, most), value| {
                (least.min(value), most.max(value))
            })
        };
        let (left, right) = span(&mut points().map(|(x, _)| x));
        let (low, high) = span(&mut points().map(|(_, y)| y));
        if left > right {
            return Err(anyhow!("{}: nothing to draw", self.title));
        }
        let x = left..(right + (right - left).max(1e-6) * 0.02);
        let y = low * 0.8..high * 1.3;
        let mut text = String::new();
        self.draw_on(&mut text, series, x, y)
            .map_err(|error| anyhow!("{}: {error}", self.title))?;
        Ok(text)
    }

    fn draw_on(
        &self,
        text: &mut String,
        series: &[Series],
        x: std::ops::Range<f64>,
        y: std::ops::Range<f64>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(72)
            .build_cartesian_2d(x, y.log_scale())?;
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .x_label_formatter(self.mark)
            .light_line_style(BLACK.mix(0.05))
            .draw()?;
        for (index, line) in series.iter().enumerate() {
            let colour = Palette99::pick(index).to_rgba();
            chart
                .draw_series(LineSeries::new(line.points.clone(), colour.stroke_width(2)))?
                .label(line.name.as_str())
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
                });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        area.present()?;
        Ok(())
    }
}

/// Loss against offered rate, a line for each name.
///
/// # Errors
/// There are no outcomes.
pub fn loss(title: &str, series: &[(String, Vec<&Outcome>)]) -> Result<String> {
    let line = |(name, outcomes): &(String, Vec<&Outcome>)| {
        let mut points: Vec<(f64, f64)> = outcomes
            .iter()
            .map(|outcome| {
                (
                    outcome.offered / 1e6,
                    (outcome.loss * 100.0).max(NO_LOSS_PERCENT),
                )
            })
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Series {
            name: name.clone(),
            points,
        }
    };
    let lines: Vec<Series> = series.iter().map(line).collect();
    Chart {
        title,
        x: "offered, million packets a second",
        y: "lost, percent",
        mark: &|x| format!("{x:.2}"),
    }
    .draw(&lines)
}

/// Latency against percentile, a line for each histogram.
///
/// # Errors
/// All histograms are empty.
pub fn latency(title: &str, series: &[(String, &Histogram)]) -> Result<String> {
    let line = |(name, histogram): &(String, &Histogram)| {
        let total = histogram.count().max(1) as f64;
        let point = |(bound, seen): (u64, u64)| {
            // Half a value stands for the share above the last one.
            let above = (total - seen as f64).max(0.5) / total;
            (-above.log10(), (bound as f64 / 1e3).max(0.001))
        };
        Series {
            name: name.clone(),
            points: histogram.cumulative().into_iter().map(point).collect(),
        }
    };
    let lines: Vec<Series> = series.iter().map(line).collect();
    Chart {
        title,
        x: "percentile",
        y: "latency, microseconds",
        mark: &|nines| {
            format!("{:.6}", 100.0 - 100.0 * 10f64.powf(-nines))
                .trim_end_matches('0')
                .trim_end_matches('.')
                .to_owned()
        },
    }
    .draw(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every element that is opened is closed, in order.
    fn assert_well_formed(svg: &str) {
        assert!(svg.trim_start().starts_with("<svg"));
        let mut open = Vec::new();
        for part in svg.split('<').skip(1) {
            let (tag, _) = part.split_once('>').expect("a tag without an end");
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "{tag}");
            } else if !tag.ends_with('/') && !tag.starts_with(['!', '?']) {
                open.push(tag.split_whitespace().next().unwrap());
            }
        }
        assert!(open.is_empty(), "{open:?} stay open");
    }

    #[test]
    fn a_chart_is_well_formed_and_names_what_it_shows() {
        let mut histogram = Histogram::default();
        for value in 1..10_000u64 {
            histogram.record(value * 10);
        }
        let svg = latency("Latency", &[("Sluice & <friends>".into(), &histogram)]).unwrap();
        assert_well_formed(&svg);
        for text in [
            "Latency",
            "percentile",
            "Sluice &amp; &lt;friends&gt;",
            "<polyline",
        ] {
            assert!(svg.contains(text), "{text}");
        }
    }

    #[test]
    fn a_single_point_is_drawn_and_none_is_refused() {
        let mut histogram = Histogram::default();
        histogram.record(5);
        assert_well_formed(&latency("One", &[("a".into(), &histogram)]).unwrap());
        let empty = Histogram::default();
        assert!(latency("None", &[("a".into(), &empty)]).is_err());
    }
}
