use super::*;
use crate::flow::{End, FiveTuple};
use crate::neighbour::Tags;
use crate::testutil::Build;
use crate::wire::parse::{Datagram, Packet, Parsed, Signal, parse};
use crate::wire::rewrite;
use proptest::prelude::*;

/// A family with what the tests need of it.
trait Tried: PlainFamily {
    fn packet(frame: &[u8]) -> Option<Packet<Self>>;
}

impl Tried for Ipv4Addr {
    fn packet(frame: &[u8]) -> Option<Packet<Self>> {
        match parse(frame, Tags::default()) {
            Ok(Parsed::V4(Datagram::Packet(packet))) => Some(packet),
            _ => None,
        }
    }
}

impl Tried for Ipv6Addr {
    fn packet(frame: &[u8]) -> Option<Packet<Self>> {
        match parse(frame, Tags::default()) {
            Ok(Parsed::V6(Datagram::Packet(packet))) => Some(packet),
            _ => None,
        }
    }
}

/// A frame, plain or nearly so.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let payload = proptest::collection::vec(any::<u8>(), 0..64);
    let bend = proptest::option::weighted(0.5, (14usize..70, any::<u8>()));
    let options = prop_oneof![
        Just(vec![]),
        Just(vec![2, 4, 5, 180, 1, 3, 3, 7]),
        proptest::collection::vec(0u8..5, 4..5),
    ];
    let shape = (any::<bool>(), any::<bool>(), 0u8..64, 0u8..4, options);
    (shape, payload, bend, 0usize..4).prop_map(|(shape, payload, bend, cut)| {
        let (v6, udp, flags, ttl, options) = shape;
        let (from, to) = match v6 {
            true => ("[2001:db8:1::10]:40000", "[2001:db8:9::10]:80"),
            false => ("10.0.1.10:40000", "203.0.113.10:80"),
        };
        let build = if udp { Build::udp } else { Build::tcp };
        let build = build(from, to).payload(&payload).ttl(ttl);
        let build = match udp {
            true => build,
            false => build.flags(flags).tcp_options(&options),
        };
        let mut frame = build.frame();
        if let Some((at, byte)) = bend
            && let Some(place) = frame.get_mut(at)
        {
            *place = byte;
        }
        frame.truncate(frame.len() - cut);
        frame
    })
}

fn agrees<A: Tried>(frame: &[u8]) -> Result<bool, TestCaseError> {
    let Some((plain, decides)) = Plain::<A>::read(frame) else {
        return Ok(false);
    };
    let packet = A::packet(frame).expect("what is plain can be parsed");
    prop_assert_eq!(plain.packet(frame), Some(packet));
    prop_assert!(is_plain(&packet, frame.len()));
    prop_assert_eq!(usize::from(plain.len), packet.place.len());
    prop_assert_eq!(packet.place.piece, None);
    prop_assert!(packet.place.hop_limit > 1);
    match packet.signal {
        Signal::Tcp(segment) => {
            let deciding = TcpFlags::FIN | TcpFlags::SYN | TcpFlags::RST;
            let acknowledges = segment.flags.any(TcpFlags::ACK);
            prop_assert_eq!(decides, segment.flags.any(deciding) || !acknowledges);
            let said = Said {
                end: segment.sequence_end(),
                acknowledgement: segment.acknowledgement,
                window: segment.window,
            };
            let head = A::Head::of(frame).expect("what is plain is long enough");
            prop_assert!(decides || plain.said(head) == said);
        }
        other => {
            prop_assert_eq!(other, Signal::Plain);
            prop_assert!(!decides);
        }
    }
    Ok(true)
}

fn translates_alike<A: Tried>(
    frame: &[u8],
    to: (A, A),
    ports: (u16, u16),
) -> Result<(), TestCaseError> {
    let Some((plain, _)) = Plain::<A>::read(frame) else {
        return Ok(());
    };
    let packet = A::packet(frame).expect("what is plain can be parsed");
    let from = plain.key.tuple();
    prop_assert_eq!(from, packet.tuple);
    let to = FiveTuple {
        source: End::new(to.0, ports.0),
        destination: End::new(to.1, ports.1),
        protocol: from.protocol,
    };
    let (mut one, mut other) = (frame.to_vec(), frame.to_vec());
    prop_assert!(translate(&mut one, &from, &to));
    prop_assert!(rewrite::translate(&mut other, &packet, &to));
    prop_assert_eq!(&one, &other);
    // And back again, by the same deltas turned round.
    if let Some((back, _)) = Plain::<A>::read(&one) {
        prop_assert_eq!(back.key.tuple(), to);
        let packet = A::packet(&one).expect("what is plain can be parsed");
        let change = Change::<A> {
            ends: plain.key.ends,
            deltas: Deltas::between::<A>(&plain.key.ends, &back.key.ends),
            direction: Direction::Reply,
            protocol: from.protocol,
        };
        change.apply(A::Head::of_mut(&mut one).expect("what is plain is long enough"));
        prop_assert!(rewrite::translate(&mut other, &packet, &from));
        prop_assert_eq!(one, other);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_read_as_plain_is_what_the_parser_says(frame in frames()) {
        agrees::<Ipv4Addr>(&frame)?;
        agrees::<Ipv6Addr>(&frame)?;
    }

    #[test]
    fn arbitrary_bytes_never_panic(frame in proptest::collection::vec(any::<u8>(), 0..128)) {
        agrees::<Ipv4Addr>(&frame)?;
    }

    #[test]
    fn a_plain_packet_is_translated_as_any_other(
        frame in frames(),
        to in (any::<u32>(), any::<u32>(), any::<u128>(), any::<u128>()),
        ports in (1u16.., 1u16..),
    ) {
        translates_alike::<Ipv4Addr>(&frame, (to.0.into(), to.1.into()), ports)?;
        translates_alike::<Ipv6Addr>(&frame, (to.2.into(), to.3.into()), ports)?;
    }

    #[test]
    fn a_packet_that_stays_as_it_is_keeps_its_checksums(frame in frames()) {
        if let Some((plain, _)) = Plain::<Ipv4Addr>::read(&frame) {
            let tuple = plain.key.tuple();
            let ends = (tuple.source, tuple.destination);
            translates_alike(&frame, (ends.0.address, ends.1.address), (ends.0.port, ends.1.port))?;
        }
    }
}

#[test]
fn an_acknowledgement_and_a_datagram_decide_nothing() {
    let ends = [
        ("10.0.1.10:40000", "203.0.113.10:80"),
        ("[2001:db8:1::10]:40000", "[2001:db8:9::10]:80"),
    ];
    for (from, to) in ends {
        for build in [Build::tcp(from, to), Build::udp(from, to)] {
            let frame = build.payload(b"hello, gateway").frame();
            let is_plain =
                agrees::<Ipv4Addr>(&frame).unwrap() || agrees::<Ipv6Addr>(&frame).unwrap();
            assert!(is_plain, "{from}");
        }
        let syn = Build::tcp(from, to).flags(TcpFlags::SYN).frame();
        let v4 = Plain::<Ipv4Addr>::read(&syn).map(|(_, decides)| decides);
        let v6 = Plain::<Ipv6Addr>::read(&syn).map(|(_, decides)| decides);
        assert_eq!(v4.or(v6), Some(true));
    }
}
