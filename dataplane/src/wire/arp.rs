//! ARP requests for a Vip become ARP replies (RFC 826).

use super::parse::Arp;
use super::rewrite::{EthernetPair, write_ethernet};
use crate::neighbour::MacAddress;

/// Turns the request in the frame into the answer that `mac` has the address asked for.
///
/// False when `arp` was not read from this frame.
pub fn answer(frame: &mut [u8], arp: &Arp, mac: MacAddress) -> bool {
    let pair = EthernetPair {
        source: mac,
        destination: arp.sender_mac,
    };
    let start = usize::from(arp.start);
    let Some(body) = frame.get_mut(start..start + 28) else {
        return false;
    };
    body[6..8].copy_from_slice(&[0, 2]);
    body[8..14].copy_from_slice(&mac.0);
    body[14..18].copy_from_slice(&arp.wanted.octets());
    body[18..24].copy_from_slice(&arp.sender_mac.0);
    body[24..28].copy_from_slice(&arp.sender.octets());
    write_ethernet(frame, pair)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::neighbour::Tags;
    use crate::testutil::{CLIENT_MAC, GATEWAY_MAC, arp_request};
    use crate::wire::parse::{Parsed, parse};

    #[test]
    fn the_asker_learns_the_gateways_address_for_the_vip() {
        let mut frame = arp_request("10.0.1.10", "10.0.1.100");
        let Ok(Parsed::Arp(arp)) = parse(&frame, Tags::default()) else {
            panic!("not ARP")
        };
        assert!(arp.is_request);
        assert!(answer(&mut frame, &arp, GATEWAY_MAC));

        let mut expected = Vec::new();
        expected.extend(CLIENT_MAC.0);
        expected.extend(GATEWAY_MAC.0);
        expected.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
        expected.extend(GATEWAY_MAC.0);
        expected.extend([10, 0, 1, 100]);
        expected.extend(CLIENT_MAC.0);
        expected.extend([10, 0, 1, 10]);
        expected.resize(60, 0);
        assert_eq!(frame, expected);
    }
}
