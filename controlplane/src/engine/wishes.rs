//! What the status of the Services of an API server should say: kept up to date Service by Service,
//! and told whole when something in it has changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use crate::admission::Admission;
use crate::object::NamespacedName;
use crate::status::Wishes;
use crate::status::election::Leading;

/// The wishes, and whom to tell them.
#[derive(Debug, Default)]
pub(super) struct WishList {
    wishes: Arc<Wishes>,
    /// Services that may want something else than they did.
    concerned: BTreeSet<NamespacedName>,
    writer: Option<Writer>,
}

#[derive(Debug)]
struct Writer {
    wishes: watch::Sender<Arc<Wishes>>,
    leading: watch::Receiver<Leading>,
    leads: bool,
}

impl WishList {
    /// Has `wishes` told; returns whether this gateway leads.
    pub(super) fn serve(
        &mut self,
        wishes: watch::Sender<Arc<Wishes>>,
        leading: watch::Receiver<Leading>,
    ) -> bool {
        let leads = leading.borrow().is_some();
        self.writer = Some(Writer {
            wishes,
            leading,
            leads,
        });
        leads
    }

    /// Waits until this gateway begins or ends to lead, and returns which. Nothing is lost when the
    /// future is dropped.
    pub(super) async fn turn(&mut self) -> bool {
        let Some(writer) = &mut self.writer else {
            return std::future::pending().await;
        };
        loop {
            let leads = writer.leading.borrow_and_update().is_some();
            if leads != writer.leads {
                writer.leads = leads;
                return leads;
            }
            if writer.leading.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Takes note that the Service was decided on, or is gone.
    pub(super) fn concern(&mut self, name: &NamespacedName) {
        if self.writer.is_some() {
            self.concerned.insert(name.clone());
        }
    }

    /// Wants nothing any more.
    pub(super) fn clear(&mut self) {
        let names = self.wishes.keys().cloned();
        self.concerned.extend(names);
    }

    /// Tells what has changed.
    pub(super) fn tell(&mut self, admission: &Admission) {
        let Some(writer) = &self.writer else { return };
        let mut changed = false;
        for name in std::mem::take(&mut self.concerned) {
            let wanted = admission.wanted(&name);
            if self.wishes.get(&name) == wanted.as_ref() {
                continue;
            }
            let wishes = Arc::make_mut(&mut self.wishes);
            match wanted {
                Some(wanted) => drop(wishes.insert(name, wanted)),
                None => drop(wishes.remove(&name)),
            }
            changed = true;
        }
        if changed {
            writer.wishes.send_replace(Arc::clone(&self.wishes));
        }
    }
}
