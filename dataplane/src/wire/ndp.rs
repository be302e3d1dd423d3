//! Neighbour solicitations for a Vip become advertisements (RFC 4861 sections 4.3, 4.4 and 7.2).

use std::net::Ipv6Addr;

use etherparse::checksum::Sum16BitWords;

const ETHERNET_LEN: usize = 14;
const IPV6_LEN: usize = 40;

/// Bytes of an answer, from its IPv6 header on.
pub const ANSWER_LEN: usize = IPV6_LEN + ADVERTISEMENT_LEN;

const ICMPV6: u8 = 58;

/// Type of the message that asks.
pub const SOLICITATION: u8 = 135;

/// Type of the message that answers.
const ADVERTISEMENT: u8 = 136;

/// Bytes of an advertisement with the option that names the link-layer address.
const ADVERTISEMENT_LEN: usize = 32;

/// Bytes of a solicitation without options.
const FIXED_LEN: usize = 24;

/// Packets of this protocol never come through a router (RFC 4861 section 11.2).
const HOP_LIMIT: u8 = 255;

// Options (RFC 4861 section 4.6); lengths in units of 8 bytes.
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;

// Flags of an advertisement (RFC 4861 section 4.4).
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// Someone asks who has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Solicitation {
    /// Who asks; `::` when it asks whether the address is still free for itself.
    pub source: Ipv6Addr,
    /// The address asked for; not multicast.
    pub target: Ipv6Addr,
    /// Link-layer address of who asks, if the message says it.
    pub link_layer: Option<[u8; 6]>,
}

impl Solicitation {
    /// Whether this is duplicate address detection (RFC 4862 section 5.4).
    pub fn is_duplicate_detection(&self) -> bool {
        self.source.is_unspecified()
    }
}

/// Reads a solicitation from an ICMPv6 message and the addresses and hop limit of its IPv6 header.
///
/// `None` when it is none, or one that must be silently discarded (RFC 4861 section 7.1.1), which
/// includes a wrong checksum.
pub fn parse(
    message: &[u8],
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
) -> Option<Solicitation> {
    let (fixed, options) = message.split_first_chunk::<FIXED_LEN>()?;
    let [SOLICITATION, 0, ..] = *fixed else {
        return None;
    };
    let target = Ipv6Addr::from(*fixed.last_chunk::<16>()?);
    let link_layer = source_link_layer(options)?;
    let solicitation = Solicitation {
        source,
        target,
        link_layer,
    };
    let is_valid = hop_limit == HOP_LIMIT
        && !target.is_multicast()
        && !source.is_multicast()
        && checksum(source, destination, message) == 0;
    let may_detect = destination == solicited_node(target) && link_layer.is_none();
    (is_valid && (may_detect || !solicitation.is_duplicate_detection())).then_some(solicitation)
}

/// The source link-layer address among the options; the outer `None` when an option breaks its
/// bounds.
fn source_link_layer(mut options: &[u8]) -> Option<Option<[u8; 6]>> {
    let mut found = None;
    while !options.is_empty() {
        let units = *options.get(1)?;
        if units == 0 {
            return None;
        }
        let (option, rest) = options.split_at_checked(usize::from(units) * 8)?;
        if let [SOURCE_LINK_LAYER, 1, mac @ ..] = option {
            found = mac.first_chunk().copied();
        }
        options = rest;
    }
    Some(found)
}

/// Turns the frame that asked into the advertisement that `mac` has the target. `network` is the
/// offset of the IPv6 header; what stands between the Ethernet addresses and it (a VLAN tag) stays.
///
/// Returns the length that the frame shall have; what lies beyond it is left over. `None`, with the
/// frame untouched, when it is not that long or has no room for an Ethernet header.
pub fn answer(
    frame: &mut [u8],
    network: usize,
    solicitation: &Solicitation,
    mac: [u8; 6],
) -> Option<usize> {
    let len = network.checked_add(IPV6_LEN + ADVERTISEMENT_LEN)?;
    if network < ETHERNET_LEN {
        return None;
    }
    let (ethernet, packet) = frame.get_mut(..len)?.split_at_mut_checked(network)?;
    let (ip, message) = packet.split_at_mut_checked(IPV6_LEN)?;

    let (to, to_mac, flags) = if solicitation.is_duplicate_detection() {
        // There is nobody yet to send it to: all hear it, and it answers none of them.
        (ALL_NODES, ALL_NODES_MAC, OVERRIDE)
    } else {
        let asker = *ethernet.get(6..)?.first_chunk::<6>()?;
        let to_mac = solicitation.link_layer.unwrap_or(asker);
        (solicitation.source, to_mac, SOLICITED | OVERRIDE)
    };
    let (addresses, _) = ethernet.split_first_chunk_mut::<12>()?;
    addresses[..6].copy_from_slice(&to_mac);
    addresses[6..].copy_from_slice(&mac);
    write_ip(ip.first_chunk_mut()?, solicitation.target, to);
    let message = message.first_chunk_mut()?;
    write_advertisement(message, solicitation.target, flags, mac);
    let sum = checksum(solicitation.target, to, message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    Some(len)
}

fn write_ip(ip: &mut [u8; IPV6_LEN], source: Ipv6Addr, destination: Ipv6Addr) {
    ip[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, ADVERTISEMENT_LEN as u8, ICMPV6, HOP_LIMIT]);
    ip[8..24].copy_from_slice(&source.octets());
    ip[24..].copy_from_slice(&destination.octets());
}

fn write_advertisement(
    message: &mut [u8; ADVERTISEMENT_LEN],
    target: Ipv6Addr,
    flags: u8,
    mac: [u8; 6],
) {
    message[..8].copy_from_slice(&[ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0]);
    message[8..24].copy_from_slice(&target.octets());
    message[24..26].copy_from_slice(&[TARGET_LINK_LAYER, 1]);
    message[26..].copy_from_slice(&mac);
}

/// The multicast address on which the owner of `address` is asked (RFC 4291 section 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let low = address.to_bits() & 0xff_ffff;
    Ipv6Addr::from_bits(0xff02_0000_0000_0000_0000_0001_ff00_0000 | low)
}

/// Checksum over pseudo header and message (RFC 8200 section 8.1): 0 when the message holds its
/// right one; with the field set to 0 it is the value to write.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    Sum16BitWords::new()
        .add_16bytes(source.octets())
        .add_16bytes(destination.octets())
        .add_4bytes((message.len() as u32).to_be_bytes())
        .add_2bytes([0, ICMPV6])
        .add_slice(message)
        .ones_complement()
        .to_be()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ASKER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn asker() -> Ipv6Addr {
        "2001:db8::10".parse().unwrap()
    }

    fn vip() -> Ipv6Addr {
        "2001:db8::ab:cdef".parse().unwrap()
    }

    /// A solicitation for the Vip with these options, its checksum right.
    fn message(source: Ipv6Addr, destination: Ipv6Addr, options: &[u8]) -> Vec<u8> {
        let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        message.extend(vip().octets());
        message.extend(options);
        seal(message, source, destination)
    }

    fn seal(mut message: Vec<u8>, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
        message[2..4].fill(0);
        let sum = checksum(source, destination, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        message
    }

    fn link_layer_option(mac: [u8; 6]) -> Vec<u8> {
        [&[SOURCE_LINK_LAYER, 1], &mac[..]].concat()
    }

    /// The frame that carries the message, with `tag` between Ethernet addresses and type.
    fn frame(tag: &[u8], source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> Vec<u8> {
        let mut frame = [&[0x33, 0x33, 0xff, 0xab, 0xcd, 0xef], &ASKER_MAC[..]].concat();
        frame.extend(tag);
        frame.extend([0x86, 0xdd, 0x6a, 0xbc, 0xde, 0xf0]);
        frame.extend([0, message.len() as u8, ICMPV6, 255]);
        frame.extend(source.octets());
        frame.extend(destination.octets());
        frame.extend(message);
        frame
    }

    #[test]
    fn the_solicited_node_address_keeps_the_last_24_bits() {
        let expected: Ipv6Addr = "ff02::1:ffab:cdef".parse().unwrap();
        assert_eq!(solicited_node(vip()), expected);
    }

    /// As Linux 6.18 sent it to find the Vip, and to claim the address below it.
    #[test]
    fn what_linux_asks_is_read() {
        let mut ask = vec![0x87, 0, 0x7e, 0xe6, 0, 0, 0, 0, 0x20, 0x01, 0x0d, 0xb8];
        ask.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0xab, 0xcd, 0xef]);
        ask.extend([1, 1, 2, 0, 0, 0, 0, 1]);
        let found = parse(&ask, asker(), solicited_node(vip()), 255).unwrap();
        assert_eq!(
            (found.target, found.link_layer),
            (vip(), Some([2, 0, 0, 0, 0, 1]))
        );

        let mut claim = vec![0x87, 0, 0x25, 0x62, 0, 0, 0, 0, 0x20, 0x01, 0x0d, 0xb8];
        claim.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0xab, 0xcd, 0xee]);
        claim.extend([0x0e, 1, 0xcc, 0xd1, 0x35, 0xfe, 0x79, 0x80]);
        let target = Ipv6Addr::from_bits(vip().to_bits() - 1);
        let to = solicited_node(target);
        let found = parse(&claim, Ipv6Addr::UNSPECIFIED, to, 255).unwrap();
        assert!(found.is_duplicate_detection());
        assert_eq!((found.target, found.link_layer), (target, None));
    }

    #[test]
    fn a_solicitation_is_read_with_and_without_its_option() {
        for destination in [vip(), solicited_node(vip())] {
            let bare = message(asker(), destination, &[]);
            let mut expected = Solicitation {
                source: asker(),
                target: vip(),
                link_layer: None,
            };
            assert_eq!(parse(&bare, asker(), destination, 255), Some(expected));
            assert!(!expected.is_duplicate_detection());

            // Behind an option of another kind, here a nonce (RFC 3971 section 5.3.2).
            let options = [
                &[14, 1, 0, 0, 0, 0, 0, 0],
                &link_layer_option(OTHER_MAC)[..],
            ]
            .concat();
            let full = message(asker(), destination, &options);
            expected.link_layer = Some(OTHER_MAC);
            assert_eq!(parse(&full, asker(), destination, 255), Some(expected));
        }
    }

    #[test]
    fn what_must_be_discarded_is() {
        let to = solicited_node(vip());
        let good = message(asker(), to, &link_layer_option(ASKER_MAC));
        assert!(parse(&good, asker(), to, 255).is_some());
        assert_eq!(parse(&good, asker(), to, 254), None, "through a router");

        let changed = |at: usize, value: u8| {
            let mut message = good.clone();
            message[at] = value;
            parse(&seal(message, asker(), to), asker(), to, 255)
        };
        assert_eq!(changed(0, ADVERTISEMENT), None, "another type");
        assert_eq!(changed(1, 1), None, "a code");
        assert_eq!(changed(8, 0xff), None, "a multicast target");
        assert_eq!(changed(25, 0), None, "an option of no length");
        assert_eq!(changed(25, 2), None, "an option beyond the message");

        let mut damaged = good.clone();
        damaged[20] ^= 1;
        assert_eq!(parse(&damaged, asker(), to, 255), None, "a wrong checksum");
        for len in (0..24).chain(25..32) {
            let cut = &good[..len];
            let cut = if len < 4 {
                cut.to_vec()
            } else {
                seal(cut.to_vec(), asker(), to)
            };
            assert_eq!(parse(&cut, asker(), to, 255), None, "cut to {len}");
        }
        let group = solicited_node(asker());
        let message = message(group, to, &[]);
        assert_eq!(parse(&message, group, to, 255), None, "a group asks");
    }

    #[test]
    fn duplicate_detection_has_a_form_of_its_own() {
        let (nobody, to) = (Ipv6Addr::UNSPECIFIED, solicited_node(vip()));
        let found = parse(&message(nobody, to, &[]), nobody, to, 255).unwrap();
        assert!(found.is_duplicate_detection());
        let named = message(nobody, to, &link_layer_option(ASKER_MAC));
        assert_eq!(parse(&named, nobody, to, 255), None);
        let unicast = message(nobody, vip(), &[]);
        assert_eq!(parse(&unicast, nobody, vip(), 255), None);
    }

    /// The advertisement, byte by byte.
    fn advertisement(to: Ipv6Addr, to_mac: [u8; 6], tag: &[u8], flags: u8) -> Vec<u8> {
        let mut message = vec![136, 0, 0, 0, flags, 0, 0, 0];
        message.extend(vip().octets());
        message.extend([2, 1]);
        message.extend(GATEWAY_MAC);
        let mut frame = [&to_mac[..], &GATEWAY_MAC, tag, &[0x86, 0xdd]].concat();
        frame.extend([0x60, 0, 0, 0, 0, 32, 58, 255]);
        frame.extend(vip().octets());
        frame.extend(to.octets());
        frame.extend(seal(message, vip(), to));
        frame
    }

    fn answered(tag: &[u8], source: Ipv6Addr, options: &[u8]) -> Vec<u8> {
        let to = solicited_node(vip());
        let message = message(source, to, options);
        let mut frame = frame(tag, source, to, &message);
        let solicitation = parse(&message, source, to, 255).unwrap();
        let network = ETHERNET_LEN + tag.len();
        frame.resize(network + 72 + 5, 0xee);
        let len = answer(&mut frame, network, &solicitation, GATEWAY_MAC).unwrap();
        assert_eq!(len, network + 72);
        assert_eq!(frame[len..], [0xee; 5]);
        frame.truncate(len);
        frame
    }

    #[test]
    fn the_asker_learns_the_gateways_address_for_the_vip() {
        let expected = advertisement(asker(), ASKER_MAC, &[], 0x60);
        assert_eq!(answered(&[], asker(), &[]), expected);
    }

    #[test]
    fn the_answer_goes_where_the_asker_says_that_it_is() {
        let expected = advertisement(asker(), OTHER_MAC, &[], 0x60);
        let options = link_layer_option(OTHER_MAC);
        assert_eq!(answered(&[], asker(), &options), expected);
    }

    #[test]
    fn who_would_take_the_vip_is_told_before_all() {
        let all = "ff02::1".parse().unwrap();
        let expected = advertisement(all, [0x33, 0x33, 0, 0, 0, 1], &[], 0x20);
        assert_eq!(answered(&[], Ipv6Addr::UNSPECIFIED, &[]), expected);
    }

    #[test]
    fn a_vlan_tag_stays() {
        let tag = [0x81, 0, 0, 5];
        let expected = advertisement(asker(), ASKER_MAC, &tag, 0x60);
        assert_eq!(answered(&tag, asker(), &[]), expected);
    }

    #[test]
    fn a_frame_without_room_stays_as_it_was() {
        let solicitation = Solicitation {
            source: asker(),
            target: vip(),
            link_layer: None,
        };
        for (len, network) in [(85, 14), (0, 14), (200, 13), (200, usize::MAX)] {
            let mut frame = vec![0x55; len];
            assert_eq!(
                answer(&mut frame, network, &solicitation, GATEWAY_MAC),
                None
            );
            assert_eq!(frame, vec![0x55; len]);
        }
        assert_eq!(
            answer(&mut [0; 86], 14, &solicitation, GATEWAY_MAC),
            Some(86)
        );
    }

    proptest! {
        #[test]
        fn every_answer_holds_its_own_checksum(
            source in any::<u128>(), target in any::<u128>(), mac in any::<[u8; 6]>(),
            link_layer in any::<Option<[u8; 6]>>(),
        ) {
            let solicitation = Solicitation {
                source: Ipv6Addr::from_bits(source),
                target: Ipv6Addr::from_bits(target),
                link_layer,
            };
            let mut frame = [0xaa; 90];
            prop_assert_eq!(answer(&mut frame, 14, &solicitation, mac), Some(86));
            prop_assert_eq!(checksum(solicitation.target, solicitation.source, &frame[54..86]), 0);
        }

        #[test]
        fn any_bytes_are_read_without_harm(
            head in any::<bool>(),
            mut bytes in proptest::collection::vec(0..4u8, 0..80),
            source in any::<u128>(), to in any::<u128>(),
        ) {
            let (source, to) = (Ipv6Addr::from_bits(source), Ipv6Addr::from_bits(to));
            if head && bytes.len() >= 4 {
                bytes[0] = SOLICITATION;
                bytes = seal(bytes, source, to);
            }
            if let Some(found) = parse(&bytes, source, to, 255) {
                prop_assert_eq!(bytes[0], SOLICITATION);
                prop_assert_eq!(&found.target.octets()[..], &bytes[8..24]);
                prop_assert_eq!(bytes.len() % 8, 0);
            }
        }
    }
}
