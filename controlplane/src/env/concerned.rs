//! Whose variables may have changed: noted by the engine, taken by whoever keeps files of them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{MASTER_NAME, MASTER_NAMESPACE};
use crate::object::NamespacedName;

/// Whose variables may have changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whose {
    /// Everybody's.
    pub all: bool,
    /// Those of these namespaces.
    pub namespaces: BTreeSet<String>,
}

impl Whose {
    /// Everybody's.
    pub fn everybody() -> Self {
        Self {
            all: true,
            namespaces: BTreeSet::new(),
        }
    }

    /// Whether it is nobody's.
    pub fn is_empty(&self) -> bool {
        !self.all && self.namespaces.is_empty()
    }

    /// Also those of `other`.
    pub fn add(&mut self, mut other: Self) {
        self.all |= other.all;
        self.namespaces.append(&mut other.namespaces);
    }
}

/// Notes whose variables may have changed, and hands that on. What is noted twice is handed on once.
#[derive(Debug, Clone)]
pub struct Concerned(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    noted: Mutex<Whose>,
    told: Notify,
}

impl Default for Concerned {
    /// At first everybody's.
    fn default() -> Self {
        Self(Arc::new(Shared {
            noted: Mutex::new(Whose::everybody()),
            told: Notify::new(),
        }))
    }
}

impl Concerned {
    /// A Service is another one, or gone. The master concerns everybody.
    pub fn service(&self, name: &NamespacedName) {
        match name.namespace == MASTER_NAMESPACE && name.name == MASTER_NAME {
            true => self.noted().all = true,
            false => self.namespace(&name.namespace),
        }
    }

    /// A namespace is there, or gone.
    pub fn namespace(&self, name: &str) {
        let mut noted = self.noted();
        if !noted.namespaces.contains(name) {
            noted.namespaces.insert(name.to_owned());
        }
    }

    /// Wakes whoever waits, if anything was noted.
    pub fn tell(&self) {
        if !self.noted().is_empty() {
            self.0.told.notify_one();
        }
    }

    /// What was noted since this was asked last, when there is something. Nothing is lost when the
    /// future is dropped.
    pub async fn next(&self) -> Whose {
        loop {
            self.0.told.notified().await;
            let noted = std::mem::take(&mut *self.noted());
            if !noted.is_empty() {
                return noted;
            }
        }
    }

    fn noted(&self) -> MutexGuard<'_, Whose> {
        // Each change is one step: a panic leaves nothing half done.
        self.0.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn seen(concerned: &Concerned) -> Option<Whose> {
        concerned.next().now_or_never()
    }

    fn of(namespaces: &[&str]) -> Whose {
        Whose {
            all: false,
            namespaces: namespaces.iter().map(|n| (*n).to_owned()).collect(),
        }
    }

    #[test]
    fn what_is_noted_is_seen_once_and_only_after_it_was_told() {
        let concerned = Concerned::default();
        assert_eq!(seen(&concerned), None);
        concerned.tell();
        assert_eq!(seen(&concerned), Some(Whose::everybody()));
        concerned.namespace("shop");
        concerned.service(&NamespacedName::new("mail", "web"));
        concerned.service(&NamespacedName::new("mail", "imap"));
        assert_eq!(seen(&concerned), None);
        concerned.tell();
        concerned.tell();
        assert_eq!(seen(&concerned), Some(of(&["mail", "shop"])));
        assert_eq!(seen(&concerned), None);
    }

    #[test]
    fn the_master_concerns_everybody() {
        let concerned = Concerned::default();
        concerned.tell();
        seen(&concerned).unwrap();
        concerned.service(&NamespacedName::new("default", "kubernetes"));
        concerned.tell();
        assert!(seen(&concerned).unwrap().all);
        concerned.service(&NamespacedName::new("shop", "kubernetes"));
        concerned.tell();
        assert_eq!(seen(&concerned), Some(of(&["shop"])));
    }
}
