//! One bucket of the index of a connection table.

use super::tags::{self, WAYS};
use crate::flow::Direction;

/// Where an index leads: to one direction of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry(u32);

impl Entry {
    /// To none.
    pub const NONE: Self = Self(u32::MAX);

    /// Set when it stands in the second bucket of its hash.
    const SECOND: u32 = 2;

    /// To this direction of this record, of which there are less than `1 << 30`.
    #[inline]
    pub const fn new(record: u32, direction: Direction) -> Self {
        Self(record << 2 | direction as u32)
    }

    /// The record; more than there are when it leads to none.
    #[inline]
    pub const fn record(self) -> u32 {
        self.0 >> 2
    }

    /// The direction.
    #[inline]
    pub const fn direction(self) -> Direction {
        if self.0 & 1 == 0 {
            Direction::Original
        } else {
            Direction::Reply
        }
    }

    #[inline]
    pub(super) const fn is_second(self) -> bool {
        self.0 & Self::SECOND != 0
    }

    /// The same in the other bucket of its hash.
    #[inline]
    pub(super) const fn moved(self) -> Self {
        Self(self.0 ^ Self::SECOND)
    }
}

/// Ten index entries in one cache line.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(super) struct Bucket {
    pub(super) tags: [u16; WAYS],
    pub(super) entries: [Entry; WAYS],
    /// Entries that wanted this bucket and had to go to their second one. As long as it is 0, a
    /// miss here is a miss.
    pub(super) spilled: u32,
}

impl Bucket {
    /// Without entries.
    pub(super) const NEW: Self = Self {
        tags: [0; WAYS],
        entries: [Entry::NONE; WAYS],
        spilled: 0,
    };

    /// The ways with this tag, a bit each; also those that are empty and held it before.
    #[inline]
    pub(super) fn matching(&self, tag: u16) -> u32 {
        tags::equal(&self.tags, tag)
    }

    /// The first way with this tag, which may be empty.
    #[inline]
    pub(super) fn likely(&self, tag: u16) -> Entry {
        let way = self.matching(tag).trailing_zeros() as usize;
        self.entries.get(way).copied().unwrap_or(Entry::NONE)
    }

    #[inline]
    pub(super) fn put(&mut self, tag: u16, entry: Entry) -> bool {
        let Some(way) = self.entries.iter().position(|e| *e == Entry::NONE) else {
            return false;
        };
        (self.tags[way], self.entries[way]) = (tag, entry);
        true
    }

    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.entries.contains(&Entry::NONE)
    }

    pub(super) fn take(&mut self, entry: Entry) -> bool {
        let Some(way) = self.entries.iter().position(|e| *e == entry) else {
            return false;
        };
        self.entries[way] = Entry::NONE;
        true
    }
}
