//! Whether two workers write to memory that the processor moves between cores as one.

use std::ops::Range;

use sluice_dataplane::stats::PerWorker;

/// Bytes that processors fetch together: two lines of 64 (Intel 64 and IA-32 Architectures
/// Optimization Reference Manual, "spatial prefetcher").
const PAIR: usize = 128;

/// How many neighbouring workers have counters on a common pair of cache lines.
pub fn shared<T>(counters: &PerWorker<T>) -> usize {
    let spans = counters.iter().map(|own| {
        let start = std::ptr::from_ref(own).addr();
        start..start + size_of::<T>()
    });
    touching(&spans.collect::<Vec<_>>())
}

/// How many spans of addresses lie on a common pair of lines with the span before, which ends
/// before they start.
fn touching(spans: &[Range<usize>]) -> usize {
    let pairs = spans.windows(2);
    pairs
        .filter(|pair| pair[0].end.div_ceil(PAIR) > pair[1].start / PAIR)
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_dataplane::stats::{BackendCounters, WorkerCounters};

    #[test]
    fn spans_on_one_pair_of_lines_are_found() {
        assert_eq!(touching(&[0..128, 128..256]), 0);
        assert_eq!(touching(&[0..64, 64..128, 128..192]), 1);
        assert_eq!(touching(&[0..40, 40..80, 80..120]), 2);
        assert_eq!(touching(&[0..130, 256..300]), 0);
        assert_eq!(touching(&[0..130, 200..300]), 1);
    }

    #[test]
    fn no_two_workers_count_on_common_cache_lines() {
        let workers = PerWorker::<WorkerCounters>::new(16);
        let backends = PerWorker::<BackendCounters>::new(16);
        assert_eq!((shared(&workers), shared(&backends)), (0, 0));
        let starts = workers.iter().map(|own| std::ptr::from_ref(own).addr());
        assert!(starts.into_iter().all(|start| start % PAIR == 0));
    }
}
