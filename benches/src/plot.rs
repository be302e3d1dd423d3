//! Charts as SVG: a straight x axis, a logarithmic y axis, one line for each series.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::sink::Histogram;
use crate::statistics::median;
use crate::trial::Outcome;

const SIZE: (u32, u32) = (900, 520);
const FONT: (&str, u32) = ("sans-serif", 14);
/// Colours that stay apart for the colour-blind and on white (Okabe and Ito, "Color Universal
/// Design", 2008).
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
    RGBColor(120, 120, 120),
];
/// Trials whose rates differ by less than one part of so many are one point.
const RATES_APART: f64 = 25.0;
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
    /// Whether marks stand at whole numbers only.
    pub whole: bool,
    /// Whether the points themselves are shown.
    pub dots: bool,
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
            .caption(self.title, (FONT.0, 20))
            .margin(12)
            .x_label_area_size(52)
            .y_label_area_size(84)
            .build_cartesian_2d(x.clone(), y.log_scale())?;
        // The library leaves no gap wider than needed for so many marks.
        let marks = if self.whole {
            (x.end - x.start).ceil() as usize + 1
        } else {
            11
        };
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .x_labels(marks)
            .x_label_formatter(self.mark)
            .label_style(FONT)
            .axis_desc_style(FONT)
            .light_line_style(BLACK.mix(0.05))
            .draw()?;
        for (index, line) in series.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            if self.dots {
                let dot = |point: &(f64, f64)| Circle::new(*point, 3, colour.filled());
                chart.draw_series(line.points.iter().map(dot))?;
            }
            chart
                .draw_series(LineSeries::new(line.points.clone(), colour.stroke_width(2)))?
                .label(line.name.as_str())
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
                });
        }
        // Loss is small at the left, latency large at the right.
        let free = match self.whole {
            true => SeriesLabelPosition::LowerRight,
            false => SeriesLabelPosition::UpperLeft,
        };
        chart
            .configure_series_labels()
            .label_font(FONT)
            .position(free)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        area.present()?;
        Ok(())
    }
}

/// Loss against offered rate, a line for each name: medians of the trials of about one rate.
///
/// # Errors
/// There are no outcomes.
pub fn loss(title: &str, series: &[(String, Vec<&Outcome>)]) -> Result<String> {
    let line = |(name, outcomes): &(String, Vec<&Outcome>)| {
        let mut rates: BTreeMap<i64, Vec<&Outcome>> = BTreeMap::new();
        for outcome in outcomes.iter().filter(|outcome| outcome.offered > 0.0) {
            let place = (outcome.offered.ln() * RATES_APART).round() as i64;
            rates.entry(place).or_default().push(outcome);
        }
        Series {
            name: name.clone(),
            points: rates.values().map(|trials| point_of(trials)).collect(),
        }
    };
    let lines: Vec<Series> = series.iter().map(line).collect();
    Chart {
        title,
        x: "offered, million packets a second",
        y: "lost, percent; 0.0005 is none",
        mark: &|x| format!("{x:.2}"),
        whole: false,
        dots: true,
    }
    .draw(&lines)
}

/// Medians of trials of about one rate.
fn point_of(trials: &[&Outcome]) -> (f64, f64) {
    let of = |pick: &dyn Fn(&Outcome) -> f64| {
        let readings: Vec<f64> = trials.iter().map(|trial| pick(trial)).collect();
        median(&readings)
    };
    let loss = of(&|trial| trial.loss * 100.0);
    (of(&|trial| trial.offered / 1e6), loss.max(NO_LOSS_PERCENT))
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
        whole: true,
        dots: false,
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

    #[test]
    fn trials_of_about_one_rate_are_one_point() {
        let trial = |offered: f64, loss: f64| Outcome {
            offered,
            loss,
            ..Outcome::default()
        };
        let trials = [
            trial(1e6, 0.0),
            trial(1.002e6, 0.5),
            trial(0.998e6, 0.01),
            trial(2e6, 0.2),
        ];
        let (x, y) = point_of(&[&trials[0], &trials[1], &trials[2]]);
        assert!((x - 1.0).abs() < 1e-9 && (y - 1.0).abs() < 1e-9, "{x} {y}");
        assert_eq!(point_of(&[&trials[0]]).1, NO_LOSS_PERCENT);
        let svg = loss("Loss", &[("a".into(), trials.iter().collect())]).unwrap();
        assert_well_formed(&svg);
        assert_eq!(svg.matches("<circle").count(), 2);
    }
}
