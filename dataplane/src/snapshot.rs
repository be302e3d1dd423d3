//! What workers read: Services and network of one moment, published without ever stopping a
//! worker.
//!
//! ```text
//!   control, netlink --> Publisher --store--> Snapshot <--load between bursts-- Observer (worker)
//!                             ^                                                  |
//!                             '------------- seen: version of each worker -------'
//! ```
//!
//! A worker looks at one number between bursts and only loads the pointer when it has changed. It
//! tells which version it has taken up *after* it has let go of the old one; when all have, nobody
//! decides by the old one any more. Until then the publisher keeps the old one, so that its memory
//! is never freed by a worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use crossbeam::utils::CachePadded;

use crate::neighbour::Network;
use crate::service::ServiceMap;
use crate::wake::Wake;

/// Services and network of one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The Services.
    pub services: Arc<ServiceMap>,
    /// Routes, links and neighbours.
    pub network: Arc<Network>,
    network_version: u32,
}

impl Snapshot {
    /// These Services in this network.
    pub fn new(services: Arc<ServiceMap>, network: Arc<Network>) -> Self {
        Self {
            services,
            network,
            network_version: 0,
        }
    }

    /// Changes whenever a snapshot with another network is published; what a way was found under.
    pub fn network_version(&self) -> u32 {
        self.network_version
    }
}

#[derive(Debug)]
struct Shared {
    current: ArcSwap<Snapshot>,
    version: AtomicU64,
    seen: Box<[CachePadded<AtomicU64>]>,
    wakes: Vec<Arc<Wake>>,
}

/// The writing side. Publishing is for one thread at a time, which `&mut` ensures.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
    /// Snapshots that workers may still use, each with the version that has replaced it.
    replaced: Vec<(u64, Arc<Snapshot>)>,
}

/// A worker's side.
#[derive(Debug)]
pub struct Observer {
    shared: Arc<Shared>,
    worker: usize,
    version: u64,
    snapshot: Arc<Snapshot>,
}

impl Publisher {
    /// A publisher of `first` and one observer for each worker.
    pub fn new(first: Snapshot, workers: u16) -> (Self, Vec<Observer>) {
        Self::waking(first, workers, Vec::new())
    }

    /// The same, and whatever is published wakes workers that sleep.
    pub fn waking(first: Snapshot, workers: u16, wakes: Vec<Arc<Wake>>) -> (Self, Vec<Observer>) {
        let seen = (0..workers)
            .map(|_| CachePadded::new(AtomicU64::new(0)))
            .collect();
        let current = ArcSwap::from_pointee(first);
        let shared = Arc::new(Shared {
            current,
            version: AtomicU64::new(0),
            seen,
            wakes,
        });
        let observer = |worker| Observer {
            shared: Arc::clone(&shared),
            worker,
            version: 0,
            snapshot: shared.current.load_full(),
        };
        let observers = (0..usize::from(workers)).map(observer).collect();
        let replaced = Vec::new();
        (Self { shared, replaced }, observers)
    }

    /// The snapshot published last.
    pub fn current(&self) -> Arc<Snapshot> {
        self.shared.current.load_full()
    }

    /// Publishes a snapshot and returns its version.
    pub fn publish(&mut self, mut snapshot: Snapshot) -> u64 {
        let current = self.current();
        let is_new = !Arc::ptr_eq(&current.network, &snapshot.network);
        snapshot.network_version = current.network_version.wrapping_add(u32::from(is_new));
        self.shared.current.store(Arc::new(snapshot));
        // Whoever sees the number also sees the pointer stored before it. In one order with the
        // flag that a worker raises before it looks a last time and sleeps.
        let version = self.shared.version.fetch_add(1, Ordering::SeqCst) + 1;
        self.shared.wakes.iter().for_each(|wake| wake.ring());
        self.replaced.push((version, current));
        self.clear();
        version
    }

    /// Frees the snapshots that no worker uses any more; publishing does so, too.
    pub fn clear(&mut self) {
        let progress = self.progress();
        self.replaced
            .retain(|(version, _)| !progress.reached(*version));
    }

    /// A view of how far the workers are.
    pub fn progress(&self) -> Progress {
        Progress(Arc::clone(&self.shared))
    }
}

/// How far the workers are.
#[derive(Debug, Clone)]
pub struct Progress(Arc<Shared>);

impl Progress {
    /// Whether every worker uses `version` or a later one.
    pub fn reached(&self, version: u64) -> bool {
        self.0
            .seen
            .iter()
            .all(|seen| seen.load(Ordering::Acquire) >= version)
    }
}

impl Observer {
    /// Takes up the newest snapshot. True when it is another than before.
    #[inline]
    pub fn observe(&mut self) -> bool {
        // Acquire: pairs with the store in `publish`.
        let version = self.shared.version.load(Ordering::Acquire);
        let changed = version != self.version;
        if changed {
            self.take_up(version);
        }
        changed
    }

    fn take_up(&mut self, version: u64) {
        self.snapshot = self.shared.current.load_full();
        self.version = version;
        self.shared.seen[self.worker].store(version, Ordering::Release);
    }

    /// Whether there is a newer snapshot than the one taken up last.
    pub fn is_behind(&self) -> bool {
        self.shared.version.load(Ordering::SeqCst) != self.version
    }

    /// The snapshot taken up last.
    #[inline]
    pub fn current(&self) -> &Snapshot {
        &self.snapshot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};
    use std::os::fd::BorrowedFd;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn a_version_is_reached_when_every_worker_has_looked() {
        let (mut publisher, mut observers) = Publisher::new(Snapshot::default(), 2);
        let progress = publisher.progress();
        let version = publisher.publish(Snapshot::default());
        assert!(!progress.reached(version));
        assert!(observers[0].observe());
        assert!(!progress.reached(version));
        assert!(observers[1].observe());
        assert!(progress.reached(version));
        assert!(!observers[1].observe());
    }

    #[test]
    fn what_is_published_wakes_a_worker_that_sleeps() {
        let wake = Arc::new(Wake::new().unwrap());
        let wakes = vec![Arc::clone(&wake)];
        let (mut publisher, mut observers) = Publisher::waking(Snapshot::default(), 1, wakes);
        let mut observer = observers.pop().unwrap();
        let asleep = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !observer.observe() {
                    let until_woken = |event: BorrowedFd<'_>| {
                        asleep.store(true, Ordering::SeqCst);
                        poll(&mut [PollFd::new(&event, PollFlags::IN)], None).unwrap();
                    };
                    wake.sleep(|| observer.is_behind(), until_woken);
                }
            });
            while !asleep.load(Ordering::SeqCst) {
                std::hint::spin_loop();
            }
            publisher.publish(Snapshot::default());
        });
        assert!(publisher.progress().reached(1));
        assert!(!observer.is_behind());
    }

    #[test]
    fn a_snapshot_that_a_worker_may_use_is_kept_and_never_freed_by_it() {
        let (mut publisher, mut observers) = Publisher::new(Snapshot::default(), 2);
        let first = Arc::downgrade(&publisher.current());
        publisher.publish(Snapshot::default());
        let second = Arc::downgrade(&publisher.current());
        assert!(observers[0].observe());
        publisher.publish(Snapshot::default());
        assert!(first.upgrade().is_some(), "the other worker has it");
        assert!(observers[0].observe() && observers[1].observe());
        assert!(first.upgrade().is_some() && second.upgrade().is_some());
        publisher.clear();
        assert!(first.upgrade().is_none() && second.upgrade().is_none());
    }

    #[test]
    fn only_another_network_changes_its_version() {
        let (mut publisher, observers) = Publisher::new(Snapshot::default(), 1);
        let first = publisher.current();
        let same = Snapshot::new(Arc::default(), Arc::clone(&first.network));
        publisher.publish(same);
        assert_eq!(
            publisher.current().network_version(),
            first.network_version()
        );
        publisher.publish(Snapshot::new(Arc::default(), Arc::default()));
        assert_ne!(
            publisher.current().network_version(),
            first.network_version()
        );
        drop(observers);
    }

    #[test]
    fn readers_and_a_writer_agree_in_the_end() {
        let (mut publisher, observers) = Publisher::new(Snapshot::default(), 2);
        let progress = publisher.progress();
        std::thread::scope(|scope| {
            for mut observer in observers {
                scope.spawn(move || {
                    while observer.version < 1000 {
                        observer.observe();
                        std::hint::spin_loop();
                    }
                });
            }
            for _ in 0..1000 {
                publisher.publish(Snapshot::default());
            }
        });
        assert!(progress.reached(1000));
    }
}
