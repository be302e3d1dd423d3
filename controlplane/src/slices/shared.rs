//! Equal values, kept once.
//!
//! Guarantees: what nobody else holds any more is forgotten before the memory doubles.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// Fewest values before the first clean-up.
const MIN_SWEEP: usize = 1024;

/// Values of one type, each once.
#[derive(Debug)]
pub(super) struct Shared<T: ?Sized> {
    known: HashSet<Arc<T>>,
    sweep_at: usize,
}

impl<T: ?Sized> Default for Shared<T> {
    fn default() -> Self {
        Self {
            known: HashSet::new(),
            sweep_at: MIN_SWEEP,
        }
    }
}

impl<T: ?Sized> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self {
            known: self.known.clone(),
            sweep_at: self.sweep_at,
        }
    }
}

impl<T: ?Sized + Hash + Eq> Shared<T> {
    /// Puts the value that is kept in the place of an equal one.
    pub(super) fn share(&mut self, value: &mut Arc<T>) {
        if let Some(known) = self.known.get(value) {
            *value = Arc::clone(known);
            return;
        }
        if self.known.len() >= self.sweep_at {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.sweep_at = (2 * self.known.len()).max(MIN_SWEEP);
        }
        self.known.insert(Arc::clone(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_and_forgotten_ones_are_swept() {
        let mut shared = Shared::<str>::default();
        let mut first: Arc<str> = "web".into();
        let mut second: Arc<str> = "web".into();
        shared.share(&mut first);
        shared.share(&mut second);
        assert!(Arc::ptr_eq(&first, &second));
        for number in 0..10 * MIN_SWEEP {
            shared.share(&mut number.to_string().into());
        }
        assert!(shared.known.len() <= MIN_SWEEP);
        assert!(shared.known.contains("web"));
    }
}
