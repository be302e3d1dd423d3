//! The DNS server of the cluster: names of Services and endpoints, from the objects and the readiness
//! that the table is compiled from.
//!
//! ```text
//!   engine --> records --> zone <-- answer <-- message <-- server <-- udp, tcp
//!                                     |                      |  limit, metrics
//!                                   find <- path             |--> forward --> upstreams
//!                                                            '--> kept
//! ```
//!
//! Guarantees: a change is in the zone before the table that it leads to is published; any bytes are
//! answered by the rules of the protocol or dropped, without a panic and in bounded memory; nothing is
//! answered as not existing before every source has told all. It is no recursive resolver and holds
//! no zone files; what is not in its zones it asks of others, if it has any.
//!
//! Everything but `server`, `udp`, `tcp` and `forward` is pure.

pub mod answer;
pub mod explain;
pub mod find;
mod forward;
mod kept;
mod limit;
pub mod message;
pub(crate) mod metrics;
pub mod options;
pub mod path;
pub mod records;
pub mod respond;
pub mod server;
mod servers;
mod tcp;
#[cfg(test)]
mod testing;
mod udp;
pub mod zone;

use message::Transport;
use options::Options;
use respond::Response;
use zone::Zone;

pub use server::{Server, StartError};
pub use zone::Shared;

/// What a server without upstreams answers to a datagram, if anything.
pub fn respond(bytes: &[u8], zone: &Zone, options: &Options) -> Option<Vec<u8>> {
    match respond::respond(bytes, Transport::Udp, zone, options, 0) {
        Response::Ready(ready) => Some(ready.bytes),
        Response::Open(open) => Some(open.refuse().bytes),
        Response::Nothing => None,
    }
}
