//! What a worker notes of a packet. Made beforehand and used again and again.

use sluice_conf::message::dataplane::tap::Headers;

use super::headers;
use crate::clock::Time;
use crate::io::InterfaceId;
use crate::verdict::DropReason;

/// A packet and what became of it.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) time: Time,
    pub(super) worker: u16,
    pub(super) before: Snap,
    pub(super) after: Snap,
    pub(super) fate: Fate,
}

impl Record {
    pub(super) fn with_room(snap_len: usize) -> Self {
        Self {
            time: Time(0),
            worker: 0,
            before: Snap::with_room(snap_len),
            after: Snap::with_room(snap_len),
            fate: Fate::Sent,
        }
    }
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Forward,
    Reply,
    Sent,
    HandOver(u16),
    Hold,
    Wait,
    Kernel,
    Drop(DropReason),
}

/// A frame on one side of the gateway; without length there is none.
#[derive(Debug)]
pub(super) struct Snap {
    pub(super) interface: InterfaceId,
    pub(super) headers: Option<Headers>,
    pub(super) len: u32,
    pub(super) bytes: Vec<u8>,
}

impl Snap {
    pub(super) fn with_room(snap_len: usize) -> Self {
        Self {
            interface: InterfaceId::UNSERVED,
            headers: None,
            len: 0,
            bytes: Vec::with_capacity(snap_len),
        }
    }

    /// Notes a frame; of its bytes as many as there is room for.
    pub(super) fn take(&mut self, interface: InterfaceId, frame: &[u8]) {
        let kept = frame.len().min(self.bytes.capacity());
        self.interface = interface;
        self.headers = headers::read(frame);
        self.len = frame.len() as u32;
        self.bytes.clear();
        self.bytes
            .extend_from_slice(frame.get(..kept).unwrap_or_default());
    }

    /// Becomes the same as another with as much room.
    pub(super) fn copy(&mut self, other: &Snap) {
        self.interface = other.interface;
        self.headers = other.headers;
        self.len = other.len;
        self.bytes.clear();
        self.bytes.extend_from_slice(&other.bytes);
    }

    /// Becomes none.
    pub(super) fn clear(&mut self) {
        self.headers = None;
        self.len = 0;
        self.bytes.clear();
    }
}
