//! IP headers: IPv4 with options (RFC 791), IPv6 with extension headers (RFC 8200).

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice};
use sluice_conf::Protocol;

use super::{Datagram, Fragment, Packet, Parsed, Piece, Place, Question, icmp, transport};
use crate::flow::{End, FiveTuple};
use crate::verdict::DropReason;
use crate::wire::extension::{self, Bad};
use crate::wire::{Family, checksum, ndp};

pub(super) fn parse_v4(frame: &[u8], start: usize) -> Result<Datagram<Ipv4Addr>, DropReason> {
    use etherparse::err::ipv4::HeaderSliceError;
    let bytes = frame.get(start..).ok_or(DropReason::Truncated)?;
    let ip = Ipv4HeaderSlice::from_slice(bytes).map_err(|error| match error {
        HeaderSliceError::Len(_) => DropReason::Truncated,
        HeaderSliceError::Content(_) => DropReason::BadHeader,
    })?;
    let header_len = ip.slice().len();
    let total_len = usize::from(ip.total_len());
    if total_len < header_len {
        return Err(DropReason::BadHeader);
    }
    let payload = bytes
        .get(header_len..total_len)
        .ok_or(DropReason::Truncated)?;
    if !checksum::is_right(ip.slice()) {
        return Err(DropReason::BadIpChecksum);
    }
    let piece = ip.is_fragmenting_payload().then(|| Piece {
        identification: ip.identification().into(),
        offset: ip.fragments_offset().byte_offset(),
        len: payload.len() as u16,
        more: ip.more_fragments(),
    });
    // A frame slot has at most 4,096 bytes, so offsets fit 16 bits.
    let place = Place {
        network: start as u16,
        transport: (start + header_len) as u16,
        end: (start + total_len) as u16,
        hop_limit: ip.ttl(),
        may_fragment: !ip.dont_fragment(),
        piece,
    };
    let ends = (ip.source_addr(), ip.destination_addr());
    datagram(ends, ip.protocol().0, payload, place)
}

pub(super) fn parse_v6(frame: &[u8], start: usize) -> Result<Parsed, DropReason> {
    let bytes = frame.get(start..).ok_or(DropReason::Truncated)?;
    let ip = Ipv6HeaderSlice::from_slice(bytes).map_err(|error| {
        use etherparse::err::ipv6::HeaderSliceError;
        match error {
            HeaderSliceError::Len(_) => DropReason::Truncated,
            HeaderSliceError::Content(_) => DropReason::BadHeader,
        }
    })?;
    let total_len = ip.slice().len() + usize::from(ip.payload_length());
    let packet = bytes.get(..total_len).ok_or(DropReason::Truncated)?;
    let found = extension::walk(packet).map_err(|bad| match bad {
        Bad::Truncated => DropReason::Truncated,
        Bad::Unsupported(_) => DropReason::Protocol,
        Bad::TooMany | Bad::RoutingHeader0 => DropReason::BadHeader,
    })?;
    let payload = packet.get(found.offset..).ok_or(DropReason::Truncated)?;
    // A lone fragment is the whole packet (RFC 6946).
    let piece = found
        .fragment
        .filter(|fragment| !fragment.is_atomic())
        .map(|fragment| Piece {
            identification: fragment.identification,
            offset: fragment.offset,
            len: (packet.len() - fragment.data) as u16,
            more: fragment.more,
        });
    let place = Place {
        network: start as u16,
        transport: (start + found.offset) as u16,
        end: (start + total_len) as u16,
        hop_limit: ip.hop_limit(),
        may_fragment: false,
        piece,
    };
    let ends = (ip.source_addr(), ip.destination_addr());
    if piece.is_none()
        && found.protocol == Ipv6Addr::ICMP
        && let Some(solicitation) = ndp::parse(payload, ends.0, ends.1, place.hop_limit)
    {
        return Ok(Parsed::Question(Question {
            solicitation,
            network: place.network,
        }));
    }
    datagram(ends, found.protocol, payload, place).map(Parsed::V6)
}

fn datagram<A: Family>(
    (source, destination): (A, A),
    number: u8,
    payload: &[u8],
    place: Place,
) -> Result<Datagram<A>, DropReason> {
    let Some(protocol) = protocol(number) else {
        return match (number == A::ICMP, place.piece) {
            (true, None) => icmp::parse(source, destination, payload, place),
            (true, Some(_)) => Err(DropReason::Fragment),
            (false, _) => Err(DropReason::Protocol),
        };
    };
    if let Some(piece) = place.piece {
        check_piece(piece, protocol)?;
        if piece.offset > 0 {
            return Ok(Datagram::Fragment(Fragment {
                source,
                destination,
                protocol,
                place,
                piece,
            }));
        }
    }
    let (ports, signal) = transport::parse(protocol, payload, place.piece.is_some())?;
    let tuple = FiveTuple {
        source: End::new(source, ports.0),
        destination: End::new(destination, ports.1),
        protocol,
    };
    Ok(Datagram::Packet(Packet {
        tuple,
        place,
        signal,
    }))
}

pub(super) const fn protocol(number: u8) -> Option<Protocol> {
    match number {
        6 => Some(Protocol::Tcp),
        17 => Some(Protocol::Udp),
        132 => Some(Protocol::Sctp),
        _ => None,
    }
}

/// A fragment that is not the last fills whole units of eight bytes, and none may reach beyond
/// the longest packet (RFC 791 section 3.2). One that begins within the transport header is there to
/// overwrite what a filter has seen (RFC 3128).
fn check_piece(piece: Piece, protocol: Protocol) -> Result<(), DropReason> {
    let beyond = u32::from(piece.offset) + u32::from(piece.len) > u32::from(u16::MAX);
    let ragged = piece.more && !piece.len.is_multiple_of(8);
    if piece.len == 0 || beyond || ragged {
        return Err(DropReason::BadHeader);
    }
    let header = match protocol {
        Protocol::Tcp => 20,
        Protocol::Udp => 8,
        Protocol::Sctp => 12,
    };
    if piece.offset > 0 && piece.offset < header {
        return Err(DropReason::FragmentTiny);
    }
    Ok(())
}
