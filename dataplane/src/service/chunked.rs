//! A list that shares with its copies whatever they have in common.

use std::sync::Arc;

/// Items of a chunk. Changing one item costs as many steps as there are chunks, and items in one.
const CHUNK: usize = 128;

/// Shared items in order. A copy shares all chunks, and a change of one item only copies its own.
#[derive(Debug)]
pub struct Chunked<T> {
    chunks: Vec<Arc<[Arc<T>]>>,
    len: usize,
}

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Self::of(&[])
    }
}

impl<T> Clone for Chunked<T> {
    fn clone(&self) -> Self {
        Self {
            chunks: self.chunks.clone(),
            len: self.len,
        }
    }
}

impl<T> Chunked<T> {
    /// A list of these items.
    pub fn of(items: &[Arc<T>]) -> Self {
        Self {
            chunks: items.chunks(CHUNK).map(Arc::from).collect(),
            len: items.len(),
        }
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The item at a place.
    pub fn get(&self, place: usize) -> Option<&Arc<T>> {
        self.chunks.get(place / CHUNK)?.get(place % CHUNK)
    }

    /// Replaces the item at a place, if there is one.
    pub fn set(&mut self, place: usize, item: Arc<T>) {
        if place < self.len {
            Arc::make_mut(&mut self.chunks[place / CHUNK])[place % CHUNK] = item;
        }
    }

    /// All items.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<T>> {
        (0..self.len).map(|place| &self.chunks[place / CHUNK][place % CHUNK])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_shows_in_its_copy_only_and_the_rest_is_shared() {
        let items: Vec<Arc<usize>> = (0..2 * CHUNK + 1).map(Arc::new).collect();
        let before = Chunked::of(&items);
        let mut after = before.clone();
        after.set(CHUNK, Arc::new(7));
        after.set(items.len(), Arc::new(7));
        assert_eq!(before.iter().len(), items.len());
        for (place, (old, new)) in before.iter().zip(after.iter()).enumerate() {
            assert_eq!((**old, Arc::ptr_eq(old, new)), (place, place != CHUNK));
        }
        let shared = before.chunks.iter().zip(&after.chunks);
        let shared: Vec<bool> = shared.map(|(old, new)| Arc::ptr_eq(old, new)).collect();
        assert_eq!(shared, [true, false, true]);
        assert_eq!(after.get(CHUNK).map(|item| **item), Some(7));
        assert_eq!(after.get(items.len()), None);
        assert_eq!(Chunked::<u8>::default().len(), 0);
    }
}
