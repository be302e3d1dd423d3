//! What many readings of one figure say: median and spread.
//!
//! Readings of a shared machine have no normal distribution: neighbours only ever make them larger,
//! some by far. So there is no mean and no deviation here.

use serde::Serialize;

/// Five numbers of a figure's readings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// A quarter is below it.
    pub q1: f64,
    /// A quarter is above it.
    pub q3: f64,
    /// The largest.
    pub max: f64,
    /// How many readings there were.
    pub readings: usize,
}

impl Summary {
    /// Of these readings; `None` when there are none.
    pub fn of(readings: &[f64]) -> Option<Self> {
        let sorted = sorted(readings);
        Some(Self {
            median: quantile(&sorted, 0.5)?,
            min: quantile(&sorted, 0.0)?,
            q1: quantile(&sorted, 0.25)?,
            q3: quantile(&sorted, 0.75)?,
            max: quantile(&sorted, 1.0)?,
            readings: sorted.len(),
        })
    }

    /// The same in another unit, by a function that never turns round between two readings. One
    /// that falls makes the smallest the largest.
    #[must_use]
    pub fn map(self, convert: impl Fn(f64) -> f64) -> Self {
        let (low, high) = (convert(self.min), convert(self.max));
        let (below, above) = (convert(self.q1), convert(self.q3));
        Self {
            median: convert(self.median),
            min: low.min(high),
            q1: below.min(above),
            q3: below.max(above),
            max: low.max(high),
            readings: self.readings,
        }
    }
}

/// The readings in ascending order.
pub fn sorted(readings: &[f64]) -> Vec<f64> {
    let mut sorted = readings.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The value that the share `q` of ascending readings stays below, between two readings in
/// proportion (definition 7 of Hyndman and Fan, "Sample Quantiles in Statistical Packages"); `None`
/// without readings.
pub fn quantile(ascending: &[f64], q: f64) -> Option<f64> {
    let place = q.clamp(0.0, 1.0) * ascending.len().checked_sub(1)? as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    let (low, high) = (ascending.get(below)?, ascending.get(above)?);
    Some(low + (high - low) * place.fract())
}

/// The middle one; not a number without readings.
pub fn median(readings: &[f64]) -> f64 {
    quantile(&sorted(readings), 0.5).unwrap_or(f64::NAN)
}

/// Rise of the line through points by least squares; `None` when they have no two different
/// abscissas.
pub fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let across: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let up: f64 = points
        .iter()
        .map(|(x, y)| (x - mean_x) * (y - mean_y))
        .sum();
    (across > 0.0).then(|| up / across)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_of_an_odd_number_has_its_middle_and_its_quarters() {
        let summary = Summary::of(&[5.0, 1.0, 4.0, 2.0, 3.0]).unwrap();
        let expected = Summary {
            median: 3.0,
            min: 1.0,
            q1: 2.0,
            q3: 4.0,
            max: 5.0,
            readings: 5,
        };
        assert_eq!(summary, expected);
    }

    #[test]
    fn between_two_readings_a_quantile_lies_in_proportion() {
        assert_eq!(quantile(&[10.0, 20.0], 0.5), Some(15.0));
        assert_eq!(quantile(&[10.0, 20.0, 40.0, 80.0], 0.9), Some(68.0));
        assert_eq!(quantile(&[7.0], 0.99), Some(7.0));
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn one_outlier_moves_the_largest_and_nothing_else() {
        let calm = Summary::of(&[1.0, 1.0, 1.0, 1.0, 1.0]).unwrap();
        let noisy = Summary::of(&[1.0, 900.0, 1.0, 1.0, 1.0]).unwrap();
        assert_eq!(noisy.max, 900.0);
        assert_eq!(Summary { max: 1.0, ..noisy }, calm);
    }

    #[test]
    fn a_unit_that_falls_turns_the_order_round() {
        let summary = Summary::of(&[1.0, 2.0, 4.0]).unwrap();
        let rate = summary.map(|nanoseconds| 1000.0 / nanoseconds);
        assert_eq!((rate.min, rate.median, rate.max), (250.0, 500.0, 1000.0));
        assert!(rate.q1 < rate.q3);
    }

    #[test]
    fn a_line_is_found_through_points_beside_it() {
        assert_eq!(slope(&[(1.0, 3.0), (2.0, 5.0), (3.0, 7.0)]), Some(2.0));
        assert_eq!(
            slope(&[(0.0, 1.0), (0.0, -1.0), (2.0, 5.0), (2.0, 3.0)]),
            Some(2.0)
        );
        assert_eq!(slope(&[(1.0, 3.0), (1.0, 5.0)]), None);
        assert_eq!(slope(&[]), None);
    }
}
