//! The program itself, run by the kernel on frames (`BPF_PROG_TEST_RUN`); needs root.

mod frames;
#[expect(
    unsafe_code,
    reason = "neither libc nor the loader has this system call"
)]
mod run;

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use sluice_conf::service::Protocol;
use sluice_conf::settings::dataplane::PortRange;

use crate::steer::{Endpoint, EndpointRange, Filter, Headers};
use frames::{Around, FRAGMENT, SERVICE_TPID, TPID};
use run::Program;

const MASQUERADE: PortRange = PortRange {
    first: 1024,
    last: 1030,
};
const PORTS: [u16; 8] = [80, 443, 1023, 1024, 1030, 1031, 5000, 5100];
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn v4() -> Vec<IpAddr> {
    [
        "10.0.0.1",
        "10.0.0.2",
        "10.96.0.1",
        "10.96.0.2",
        "192.0.2.1",
    ]
    .map(address)
    .to_vec()
}

fn v6() -> Vec<IpAddr> {
    [
        "2001:db8::1",
        "2001:db8::2",
        "fd00:96::1",
        "fd00:96::2",
        "fe80::1",
    ]
    .map(address)
    .to_vec()
}

fn some<T: Clone + std::fmt::Debug + 'static>(of: Vec<T>) -> impl Strategy<Value = Vec<T>> {
    let most = of.len();
    subsequence(of, 0..=most.min(3))
}

fn all_addresses() -> Vec<IpAddr> {
    [v4(), v6()].concat()
}

fn all_ends() -> Vec<Endpoint> {
    let ports = [80, 443, 0];
    let ends = all_addresses().into_iter().flat_map(move |address| {
        PROTOCOLS.into_iter().flat_map(move |protocol| {
            ports.map(|port| Endpoint {
                address,
                port,
                protocol,
            })
        })
    });
    ends.collect()
}

fn all_ranges() -> Vec<EndpointRange> {
    let ends = all_ends().into_iter().filter(|end| end.port == 80);
    ends.map(|end| EndpointRange {
        address: end.address,
        protocol: end.protocol,
        first: 1031,
        last: 5000,
    })
    .collect()
}

prop_compose! {
    fn any_filter()(
        vips in some(all_addresses()),
        hosts in some(all_addresses()),
        masquerade in some(all_addresses()),
        node_ports in subsequence(all_ends(), 0..20),
        ranges in subsequence(all_ranges(), 0..6),
        backends in subsequence(all_ends(), 0..20),
        networks in some(vec!["10.96.0.0/12".parse().unwrap(), "fd00:96::/112".parse().unwrap()]),
    ) -> Filter {
        Filter {
            vips: vips.into_iter().collect(),
            networks: networks.into_iter().collect(),
            node_ports: node_ports.into_iter().filter(|end| end.port != 0).collect(),
            node_port_ranges: ranges.into_iter().collect(),
            masquerade: masquerade.into_iter().map(|address| (address, MASQUERADE)).collect(),
            backends: backends.into_iter().collect(),
            host_addresses: hosts.into_iter().collect(),
        }
    }
}

prop_compose! {
    fn any_packet()(v6_family in any::<bool>())(
        source in select(if v6_family { v6() } else { v4() }),
        destination in select(if v6_family { v6() } else { v4() }),
        protocol in select(vec![6, 17, 132, 1, 58, 47]),
        ports in (select(PORTS.to_vec()), select(PORTS.to_vec())),
        later in any::<bool>(),
    ) -> Headers {
        let has_ports = [6, 17, 132].contains(&protocol);
        Headers { source, destination, protocol, ports: (has_ports && !later).then_some(ports) }
    }
}

prop_compose! {
    /// As many fragments as whole packets; few enough extension headers.
    fn any_around()(
        tags in select(vec![vec![], vec![7], vec![7, 8]]),
        service_tag in any::<bool>(),
        extensions in proptest::collection::vec((select(vec![0, 43, 60]), 0u8..4), 0..7),
        fragment in any::<bool>(),
    ) -> Around {
        let tpid = |place| if service_tag && place == 0 { SERVICE_TPID } else { TPID };
        let tags = tags.into_iter().enumerate().map(|(place, tag)| (tpid(place), tag)).collect();
        Around { tags, extensions, fragment: fragment.then_some(0), ..Around::default() }
    }
}

/// A packet without ports whose protocol has them is a later fragment.
fn fit(mut around: Around, packet: &Headers) -> Around {
    if packet.ports.is_none() && [6, 17, 132].contains(&packet.protocol) {
        around.fragment = Some(185);
    }
    around
}

fn configure(program: &mut Program, filter: &Filter, around: &Around) {
    let tag = |place: usize| around.tags.get(place).map_or(0, |(_, tag)| *tag);
    program.set_tags([tag(0), tag(1)]);
    program.set_filter(filter);
}

#[test]
fn the_program_and_the_filter_agree_on_packets() {
    let program = RefCell::new(Program::load());
    proptest!(ProptestConfig::with_cases(3000), |(filter in any_filter(), packet in any_packet(), around in any_around())| {
        let around = fit(around, &packet);
        let mut program = program.borrow_mut();
        configure(&mut program, &filter, &around);
        let frame = frames::ip(&packet, &frames::transport(&packet), &around);
        prop_assert_eq!(program.owns(&frame), filter.owns(&packet));
    });
}

#[test]
fn the_program_and_the_filter_agree_on_icmp_errors() {
    let program = RefCell::new(Program::load());
    proptest!(ProptestConfig::with_cases(3000), |(filter in any_filter(), quoted in any_packet(),
        kind in select(vec![1u8, 2, 3, 4, 5, 11, 12]), around in any_around(), to_sender in any::<bool>())| {
        let inside = fit(Around { tags: vec![], ..around.clone() }, &quoted);
        let mut program = program.borrow_mut();
        configure(&mut program, &filter, &around);
        let receiver = if to_sender { quoted.source } else { quoted.destination };
        let quote = frames::bare(&quoted, &frames::transport(&quoted), &inside);
        let around = Around { fragment: None, extensions: vec![], ..around };
        let frame = frames::error(receiver, kind, &quote, &around);
        let kinds: &[u8] = if receiver.is_ipv4() { &[3, 11, 12] } else { &[1, 2, 3, 4] };
        let bare = Headers { ports: None, protocol: 1, source: address("172.16.0.1"), destination: receiver };
        let expected = filter.owns(&bare) || kinds.contains(&kind) && filter.owns_error(receiver, &quoted);
        prop_assert_eq!(program.owns(&frame), expected);
    });
}

fn vip_filter() -> Filter {
    Filter {
        vips: ["192.0.2.1", "2001:db8::1"].map(address).into(),
        networks: ["10.96.0.0/12", "fd00:96::/112"]
            .map(|net| net.parse().unwrap())
            .into(),
        host_addresses: [address("10.0.0.1")].into(),
        node_ports: PROTOCOLS
            .map(|protocol| web(protocol, "2001:db8::2"))
            .into(),
        ..Filter::default()
    }
}

fn web(protocol: Protocol, text: &str) -> Endpoint {
    Endpoint {
        address: address(text),
        port: 80,
        protocol,
    }
}

fn tcp(source: &str, destination: &str) -> Headers {
    Headers {
        source: address(source),
        destination: address(destination),
        protocol: 6,
        ports: Some((40_000, 80)),
    }
}

fn frame(packet: &Headers, around: &Around) -> Vec<u8> {
    frames::ip(packet, &frames::transport(packet), around)
}

#[test]
fn questions_for_a_vip_are_ours_and_for_others_are_the_kernels() {
    let mut program = Program::load();
    program.set_filter(&vip_filter());
    let group = Around {
        group: true,
        ..Around::default()
    };
    let arp = |target: [u8; 4]| frames::arp(Ipv4Addr::from(target), &group);
    assert!(program.owns(&arp([192, 0, 2, 1])));
    assert!(!program.owns(&arp([10, 0, 0, 1])));
    assert!(!program.owns(&arp([10, 96, 0, 1])));

    let vip: Ipv6Addr = "2001:db8::1".parse().unwrap();
    let unused: Ipv6Addr = "fd00:96::1".parse().unwrap();
    assert!(program.owns(&frames::ndp(135, vip, &group)));
    assert!(!program.owns(&frames::ndp(135, unused, &group)));
    for other_kind in [130, 131, 132, 133, 134, 136, 137, 143] {
        assert!(
            !program.owns(&frames::ndp(other_kind, vip, &group)),
            "{other_kind}"
        );
    }
}

#[test]
fn a_packet_to_a_group_of_stations_is_the_kernels() {
    let mut program = Program::load();
    program.set_filter(&vip_filter());
    for to in ["192.0.2.1", "10.96.0.1"] {
        let packet = tcp("198.51.100.1", to);
        assert!(program.owns(&frame(&packet, &Around::default())));
        let group = Around {
            group: true,
            ..Around::default()
        };
        assert!(!program.owns(&frame(&packet, &group)));
    }
}

#[test]
fn only_frames_with_the_tags_of_the_interface_are_looked_at() {
    let mut program = Program::load();
    program.set_filter(&vip_filter());
    let wrapped: Vec<Vec<(u16, u16)>> = vec![
        vec![],
        vec![(TPID, 7)],
        vec![(SERVICE_TPID, 7)],
        vec![(TPID, 8)],
        vec![(TPID, 7), (TPID, 8)],
        vec![(SERVICE_TPID, 7), (TPID, 8)],
        vec![(SERVICE_TPID, 7), (SERVICE_TPID, 8)],
        vec![(TPID, 7), (TPID, 8), (TPID, 9)],
        vec![(TPID, 0)],
    ];
    for (configured, ours) in [
        ([0, 0], vec![0]),
        ([7, 0], vec![1, 2]),
        ([7, 8], vec![4, 5]),
    ] {
        program.set_tags(configured);
        for (place, tags) in wrapped.iter().enumerate() {
            let around = Around {
                tags: tags.clone(),
                ..Around::default()
            };
            let ip = frame(&tcp("2001:db8::9", "2001:db8::1"), &around);
            let arp = frames::arp(Ipv4Addr::new(192, 0, 2, 1), &around);
            assert_eq!(
                program.owns(&ip),
                ours.contains(&place),
                "{configured:?} {tags:?}"
            );
            assert_eq!(
                program.owns(&arp),
                ours.contains(&place),
                "{configured:?} {tags:?}"
            );
        }
    }
}

#[test]
fn extension_headers_are_walked_within_bounds() {
    let mut program = Program::load();
    program.set_filter(&vip_filter());
    let packet = tcp("2001:db8::9", "2001:db8::2");
    for (extensions, ours) in [
        (vec![(60, 0); 8], true),
        (vec![(60, 0); 9], false),
        (vec![(0, 31)], true),
        (vec![(0, 32)], false),
        (vec![(0, 15), (43, 15)], true),
        (vec![(0, 15), (43, 16)], false),
        (vec![(51, 0)], false),
    ] {
        let around = Around {
            extensions: extensions.clone(),
            ..Around::default()
        };
        assert_eq!(
            program.owns(&frame(&packet, &around)),
            ours,
            "{extensions:?}"
        );
    }
}

#[test]
fn a_later_fragment_names_its_protocol_and_no_ports() {
    let mut program = Program::load();
    program.set_filter(&vip_filter());
    let mut packet = tcp("2001:db8::9", "2001:db8::2");
    for (protocol, ours) in [
        (6, true),
        (17, true),
        (132, true),
        (58, false),
        (FRAGMENT, false),
    ] {
        packet.protocol = protocol;
        let around = Around {
            fragment: Some(185),
            ..Around::default()
        };
        assert_eq!(program.owns(&frame(&packet, &around)), ours, "{protocol}");
    }
}

#[test]
fn a_frame_that_is_cut_off_is_decided_by_what_is_there() {
    let mut program = Program::load();
    program.set_filter(&vip_filter());
    let vip = frame(&tcp("2001:db8::9", "2001:db8::1"), &Around::default());
    let node_port = frame(&tcp("2001:db8::9", "2001:db8::2"), &Around::default());
    // The kernel gives the program 14 bytes or more.
    for len in 14..vip.len() {
        assert_eq!(program.owns(&vip[..len]), len >= 14 + 40, "{len}");
        assert_eq!(program.owns(&node_port[..len]), len >= 14 + 40 + 4, "{len}");
    }
}

#[test]
fn frames_of_an_interface_that_is_not_served_pass() {
    let mut program = Program::load();
    let vip = frame(&tcp("198.51.100.1", "192.0.2.1"), &Around::default());
    program.set_filter(&vip_filter());
    assert!(program.owns(&vip));
    program.forget_interface();
    assert!(!program.owns(&vip));
}

#[test]
fn what_is_ours_before_and_after_a_change_never_passes_in_between() {
    let mut program = Program::load();
    let mut before = vip_filter();
    before.masquerade.insert(address("10.0.0.1"), MASQUERADE);
    let mut after = before.clone();
    after.vips.remove(&address("192.0.2.1"));
    after.node_ports.clear();
    after.node_port_ranges.insert(EndpointRange {
        address: address("2001:db8::2"),
        protocol: Protocol::Tcp,
        first: 80,
        last: 90,
    });
    let mut reply = tcp("198.51.100.1", "10.0.0.1");
    reply.ports = Some((80, MASQUERADE.last));
    let lasting = [
        reply,
        tcp("2001:db8::9", "2001:db8::2"),
        tcp("2001:db8::9", "2001:db8::1"),
    ];
    let leaving = frame(&tcp("198.51.100.1", "192.0.2.1"), &Around::default());
    program.set_filter(&before);
    assert!(program.owns(&leaving));
    program.steering.extend(&after).unwrap();
    for packet in &lasting {
        assert!(
            program.owns(&frame(packet, &Around::default())),
            "{packet:?}"
        );
    }
    assert!(program.owns(&leaving));
    program.steering.shrink(&after).unwrap();
    for packet in &lasting {
        assert!(
            program.owns(&frame(packet, &Around::default())),
            "{packet:?}"
        );
    }
    assert!(!program.owns(&leaving));
}

#[test]
fn every_frame_is_counted_once() {
    let mut program = Program::load();
    program.set_filter(&vip_filter());
    let vip = frame(&tcp("198.51.100.1", "192.0.2.1"), &Around::default());
    let other = frame(&tcp("198.51.100.1", "192.0.2.2"), &Around::default());
    for frame in [&vip, &other, &other] {
        program.owns(frame);
    }
    let stats = program.steering.stats().unwrap();
    assert_eq!(
        (stats.redirected, stats.redirect_failed, stats.passed),
        (0, 1, 2)
    );
}
