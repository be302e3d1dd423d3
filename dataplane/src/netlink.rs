//! The kernel's view of the network, read by netlink and kept current.
//!
//! One thread reads links, addresses, routes of the main table and neighbours, builds a
//! [`Network`] of the served interfaces and publishes it when it differs from the last. It also
//! makes the kernel resolve next hops that workers ask for.
//!
//! Guarantees: a change in the kernel is published within some milliseconds, the first one after a pause at once, and in the end even if
//! the kernel has lost notifications (then everything is read again). Neighbours that were asked
//! for, and gateways, are confirmed again when they get stale, so that a host that changed its
//! Ethernet address is not sent to for long. To keep a neighbour confirmed that somebody else has
//! resolved, ask for it too.
//!
//! An interface whose frames carry VLAN tags has the addresses, routes, neighbours, Ethernet address
//! and MTU of the kernel's VLAN device with these tags on it; without such a device it is down.
//!
//! Does not cover: routing rules and tables other than main, IPv4 routes whose gateway is an IPv6
//! address, more than the first usable next hop of a multipath route.

mod links;
#[cfg(test)]
#[expect(unsafe_code, reason = "rustix calls every unshare unsafe")]
pub(crate) mod namespace;
mod resolver;
mod routes;
pub(crate) mod socket;
mod state;
#[cfg(test)]
mod tests;
mod unresolved;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sluice_conf::settings::dataplane::Interface;

use crate::neighbour::{Neighbour, Network, Tags};
use crate::wake::Wake;
use resolver::Resolver;
use socket::{Events, Requests};
use state::State;
pub use unresolved::{Resolve, Unresolved, unresolved};

/// Least time between two networks that are published: changes that come meanwhile are collected.
const PUBLISH_PAUSE: Duration = Duration::from_millis(5);

/// Reading everything again costs a walk over all routes; so long must lie between two.
const DUMP_PAUSE: Duration = Duration::from_millis(50);

/// How often is looked for neighbours that have got stale.
const CONFIRM_PAUSE: Duration = Duration::from_millis(500);

/// Route protocol number (`rtm_protocol`) of the routes that the dataplane sets itself; none of those
/// in linux/rtnetlink.h or iproute2's rt_protos. They are no part of a [`Network`].
pub const PROTOCOL: u8 = 83;

/// Why the kernel's view cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// A netlink call failed.
    #[error("netlink: cannot {what}: {source}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// The thread cannot be started.
    #[error("netlink: cannot start its thread: {0}")]
    Thread(std::io::Error),
}

/// Keeps the thread running; dropping it ends the thread and waits for it.
#[derive(Debug)]
pub struct Handle {
    stop: Arc<AtomicBool>,
    wake: Arc<Wake>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // In one order with the flag that the thread raises before it looks a last time and sleeps.
        self.stop.store(true, Ordering::SeqCst);
        self.wake.ring();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// Reads the network once and starts the thread that follows its changes.
///
/// `interfaces` are the served interfaces in the order of their [`InterfaceId`](crate::io::InterfaceId)s. The
/// network is returned, not published, the first time. `publish` runs on the thread.
///
/// # Errors
/// Netlink cannot be used.
pub fn start(
    interfaces: &[Interface],
    unresolved: Unresolved,
    publish: impl FnMut(Network) + Send + 'static,
) -> Result<(Handle, Network), NetlinkError> {
    // Subscribed before reading, so that no change falls between the two.
    let events = Events::subscribe()?;
    let mut kernel = Requests::open()?;
    let mut state = State::new(interfaces);
    state.replace(kernel.dump()?);
    let network = state.network();
    let stop = Arc::new(AtomicBool::new(false));
    let wake = unresolved.wake();
    let follower = Follower {
        events,
        kernel,
        state,
        resolver: Resolver::default(),
        unresolved,
        publish,
        published: network.clone(),
        stop: Arc::clone(&stop),
        changed: false,
        outdated: false,
    };
    let thread = std::thread::Builder::new()
        .name("netlink".into())
        .spawn(move || follower.run())
        .map_err(NetlinkError::Thread)?;
    Ok((
        Handle {
            stop,
            wake,
            thread: Some(thread),
        },
        network,
    ))
}

struct Follower<P> {
    events: Events,
    kernel: Requests,
    state: State,
    resolver: Resolver,
    unresolved: Unresolved,
    publish: P,
    published: Network,
    stop: Arc<AtomicBool>,
    /// The state may differ from what was published.
    changed: bool,
    /// The kernel may differ from the state.
    outdated: bool,
}

impl<P: FnMut(Network)> Follower<P> {
    fn run(mut self) {
        let mut last = Last::at(now());
        while !self.stop.load(Ordering::Relaxed) {
            self.wait(last.next(&self));
            let now = now();
            self.follow();
            if self.outdated && now >= last.dump + DUMP_PAUSE {
                last.dump = now;
                self.read_again();
            }
            if self.changed && now >= last.publication + PUBLISH_PAUSE {
                last.publication = now;
                self.changed = false;
                self.publish();
            }
            let look = now >= last.look + CONFIRM_PAUSE;
            if look {
                last.look = now;
                self.resolver.keep(self.state.stale_gateways());
            }
            if self.take_requests() || look {
                self.resolve(now);
            }
        }
    }

    /// Waits until the kernel tells of a change, a packet waits for its next hop, or it is `end`.
    fn wait(&mut self, end: Instant) {
        let timeout = end.saturating_duration_since(now());
        let (events, stop) = (&self.events, &self.stop);
        let is_ended = || stop.load(Ordering::SeqCst);
        self.unresolved
            .wait(is_ended, |wake| events.wait(wake, timeout));
    }

    /// Whether there was one.
    fn take_requests(&mut self) -> bool {
        let mut requested = false;
        for next_hop in self.unresolved.take() {
            self.resolver.request(next_hop);
            requested = true;
        }
        requested
    }

    fn follow(&mut self) {
        let state = &mut self.state;
        let changed = &mut self.changed;
        let outcome = self.events.read(|change| match change {
            socket::Change::Neighbour(neighbour) => *changed |= state.neighbour(neighbour),
            socket::Change::Other => self.outdated = true,
        });
        if let Err(error) = outcome {
            // ENOBUFS: more happened than the socket's buffer holds, and part of it is lost.
            tracing::debug!(%error, "netlink lost changes, reading everything again");
            self.outdated = true;
        }
    }

    fn read_again(&mut self) {
        match self.kernel.dump() {
            Ok(dumped) => {
                self.outdated = dumped.interrupted;
                self.state.replace(dumped);
                self.changed = true;
            }
            Err(error) => tracing::warn!(%error, "the network cannot be read, trying again"),
        }
    }

    fn publish(&mut self) {
        let network = self.state.network();
        if network != self.published {
            self.published = network.clone();
            (self.publish)(network);
        }
    }

    fn resolve(&mut self, now: Instant) {
        let state = &self.state;
        let due = self.resolver.due(now, |request| state.freshness(request));
        for Neighbour { interface, address } in due {
            let Some(ifindex) = state.ifindex(interface) else {
                continue;
            };
            if let Err(error) = self.kernel.resolve(ifindex, address) {
                tracing::debug!(%address, %error, "the kernel does not resolve a next hop");
            }
        }
    }
}

/// When each of what must not be done too often was done last.
struct Last {
    dump: Instant,
    publication: Instant,
    look: Instant,
}

impl Last {
    const fn at(now: Instant) -> Self {
        Self {
            dump: now,
            publication: now,
            look: now,
        }
    }

    /// When there is something to do next, if nothing happens before.
    fn next<P>(&self, follower: &Follower<P>) -> Instant {
        let look = self.look + CONFIRM_PAUSE;
        let dump = follower.outdated.then(|| self.dump + DUMP_PAUSE);
        let publication = follower.changed.then(|| self.publication + PUBLISH_PAUSE);
        [dump, publication]
            .into_iter()
            .flatten()
            .fold(look, Instant::min)
    }
}

/// The tags of an interface's frames. The settings allow two at most.
pub(crate) fn tags_of(interface: &Interface) -> Tags {
    let tag = |place| interface.vlan.get(place).copied().unwrap_or_default();
    Tags([tag(0), tag(1)])
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one clock of this loop; everything it calls gets the time as an argument"
)]
fn now() -> Instant {
    Instant::now()
}
