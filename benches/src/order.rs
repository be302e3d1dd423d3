//! In which order packets come from connections: evenly, or from few of them most of the time.

use std::sync::Arc;

use sluice_dataplane::flow::FiveTuple;

use crate::harness::BATCH;
use crate::traffic::permute;

/// Packets of a Zipf order before it begins anew.
const LISTED: u32 = 1 << 20;

/// Packets that may go before a reading.
const WARM_UP: usize = 1 << 18;

/// Ranks by Zipf's law: rank `n`, from 0, as often as `1 / (n + 1)` to the power of the exponent
/// says.
#[derive(Debug)]
pub struct Zipf {
    /// Share of all ranks up to this one, not divided by the last one.
    cumulative: Vec<f64>,
}

impl Zipf {
    /// The law for so many ranks, at least one.
    pub fn new(ranks: usize, exponent: f64) -> Self {
        let share = |rank: usize| (rank as f64 + 1.0).powf(-exponent);
        let cumulative = (0..ranks.max(1)).scan(0.0, |sum, rank| {
            *sum += share(rank);
            Some(*sum)
        });
        Self {
            cumulative: cumulative.collect(),
        }
    }

    /// The rank at `place`, from 0 up to 1, of all packets in the order of their ranks.
    pub fn rank(&self, place: f64) -> usize {
        let all = self.cumulative.last().copied().unwrap_or_default();
        let rank = self.cumulative.partition_point(|sum| *sum <= place * all);
        rank.min(self.cumulative.len() - 1)
    }
}

/// Tuples to walk through for ever, a batch at a time.
#[derive(Debug)]
pub struct Walk<A> {
    tuples: Arc<[FiveTuple<A>]>,
    /// Which tuple follows on which; `None` is one after the other.
    order: Option<Vec<u32>>,
    place: usize,
}

impl<A> Walk<A> {
    /// Each tuple as often as any other, round and round.
    pub fn evenly(tuples: Arc<[FiveTuple<A>]>) -> Self {
        Self {
            tuples,
            order: None,
            place: 0,
        }
    }

    /// By Zipf's law, the first tuple most often. Neighbours in the order are independent of each
    /// other.
    pub fn zipf(tuples: Arc<[FiveTuple<A>]>, exponent: f64) -> Self {
        let law = Zipf::new(tuples.len(), exponent);
        let place = |packet| f64::from(permute(packet)) / 4_294_967_296.0;
        let order = (0..LISTED).map(|packet| law.rank(place(packet)) as u32);
        Self {
            order: Some(order.collect()),
            tuples,
            place: 0,
        }
    }

    /// Packets until the order begins anew.
    pub fn len(&self) -> usize {
        self.order.as_ref().map_or(self.tuples.len(), Vec::len)
    }

    /// Whether there is nothing to walk through.
    pub fn is_empty(&self) -> bool {
        self.tuples.is_empty()
    }

    /// Batches that should go before a reading, so that the caches hold what they would hold if
    /// nothing else had been measured in between: once round, or a few when that is so far that
    /// the caches hold none of it at the end.
    pub fn warm_up(&self) -> usize {
        let all = self.len().div_ceil(BATCH);
        if self.len() > WARM_UP {
            all.min(WARM_UP / BATCH / 16)
        } else {
            all
        }
    }

    /// The next [`BATCH`] tuples; the first follows on the last.
    pub fn step(&mut self) -> impl Iterator<Item = &FiveTuple<A>> {
        let (from, len) = (self.place, self.len());
        self.place = (from + BATCH) % len.max(1);
        let count = if self.is_empty() { 0 } else { BATCH };
        let walk = &*self;
        (from..from + count).map(move |step| walk.at(step % len))
    }

    fn at(&self, place: usize) -> &FiveTuple<A> {
        match &self.order {
            Some(order) => &self.tuples[order[place] as usize],
            None => &self.tuples[place],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::connection;
    use std::collections::HashMap;
    use std::net::Ipv4Addr;

    fn tuples(count: u32) -> Arc<[FiveTuple<Ipv4Addr>]> {
        (0..count).map(connection).collect()
    }

    #[test]
    fn an_even_walk_comes_to_each_tuple_equally_often() {
        let mut walk = Walk::evenly(tuples(100));
        let mut counts: HashMap<_, u32> = HashMap::new();
        for _ in 0..100 {
            for tuple in walk.step() {
                *counts.entry(*tuple).or_default() += 1;
            }
        }
        assert_eq!(counts.len(), 100);
        assert!(counts.values().all(|count| *count == BATCH as u32));
    }

    #[test]
    fn ranks_are_as_frequent_as_the_law_says() {
        let (ranks, draws) = (1000, 1_000_000u32);
        let law = Zipf::new(ranks, 1.1);
        let mut counts = vec![0u32; ranks];
        for draw in 0..draws {
            counts[law.rank((f64::from(draw) + 0.5) / f64::from(draws))] += 1;
        }
        let all: f64 = (1..=ranks).map(|n| (n as f64).powf(-1.1)).sum();
        for (rank, count) in counts.iter().enumerate() {
            let expected = f64::from(draws) * (rank as f64 + 1.0).powf(-1.1) / all;
            assert!(
                (f64::from(*count) - expected).abs() <= 1.0,
                "rank {rank}: {count} of {expected}"
            );
        }
    }

    #[test]
    fn the_ends_of_the_unit_interval_have_ranks() {
        let law = Zipf::new(10, 1.1);
        assert_eq!(law.rank(0.0), 0);
        assert_eq!(law.rank(1.0), 9);
        assert_eq!(Zipf::new(0, 1.1).rank(0.5), 0);
    }

    #[test]
    fn a_zipf_walk_prefers_the_first_tuple_and_reaches_far() {
        let tuples = tuples(100_000);
        let mut walk = Walk::zipf(Arc::clone(&tuples), 1.1);
        let mut counts: HashMap<_, u32> = HashMap::new();
        for _ in 0..400 {
            for tuple in walk.step() {
                *counts.entry(*tuple).or_default() += 1;
            }
        }
        let first = counts[&tuples[0]];
        assert_eq!(counts.values().max(), Some(&first));
        // One in 7.6 of all packets: the sum of 1/n^1.1 up to 100,000 is 7.4.
        let share = f64::from(first) / (400 * BATCH) as f64;
        assert!((0.12..0.15).contains(&share), "{share}");
        assert!(counts.len() > 10_000, "{} tuples", counts.len());
    }

    #[test]
    fn an_empty_walk_has_no_steps() {
        let mut walk = Walk::evenly(tuples(0));
        assert_eq!(walk.step().count(), 0);
    }
}
