//! The packet generator: frames of many flows at a steady rate, each with a stamp that tells the
//! sink its run, its flow, its place in the flow and when it should have been sent.
//!
//! ```text
//!   plan: what to send --+--> live: a BPF program writes and sends, in the kernel (fastest)
//!                        +--> sockets: this process writes, AF_XDP sends (frames of skb origin)
//! ```
//!
//! Guarantees: both send the same frames; a flow's frames are numbered without a gap; frames are
//! stamped with the time at which they were due, not with the one at which they left, so a stalled
//! path cannot hide its latency. A generator that falls behind leaves frames out and counts them
//! rather than making up for them with a burst; numbers go on without a gap.

pub mod flow;
pub mod frame;
pub mod live;
pub mod pace;
pub mod plan;
pub mod program_run;
pub mod sockets;
pub mod state;
