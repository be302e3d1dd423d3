//! The operator's side of the tap.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sluice_conf::message::dataplane::tap::{self, Headers, Side, TapBatch, TappedPacket};
use sluice_conf::{Protocol, ServiceName};

use super::record::{Fate, Record, Snap};
use super::{Job, Tap};
use crate::clock::Clock;
use crate::io::InterfaceId;
use crate::service::{ServiceMap, Target};

/// Packets of one batch: with whole frames about 1 MiB.
const BATCH: usize = 256;

/// One operator's use of the tap; switches it off when dropped.
#[derive(Debug)]
pub struct Session {
    tap: Arc<Tap>,
    job: Arc<Job>,
}

/// What turns a record into words.
pub struct Around<'a> {
    /// The Services of this moment.
    pub services: &'a ServiceMap,
    /// The clock of the workers.
    pub clock: &'a Clock,
    /// Names of interfaces.
    pub interface_name: &'a dyn Fn(InterfaceId) -> String,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.tap.stop();
    }
}

impl Session {
    pub(super) fn new(tap: Arc<Tap>, job: Arc<Job>) -> Self {
        Self { tap, job }
    }

    /// What was seen since the last batch, as much as one batch holds.
    pub fn batch(&self, around: &Around<'_>) -> TapBatch {
        let mut packets = Vec::new();
        while packets.len() < BATCH
            && let Some(record) = self.job.filled.pop()
        {
            packets.push(told(&record, around));
            let _ = self.job.empty.push(record);
        }
        TapBatch {
            packets,
            lost: self.job.lost.load(Ordering::Relaxed),
        }
    }
}

fn told(record: &Record, around: &Around<'_>) -> TappedPacket {
    let (before, after) = (record.before.headers, record.after.headers);
    let served = served(before, after, around.services);
    TappedPacket {
        nanoseconds: around.clock.since_1970(record.time),
        worker: record.worker.into(),
        service: served.as_ref().map(|(name, _)| name.clone()),
        backend: served.and_then(|(_, backend)| backend),
        before: side(&record.before, around),
        after: side(&record.after, around),
        fate: match record.fate {
            Fate::Forward => tap::Fate::Forward,
            Fate::Reply => tap::Fate::Reply,
            Fate::Sent => tap::Fate::Sent,
            Fate::HandOver(worker) => tap::Fate::HandOver(worker.into()),
            Fate::Hold => tap::Fate::Hold,
            Fate::Wait => tap::Fate::Wait,
            Fate::Kernel => tap::Fate::Kernel,
            Fate::Drop(reason) => tap::Fate::Drop(reason.into()),
        },
    }
}

fn side(snap: &Snap, around: &Around<'_>) -> Option<Side> {
    (snap.len > 0).then(|| Side {
        interface: (around.interface_name)(snap.interface),
        headers: snap.headers,
        len: snap.len,
        bytes: snap.bytes.clone(),
    })
}

/// The Service whose frontend the client uses, and the backend at the other side: a client's
/// packet comes in for the frontend, a backend's leaves from there.
fn served(
    before: Option<Headers>,
    after: Option<Headers>,
    services: &ServiceMap,
) -> Option<(ServiceName, Option<SocketAddr>)> {
    let find = |headers: Headers, address: IpAddr, port: u16| {
        let protocol = protocol(headers.protocol)?;
        let target = Target {
            address,
            port,
            protocol,
        };
        Some(services.frontend(&target)?.service.entry.name.clone())
    };
    let end = |headers: Option<Headers>, is_source: bool| {
        let headers = headers?;
        let (from, to) = headers.ports?;
        Some(match is_source {
            true => (headers.source, from),
            false => (headers.destination, to),
        })
    };
    let asked = end(before, false).and_then(|(address, port)| find(before?, address, port));
    if let Some(name) = asked {
        let backend = end(after, false).filter(|end| Some(*end) != end_of_sender(before));
        return Some((name, backend.map(SocketAddr::from)));
    }
    let (address, port) = end(after, true)?;
    let name = find(after?, address, port)?;
    Some((name, end(before, true).map(SocketAddr::from)))
}

/// An answer of the gateway goes back to who asked: that is no backend.
fn end_of_sender(before: Option<Headers>) -> Option<(IpAddr, u16)> {
    let before = before?;
    Some((before.source, before.ports?.0))
}

fn protocol(number: u8) -> Option<Protocol> {
    let known = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    known.into_iter().find(|known| known.number() == number)
}
