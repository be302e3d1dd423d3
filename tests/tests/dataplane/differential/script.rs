//! Random lives of connections, as steps that mean the same to both gateways.

use etherparse::icmpv4::{DestUnreachableHeader, TimeExceededCode};
use etherparse::icmpv6::{DestUnreachableCode, TimeExceededCode as TimeExceededCode6};
use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder};
use sluice_conf::Protocol;
use sluice_dataplane::testutil::rig::{GATEWAY_BACKEND_MAC, backend_mac};
use sluice_dataplane::testutil::{Build, CLIENT_MAC, GATEWAY_MAC};
use sluice_dataplane::wire::parse::TcpFlags;
use sluice_tests::differential::Side;

use super::random::Random;

const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;
const FIN: u8 = TcpFlags::FIN;
const RST: u8 = TcpFlags::RST;
/// First sequence numbers of client and backend.
const CLIENT_ISN: u32 = 0xffff_ff00;
const BACKEND_ISN: u32 = 5_000;
const WINDOW: u16 = 8_192;

/// A flow of a client.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    pub protocol: Protocol,
    pub is_v6: bool,
    pub port: u16,
}

/// What a TCP segment says beside its flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// What comes next.
    Next,
    /// Inside the receiver's window, but not next.
    InWindow,
    /// Outside of it.
    Outside,
    /// What came before.
    Repeated,
}

/// Who complains of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Complainer {
    /// Whoever the packet was sent to.
    End,
    /// A router on its way.
    Router,
}

/// What is wrong or special about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    Nothing,
    LastHop,
    OneHopLeft,
    Options,
    BadChecksum,
    NoChecksum,
}

/// What a packet of a flow is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Segment { flags: u8, place: Place, len: u16 },
    Datagram { len: u16 },
    Fragments { is_reversed: bool },
    PortUnreachable(Complainer),
    TooBig(Complainer),
    TimeExceeded(Complainer),
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub side: Side,
    pub what: What,
    pub special: Special,
}

/// How far both sides of a TCP connection are.
#[derive(Debug, Clone, Copy)]
pub struct Numbers {
    client: u32,
    backend: u32,
}

impl Numbers {
    pub const START: Self = Self {
        client: CLIENT_ISN,
        backend: BACKEND_ISN,
    };

    fn of(&self, side: Side) -> (u32, u32) {
        match side {
            Side::Clients => (self.client, self.backend),
            Side::Backends => (self.backend, self.client),
        }
    }

    /// After a step.
    pub fn note(&mut self, step: &Step) {
        let What::Segment {
            flags,
            place: Place::Next,
            len,
        } = step.what
        else {
            return;
        };
        if flags & RST != 0
            || step.special == Special::BadChecksum
            || step.special == Special::LastHop
        {
            return;
        }
        let length = u32::from(len) + u32::from(flags & (SYN | FIN) != 0);
        let (number, first) = match step.side {
            Side::Clients => (&mut self.client, CLIENT_ISN),
            Side::Backends => (&mut self.backend, BACKEND_ISN),
        };
        *number = if flags & SYN != 0 {
            first.wrapping_add(1)
        } else {
            number.wrapping_add(length)
        };
    }
}

/// The life of a TCP connection: mostly as it should be, with surprises.
pub fn tcp(random: &mut Random) -> Vec<Step> {
    let segment = |side, flags, len| Step {
        side,
        what: What::Segment {
            flags,
            place: Place::Next,
            len,
        },
        special: Special::Nothing,
    };
    use Side::{Backends, Clients};
    let usual = [
        segment(Clients, SYN, 0),
        segment(Backends, SYN | ACK, 0),
        segment(Clients, ACK, 0),
        segment(Clients, ACK, 100),
        segment(Backends, ACK, 0),
        segment(Backends, ACK, 700),
        segment(Clients, ACK, 0),
    ];
    let ends: [&[(Side, u8)]; 5] = [
        &[
            (Clients, FIN | ACK),
            (Backends, ACK),
            (Backends, FIN | ACK),
            (Clients, ACK),
        ],
        &[
            (Backends, FIN | ACK),
            (Clients, ACK),
            (Clients, FIN | ACK),
            (Backends, ACK),
        ],
        &[
            (Clients, FIN | ACK),
            (Backends, FIN | ACK),
            (Clients, ACK),
            (Backends, ACK),
        ],
        &[(Clients, RST)],
        &[(Backends, RST | ACK)],
    ];
    let end = ends[random.below(5)]
        .iter()
        .map(|(side, flags)| segment(*side, *flags, 0));
    let after = [
        segment(Clients, ACK, 10),
        segment(Backends, ACK, 10),
        segment(Clients, SYN, 0),
        segment(Backends, SYN | ACK, 0),
    ];
    let skipped = if random.below(8) == 0 {
        random.below(4)
    } else {
        0
    };
    let planned = usual.into_iter().chain(end).chain(after).skip(skipped);
    let mut steps = Vec::new();
    for step in planned {
        while random.below(4) == 0 {
            steps.push(surprise(random));
        }
        steps.push(step);
    }
    steps
}

fn surprise(random: &mut Random) -> Step {
    let side = [Side::Clients, Side::Backends][random.below(2)];
    let places = [
        Place::Next,
        Place::InWindow,
        Place::Outside,
        Place::Repeated,
    ];
    let place = places[random.below(4)];
    let flags = [
        SYN,
        SYN | ACK,
        ACK,
        ACK,
        FIN | ACK,
        RST,
        RST | ACK,
        SYN | FIN,
        0,
    ][random.below(9)];
    let what = match random.below(4) {
        0 => complaint(random),
        // Next would be the plan's.
        1 => What::Segment {
            flags: ACK,
            place: Place::Repeated,
            len: 20,
        },
        _ if place == Place::Next && flags & (SYN | FIN) != 0 => What::Segment {
            flags,
            place: Place::Repeated,
            len: 0,
        },
        _ => What::Segment {
            flags,
            place,
            len: 0,
        },
    };
    Step {
        side,
        what,
        special: special(random),
    }
}

fn complaint(random: &mut Random) -> What {
    let complainer = [Complainer::End, Complainer::Router][random.below(2)];
    [What::PortUnreachable, What::TooBig, What::TimeExceeded][random.below(3)](complainer)
}

fn special(random: &mut Random) -> Special {
    match random.below(12) {
        0 => Special::LastHop,
        1 => Special::OneHopLeft,
        2 => Special::Options,
        3 => Special::BadChecksum,
        4 => Special::NoChecksum,
        _ => Special::Nothing,
    }
}

/// Datagrams both ways, whole and in pieces, and errors about them.
pub fn udp(random: &mut Random) -> Vec<Step> {
    (0..14)
        .map(|number| {
            let side =
                [Side::Clients, Side::Backends][if number == 0 { 0 } else { random.below(2) }];
            let what = match random.below(6) {
                0 => What::Fragments {
                    is_reversed: random.below(2) == 0,
                },
                1 => complaint(random),
                _ => What::Datagram {
                    len: random.below(200) as u16,
                },
            };
            Step {
                side,
                what,
                special: special(random),
            }
        })
        .collect()
}

impl Flow {
    fn ends(&self, side: Side, masquerade: u16) -> (String, String) {
        let (port, target) = match self.protocol {
            Protocol::Tcp => (80, 8080),
            Protocol::Udp | Protocol::Sctp => (53, 5353),
        };
        let own = self.port;
        match (self.is_v6, side) {
            (false, Side::Clients) => (format!("10.0.1.10:{own}"), format!("203.0.113.10:{port}")),
            (false, Side::Backends) => (
                format!("10.0.2.11:{target}"),
                format!("10.0.2.1:{masquerade}"),
            ),
            (true, Side::Clients) => (
                format!("[2001:db8:1::10]:{own}"),
                format!("[2001:db8:9::10]:{port}"),
            ),
            (true, Side::Backends) => (
                format!("[2001:db8:2::11]:{target}"),
                format!("[2001:db8:2::1]:{masquerade}"),
            ),
        }
    }

    /// The frames of a step at a gateway that masquerades with this port and has last sent `last`
    /// to that side; empty when there is nothing to say yet.
    pub fn frames(
        &self,
        step: &Step,
        numbers: &Numbers,
        number: u16,
        masquerade: u16,
        last: Option<&[u8]>,
    ) -> Vec<Vec<u8>> {
        let (source, destination) = self.ends(step.side, masquerade);
        let macs = match step.side {
            Side::Clients => (CLIENT_MAC, GATEWAY_MAC),
            Side::Backends => (backend_mac(11), GATEWAY_BACKEND_MAC),
        };
        let hops = match step.special {
            Special::LastHop => 1,
            Special::OneHopLeft => 2,
            _ => 64,
        };
        let build = Build::packet(self.protocol, &source, &destination)
            .macs(macs.0, macs.1)
            .ttl(hops);
        let build = match step.special {
            Special::Options if !self.is_v6 => build.options(&[148, 4, 0, 0]),
            _ => build,
        };
        let mut frames = match step.what {
            What::Segment { flags, place, len } => {
                let (own, other) = numbers.of(step.side);
                let own = match place {
                    Place::Next => own,
                    Place::InWindow => own.wrapping_add(1000),
                    Place::Outside => own.wrapping_add(0x4000_0000),
                    Place::Repeated => own.wrapping_sub(1),
                };
                let acknowledged = if flags & ACK == 0 { 0 } else { other };
                let segment = build.flags(flags).numbers(own, acknowledged).window(WINDOW);
                vec![segment.payload(&vec![b'x'; len.into()]).frame()]
            }
            What::Datagram { len } => vec![build.payload(&vec![b'x'; len.into()]).frame()],
            What::Fragments { is_reversed } => {
                let mut pieces = build
                    .may_fragment()
                    .payload(&[b'x'; 500])
                    .fragments(200, number.into());
                if is_reversed {
                    pieces.reverse();
                }
                pieces
            }
            What::PortUnreachable(by) | What::TooBig(by) | What::TimeExceeded(by) => last
                .and_then(|last| self.complaint(step, by, last, hops))
                .into_iter()
                .collect(),
        };
        spoil(&mut frames, step.special, self.is_v6);
        frames
    }

    /// An ICMP error about the frame that left last on that side.
    fn complaint(&self, step: &Step, by: Complainer, last: &[u8], hops: u8) -> Option<Vec<u8>> {
        let mut ethernet = last.get(..12)?.to_vec();
        ethernet.rotate_left(6);
        let builder =
            PacketBuilder::ethernet2(*ethernet[6..].first_chunk()?, *ethernet.first_chunk()?);
        // PacketBuilder takes the source first.
        let quote = last.get(14..)?;
        let mut frame = Vec::new();
        let written = if self.is_v6 {
            let quote = &quote[..quote.len().min(1200)];
            let (mut from, to) = (
                *quote.get(24..)?.first_chunk::<16>()?,
                *quote.get(8..)?.first_chunk::<16>()?,
            );
            if by == Complainer::Router {
                from[15] = 0x99;
            }
            let kind = match step.what {
                What::PortUnreachable(_) => {
                    Icmpv6Type::DestinationUnreachable(DestUnreachableCode::Port)
                }
                What::TooBig(_) => Icmpv6Type::PacketTooBig { mtu: 1400 },
                _ => Icmpv6Type::TimeExceeded(TimeExceededCode6::HopLimitExceeded),
            };
            builder
                .ipv6(from, to, hops)
                .icmpv6(kind)
                .write(&mut frame, quote)
        } else {
            let quote = &quote[..quote.len().min(548)];
            let (mut from, to) = (
                *quote.get(16..)?.first_chunk::<4>()?,
                *quote.get(12..)?.first_chunk::<4>()?,
            );
            if by == Complainer::Router {
                from[3] = 99;
            }
            let kind =
                match step.what {
                    What::PortUnreachable(_) => {
                        Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Port)
                    }
                    What::TooBig(_) => Icmpv4Type::DestinationUnreachable(
                        DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 },
                    ),
                    _ => Icmpv4Type::TimeExceeded(TimeExceededCode::TtlExceededInTransit),
                };
            builder
                .ipv4(from, to, hops)
                .icmpv4(kind)
                .write(&mut frame, quote)
        };
        written.ok()?;
        Some(frame)
    }
}

/// Checksums that are wrong, or left out.
fn spoil(frames: &mut [Vec<u8>], special: Special, is_v6: bool) {
    for frame in frames {
        let transport = if is_v6 {
            54
        } else {
            14 + usize::from(frame[14] & 0xf) * 4
        };
        let protocol = if is_v6 { frame[20] } else { frame[23] };
        let is_fragment = !is_v6 && frame[20..22] != [0, 0] && frame[20..22] != [0x40, 0];
        let at = transport
            + match protocol {
                6 => 16,
                17 => 6,
                1 | 58 => 2,
                _ => continue,
            };
        match special {
            Special::BadChecksum if !is_fragment => frame[at] ^= 0x55,
            Special::NoChecksum if protocol == 17 && !is_v6 && !is_fragment => {
                frame[at..at + 2].fill(0)
            }
            _ => {}
        }
    }
}
