//! The packet path, frame by frame: what goes in, what must come out, what must be counted.

mod answers;
mod changes;
mod closing;
mod crossing;
mod errors;
mod evidence;
mod explained;
mod express;
mod forwarding;
mod limits;
mod model;
mod pieces;
mod protocols;
mod serving;
mod tagged;
mod workers;
mod world;

use std::net::SocketAddr;

use sluice_conf::Protocol;

use super::Tracked;
use crate::neighbour::{MacAddress, Tags};
use crate::testutil::Build;
use crate::testutil::rig::{BACKENDS, CLIENTS, GATEWAY_BACKEND_MAC, Rig, Sent, backend_mac};
use crate::wire::parse::{Datagram, Packet, Parsed, Signal, TcpFlags, parse};

pub(super) const SYN: u8 = TcpFlags::SYN;
pub(super) const ACK: u8 = TcpFlags::ACK;
pub(super) const FIN: u8 = TcpFlags::FIN;
pub(super) const RST: u8 = TcpFlags::RST;

pub(super) const WEB: &str = "web tcp 203.0.113.10:80 node:10.0.1.1:30080 -> 10.0.2.11:8080";
pub(super) const WEB3: &str =
    "web tcp 203.0.113.10:80 -> 10.0.2.11:8080 10.0.2.12:8080 10.0.2.13:8080";
pub(super) const DNS: &str = "dns udp 203.0.113.10:53 -> 10.0.2.11:53 10.0.2.12:53";
pub(super) const VIP: &str = "203.0.113.10:80";
pub(super) const CLIENT: &str = "10.0.1.10:40000";
pub(super) const VIP6: &str = "[2001:db8:9::10]:80";
pub(super) const CLIENT6: &str = "[2001:db8:1::10]:40000";

/// What a frame says, of either family.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) source: String,
    pub(super) destination: String,
    pub(super) protocol: Protocol,
    pub(super) flags: TcpFlags,
    pub(super) sequence: u32,
    pub(super) is_right: bool,
}

fn read_packet<A: Tracked>(packet: &Packet<A>, frame: &[u8]) -> Read {
    Read {
        source: packet.tuple.source.to_string(),
        destination: packet.tuple.destination.to_string(),
        protocol: packet.tuple.protocol,
        flags: packet.flags(),
        sequence: match packet.signal {
            Signal::Tcp(segment) => segment.sequence,
            Signal::Sctp(_) | Signal::Plain => 0,
        },
        is_right: packet.has_right_checksum(frame),
    }
}

pub(super) fn packet(frame: &[u8]) -> Read {
    match parse(frame, Tags::default()) {
        Ok(Parsed::V4(Datagram::Packet(packet))) => read_packet(&packet, frame),
        Ok(Parsed::V6(Datagram::Packet(packet))) => read_packet(&packet, frame),
        other => panic!("not a packet: {other:?}"),
    }
}

/// Source and destination of a frame, as text.
pub(super) fn ends(frame: &[u8]) -> (String, String) {
    let read = packet(frame);
    (read.source, read.destination)
}

/// Ethernet address of the backend that `sent` goes to: its addresses of both families end alike.
pub(super) fn mac_of(destination: &str) -> MacAddress {
    let address: SocketAddr = destination.parse().unwrap();
    let text = address.ip().to_string();
    let last = text.rsplit(['.', ':']).next().unwrap();
    backend_mac(last.parse().unwrap())
}

/// The answer of the backend that got `sent`, as a frame to be.
pub(super) fn answering(sent: &Sent) -> Build {
    let read = packet(&sent.1);
    let mac = mac_of(&read.destination);
    Build::packet(read.protocol, &read.destination, &read.source).macs(mac, GATEWAY_BACKEND_MAC)
}

/// The answer of the backend that got `sent`.
pub(super) fn answer(sent: &Sent, flags: u8) -> Vec<u8> {
    match packet(&sent.1).protocol {
        Protocol::Tcp => answering(sent).flags(flags).numbers(2000, 1001).frame(),
        Protocol::Udp => answering(sent).payload(b"answer").frame(),
        Protocol::Sctp => answering(sent).frame(),
    }
}

pub(super) fn establish(rig: &mut Rig, client: &str) -> Sent {
    establish_with(rig, client, VIP)
}

pub(super) fn establish_with(rig: &mut Rig, client: &str, vip: &str) -> Sent {
    let syn = Build::tcp(client, vip).flags(SYN).numbers(1000, 0);
    let syn = rig.exchange(CLIENTS, &syn.frame());
    let both = answering(&syn).flags(SYN | ACK).numbers(1999, 1001);
    rig.exchange(BACKENDS, &both.frame());
    let ack = Build::tcp(client, vip).flags(ACK).numbers(1001, 2000);
    rig.exchange(CLIENTS, &ack.frame())
}

pub(super) fn backend_of(sent: &Sent) -> String {
    ends(&sent.1).1
}
