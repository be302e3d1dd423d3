//! How many answers of our own leave in a second: a token bucket.

use crate::clock::Time;

/// A bucket that holds one second's tokens at most.
#[derive(Debug, Clone, Copy)]
pub struct TokenBucket {
    per_second: u64,
    /// Tokens, in billionths.
    level: u64,
    filled: Time,
}

const WHOLE: u64 = 1_000_000_000;

impl TokenBucket {
    /// A full bucket; `per_second` is at most 10 million.
    pub fn new(per_second: u32, now: Time) -> Self {
        let per_second = u64::from(per_second);
        Self {
            per_second,
            level: per_second * WHOLE,
            filled: now,
        }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Time) -> bool {
        let passed = now.0.saturating_sub(self.filled.0).min(WHOLE);
        self.level = (self.level + passed * self.per_second).min(self.per_second * WHOLE);
        self.filled = now;
        let some = self.level >= WHOLE;
        if some {
            self.level -= WHOLE;
        }
        some
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_gives_as_many_tokens_as_the_limit_and_no_more() {
        let mut bucket = TokenBucket::new(10, Time(0));
        assert_eq!((0..100).filter(|_| bucket.take(Time(0))).count(), 10);
        assert_eq!((0..100).filter(|_| bucket.take(Time(WHOLE / 2))).count(), 5);
        assert_eq!(
            (0..100).filter(|_| bucket.take(Time(WHOLE * 60))).count(),
            10
        );
    }
}
