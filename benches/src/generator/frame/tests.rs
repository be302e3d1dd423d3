use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::*;
use crate::generator::flow::{Clients, key, zipf};
use crate::generator::live::Program;
use crate::generator::plan::{IMIX, Share};
use crate::rate::Rate;

/// XDP_DROP and XDP_TX of linux/bpf.h.
const DROP: u32 = 1;
const TX: u32 = 3;
/// Mark, run number and time of a stamp.
const TIME: std::ops::Range<usize> = 12..20;

fn plan(protocol: Protocol, script: Script, v6: bool) -> Plan {
    let (clients, target): (_, SocketAddr) = if v6 {
        (
            Clients::new("fd00:1::".parse().unwrap(), 112),
            "[2001:db8::9]:443".parse().unwrap(),
        )
    } else {
        (
            Clients::new(Ipv4Addr::new(10, 64, 0, 0).into(), 20),
            "203.0.113.10:80".parse().unwrap(),
        )
    };
    let mut second = target;
    second.set_port(8443);
    let mut plan = Plan::new(
        [2, 0, 0, 0, 0, 1],
        [2, 0, 0, 0, 0, 2],
        clients.unwrap(),
        vec![target, second],
    );
    plan.protocol = protocol;
    plan.script = script;
    plan.flows = if script == Script::Connection { 16 } else { 7 };
    plan.key = key(9);
    plan.run = 0xdead_beef;
    plan.rate = Rate(4000.0);
    plan.duration = Duration::from_secs(10);
    plan.burst = Duration::from_secs(10);
    plan.pause = Duration::from_millis(3);
    plan.fit();
    plan
}

/// All that the generator can be told to send.
fn plans() -> Vec<Plan> {
    let mut plans = Vec::new();
    for v6 in [false, true] {
        for protocol in [Protocol::Udp, Protocol::Tcp, Protocol::Icmp] {
            plans.push(plan(protocol, Script::Data, v6));
        }
        plans.push(plan(Protocol::Tcp, Script::Syn, v6));
        plans.push(plan(Protocol::Tcp, Script::Connection, v6));
        let mut mixed = plan(Protocol::Udp, Script::Data, v6);
        mixed.sizes = IMIX;
        mixed.fit();
        plans.push(mixed);
        let mut odd = plan(Protocol::Udp, Script::Data, v6);
        odd.sizes = [555; SIZES];
        plans.push(odd);
        let mut drawn = plan(Protocol::Udp, Script::Data, v6);
        drawn.draws = zipf(7, 1.1, 64, 5);
        plans.push(drawn);
        let mut flooded = plan(Protocol::Tcp, Script::Data, v6);
        flooded.send_beside(Rate(1000.0), Rate(3000.0));
        plans.push(flooded);
    }
    plans
}

fn sums_are_right(plan: &Plan, frame: &[u8]) -> bool {
    let packet = &frame[ETHERNET..];
    let v4 = packet[0] == 0x45;
    let (network, addresses, protocol) = if v4 {
        (20, &packet[12..20], packet[9])
    } else {
        (40, &packet[8..40], packet[6])
    };
    let transport = &packet[network..];
    let pseudo = if protocol == 1 {
        0
    } else {
        sum_of(addresses) + u64::from(protocol) + transport.len() as u64
    };
    let ip = !v4 || fold(sum_of(&packet[..20])) == 0xffff;
    assert_eq!(plan.clients.first().is_ipv4(), v4);
    ip && fold(pseudo + sum_of(transport)) == 0xffff
}

#[test]
fn every_frame_has_right_sums_and_its_stamp() {
    for plan in plans() {
        let mut writer = Writer::new(&plan);
        let mut room = [0xaa; 2048];
        for number in 0..200 {
            let size = writer.write(number, 0x1234_5678_9abc_def0, &mut room);
            if size == 0 {
                assert_eq!(plan.script, Script::Connection, "{number}");
                continue;
            }
            let frame = &room[..size];
            assert!(sums_are_right(&plan, frame), "{number} of {plan:?}");
            let stamp = &frame[plan.headers()..][..STAMP];
            let run = if plan.floods(number) {
                plan.flood_run()
            } else {
                plan.run
            };
            assert_eq!(stamp[..4], run.to_ne_bytes());
            assert_eq!(stamp[12..16], 0x9abc_def0u32.to_ne_bytes());
            assert_eq!(stamp[16..20], 0x1234_5678u32.to_ne_bytes());
        }
    }
}

/// The one place where the two generators meet. Needs root.
#[test]
fn the_kernel_writes_the_frames_that_this_process_writes() {
    for plan in plans() {
        let mut program = Program::load(&plan, Share::WHOLE).unwrap();
        let mut writer = Writer::new(&plan);
        let mut room = [0; 2048];
        let (mut number, mut waits) = (0, 0);
        while number < 60 {
            let mut frame = vec![0; usize::from(plan.largest())];
            let before = program.progress().unwrap();
            let verdict = program.once(&mut frame).unwrap();
            if verdict == DROP && program.frames().unwrap() == number {
                // Not due yet.
                waits += 1;
                assert!(
                    waits < 10_000_000,
                    "frame {number} of {plan:?} does not come"
                );
                continue;
            }
            let size = writer.write(number, 0, &mut room);
            number += 1;
            if size == 0 {
                assert_eq!(verdict, DROP);
                continue;
            }
            assert_eq!(verdict, TX, "{plan:?}");
            let after = program.progress().unwrap();
            assert_eq!(after.failed, 0);
            let flood = u64::from(plan.floods(number - 1));
            assert_eq!(after.flooded, before.flooded + flood);
            assert_eq!(after.sent, before.sent + 1 - flood);
            assert!(sums_are_right(&plan, &frame), "{plan:?}");
            let stamp = plan.headers();
            frame[stamp + TIME.start..stamp + TIME.end].fill(0);
            let mut expected = room[..size].to_vec();
            // The sum over the time differs with the time.
            let sum = stamp - plan.protocol.header() + sum_place(plan.protocol);
            for frame in [&mut frame, &mut expected] {
                frame[sum..sum + 2].fill(0);
            }
            assert_eq!(frame, expected, "frame {} of {plan:?}", number - 1);
        }
    }
}

#[test]
fn a_connection_is_opened_and_closed_in_order_and_with_a_pause() {
    let plan = plan(Protocol::Tcp, Script::Connection, false);
    let window = u64::from(plan.window());
    assert_eq!(window, 3);
    let mut writer = Writer::new(&plan);
    let mut seen = std::collections::HashMap::new();
    for number in 0..400 {
        if let Some(place) = writer.place(number) {
            let last = seen.insert(place.flow, (place.sequence, number));
            let (before, when) = last.unwrap_or((place.sequence.wrapping_sub(1), 0));
            assert_eq!(
                place.sequence,
                before.wrapping_add(1),
                "flow {}",
                place.flow
            );
            assert_eq!(place.step, place.sequence % 4);
            assert!(place.step == 0 || number - when > 4 * (window - 1));
        }
    }
    assert_eq!(seen.len(), 16);
}

#[test]
fn a_flood_never_repeats_a_connection_and_leaves_the_flows_numbered_without_a_gap() {
    let mut plan = plan(Protocol::Tcp, Script::Data, false);
    plan.send_beside(Rate(250e3), Rate(750e3));
    assert_eq!(plan.rate, Rate(1e6));
    let mut writer = Writer::new(&plan);
    let (mut next, mut floods) = ([0; 7], 0);
    for number in 0..4000 {
        let place = writer.place(number).unwrap();
        assert_eq!(place.flood, plan.floods(number));
        if place.flood {
            assert_eq!(place.flow, 7 + floods);
            floods += 1;
        } else {
            assert_eq!(place.sequence, next[place.flow as usize]);
            next[place.flow as usize] += 1;
        }
    }
    assert_eq!(floods, 3000);
    plan.protocol = Protocol::Udp;
    assert!(plan.check().is_err(), "SYNs are of TCP");
}

#[test]
fn drawn_flows_are_numbered_without_a_gap() {
    let mut plan = plan(Protocol::Udp, Script::Data, false);
    plan.draws = zipf(7, 1.1, 64, 5);
    let mut writer = Writer::new(&plan);
    let mut next = [0; 7];
    for number in 0..1000 {
        let place = writer.place(number).unwrap();
        assert_eq!(place.sequence, next[place.flow as usize]);
        next[place.flow as usize] += 1;
    }
}
