//! The packet path, frame by frame: what goes in, what must come out, what must be counted.

mod answers;
mod changes;
mod forwarding;
mod limits;
mod workers;

use crate::testutil::Build;
use crate::testutil::rig::{BACKENDS, CLIENTS, GATEWAY_BACKEND_MAC, Rig, Sent, backend_mac};
use crate::wire::parse::{Packet, Parsed, TcpFlags, parse};

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

pub(super) fn packet(frame: &[u8]) -> Packet {
    match parse(frame) {
        Ok(Parsed::Packet(packet)) => packet,
        other => panic!("not a packet: {other:?}"),
    }
}

/// Source and destination of a frame, as text.
pub(super) fn ends(frame: &[u8]) -> (String, String) {
    let tuple = packet(frame).tuple;
    (tuple.source.to_string(), tuple.destination.to_string())
}

/// The answer of the backend that got `sent`.
pub(super) fn answer(sent: &Sent, flags: u8) -> Vec<u8> {
    let (source, destination) = ends(&sent.1);
    let last = packet(&sent.1).tuple.destination.address.octets()[3];
    let build = match packet(&sent.1).tuple.protocol {
        sluice_conf::Protocol::Tcp => Build::tcp(&destination, &source).flags(flags),
        sluice_conf::Protocol::Udp => Build::udp(&destination, &source).payload(b"answer"),
    };
    build.macs(backend_mac(last), GATEWAY_BACKEND_MAC).frame()
}

pub(super) fn establish(rig: &mut Rig, client: &str) -> Sent {
    let syn = rig.exchange(CLIENTS, &Build::tcp(client, VIP).flags(SYN).frame());
    rig.exchange(BACKENDS, &answer(&syn, SYN | ACK));
    rig.exchange(CLIENTS, &Build::tcp(client, VIP).flags(ACK).frame())
}

pub(super) fn backend_of(sent: &Sent) -> String {
    ends(&sent.1).1
}
