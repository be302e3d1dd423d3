//! The kernel's view of the network, read by netlink and kept current.
//!
//! One thread reads links, addresses, routes of the main table and neighbours, builds a
//! [`Network`] of the served interfaces and publishes it when it differs from the last. It also
//! makes the kernel resolve next hops that workers ask for.
//!
//! Guarantees: a change in the kernel is published within some milliseconds, and in the end even if
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

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};
use sluice_conf::settings::dataplane::Interface;

use crate::neighbour::{Neighbour, Network, Tags};
use resolver::Resolver;
use socket::{Events, Requests};
use state::State;

/// How long changes are collected before they are published, and how soon the thread sees that it
/// is to end.
const TICK: Duration = Duration::from_millis(5);

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
    thread: Option<JoinHandle<()>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
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
    requests: Receiver<Neighbour>,
    publish: impl FnMut(Network) + Send + 'static,
) -> Result<(Handle, Network), NetlinkError> {
    // Subscribed before reading, so that no change falls between the two.
    let events = Events::subscribe()?;
    let mut kernel = Requests::open()?;
    let mut state = State::new(interfaces);
    state.replace(kernel.dump()?);
    let network = state.network();
    let stop = Arc::new(AtomicBool::new(false));
    let follower = Follower {
        events,
        kernel,
        state,
        resolver: Resolver::default(),
        requests,
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
    requests: Receiver<Neighbour>,
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
        let mut last_dump = now();
        let mut last_look = last_dump;
        while !self.stop.load(Ordering::Relaxed) {
            let requested = self.wait();
            let now = now();
            self.follow();
            if self.outdated && now.duration_since(last_dump) >= DUMP_PAUSE {
                last_dump = now;
                self.read_again();
            }
            if self.changed {
                self.changed = false;
                self.publish();
            }
            let look = now.duration_since(last_look) >= CONFIRM_PAUSE;
            if look {
                last_look = now;
                self.resolver.keep(self.state.stale_gateways());
            }
            if look || requested {
                self.resolve(now);
            }
        }
    }

    /// Waits for requests: they are urgent, a packet waits for each. Changes can wait a tick.
    /// Whether there was one.
    fn wait(&mut self) -> bool {
        match self.requests.recv_timeout(TICK) {
            Ok(request) => {
                self.resolver.request(request);
                for request in self.requests.try_iter().take(resolver::CAPACITY) {
                    self.resolver.request(request);
                }
            }
            Err(RecvTimeoutError::Timeout) => return false,
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(TICK);
                return false;
            }
        }
        true
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
