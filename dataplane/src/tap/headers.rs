//! What a frame says to a filter. Reads leniently: also a damaged packet has addresses.

use std::net::IpAddr;

use etherparse::{LaxNetSlice, LaxSlicedPacket};
use sluice_conf::Protocol;
use sluice_conf::message::dataplane::tap::{Headers, TapFilter};

/// Where the flags of a TCP header stand (RFC 9293 section 3.1).
const TCP_FLAGS: usize = 13;

/// The headers of an IP packet behind any VLAN tags; `None` for everything else.
pub(super) fn read(frame: &[u8]) -> Option<Headers> {
    let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
    let (source, destination): (IpAddr, IpAddr) = match packet.net.as_ref()? {
        LaxNetSlice::Ipv4(v4) => {
            let header = v4.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
            )
        }
        LaxNetSlice::Ipv6(v6) => {
            let header = v6.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
            )
        }
        LaxNetSlice::Arp(_) => return None,
    };
    let payload = packet.ip_payload()?;
    let protocol = payload.ip_number.0;
    let transport = if payload.fragmented {
        &[]
    } else {
        payload.payload
    };
    Some(Headers {
        protocol,
        source,
        destination,
        ports: has_ports(protocol).then(|| ports(transport)).flatten(),
        flags: match protocol == Protocol::Tcp.number() {
            true => transport.get(TCP_FLAGS).copied(),
            false => None,
        },
    })
}

fn has_ports(protocol: u8) -> bool {
    let known = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    known.into_iter().any(|known| known.number() == protocol)
}

fn ports(transport: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *transport.first_chunk::<4>()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

/// Whether a packet is one of those asked for. A frame that is no IP packet matches the empty
/// filter only.
pub(super) fn matches(filter: &TapFilter, headers: Option<&Headers>) -> bool {
    let Some(headers) = headers else {
        return *filter == TapFilter::default();
    };
    let Headers {
        source,
        destination,
        ports,
        protocol,
        ..
    } = *headers;
    let (from, to) = (ports.map(|ports| ports.0), ports.map(|ports| ports.1));
    let is_protocol = filter
        .protocol
        .is_none_or(|wanted| wanted.number() == protocol);
    let is_between = |client: IpAddr, (service, port): (IpAddr, Option<u16>)| {
        filter.client.is_none_or(|wanted| wanted == client)
            && filter.service.is_none_or(|wanted| wanted == service)
            && filter.port.is_none_or(|wanted| Some(wanted) == port)
    };
    is_protocol
        && (is_between(source, (destination, to)) || is_between(destination, (source, from)))
}
