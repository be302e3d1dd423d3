//! The way back into the kernel for packets that are no Service's.

use std::fmt;

/// Takes packets that the kernel shall route on.
pub trait ToKernel: fmt::Debug + Send {
    /// Whether there is a way.
    fn is_there(&self) -> bool;

    /// Gives one IP packet, without Ethernet header. False when it was not taken.
    fn give(&mut self, packet: &[u8]) -> bool;
}

/// No way: such packets are dropped and counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoWay;

impl ToKernel for NoWay {
    fn is_there(&self) -> bool {
        false
    }

    fn give(&mut self, _packet: &[u8]) -> bool {
        false
    }
}
