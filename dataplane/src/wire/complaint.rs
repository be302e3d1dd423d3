//! ICMP errors about translated packets, translated back (RFC 5508 section 4): the packet that they
//! quote becomes the one that its sender knows.

use super::Family;
use super::parse::Complaint;
use super::rewrite::write_transport;
use crate::flow::FiveTuple;

/// Gives the error the outer addresses `to` and its quoted packet the tuple `about`, and takes one
/// from its hop limit. The ICMP checksum is made anew: whoever calls has checked it.
///
/// False, and nothing usable in the frame, when `complaint` was not read from this frame.
pub fn translate<A: Family>(
    frame: &mut [u8],
    complaint: &Complaint<A>,
    to: (A, A),
    about: &FiveTuple<A>,
) -> bool {
    let place = complaint.place;
    let end = usize::from(place.end);
    let Some(quoted) = frame.get_mut(usize::from(complaint.quoted_network)..end) else {
        return false;
    };
    let transport = usize::from(complaint.quoted_transport - complaint.quoted_network);
    let addresses = (about.source.address, about.destination.address);
    if !A::readdress(quoted, addresses, 0) {
        return false;
    }
    let Some(segment) = quoted.get_mut(transport..) else {
        return false;
    };
    if !write_transport(segment, &complaint.about, about) {
        return false;
    }
    let Some(message) = frame.get_mut(usize::from(place.transport)..end) else {
        return false;
    };
    let Some(field) = message.get_mut(2..4) else {
        return false;
    };
    field.fill(0);
    let sum = A::icmp_checksum(to.0, to.1, message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let packet = frame.get_mut(usize::from(place.network)..);
    packet.is_some_and(|packet| A::readdress(packet, to, 1))
}
