//! The frames of a plan, written by this process; the BPF program writes the same.

use std::net::IpAddr;

use super::flow::splitmix;
use super::plan::{CONNECTION_STEPS, ETHERNET, Plan, Protocol, SIZES, STAMP, Script};

const FIN: u32 = 0x01;
const SYN: u32 = 0x02;
const PSH: u32 = 0x08;
const ACK: u32 = 0x10;
/// Where TCP's sequence numbers start, on both sides.
const FIRST_SEQUENCE: u32 = 1000;

/// Where a frame belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Flow.
    pub flow: u32,
    /// Number in its flow.
    pub sequence: u32,
    /// Step of a connection's script.
    pub step: u32,
    /// Whether it opens a connection beside the flows.
    pub flood: bool,
}

/// Writes the frames of a plan, one after the other.
#[derive(Debug)]
pub struct Writer<'a> {
    plan: &'a Plan,
    sequences: Vec<u32>,
}

impl<'a> Writer<'a> {
    /// A writer at the start of `plan`.
    pub fn new(plan: &'a Plan) -> Self {
        let drawn = if plan.draws.is_empty() { 0 } else { plan.flows };
        Self {
            plan,
            sequences: vec![0; drawn as usize],
        }
    }

    /// Where frame `number` belongs; nowhere when its connection has not begun.
    pub fn place(&mut self, number: u64) -> Option<Place> {
        let plan = self.plan;
        let before = plan.floods_before(number);
        if plan.floods(number) {
            return Some(Place {
                flow: (plan.flows + before) as u32,
                sequence: 0,
                step: 0,
                flood: true,
            });
        }
        let (mut turn, mut step) = (number - before, 0);
        if plan.script == Script::Connection {
            step = (number % CONNECTION_STEPS) as u32;
            let behind = u64::from(step) * u64::from(plan.window());
            turn = (number / CONNECTION_STEPS).checked_sub(behind)?;
        }
        if !plan.draws.is_empty() {
            let flow = *plan.draws.get(turn as usize & (plan.draws.len() - 1))?;
            let next = self.sequences.get_mut(flow as usize)?;
            let sequence = *next;
            *next = next.wrapping_add(1);
            return Some(Place {
                flow,
                sequence,
                step,
                flood: false,
            });
        }
        let mut sequence = (turn / plan.flows) as u32;
        if plan.script == Script::Connection {
            sequence = sequence.wrapping_mul(CONNECTION_STEPS as u32) + step;
        }
        Some(Place {
            flow: (turn % plan.flows) as u32,
            sequence,
            step,
            flood: false,
        })
    }

    /// Writes frame `number`, due at `time` (CLOCK_MONOTONIC, ns), at the start of `room` and
    /// returns its bytes; 0 when there is no such frame.
    pub fn write(&mut self, number: u64, time: u64, room: &mut [u8]) -> usize {
        let plan = self.plan;
        let size = usize::from(plan.sizes[(number % SIZES as u64) as usize]);
        let Some(place) = self.place(number) else {
            return 0;
        };
        let Some(frame) = room.get_mut(..size) else {
            return 0;
        };
        frame.fill(0);
        let (client, port) = plan.clients.of(place.flow, &plan.key);
        let target = plan.targets[place.flow as usize % plan.targets.len()];
        let (ethernet, packet) = frame.split_at_mut(ETHERNET);
        ethernet[..6].copy_from_slice(&plan.target_mac);
        ethernet[6..12].copy_from_slice(&plan.source_mac);
        let protocol = plan.protocol.number(client);
        let (pseudo, transport) = write_ip(ethernet, packet, protocol, client, target.ip());
        let header = plan.protocol.header();
        let payload = transport.len() - header;
        self.write_transport(transport, payload, port, target.port(), place);
        let run = if place.flood {
            plan.flood_run()
        } else {
            plan.run
        };
        let stamp = [
            run,
            place.flow,
            place.sequence,
            time as u32,
            (time >> 32) as u32,
        ];
        for (word, room) in stamp
            .iter()
            .zip(transport[header..header + STAMP].chunks_exact_mut(4))
        {
            room.copy_from_slice(&word.to_ne_bytes());
        }
        write_sum(plan.protocol, pseudo, transport);
        size
    }

    fn write_transport(
        &self,
        transport: &mut [u8],
        payload: usize,
        port: u16,
        target_port: u16,
        place: Place,
    ) {
        let payload = payload as u32;
        if self.plan.protocol == Protocol::Icmp {
            transport[0] = if self.plan.clients.first().is_ipv4() {
                8
            } else {
                128
            };
            transport[4..6].copy_from_slice(&port.to_be_bytes());
            transport[6..8].copy_from_slice(&(place.sequence as u16).to_be_bytes());
            return;
        }
        transport[..2].copy_from_slice(&port.to_be_bytes());
        transport[2..4].copy_from_slice(&target_port.to_be_bytes());
        if self.plan.protocol == Protocol::Udp {
            let length = (payload + 8) as u16;
            transport[4..6].copy_from_slice(&length.to_be_bytes());
            return;
        }
        let step = place.step;
        // SYN and FIN take a number beside those of the payload.
        let ends = u32::from(step > 0) + u32::from(step > 2);
        let (sent, flags) = match self.plan.script {
            Script::Data if place.flood => (0, SYN),
            Script::Data => (place.sequence.wrapping_mul(payload), PSH | ACK),
            Script::Syn => (0, SYN),
            Script::Connection => (
                step * payload + ends,
                [SYN, ACK, FIN | ACK, ACK][step as usize],
            ),
        };
        let words = [
            FIRST_SEQUENCE.wrapping_add(sent),
            FIRST_SEQUENCE + (payload + 1) * ends,
            5 << 28 | flags << 16 | 0xffff,
        ];
        for (word, room) in words.iter().zip(transport[4..16].chunks_exact_mut(4)) {
            room.copy_from_slice(&word.to_be_bytes());
        }
    }
}

/// Writes the network header; returns the sum of the pseudo header and the rest of the packet.
fn write_ip<'f>(
    ethernet: &mut [u8],
    packet: &'f mut [u8],
    protocol: u8,
    client: IpAddr,
    target: IpAddr,
) -> (u64, &'f mut [u8]) {
    let length = packet.len() as u16;
    match (client, target) {
        (IpAddr::V4(client), IpAddr::V4(target)) => {
            ethernet[12..].copy_from_slice(&[0x08, 0x00]);
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&length.to_be_bytes());
            packet[6] = 0x40;
            packet[8] = 64;
            packet[9] = protocol;
            packet[12..16].copy_from_slice(&client.octets());
            packet[16..20].copy_from_slice(&target.octets());
            let sum = !fold(sum_of(&packet[..20]));
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            let (header, transport) = packet.split_at_mut(20);
            let length = transport.len() as u64;
            (
                sum_of(&header[12..]) + u64::from(protocol) + length,
                transport,
            )
        }
        (client, target) => {
            let octets = |address: IpAddr| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            ethernet[12..].copy_from_slice(&[0x86, 0xdd]);
            packet[0] = 0x60;
            packet[4..6].copy_from_slice(&(length - 40).to_be_bytes());
            packet[6] = protocol;
            packet[7] = 64;
            packet[8..24].copy_from_slice(&octets(client));
            packet[24..40].copy_from_slice(&octets(target));
            let (header, transport) = packet.split_at_mut(40);
            let length = transport.len() as u64;
            (
                sum_of(&header[8..]) + u64::from(protocol) + length,
                transport,
            )
        }
    }
}

fn write_sum(protocol: Protocol, pseudo: u64, transport: &mut [u8]) {
    // ICMP has no pseudo header, ICMPv6 has (RFC 4443, 2.3).
    let pseudo = if protocol == Protocol::Icmp && transport[0] == 8 {
        0
    } else {
        pseudo
    };
    let sum = !fold(pseudo + sum_of(transport));
    let at = sum_place(protocol);
    let sum = if protocol == Protocol::Udp && sum == 0 {
        0xffff
    } else {
        sum
    };
    transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Where the transport header has its checksum.
fn sum_place(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Tcp => 16,
        Protocol::Udp => 6,
        Protocol::Icmp => 2,
    }
}

/// Sum of 16-bit words (RFC 1071); an odd last byte counts as if a zero followed.
pub fn sum_of(bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| match pair {
        [high, low] => u64::from(u16::from_be_bytes([*high, *low])),
        [high] => u64::from(*high) << 8,
        _ => 0,
    };
    bytes.chunks(2).map(word).sum()
}

/// The 16-bit sum with its carries.
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A number that no other run of this machine is likely to have. It is odd, so that no run's number
/// is that of another one's flood.
pub fn run_number(time: u64) -> u32 {
    let mut state = time ^ u64::from(std::process::id()) << 32;
    splitmix(&mut state) as u32 | 1
}

#[cfg(test)]
mod tests;
