//! How far a generator is: the same for both kinds.

use serde::{Deserialize, Serialize};

/// Words of `struct state` of generate.h.
pub const STATE_WORDS: usize = 9;

/// What generators have done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// When the first frame was due: CLOCK_MONOTONIC, ns.
    pub start: u64,
    /// Frames sent.
    pub sent: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Frames left out because the generator itself was late.
    pub left_out: u64,
    /// Frames that could not be written.
    pub failed: u64,
    /// SYNs of ever new connections; not among `sent`.
    pub flooded: u64,
    /// Whether everything was sent that was to be.
    pub finished: bool,
}

impl Progress {
    /// As the BPF program writes it.
    pub fn from_words(words: [u64; STATE_WORDS]) -> Self {
        let [
            start,
            _,
            _,
            sent,
            bytes,
            left_out,
            finished,
            failed,
            flooded,
        ] = words;
        Self {
            start,
            sent,
            bytes,
            left_out,
            failed,
            flooded,
            finished: finished != 0,
        }
    }

    /// Two generators together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self {
            start: self.start.min(other.start),
            sent: self.sent + other.sent,
            bytes: self.bytes + other.bytes,
            left_out: self.left_out + other.left_out,
            failed: self.failed + other.failed,
            flooded: self.flooded + other.flooded,
            finished: self.finished && other.finished,
        }
    }
}
