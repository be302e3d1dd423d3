//! The way back into the kernel for packets that are no Service's.

use std::fmt;
use std::sync::Arc;

use crate::tun::Tun;

/// Takes packets that the kernel shall route on.
pub trait ToKernel: fmt::Debug + Send {
    /// Whether there is a way.
    fn is_there(&self) -> bool;

    /// Gives one IP packet, without Ethernet header. False when it was not taken.
    fn give(&mut self, packet: &[u8]) -> bool;
}

impl ToKernel for Arc<Tun> {
    fn is_there(&self) -> bool {
        true
    }

    fn give(&mut self, packet: &[u8]) -> bool {
        Tun::give(self, packet).is_ok()
    }
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
