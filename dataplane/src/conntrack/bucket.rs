//! One bucket of the index of a connection table.

use super::tags::{self, WAYS};

/// In place of a slot: the way leads to no record.
pub(super) const EMPTY: u32 = u32::MAX;

/// Ten index entries in one cache line.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(super) struct Bucket {
    pub(super) tags: [u16; WAYS],
    /// Record number and, in the lowest bit, direction.
    pub(super) slots: [u32; WAYS],
    /// Entries that wanted this bucket and had to go to their second one. As long as it is 0, a
    /// miss here is a miss.
    pub(super) spilled: u32,
}

impl Bucket {
    /// Without entries.
    pub(super) const NEW: Self = Self {
        tags: [0; WAYS],
        slots: [EMPTY; WAYS],
        spilled: 0,
    };

    /// The ways with this tag, a bit each; also those that are empty and held it before.
    #[inline]
    pub(super) fn matching(&self, tag: u16) -> u32 {
        tags::equal(&self.tags, tag)
    }

    #[inline]
    pub(super) fn put(&mut self, tag: u16, slot: u32) -> bool {
        let Some(way) = self.slots.iter().position(|s| *s == EMPTY) else {
            return false;
        };
        (self.tags[way], self.slots[way]) = (tag, slot);
        true
    }

    pub(super) fn has_room(&self) -> bool {
        self.slots.contains(&EMPTY)
    }

    pub(super) fn take(&mut self, slot: u32) -> bool {
        let Some(way) = self.slots.iter().position(|s| *s == slot) else {
            return false;
        };
        self.slots[way] = EMPTY;
        true
    }
}
