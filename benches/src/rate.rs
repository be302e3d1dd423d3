//! Rates of packets: how they are written, and the distance between two packets.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The generator counts time in ns / 2^16, so that a rate of 20 million is met to a millionth.
pub const STEP_SHIFT: u32 = 16;

/// Packets a second; 0 is as fast as possible.
#[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Rate(pub f64);

impl Rate {
    /// As fast as possible.
    pub const MAX: Rate = Rate(0.0);

    /// Between two packets, in ns / 2^16; 0 when there is no limit.
    pub fn step(self) -> u64 {
        if self.0 <= 0.0 {
            return 0;
        }
        let step = 1e9 * f64::from(1u32 << STEP_SHIFT) / self.0;
        (step.round() as u64).max(1)
    }

    /// Packets of this rate in `seconds`.
    pub fn packets(self, seconds: f64) -> u64 {
        (self.0 * seconds) as u64
    }

    /// A share of it.
    #[must_use]
    pub fn times(self, share: f64) -> Self {
        Self(self.0 * share)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::MAX);
        }
        let (digits, unit) = match text.char_indices().last() {
            Some((at, 'k' | 'K')) => (&text[..at], 1e3),
            Some((at, 'm' | 'M')) => (&text[..at], 1e6),
            _ => (text, 1.0),
        };
        let number: f64 = digits.parse().map_err(|_| unreadable(text))?;
        let rate = number * unit;
        // 100 million are more than a core can write.
        if (1.0..=1e8).contains(&rate) {
            Ok(Self(rate))
        } else {
            Err(unreadable(text))
        }
    }
}

fn unreadable(text: &str) -> String {
    format!("{text:?} is no rate; write packets a second from 1 to 100M, as 800, 250k, 1.5M or max")
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0.0 => f.write_str("max"),
            rate if rate >= 1e6 => write!(f, "{:.3}M", rate / 1e6),
            rate if rate >= 1e3 => write!(f, "{:.1}k", rate / 1e3),
            rate => write!(f, "{rate:.0}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_read_with_its_unit() {
        for (text, packets) in [
            ("800", 800.0),
            ("250k", 250e3),
            ("1.5M", 1.5e6),
            ("2m", 2e6),
        ] {
            assert_eq!(text.parse(), Ok(Rate(packets)), "{text}");
        }
        assert_eq!("max".parse(), Ok(Rate::MAX));
        for text in ["", "k", "-1", "0", "1e99", "fast", "NaN", "101M"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn steps_meet_the_rate_to_a_millionth() {
        for rate in [1.0, 1e3, 333_333.0, 1.5e6, 14.88e6, 21.7e6, 1e8] {
            let met = 1e9 * 65536.0 / Rate(rate).step() as f64;
            assert!((met / rate - 1.0).abs() < 1e-6, "{rate}: {met}");
        }
        assert_eq!(Rate::MAX.step(), 0);
    }

    #[test]
    fn a_rate_is_written_for_people() {
        assert_eq!(Rate(1_234_567.0).to_string(), "1.235M");
        assert_eq!(Rate(2_500.0).to_string(), "2.5k");
        assert_eq!(Rate(12.0).to_string(), "12");
        assert_eq!(Rate::MAX.to_string(), "max");
    }
}
