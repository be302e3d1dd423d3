//! How many answers a network gets in a second by UDP, so that nobody floods a victim whose address
//! stands forged in questions.
//!
//! Guarantees: memory is fixed. Networks may share an allowance, as their places in a table say that
//! a random key mixes; nobody gets more than the own one. What is over it is dropped, but each second
//! time a short answer sends the client to TCP, where no address can be forged.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::Duration;

/// Networks that are told apart.
const PLACES: usize = 1 << 14;
/// Prefixes that are one network (BIND's defaults for response rate limiting).
const V4_PREFIX: u32 = 24;
const V6_PREFIX: u32 = 56;

/// What becomes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is sent.
    Send,
    /// A short one is sent that names no record.
    Shorten,
    /// None is sent.
    Drop,
}

/// Allowances.
#[derive(Debug)]
pub struct Limit {
    per_second: u32,
    key: RandomState,
    places: Vec<Allowance>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Allowance {
    /// The second that it is for.
    second: u64,
    sent: u32,
    over: u32,
}

impl Limit {
    /// So many answers for each network in each second.
    pub fn new(per_second: u32) -> Self {
        Self {
            per_second,
            key: RandomState::new(),
            places: vec![Allowance::default(); PLACES],
        }
    }

    /// Whether an answer goes to a client.
    pub fn judge(&mut self, client: IpAddr, now: Duration) -> Verdict {
        let place = self.key.hash_one(network(client)) as usize % PLACES;
        let Some(allowance) = self.places.get_mut(place) else {
            return Verdict::Send;
        };
        if allowance.second != now.as_secs() {
            *allowance = Allowance {
                second: now.as_secs(),
                ..Allowance::default()
            };
        }
        if allowance.sent < self.per_second {
            allowance.sent += 1;
            return Verdict::Send;
        }
        allowance.over = allowance.over.wrapping_add(1);
        match allowance.over % 2 {
            0 => Verdict::Shorten,
            _ => Verdict::Drop,
        }
    }
}

/// The network that a client is of, as a number.
fn network(client: IpAddr) -> u128 {
    match client {
        IpAddr::V4(address) => u128::from(address.to_bits() >> (32 - V4_PREFIX)),
        IpAddr::V6(address) => address.to_bits() >> (128 - V6_PREFIX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_gets_its_allowance_each_second_and_then_every_other_a_short_answer() {
        let mut limit = Limit::new(2);
        let mut judge = |client: &str, second: u64| {
            limit.judge(client.parse().unwrap(), Duration::from_secs(second))
        };
        use Verdict::{Drop, Send, Shorten};
        let verdicts: Vec<Verdict> = (1..=5)
            .map(|host| judge(&format!("192.0.2.{host}"), 7))
            .collect();
        assert_eq!(verdicts, [Send, Send, Drop, Shorten, Drop]);
        assert_eq!(judge("192.0.2.1", 8), Send, "the next second");
        let six: Vec<Verdict> = (1..=3)
            .map(|host| judge(&format!("2001:db8:0:{host}::1"), 9))
            .collect();
        assert_eq!(six, [Send, Send, Drop]);
    }
}
