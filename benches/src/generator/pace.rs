//! When the next frame is due; the BPF program reckons the same way.

use std::time::Duration;

use crate::rate::STEP_SHIFT;

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing is due yet.
    Wait,
    /// Send the frame of this number, due at this time.
    Send(u64, u64),
    /// The generator was late: so many frames less are sent.
    Leave(u64),
    /// All is sent.
    Finished,
}

/// Sends frames at a steady rate. Times are in ns of any clock.
#[derive(Debug, Clone)]
pub struct Pace {
    step: u64,
    duration: u64,
    burst: u64,
    start: Option<u64>,
    elapsed: u64,
    frames: u64,
}

impl Pace {
    /// A frame every `step` ns / 2^16 (0: as fast as possible) for `duration`; frames that are more
    /// than `burst` late are left out.
    pub fn new(step: u64, duration: Duration, burst: Duration) -> Self {
        Self {
            step,
            duration: duration.as_nanos() as u64,
            burst: burst.as_nanos() as u64,
            start: None,
            elapsed: 0,
            frames: 0,
        }
    }

    /// When the first frame was due.
    pub fn start(&self) -> u64 {
        self.start.unwrap_or(0)
    }

    /// What to do at `now`.
    pub fn turn(&mut self, now: u64) -> Turn {
        let start = *self.start.get_or_insert(now);
        let due = match self.step {
            0 => now,
            _ => start + (self.elapsed >> STEP_SHIFT),
        };
        if due - start >= self.duration {
            return Turn::Finished;
        }
        if due > now {
            return Turn::Wait;
        }
        // A step that is longer than the burst is always waited for.
        let behind = ((now - due) << STEP_SHIFT).checked_div(self.step);
        if let Some(frames @ 1..) = behind.filter(|_| now - due > self.burst) {
            // Time is leapt over, not numbers: a connection whose SYN was left out would be broken.
            self.elapsed += frames * self.step;
            return Turn::Leave(frames);
        }
        let number = self.frames;
        self.frames += 1;
        self.elapsed += self.step;
        Turn::Send(number, due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate::Rate;
    use proptest::prelude::*;

    fn pace(rate: f64, millis: u64) -> Pace {
        let burst = Duration::from_micros(50);
        Pace::new(Rate(rate).step(), Duration::from_millis(millis), burst)
    }

    proptest! {
        #[test]
        fn every_frame_is_sent_or_left_out_however_the_clock_jumps(
            rate in 1e3f64..2e6, jumps in proptest::collection::vec(2_000u64..200_000, 1..50),
        ) {
            let mut pace = pace(rate, 5);
            let (mut now, mut sent, mut left_out) = (1_000_000, 0, 0);
            let mut jumps = jumps.into_iter().cycle();
            loop {
                match pace.turn(now) {
                    Turn::Wait => now += jumps.next().unwrap(),
                    Turn::Send(number, due) => {
                        prop_assert_eq!(number, sent);
                        prop_assert!(due <= now && now - due <= 50_000.max((1e9 / rate) as u64 + 1));
                        sent += 1;
                    }
                    Turn::Leave(frames) => left_out += frames,
                    Turn::Finished => break,
                }
            }
            let wanted = rate * 0.005;
            prop_assert!((sent as f64 + left_out as f64 - wanted).abs() <= 1.0 + wanted * 1e-5
                + 200_000e-9 * rate);
        }
    }

    #[test]
    fn frames_are_due_at_even_distances() {
        let mut pace = pace(1e6, 1);
        for number in 0..1000 {
            let due = 7 + number * 1000;
            assert_eq!(pace.turn(due), Turn::Send(number, due));
            assert_eq!(
                pace.turn(due + 1),
                if number < 999 {
                    Turn::Wait
                } else {
                    Turn::Finished
                }
            );
        }
    }

    #[test]
    fn without_a_rate_every_moment_is_due() {
        let mut pace = Pace::new(0, Duration::from_nanos(100), Duration::ZERO);
        assert_eq!(pace.turn(500), Turn::Send(0, 500));
        assert_eq!(pace.turn(500), Turn::Send(1, 500));
        assert_eq!(pace.turn(599), Turn::Send(2, 599));
        assert_eq!(pace.turn(600), Turn::Finished);
    }
}
