//! Latencies in buckets: 32 for every power of two, so that each is at most 3.2 % wide.

use serde::{Deserialize, Serialize};

/// `SUB_BITS` of sink.h.
const SUB_BITS: u32 = 5;
/// Buckets for every 64-bit number.
pub const BUCKETS: usize = 1920;

/// How many values fell into each bucket. In files, pairs of bucket and count: most have none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(usize, u64)>", into = "Vec<(usize, u64)>")]
pub struct Histogram {
    buckets: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: vec![0; BUCKETS],
        }
    }
}

impl From<Vec<(usize, u64)>> for Histogram {
    fn from(pairs: Vec<(usize, u64)>) -> Self {
        let mut histogram = Self::default();
        for (bucket, count) in pairs {
            histogram.add(bucket, count);
        }
        histogram
    }
}

impl From<Histogram> for Vec<(usize, u64)> {
    fn from(histogram: Histogram) -> Self {
        let counted = histogram.buckets.into_iter().enumerate();
        counted.filter(|(_, count)| *count > 0).collect()
    }
}

/// The bucket of a value.
pub fn bucket_of(value: u64) -> usize {
    let Some(octave) = (value >> SUB_BITS).checked_ilog2() else {
        return value as usize;
    };
    let within = (value >> octave) as usize & ((1 << SUB_BITS) - 1);
    ((octave as usize + 1) << SUB_BITS) + within
}

/// Smallest value of a bucket.
pub fn lower_bound(bucket: usize) -> u64 {
    let (octave, within) = (bucket >> SUB_BITS, bucket as u64 & ((1 << SUB_BITS) - 1));
    match octave {
        0 => within,
        _ => (within | 1 << SUB_BITS) << (octave - 1),
    }
}

/// Largest value of a bucket.
pub fn upper_bound(bucket: usize) -> u64 {
    if bucket + 1 < BUCKETS {
        lower_bound(bucket + 1) - 1
    } else {
        u64::MAX
    }
}

impl Histogram {
    /// Counts one value.
    pub fn record(&mut self, value: u64) {
        self.add(bucket_of(value), 1);
    }

    /// Adds `count` to a bucket.
    pub fn add(&mut self, bucket: usize, count: u64) {
        if let Some(place) = self.buckets.get_mut(bucket) {
            *place += count;
        }
    }

    /// Values counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The value that `share` of all values do not exceed: the upper bound of its bucket, so never
    /// too small and at most 3.2 % too large. None without values.
    pub fn percentile(&self, share: f64) -> Option<u64> {
        let total = self.count();
        let wanted = ((total as f64 * share).ceil() as u64).clamp(1, total.max(1));
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Some(upper_bound(bucket));
            }
        }
        None
    }

    /// Buckets with values: upper bound and values up to it, in order.
    pub fn cumulative(&self) -> Vec<(u64, u64)> {
        let mut seen = 0;
        let mut steps = Vec::new();
        for (bucket, count) in self
            .buckets
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
        {
            seen += count;
            steps.push((upper_bound(bucket), seen));
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_value_lies_within_its_bucket(value in any::<u64>(), shift in 0u32..64) {
            let value = value >> shift;
            let bucket = bucket_of(value);
            prop_assert!(bucket < BUCKETS);
            prop_assert!(lower_bound(bucket) <= value && value <= upper_bound(bucket));
        }

        #[test]
        fn percentiles_are_never_too_small_and_hardly_too_large(
            mut values in proptest::collection::vec(0u64..1 << 40, 1..300), share in 0.01f64..1.0,
        ) {
            let mut histogram = Histogram::default();
            for value in &values {
                histogram.record(*value);
            }
            values.sort_unstable();
            let rank = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len());
            let exact = values[rank - 1];
            let written = serde_json::to_string(&histogram).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Histogram>(&written).unwrap(), &histogram);
            let told = histogram.percentile(share).unwrap();
            prop_assert!(told >= exact && told <= exact + exact / 32, "{told} for {exact}");
        }
    }

    #[test]
    fn buckets_follow_one_another_without_a_gap() {
        assert_eq!(lower_bound(0), 0);
        assert_eq!(upper_bound(BUCKETS - 1), u64::MAX);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        for bucket in 1..BUCKETS {
            assert_eq!(lower_bound(bucket), upper_bound(bucket - 1) + 1);
            let width = upper_bound(bucket) - lower_bound(bucket);
            assert!(width <= lower_bound(bucket) / 32 || bucket < 64, "{bucket}");
        }
    }

    #[test]
    fn without_values_there_is_no_percentile() {
        let empty = Histogram::default();
        assert_eq!(empty.percentile(0.5), None);
        assert!(empty.cumulative().is_empty());
    }

    #[test]
    fn the_last_percentile_is_the_largest_value() {
        let mut histogram = Histogram::default();
        for _ in 0..999 {
            histogram.record(5);
        }
        histogram.record(1 << 30);
        assert_eq!(histogram.percentile(0.5), Some(5));
        assert_eq!(histogram.percentile(0.999), Some(5));
        assert_eq!(
            histogram.percentile(1.0),
            Some(upper_bound(bucket_of(1 << 30)))
        );
        assert_eq!(histogram.cumulative().last().unwrap().1, 1000);
    }
}
