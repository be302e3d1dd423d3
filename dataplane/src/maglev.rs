//! Maglev consistent hashing (Eisenbud et al., NSDI 2016, section 3.4), weighted.
//!
//! Guarantees: the table depends on the set of backends and their weights only, not on their
//! order; with equal weights the numbers of rows differ by at most one; the share of a backend is
//! its share of the weights, give or take one row and its share of one row for each backend. A
//! backend that comes back gets back its rows bit for bit. Live connections never look here: the
//! connection table wins over this one (section 3.3 of the paper).

mod fill;

use std::net::IpAddr;

use crate::flow::{mix, scale};

/// Fewest rows of a table.
const MIN_ROWS: usize = 251;

/// Most rows of a table, the paper's default. Memory of 10,000 Services would not allow more.
const MAX_ROWS: usize = 65_537;

/// Rows for each backend: keeps shares within 1 % of each other (paper, section 5.3).
const ROWS_PER_BACKEND: usize = 100;

/// A backend as Maglev sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// What a row holds when this backend owns it.
    pub index: u16,
    /// Address: with the port the stable identity that decides which rows it wants.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// Relative share, at least 1.
    pub weight: u16,
}

/// A filled lookup table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maglev {
    rows: Box<[u16]>,
}

impl Maglev {
    /// Fills a table for these backends; `None` when there are none.
    pub fn build(candidates: &[Candidate]) -> Option<Self> {
        Self::filled(candidates, rows_for(candidates.len()))
    }

    /// As [`Maglev::build`], with so many rows; `None`, too, when they are no prime.
    pub fn with_rows(candidates: &[Candidate], rows: usize) -> Option<Self> {
        is_prime(rows).then(|| Self::filled(candidates, rows))?
    }

    fn filled(candidates: &[Candidate], rows: usize) -> Option<Self> {
        // Turns are taken in the order of identities, whatever the order of the input.
        let mut sorted = candidates.to_vec();
        sorted.sort_by_key(|candidate| (candidate.address, candidate.port));
        let turns = sorted.iter().map(|candidate| Turn::of(candidate, rows));
        Self::by_turns(&turns.collect::<Vec<_>>(), rows)
    }

    /// Fills a table of so many rows for backends that take turns in this order; `None` when none
    /// of them has a weight, when the rows are no prime, or when a walk leaves them.
    pub fn of_turns(turns: &[Turn], rows: usize) -> Option<Self> {
        is_prime(rows).then(|| Self::by_turns(turns, rows))?
    }

    fn by_turns(turns: &[Turn], rows: usize) -> Option<Self> {
        let heaviest = turns.iter().map(|turn| turn.weight).max();
        let heaviest = heaviest.filter(|weight| *weight > 0)?;
        let count = u32::try_from(rows).ok().filter(|rows| *rows <= 1 << 31)?;
        let stays = |turn: &Turn| turn.offset < count && (1..count).contains(&turn.skip);
        turns.iter().all(stays).then(|| Self {
            rows: fill::fill(turns, heaviest, count),
        })
    }

    /// The backend's index for a hash of the flow.
    pub fn pick(&self, hash: u64) -> u16 {
        self.rows.get(self.row(hash)).copied().unwrap_or_default()
    }

    /// The row that a hash of the flow falls on.
    pub fn row(&self, hash: u64) -> usize {
        scale(hash, self.rows.len())
    }

    /// The whole table: for each row the index of its backend.
    pub fn rows(&self) -> &[u16] {
        &self.rows
    }
}

/// Number of rows for so many backends: the next prime of 100 for each, 251 to 65,537.
pub fn rows_for(backends: usize) -> usize {
    let wanted = backends.saturating_mul(ROWS_PER_BACKEND);
    if wanted >= MAX_ROWS {
        return MAX_ROWS;
    }
    (wanted.max(MIN_ROWS)..=MAX_ROWS)
        .find(|n| is_prime(*n))
        .unwrap_or(MAX_ROWS)
}

fn is_prime(n: usize) -> bool {
    let mut odd = (3..).step_by(2).take_while(|d| d * d <= n);
    n == 2 || n > 2 && !n.is_multiple_of(2) && odd.all(|d| !n.is_multiple_of(d))
}

/// One backend's walk through the rows that it prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    index: u16,
    weight: u32,
    offset: u32,
    skip: u32,
}

impl Turn {
    /// Row `j` of the walk is `(offset + j * skip) mod rows`.
    pub fn new(index: u16, weight: u16, (offset, skip): (usize, usize)) -> Self {
        Self {
            index,
            weight: u32::from(weight),
            // What does not fit is no row of any table.
            offset: u32::try_from(offset).unwrap_or(u32::MAX),
            skip: u32::try_from(skip).unwrap_or(u32::MAX),
        }
    }

    fn of(candidate: &Candidate, rows: usize) -> Self {
        let walk = permutation(candidate.address, candidate.port, rows);
        Self::new(candidate.index, candidate.weight, walk)
    }
}

/// Offset and skip of a backend's permutation of `rows` rows, a prime: row `j` of it is
/// `(offset + j * skip) mod rows`.
pub fn permutation(address: IpAddr, port: u16, rows: usize) -> (usize, usize) {
    let bits = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let folded = mix(
        bits as u64 ^ SEED,
        (bits >> 64) as u64 ^ u64::from(port).rotate_left(32) ^ !SEED,
    );
    let (first, second) = (mix(folded, SEED), mix(folded ^ SEED, !SEED));
    (scale(first, rows), scale(second, rows - 1) + 1)
}

/// Fixed, so that every gateway builds the same table (fractional part of the golden ratio).
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn backends(weights: &[u16]) -> Vec<Candidate> {
        let candidate = |(index, weight): (usize, &u16)| Candidate {
            index: index as u16,
            address: Ipv4Addr::from(0x0a00_0200 + index as u32).into(),
            port: 8080,
            weight: *weight,
        };
        weights.iter().enumerate().map(candidate).collect()
    }

    fn counts(table: &Maglev, backends: usize) -> Vec<usize> {
        let mut counts = vec![0; backends];
        for row in table.rows() {
            counts[usize::from(*row)] += 1;
        }
        counts
    }

    #[test]
    fn the_size_is_a_prime_of_at_least_100_rows_a_backend() {
        for (backends, rows) in [
            (1, 251),
            (2, 251),
            (3, 307),
            (10, 1009),
            (100, 10_007),
            (655, 65_519),
            (656, 65_537),
            (1000, 65_537),
        ] {
            assert_eq!(rows_for(backends), rows, "{backends} backends");
            assert!(is_prime(rows));
        }
    }

    #[test]
    fn equal_weights_differ_by_at_most_one_row() {
        for n in [1, 2, 3, 7, 10, 100, 1000] {
            let counts = counts(&Maglev::build(&backends(&vec![1; n])).unwrap(), n);
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 1, "{n} backends: {least}..{most}");
        }
    }

    #[test]
    fn no_backend_builds_no_table() {
        assert_eq!(Maglev::build(&[]), None);
    }

    #[test]
    fn rows_follow_weights() {
        let weights = [1, 2, 3, 4];
        let table = Maglev::build(&backends(&weights)).unwrap();
        let total: u16 = weights.iter().sum();
        for (count, weight) in counts(&table, 4).into_iter().zip(weights) {
            let exact = table.rows().len() as f64 * f64::from(weight) / f64::from(total);
            assert!((count as f64 - exact).abs() <= 2.0, "{count} for {exact}");
        }
    }

    #[test]
    fn one_failure_moves_few_rows_of_the_others() {
        // Reference (paper's algorithm, simulated): 10 of 65,537 rows 0.27 %, 10 of 1,021 rows
        // 2.25 %. Ours has 1,009 rows for 10 backends.
        let all = backends(&[1; 10]);
        let before = Maglev::build(&all).unwrap();
        let mut moved = 0;
        for gone in 0..10 {
            let left: Vec<_> = all.iter().copied().filter(|c| c.index != gone).collect();
            // Rows for 9 backends would be fewer: compare like with like.
            let rows = before.rows().len();
            let after = Maglev::with_rows(&left, rows).unwrap();
            let pairs = before.rows().iter().zip(after.rows());
            moved += pairs.filter(|(b, a)| **b != gone && b != a).count();
        }
        let share = moved as f64 / (10.0 * before.rows().len() as f64);
        assert!(share < 0.04, "{share}");
    }

    #[test]
    fn rows_that_are_no_prime_and_walks_that_leave_them_build_no_table() {
        assert_eq!(Maglev::with_rows(&backends(&[1, 1]), 250), None);
        for (rows, walk) in [(7, (7, 1)), (7, (0, 0)), (7, (0, 7)), (6, (0, 1))] {
            let turns = [Turn::new(0, 1, walk)];
            assert_eq!(Maglev::of_turns(&turns, rows), None, "{walk:?} of {rows}");
        }
        let weightless = &[Turn::new(0, 0, (0, 1))];
        assert_eq!(Maglev::of_turns(weightless, 7), None);
    }

    #[test]
    fn the_example_of_the_paper_comes_out_as_printed() {
        // Table 1 of section 3.4.
        let table = |walks: &[(u16, (usize, usize))]| {
            let turns: Vec<_> = walks
                .iter()
                .map(|(n, walk)| Turn::new(*n, 1, *walk))
                .collect();
            Maglev::of_turns(&turns, 7).unwrap().rows().to_vec()
        };
        let walks = [(0, (3, 4)), (1, (0, 2)), (2, (3, 1))];
        assert_eq!(table(&walks), [1, 0, 1, 0, 2, 2, 0]);
        assert_eq!(table(&[walks[0], walks[2]]), [0, 0, 0, 0, 2, 2, 2]);
    }

    /// The paper's loop as it is written there, with credits for weights.
    fn row_by_row(turns: &[Turn], count: u32) -> Vec<u16> {
        let heaviest = turns.iter().map(|turn| turn.weight).max().unwrap();
        let mut places: Vec<_> = turns.iter().map(|turn| (turn.offset, 0)).collect();
        let mut rows = vec![None; count as usize];
        let mut left = count;
        for (turn, place) in (0..turns.len()).cycle().map(|n| (&turns[n], n)) {
            let (row, credit) = &mut places[place];
            *credit += turn.weight;
            if *credit < heaviest {
                continue;
            }
            *credit -= heaviest;
            while rows[*row as usize].is_some() {
                *row = (*row + turn.skip) % count;
            }
            rows[*row as usize] = Some(turn.index);
            left -= 1;
            if left == 0 {
                break;
            }
        }
        rows.into_iter().flatten().collect()
    }

    /// Turns of the walks that these numbers name, and their weights.
    fn turns(walks: impl IntoIterator<Item = (u32, u32, u16)>, rows: u32) -> Vec<Turn> {
        let walks = (0..).zip(walks);
        let turn = |(index, (offset, skip, weight))| {
            let walk = ((offset % rows) as usize, (skip % (rows - 1) + 1) as usize);
            Turn::new(index, weight, walk)
        };
        walks.map(turn).collect()
    }

    #[test]
    fn large_tables_are_the_ones_that_are_filled_row_by_row() {
        for (backends, rows) in [(10, 65_537u32), (1000, 65_537), (300, 131_071)] {
            let number = |n: u64, seed| mix(n ^ SEED, seed) as u32;
            let walk = |n| {
                (
                    number(n, 1 << 40),
                    number(n, SEED),
                    number(n, !SEED) as u16 % 9,
                )
            };
            let turns = turns((0..backends).map(walk), rows);
            let table = Maglev::of_turns(&turns, rows as usize).unwrap();
            assert!(
                table.rows() == row_by_row(&turns, rows),
                "{backends} in {rows}"
            );
        }
    }

    #[test]
    fn no_version_of_sluice_builds_another_table() {
        // Gateways of different versions serve the same flows.
        for (weights, rows, expected) in [
            (vec![1; 10], 1009, 0xdf77_2833_07cc_55a5),
            ((1..=20).collect(), 2003, 0x6f23_6943_4659_9b8f),
            (vec![1; 1000], 65_537, 0xa8f3_68f3_e83e_e69c),
        ] {
            let table = Maglev::build(&backends(&weights)).unwrap();
            assert_eq!(table.rows().len(), rows);
            let hash = |hash, row: &u16| mix(hash ^ u64::from(*row), SEED);
            let seen = table.rows().iter().fold(SEED, hash);
            assert_eq!(seen, expected, "{rows} rows");
        }
    }

    proptest! {
        #[test]
        fn tables_are_the_ones_that_are_filled_row_by_row(
            rows in proptest::sample::select(vec![2u32, 3, 5, 7, 11, 67, 251, 307, 1009, 10_007]),
            walks in proptest::collection::vec((any::<u32>(), any::<u32>(), 0u16..20), 1..40),
        ) {
            let turns = turns(walks, rows);
            let table = Maglev::of_turns(&turns, rows as usize);
            prop_assert_eq!(table.is_none(), turns.iter().all(|turn| turn.weight == 0));
            if let Some(table) = table {
                prop_assert_eq!(table.rows(), row_by_row(&turns, rows));
            }
        }

        #[test]
        fn the_order_of_backends_does_not_matter(
            weights in proptest::collection::vec(1u16..=20, 1..20),
            seed in any::<u64>(),
        ) {
            let sorted = backends(&weights);
            let mut shuffled = sorted.clone();
            shuffled.sort_by_key(|c| mix(u64::from(c.index) ^ seed, SEED));
            prop_assert_eq!(Maglev::build(&sorted), Maglev::build(&shuffled));
        }

        #[test]
        fn every_row_belongs_to_a_backend_and_every_backend_has_its_share(
            weights in proptest::collection::vec(1u16..=50, 1..12),
        ) {
            let table = Maglev::build(&backends(&weights)).unwrap();
            let counts = counts(&table, weights.len());
            let total: u32 = weights.iter().map(|w| u32::from(*w)).sum();
            for (count, weight) in counts.iter().zip(&weights) {
                // What the others lack to a whole turn goes to everybody by weight.
                let share = f64::from(*weight) / f64::from(total);
                let exact = table.rows().len() as f64 * share;
                let slack = weights.len() as f64 * share + 1.0;
                prop_assert!((*count as f64 - exact).abs() <= slack, "{} for {}", count, exact);
            }
        }
    }
}
