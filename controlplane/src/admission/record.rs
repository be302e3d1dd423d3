//! What the store is to hold of the Services, written in one piece with everything else that was
//! decided at the same time.

use std::collections::hash_map::{DefaultHasher, HashMap};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use k8s_openapi::api::core::v1::Service;
use tracing::warn;

use crate::object::NamespacedName;
use crate::store::{Change, SharedStore, StoreError, Stored};

/// Keeps the store up to date.
#[derive(Debug)]
pub(super) struct Record {
    store: Option<SharedStore>,
    /// What is not stored yet; `None` is to be forgotten.
    pending: BTreeMap<NamespacedName, Option<Vec<u8>>>,
    /// Hash of what is stored of a Service.
    stored: HashMap<NamespacedName, u64>,
    trouble: Option<String>,
}

impl Record {
    pub(super) fn new(store: Option<SharedStore>) -> Self {
        Self {
            store,
            pending: BTreeMap::new(),
            stored: HashMap::new(),
            trouble: None,
        }
    }

    /// What an earlier process has stored, sorted by name.
    pub(super) fn load(&mut self) -> Result<Vec<(NamespacedName, Service)>, StoreError> {
        let stored = match &self.store {
            Some(store) => store.lock().load()?,
            None => Vec::new(),
        };
        let mut services = Vec::with_capacity(stored.len());
        for Stored { name, bytes } in stored {
            match serde_json::from_slice(&bytes) {
                Ok(service) => {
                    self.stored.insert(name.clone(), hash(&bytes));
                    services.push((name, service));
                }
                Err(error) => {
                    warn!("forgot what Service {name} had: it is stored malformed: {error}");
                    self.forget(name);
                }
            }
        }
        Ok(services)
    }

    pub(super) fn keep(&mut self, name: &NamespacedName, service: &Service) {
        if self.store.is_none() {
            return;
        }
        // Objects of the API are maps with text keys; these always are JSON.
        let bytes = serde_json::to_vec(service).unwrap_or_default();
        match self.stored.get(name) == Some(&hash(&bytes)) {
            true => self.pending.remove(name),
            false => self.pending.insert(name.clone(), Some(bytes)),
        };
    }

    pub(super) fn forget(&mut self, name: NamespacedName) {
        if self.store.is_some() {
            self.pending.insert(name, None);
        }
    }

    /// Stores what is pending, all or nothing.
    ///
    /// # Errors
    /// The Services that are to be kept and are not; [`Record::trouble`] tells why. They stay
    /// pending.
    pub(super) fn save(&mut self) -> Result<(), BTreeSet<NamespacedName>> {
        let Some(store) = self.store.as_ref().filter(|_| !self.pending.is_empty()) else {
            return Ok(());
        };
        let changes: Vec<Change> = self
            .pending
            .iter()
            .map(|(name, bytes)| match bytes {
                Some(bytes) => Change::Keep(name.clone(), bytes.clone()),
                None => Change::Forget(name.clone()),
            })
            .collect();
        if let Err(error) = store.lock().commit(&changes) {
            let error = error.to_string();
            if self.trouble.as_ref() != Some(&error) {
                warn!("{error}");
            }
            self.trouble = Some(error);
            let kept = self.pending.iter().filter(|(_, bytes)| bytes.is_some());
            return Err(kept.map(|(name, _)| name.clone()).collect());
        }
        self.trouble = None;
        for (name, bytes) in std::mem::take(&mut self.pending) {
            match bytes {
                Some(bytes) => self.stored.insert(name, hash(&bytes)),
                None => self.stored.remove(&name),
            };
        }
        Ok(())
    }

    /// Why something could not be stored.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
