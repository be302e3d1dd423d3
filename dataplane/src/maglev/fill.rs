//! Fills a table: each backend in its turn takes the first free row of its walk (paper, section
//! 3.4).
//!
//! The paper looks at a walk row by row, and where it ends nobody can predict. Here a walk is
//! looked at some rows ahead, all at once. That is never wrong: a taken row stays taken, and
//! whether a free one still is free is looked up again when it is claimed. The fewer rows are left,
//! the longer a walk is to the next of them (the last one may need all rows): so in the end the way
//! is calculated.

use super::Turn;

/// Rows of a walk that are looked at together.
const AHEAD: usize = 8;

/// Fills a table of so many rows, a prime up to 2^31. `heaviest` is the most of the weights and not
/// 0; every walk stays within the rows.
pub(super) fn fill(turns: &[Turn], heaviest: u32, count: u32) -> Box<[u16]> {
    let mut rows = vec![0; count as usize].into_boxed_slice();
    let mut free = Free::all(count);
    let mut walks: Vec<Walk> = turns.iter().map(|turn| Walk::new(turn, count)).collect();
    let mut order = Order {
        walks: &mut walks,
        heaviest,
        next: 0,
    };
    // About where looking at rows takes as long as calculating ways.
    let few = count.isqrt();
    for _ in few..count {
        let walk = order.next();
        let row = walk.claim(&free, count);
        free.take(row);
        rows[row as usize] = walk.index;
    }
    let mut left = free.rows(count);
    while !left.is_empty() {
        let walk = order.next();
        let row = left.swap_remove(walk.nearest(&left, count));
        rows[row as usize] = walk.index;
    }
    rows
}

/// Backends in the order in which they take turns; in a round a backend earns its weight and pays
/// the heaviest weight for each row, so that rows follow weights without ever holding a table a
/// weight unit wide.
struct Order<'a> {
    walks: &'a mut [Walk],
    /// Not 0, so that in every round somebody can pay.
    heaviest: u32,
    next: usize,
}

impl Order<'_> {
    /// The next backend that can pay for a row.
    #[inline]
    fn next(&mut self) -> &mut Walk {
        loop {
            let place = self.next;
            let after = place + 1;
            self.next = if after == self.walks.len() { 0 } else { after };
            let walk = &mut self.walks[place];
            walk.credit += walk.weight;
            if walk.credit >= self.heaviest {
                walk.credit -= self.heaviest;
                return &mut self.walks[place];
            }
        }
    }
}

/// How far one backend has come on its walk.
struct Walk {
    /// The rows that were free when they were looked at, in the order of the walk.
    found: [u32; AHEAD],
    /// The rows of the walk to look at next.
    ahead: [u32; AHEAD],
    /// What in `found` is not claimed yet begins here and ends there.
    next: u8,
    end: u8,
    index: u16,
    weight: u32,
    credit: u32,
    offset: u32,
    skip: u32,
    /// As many skips as rows are looked at together.
    stride: u32,
    /// How many skips lead to the next row of the table, where 2^64 is once through all rows; 0 until
    /// it is needed.
    away: u64,
}

impl Walk {
    fn new(turn: &Turn, count: u32) -> Self {
        let mut stride = 0;
        let ahead = [(); AHEAD].map(|()| {
            let row = step(turn.offset, stride, count);
            stride = step(stride, turn.skip, count);
            row
        });
        Self {
            found: [0; AHEAD],
            ahead,
            next: 0,
            end: 0,
            index: turn.index,
            weight: turn.weight,
            credit: 0,
            offset: turn.offset,
            skip: turn.skip,
            stride,
            away: 0,
        }
    }

    /// The next free row; there is one.
    #[inline]
    fn claim(&mut self, free: &Free, count: u32) -> u32 {
        loop {
            while self.next < self.end {
                let row = self.found[usize::from(self.next) % AHEAD];
                self.next += 1;
                if free.has(row) {
                    return row;
                }
            }
            self.look_ahead(free, count);
        }
    }

    /// Looks until there is a free row. Branches on no row alone: what is not free is written over.
    ///
    /// Apart from its caller, whose registers it would take.
    #[inline(never)]
    fn look_ahead(&mut self, free: &Free, count: u32) {
        let (mut ahead, stride) = (self.ahead, self.stride);
        let mut end = 0;
        while end == 0 {
            let rows = ahead;
            ahead = rows.map(|row| step(row, stride, count));
            for row in rows {
                self.found[end % AHEAD] = row;
                end += usize::from(free.has(row));
            }
        }
        self.ahead = ahead;
        (self.next, self.end) = (0, end as u8);
    }

    /// The first row of the walk among those that are left: its place in `left`.
    fn nearest(&mut self, left: &[u32], count: u32) -> usize {
        if self.away == 0 {
            let inverse = u128::from(inverse(self.skip, count));
            self.away = ((inverse << 64) / u128::from(count)) as u64;
        }
        // Whole rounds of the table overflow. What rounding leaves out, less than one for each row,
        // is less than a skip, which is 2^64 divided by the rows.
        let start = u64::from(self.offset).wrapping_mul(self.away);
        let distance = |row: u32| {
            let end = u64::from(row).wrapping_mul(self.away);
            end.wrapping_sub(start)
        };
        let nearest = left.iter().zip(0..).min_by_key(|(row, _)| distance(**row));
        nearest.map_or(0, |(_, place)| place)
    }
}

/// `by` rows behind `row`, both less than `count`.
fn step(row: u32, by: u32, count: u32) -> u32 {
    let sum = row + by;
    // The difference wraps to more than the sum while there is nothing to take off.
    sum.min(sum.wrapping_sub(count))
}

/// What `number`, not 0, is multiplied with to make 1 modulo a prime (extended Euclid).
fn inverse(number: u32, prime: u32) -> u32 {
    let (mut before, mut rest) = (prime, number);
    let (mut last, mut factor) = (0i64, 1i64);
    while rest != 0 {
        let quotient = before / rest;
        (before, rest) = (rest, before - quotient * rest);
        (last, factor) = (factor, last - i64::from(quotient) * factor);
    }
    last.rem_euclid(i64::from(prime)) as u32
}

/// Which rows are free, one bit each: 8 KB for the largest table, so it stays in the L1 cache.
struct Free(Vec<u64>);

impl Free {
    fn all(count: u32) -> Self {
        Self(vec![u64::MAX; count.div_ceil(u64::BITS) as usize])
    }

    #[inline]
    fn has(&self, row: u32) -> bool {
        self.0[(row / u64::BITS) as usize] >> (row % u64::BITS) & 1 == 1
    }

    #[inline]
    fn take(&mut self, row: u32) {
        self.0[(row / u64::BITS) as usize] &= !(1 << (row % u64::BITS));
    }

    /// All free rows of so many.
    fn rows(&self, count: u32) -> Vec<u32> {
        let mut rows = Vec::new();
        for (word, first) in self.0.iter().zip((0..count).step_by(u64::BITS as usize)) {
            let mut bits = *word;
            while bits != 0 {
                rows.push(first + bits.trailing_zeros());
                bits &= bits - 1;
            }
        }
        rows.retain(|row| *row < count);
        rows
    }
}
