use super::*;
use crate::testutil::{Build, corrupt};
use proptest::prelude::*;

fn read(frame: &[u8]) -> Result<Parsed, DropReason> {
    parse(frame, Tags::default())
}

fn flow(frame: &[u8]) -> Packet<Ipv4Addr> {
    match read(frame) {
        Ok(Parsed::V4(Datagram::Packet(packet))) => packet,
        other => panic!("not a packet: {other:?}"),
    }
}

#[test]
fn a_tcp_segment_is_read_to_its_offsets() {
    let frame = Build::tcp("10.0.1.10:40000", "203.0.113.10:80")
        .flags(TcpFlags::SYN)
        .frame();
    let packet = flow(&frame);
    assert_eq!(
        packet.tuple.to_string(),
        "TCP 10.0.1.10:40000 -> 203.0.113.10:80"
    );
    assert_eq!((packet.place.transport, packet.place.end), (34, 54));
    assert_eq!(packet.flags(), TcpFlags(TcpFlags::SYN));
    assert!(packet.has_right_checksum(&frame));
}

#[test]
fn ethernet_padding_is_not_part_of_the_packet() {
    let mut frame = Build::udp("10.0.1.10:4000", "203.0.113.10:53").frame();
    let end = frame.len();
    frame.resize(60, 0xaa);
    assert_eq!(usize::from(flow(&frame).place.end), end);
    assert!(flow(&frame).has_right_checksum(&frame));
}

#[test]
fn ip_options_move_the_transport_header() {
    let frame = Build::tcp("10.0.1.10:40000", "203.0.113.10:80")
        .options(&[1, 1, 1, 0])
        .frame();
    assert_eq!(flow(&frame).place.transport, 38);
}

#[test]
fn what_is_wrong_with_a_frame_is_told_apart() {
    let good = || {
        Build::tcp("10.0.1.10:40000", "203.0.113.10:80")
            .payload(b"hello")
            .frame()
    };
    let edited = |edit: fn(&mut Vec<u8>)| {
        let mut frame = good();
        edit(&mut frame);
        read(&frame).unwrap_err()
    };
    assert_eq!(edited(|f| f.truncate(13)), DropReason::Truncated);
    assert_eq!(edited(|f| f.truncate(30)), DropReason::Truncated);
    assert_eq!(edited(|f| f.truncate(50)), DropReason::Truncated);
    assert_eq!(edited(|f| f[12] = 0x87), DropReason::NotIp);
    assert_eq!(edited(|f| f[14] = 0x55), DropReason::BadHeader);
    assert_eq!(edited(|f| f[14] = 0x44), DropReason::BadHeader);
    assert_eq!(edited(|f| f[24] ^= 1), DropReason::BadIpChecksum);
    assert_eq!(edited(|f| f[46] = 0x10), DropReason::BadHeader);
    assert_eq!(edited(|f| corrupt::protocol(f, 47)), DropReason::Protocol);
}

#[test]
fn a_damaged_payload_shows_in_the_transport_checksum() {
    let mut frame = Build::udp("10.0.1.10:4000", "203.0.113.10:53")
        .payload(b"query")
        .frame();
    let last = frame.len() - 1;
    frame[last] ^= 1;
    assert!(!flow(&frame).has_right_checksum(&frame));
}

#[test]
fn udp_without_checksum_counts_as_right() {
    let mut frame = Build::udp("10.0.1.10:4000", "203.0.113.10:53")
        .payload(b"query")
        .frame();
    frame[40..42].fill(0);
    assert!(flow(&frame).has_right_checksum(&frame));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..256), ip in any::<bool>()) {
        if ip && bytes.len() > 24 {
            bytes[12..14].copy_from_slice(&[8, 0]);
            bytes[14] = 0x45;
        }
        if let Ok(Parsed::V4(Datagram::Packet(packet))) = read(&bytes) {
            let _ = packet.has_right_checksum(&bytes);
            prop_assert!(usize::from(packet.place.end) <= bytes.len());
        }
    }

    #[test]
    fn a_shortened_or_bent_packet_never_panics(cut in 0usize..80, at in 0usize..60, value in any::<u8>()) {
        let mut frame = Build::tcp("10.0.1.10:40000", "203.0.113.10:80").payload(&[7; 20]).frame();
        if let Some(byte) = frame.get_mut(at) {
            *byte = value;
        }
        frame.truncate(cut);
        let _ = read(&frame);
    }
}

#[test]
fn ipv6_is_read_behind_its_extension_headers() {
    let frame = Build::udp("[2001:db8:1::10]:4000", "[2001:db8:9::1]:53")
        .payload(b"query")
        .frame();
    let mut extended = frame.clone();
    // A hop-by-hop header of eight bytes: padding only.
    extended[20] = 0;
    extended.splice(54..54, [17, 0, 1, 4, 0, 0, 0, 0]);
    extended[18..20].copy_from_slice(&(8 + 8 + 5u16).to_be_bytes());
    for (frame, transport) in [(frame, 54), (extended, 62)] {
        let Ok(Parsed::V6(Datagram::Packet(packet))) = read(&frame) else {
            panic!("{:?}", read(&frame))
        };
        assert_eq!(
            packet.tuple.to_string(),
            "UDP [2001:db8:1::10]:4000 -> [2001:db8:9::1]:53"
        );
        assert_eq!(packet.place.transport, transport);
        assert!(packet.has_right_checksum(&frame));
    }
}

#[test]
fn only_the_tags_of_the_link_are_read() {
    let plain = Build::udp("10.0.1.10:4000", "203.0.113.10:53").frame();
    let mut tagged = plain.clone();
    tagged.splice(12..12, [0x81, 0x00, 0xa0, 0x64]);
    let link = Tags([100, 0]);
    let Ok(Parsed::V4(Datagram::Packet(packet))) = parse(&tagged, link) else {
        panic!("not a packet")
    };
    assert_eq!(packet.place.network, 18);
    for (frame, tags) in [
        (&plain, link),
        (&tagged, Tags::default()),
        (&tagged, Tags([101, 0])),
        (&tagged, Tags([100, 7])),
    ] {
        assert_eq!(parse(frame, tags), Err(DropReason::OtherVlan));
    }
}

#[test]
fn fragments_have_their_place_and_the_first_its_ports() {
    for (source, vip) in [
        ("10.0.1.10:4000", "203.0.113.10:53"),
        ("[2001:db8:1::10]:4000", "[2001:db8:9::1]:53"),
    ] {
        let frames = Build::udp(source, vip).payload(&[7; 100]).fragments(64, 77);
        let pieces: Vec<(u16, u16, bool, bool)> = frames
            .iter()
            .map(|frame| {
                let (piece, has_ports) = match read(frame) {
                    Ok(Parsed::V4(Datagram::Packet(packet))) => (packet.place.piece, true),
                    Ok(Parsed::V6(Datagram::Packet(packet))) => (packet.place.piece, true),
                    Ok(Parsed::V4(Datagram::Fragment(fragment))) => (Some(fragment.piece), false),
                    Ok(Parsed::V6(Datagram::Fragment(fragment))) => (Some(fragment.piece), false),
                    other => panic!("{other:?}"),
                };
                let piece = piece.unwrap();
                assert_eq!(piece.identification, 77);
                (piece.offset, piece.len, piece.more, has_ports)
            })
            .collect();
        assert_eq!(pieces, [(0, 64, true, true), (64, 44, false, false)]);
    }
}

#[test]
fn fragments_that_only_an_attacker_sends_are_refused() {
    let frames = Build::tcp("10.0.1.10:4000", "203.0.113.10:80")
        .payload(&[7; 100])
        .fragments(16, 1);
    assert_eq!(read(&frames[0]), Err(DropReason::FragmentTiny));
    assert_eq!(read(&frames[1]), Err(DropReason::FragmentTiny));
    let mut ragged = Build::udp("10.0.1.10:4000", "203.0.113.10:53")
        .payload(&[7; 5])
        .frame();
    corrupt::fragment(&mut ragged, 0x2000);
    assert_eq!(read(&ragged), Err(DropReason::BadHeader));
}

#[test]
fn an_error_tells_which_packet_it_is_about() {
    let quoted = Build::udp("10.0.2.1:20000", "10.0.2.11:53").frame();
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 0, 2, 11], [10, 0, 2, 1], 64)
        .icmpv4(etherparse::Icmpv4Type::DestinationUnreachable(
            etherparse::icmpv4::DestUnreachableHeader::Port,
        ))
        .write(&mut frame, &quoted[14..])
        .unwrap();
    let Ok(Parsed::V4(Datagram::Complaint(complaint))) = read(&frame) else {
        panic!("{:?}", read(&frame))
    };
    assert_eq!(
        complaint.about.to_string(),
        "UDP 10.0.2.1:20000 -> 10.0.2.11:53"
    );
    assert!(complaint.has_right_checksum(&frame));
    frame.truncate(60);
    corrupt::total_len(&mut frame, 46);
    assert_eq!(read(&frame), Err(DropReason::BadQuote));
}

#[test]
fn nine_of_the_combinations_of_flags_are_sound_whatever_is_pushed_or_congested() {
    let deciding = 0x37;
    let sound: Vec<u8> = (0..=u8::MAX)
        .filter(|flags| flags & !deciding == 0 && TcpFlags(*flags).is_sound())
        .collect();
    let expected = [0x02, 0x04, 0x10, 0x11, 0x12, 0x14, 0x22, 0x30, 0x31];
    assert_eq!(sound, expected);
    for flags in 0..=u8::MAX {
        let is_sound = TcpFlags(flags & deciding).is_sound();
        assert_eq!(TcpFlags(flags).is_sound(), is_sound);
    }
}
