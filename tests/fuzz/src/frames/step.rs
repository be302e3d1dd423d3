//! What can happen next, and the frame that it means.

use arbitrary::Arbitrary;
use sluice_dataplane::io::InterfaceId;
use sluice_dataplane::testutil::rig::{BACKENDS, CLIENTS, GATEWAY_BACKEND_MAC, Sent, backend_mac};
use sluice_dataplane::testutil::{Build, CLIENT_MAC, GATEWAY_MAC, arp_request, echo_request};

use super::raw;

const CLIENTS_V4: [&str; 4] = ["10.0.1.10", "10.0.1.99", "10.0.2.11", "203.0.113.10"];
const CLIENTS_V6: [&str; 4] = ["2001:db8:1::10", "2001:db8:1::99", "2001:db8:2::11", "::1"];
const TARGETS_V4: [&str; 8] = [
    "203.0.113.10",
    "203.0.113.10",
    "203.0.113.10",
    "203.0.113.11",
    "10.0.1.1",
    "10.0.2.1",
    "10.0.2.11",
    "10.96.0.9",
];
const TARGETS_V6: [&str; 8] = [
    "2001:db8:9::10",
    "2001:db8:9::10",
    "2001:db8:9::10",
    "2001:db8:9::11",
    "2001:db8:1::1",
    "2001:db8:2::1",
    "2001:db8:2::11",
    "2001:db8:96::9",
];
const PORTS: [u16; 16] = [
    80, 81, 82, 83, 84, 53, 85, 5000, 5009, 36_412, 36_413, 30_080, 8080, 20_000, 16_384, 9,
];

/// What happens next.
#[derive(Debug, Arbitrary)]
pub enum Step {
    /// Any bytes arrive, with an Ethernet header that is for the gateway.
    Raw {
        by: By,
        is_v6: bool,
        bytes: Vec<u8>,
        is_mended: bool,
    },
    /// A packet arrives.
    Packet { by: By, made: Made, edits: Edits },
    /// Whoever got a frame answers.
    Answer {
        to: u8,
        flags: u8,
        worker: bool,
        edits: Edits,
    },
    /// Somebody complains about a frame.
    Complaint {
        about: u8,
        kind: u8,
        code: u8,
        router: Option<u8>,
        quoted: u16,
        worker: bool,
        edits: Edits,
    },
    /// Pieces of a packet arrive.
    Pieces {
        by: By,
        made: Made,
        size: u8,
        name: u8,
        order: u8,
        edits: Edits,
    },
    /// Somebody asks for an address, or pings it.
    Question {
        by: By,
        kind: u8,
        from: u8,
        target: u8,
        edits: Edits,
    },
    /// A frame arrives once more.
    Again { which: u8, worker: bool },
    /// Time passes.
    Pass { seconds: u8 },
    /// The service table changes.
    Table { which: u8 },
    /// The neighbours change.
    Neighbours { known: u8 },
}

/// Where a frame arrives.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub struct By {
    is_backend: bool,
    pub worker: bool,
}

impl By {
    /// The interface.
    pub fn interface(self) -> InterfaceId {
        if self.is_backend { BACKENDS } else { CLIENTS }
    }
}

/// Changes of bytes behind the Ethernet addresses, after which sums may be made right again.
#[derive(Debug, Arbitrary)]
pub struct Edits {
    bytes: Option<[(u8, u8); 2]>,
    cut: Option<u8>,
    is_mended: bool,
}

impl Edits {
    fn apply(&self, frame: &mut Vec<u8>) {
        let mut is_changed = false;
        for (at, value) in self.bytes.into_iter().flatten() {
            if let Some(byte) = frame.get_mut(12 + usize::from(at)) {
                *byte = value;
                is_changed = true;
            }
        }
        if let Some(cut) = self.cut {
            frame.truncate(frame.len().saturating_sub(usize::from(cut)));
            is_changed = true;
        }
        if is_changed && self.is_mended {
            raw::mend(frame);
        }
    }
}

/// A packet.
#[derive(Debug, Arbitrary)]
pub struct Made {
    is_v6: bool,
    protocol: u8,
    from: u8,
    from_port: u8,
    to: u8,
    to_port: u8,
    flags: u8,
    numbers: [u16; 2],
    ttl: u8,
    len: u16,
    may_fragment: bool,
    has_options: bool,
    announces: Option<u16>,
}

impl Made {
    fn build(&self, by: By) -> Build {
        let (from, to) = (usize::from(self.from) % 4, usize::from(self.to) % 8);
        let port = match self.from_port {
            0..128 => 40_000 + u16::from(self.from_port % 4),
            other => PORTS[usize::from(other) % PORTS.len()],
        };
        let to_port = PORTS[usize::from(self.to_port) % PORTS.len()];
        let (source, destination) = match self.is_v6 {
            false => (
                format!("{}:{port}", CLIENTS_V4[from]),
                format!("{}:{to_port}", TARGETS_V4[to]),
            ),
            true => (
                format!("[{}]:{port}", CLIENTS_V6[from]),
                format!("[{}]:{to_port}", TARGETS_V6[to]),
            ),
        };
        let payload = vec![self.flags; usize::from(self.len % 1700)];
        let build = match self.protocol {
            0..128 => Build::tcp(&source, &destination).payload(&payload),
            128..220 => Build::udp(&source, &destination).payload(&payload),
            chunk => Build::sctp(&source, &destination, chunk % 16),
        };
        let macs = match by.is_backend {
            false => (CLIENT_MAC, GATEWAY_MAC),
            true => (backend_mac(11), GATEWAY_BACKEND_MAC),
        };
        let mut build = build
            .flags(self.flags & 0x17)
            .numbers(self.numbers[0].into(), self.numbers[1].into())
            .ttl(if self.ttl > 250 { self.ttl - 250 } else { 64 })
            .macs(macs.0, macs.1);
        if self.may_fragment {
            build = build.may_fragment();
        }
        if self.has_options && !self.is_v6 {
            build = build.options(&[148, 4, 0, 0]);
        }
        match self.announces {
            Some(bytes) => build.tcp_options(&[2, 4, (bytes >> 8) as u8, bytes as u8]),
            None => build,
        }
    }
}

/// A frame to come: at which worker, by which interface.
pub type Arrival = (usize, InterfaceId, Vec<u8>);

impl Step {
    /// The frames that arrive, in order; `sent` left before, `came` came before.
    pub fn arrivals(&self, sent: &[Sent], came: &[Arrival]) -> Vec<Arrival> {
        let from = |by: By, frame| vec![(usize::from(by.worker), by.interface(), frame)];
        match self {
            Step::Raw {
                by,
                is_v6,
                bytes,
                is_mended,
            } => from(*by, raw_frame(*by, *is_v6, bytes, *is_mended)),
            Step::Packet { by, made, edits } => from(*by, edited(made.build(*by).frame(), edits)),
            Step::Answer {
                to,
                flags,
                worker,
                edits,
            } => back(sent, *to, *worker, edits, |frame| {
                raw::answer(frame, *flags)
            }),
            Step::Complaint {
                about,
                kind,
                code,
                router,
                quoted,
                worker,
                edits,
            } => back(sent, *about, *worker, edits, |frame| {
                raw::complaint(frame, *kind, *code, *router, usize::from(*quoted))
            }),
            Step::Pieces {
                by,
                made,
                size,
                name,
                order,
                edits,
            } => {
                let pieces = made
                    .build(*by)
                    .fragments((usize::from(*size) + 1) * 8, (*name).into());
                reordered(pieces, *order)
                    .map(|piece| (usize::from(by.worker), by.interface(), edited(piece, edits)))
                    .collect()
            }
            Step::Question {
                by,
                kind,
                from: source,
                target,
                edits,
            } => from(*by, edited(question(*kind, *source, *target), edits)),
            Step::Again { which, worker } => {
                let again = nth(came, *which).cloned();
                again
                    .map(|(_, by, frame)| (usize::from(*worker), by, frame))
                    .into_iter()
                    .collect()
            }
            Step::Pass { .. } | Step::Table { .. } | Step::Neighbours { .. } => Vec::new(),
        }
    }
}

fn nth<T>(list: &[T], number: u8) -> Option<&T> {
    let number = usize::from(number).checked_rem(list.len())?;
    list.get(list.len() - 1 - number)
}

fn edited(mut frame: Vec<u8>, edits: &Edits) -> Vec<u8> {
    edits.apply(&mut frame);
    frame
}

fn back(
    sent: &[Sent],
    which: u8,
    worker: bool,
    edits: &Edits,
    make: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
) -> Vec<Arrival> {
    let frame = nth(sent, which).and_then(|(by, frame)| Some((*by, make(frame)?)));
    frame
        .map(|(by, frame)| (usize::from(worker), by, edited(frame, edits)))
        .into_iter()
        .collect()
}

/// First to last, last to first, or some of them twice and some never.
fn reordered(pieces: Vec<Vec<u8>>, order: u8) -> impl Iterator<Item = Vec<u8>> {
    let count = pieces.len();
    (0..count.min(80)).map(move |at| {
        let at = match order {
            0..64 => at,
            64..128 => count - 1 - at,
            _ => at * usize::from(order) % count,
        };
        pieces[at].clone()
    })
}

fn raw_frame(by: By, is_v6: bool, bytes: &[u8], is_mended: bool) -> Vec<u8> {
    let gateway = if by.is_backend {
        GATEWAY_BACKEND_MAC
    } else {
        GATEWAY_MAC
    };
    let mut frame = gateway.0.to_vec();
    frame.extend(CLIENT_MAC.0);
    frame.extend(if is_v6 { [0x86, 0xdd] } else { [8, 0] });
    frame.extend(bytes.iter().take(1800));
    if is_mended {
        raw::mend(&mut frame);
    }
    frame
}

fn question(kind: u8, from: u8, target: u8) -> Vec<u8> {
    let (from, target) = (usize::from(from) % 4, usize::from(target) % 8);
    match kind % 4 {
        0 => arp_request(CLIENTS_V4[from], TARGETS_V4[target]),
        1 => echo_request(CLIENTS_V4[from], TARGETS_V4[target], b"ping"),
        2 => echo_request(CLIENTS_V6[from], TARGETS_V6[target], b"ping"),
        _ => solicitation(CLIENTS_V6[from], TARGETS_V6[target]),
    }
}

/// RFC 4861 section 4.3, sent to the gateway alone.
fn solicitation(from: &str, target: &str) -> Vec<u8> {
    let mut frame = echo_request(from, target, &[0; 24]);
    let octets = frame[38..54].to_vec();
    frame[21] = 255;
    frame[54..58].copy_from_slice(&[135, 0, 0, 0]);
    frame[58..62].fill(0);
    frame[62..78].copy_from_slice(&octets);
    frame[78..86].copy_from_slice(&[1, 1, 2, 0, 0, 0, 0, 0x0c]);
    raw::mend(&mut frame);
    frame
}
