//! ICMP (RFC 792) and ICMPv6 (RFC 4443): echo requests and errors with the packet that they quote.

use super::{Complaint, Datagram, Echo, Place};
use crate::flow::{End, FiveTuple};
use crate::verdict::DropReason;
use crate::wire::{Family, Quote};

/// Bytes of an ICMP header.
const HEADER: usize = 8;

pub(super) fn parse<A: Family>(
    source: A,
    destination: A,
    message: &[u8],
    place: Place,
) -> Result<Datagram<A>, DropReason> {
    let [kind, code, _, _, _, _, _, _, quoted @ ..] = message else {
        return Err(DropReason::Truncated);
    };
    if (*kind, *code) == (A::ECHO_REQUEST, 0) {
        return Ok(Datagram::Echo(Echo {
            source,
            destination,
            place,
        }));
    }
    if !A::is_error(*kind) {
        return Err(DropReason::Protocol);
    }
    let quote = A::read_quote(quoted).ok_or(DropReason::BadQuote)?;
    let at = usize::from(place.transport) + HEADER;
    let about = tuple(&quote, quoted).ok_or(DropReason::BadQuote)?;
    Ok(Datagram::Complaint(Complaint {
        source,
        destination,
        place,
        about,
        quoted_network: at as u16,
        quoted_transport: (at + quote.transport) as u16,
    }))
}

/// The quoted packet's tuple; ports stand first in the header of every protocol served.
fn tuple<A: Family>(quote: &Quote<A>, quoted: &[u8]) -> Option<FiveTuple<A>> {
    let protocol = super::ip::protocol(quote.protocol)?;
    let [s0, s1, d0, d1] = *quoted.get(quote.transport..)?.first_chunk::<4>()?;
    Some(FiveTuple {
        source: End::new(quote.source, u16::from_be_bytes([s0, s1])),
        destination: End::new(quote.destination, u16::from_be_bytes([d0, d1])),
        protocol,
    })
}

pub(super) fn is_right<A: Family>(frame: &[u8], source: A, destination: A, place: &Place) -> bool {
    let message = frame.get(usize::from(place.transport)..usize::from(place.end));
    message.is_some_and(|message| A::icmp_checksum(source, destination, message) == 0)
}
