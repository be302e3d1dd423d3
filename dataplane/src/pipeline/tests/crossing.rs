//! Packets that are no Service's and only cross the gateway: those of backends that keep the
//! client's address, whom clients also reach by their own name.

use super::world::*;
use super::*;
use crate::testutil::rig::RigSettings;
use crate::verdict::DropReason;

fn rigs(mut test: impl FnMut(World, &mut Rig)) {
    for world in WORLDS {
        for workers in [1, 2, 4] {
            let settings = RigSettings {
                workers,
                ..RigSettings::default()
            };
            let lines = ["tcp", "udp", "sctp"].map(|protocol| {
                let line = world.web(protocol, &[11, 12], "preserve");
                line.replacen("web", protocol, 1)
            });
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            test(world, &mut Rig::with(&settings, &lines));
        }
    }
}

#[test]
fn a_client_that_talks_to_a_backend_directly_is_not_in_its_way() {
    rigs(|world, rig| {
        for (n, (_, protocol)) in (0u16..).zip(PROTOCOLS) {
            let (client, backend) = (world.client(40_000 + n), world.backend(11, 8080));
            let packet = |from: &str, to: &str| Build::packet(protocol, from, to);
            let first = packet(&client, &backend).flags(SYN).ttl(9).frame();
            let sent = through(rig, 0, IN, &first);
            assert_eq!(ends(&sent.1), (client.clone(), backend.clone()));
            assert_eq!(seen(&sent.1).hops, 8);
            assert_eq!(seen(&sent.1).payload, seen(&first).payload);
            let macs = from_backend(11);
            let reply = packet(&backend, &client)
                .flags(SYN | ACK)
                .macs(macs.0, macs.1);
            let back = through(rig, 1, OUT, &reply.frame());
            assert_eq!(ends(&back.1), (backend.clone(), client.clone()));
            let data = through(rig, 2, IN, &packet(&client, &backend).frame());
            assert_eq!(ends(&data.1), (client, backend));
        }
        assert_eq!((rig.drops(), rig.outstanding()), (vec![], 0));
        assert_eq!(rig.connections(), 3);
    });
}

#[test]
fn a_backend_may_begin_and_gets_its_answer() {
    rigs(|world, rig| {
        let (client, macs) = (world.client(53), from_backend(12));
        let backend = world.backend(12, 8080);
        let packet = |protocol, from: &str, to: &str| Build::packet(protocol, from, to).flags(SYN);
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            let asks = packet(protocol, &backend, &client).macs(macs.0, macs.1);
            let sent = through(rig, 0, OUT, &asks.frame());
            assert_eq!(ends(&sent.1), (backend.clone(), client.clone()));
            let answer = packet(protocol, &client, &backend).flags(SYN | ACK);
            let sent = through(rig, 1, IN, &answer.frame());
            assert_eq!(ends(&sent.1), (client.clone(), backend.clone()));
        }
        assert_eq!((rig.drops(), rig.outstanding()), (vec![], 0));
    });
}

#[test]
fn an_answer_of_no_connection_is_not_passed_on() {
    rigs(|world, rig| {
        let macs = from_backend(11);
        let (client, backend) = (world.client(40_000), world.backend(11, 8080));
        let stray = |flags| {
            Build::tcp(&backend, &client)
                .flags(flags)
                .macs(macs.0, macs.1)
        };
        for flags in [ACK, SYN | ACK, FIN | ACK, RST, RST | ACK] {
            assert_eq!(at(rig, 1, BACKENDS, &stray(flags).frame()), []);
        }
        let data = Build::sctp(&backend, &client, 0).macs(macs.0, macs.1);
        assert_eq!(at(rig, 1, BACKENDS, &data.frame()), []);
        assert_eq!(rig.drops(), [(DropReason::NoConnection, 6)]);
        assert_eq!((rig.connections(), rig.outstanding()), (0, 0));
        assert_eq!(rig.to_kernel(), Vec::<Vec<u8>>::new());
    });
}

#[test]
fn what_becomes_a_services_is_no_longer_nobodys() {
    for world in WORLDS {
        let line = world.web("tcp", &[11], "preserve");
        let mut rig = Rig::new(&[&line]);
        let (client, backend) = (world.client(40_000), world.backend(11, 8080));
        let direct = |flags| Build::tcp(&client, &backend).flags(flags).frame();
        through(&mut rig, 0, IN, &direct(SYN));
        // The backend's own address becomes a Vip with another one behind it.
        let service = format!("b tcp {backend} -> {};preserve", world.backend(12, 80));
        rig.push(&[&service, &line]);
        let sent = through(&mut rig, 0, IN, &direct(SYN));
        assert_eq!(backend_of(&sent), world.backend(12, 80));
        assert_eq!((rig.connections(), rig.outstanding()), (1, 0));
    }
}

#[test]
fn a_direct_connection_and_one_of_the_service_with_the_same_ports_stay_apart() {
    rigs(|world, rig| {
        for n in 0..8 {
            let client = world.client(40_000 + n);
            let syn = |to: &str| Build::tcp(&client, to).flags(SYN).frame();
            let served = through(rig, n.into(), IN, &syn(&world.vip(80)));
            let home = backend_of(&served);
            let direct = at(rig, n.into(), CLIENTS, &syn(&home));
            // The answers of the two could not be told apart: the second gets none.
            assert_eq!(direct, []);
            let back = through(rig, 1, OUT, &answer(&served, SYN | ACK));
            assert_eq!(ends(&back.1), (world.vip(80), client.clone()));
        }
        assert_eq!(rig.drops(), [(DropReason::NoConnection, 8)]);
        for n in 0..8 {
            let client = world.client(50_000 + n);
            let syn = |to: &str| Build::tcp(&client, to).flags(SYN).frame();
            let first = through(rig, 0, IN, &syn(&world.backend(11, 8080)));
            through(rig, 0, IN, &syn(&world.backend(12, 8080)));
            let served = through(rig, 1, IN, &syn(&world.vip(80)));
            assert_eq!(seen(&served.1).source, world.gateway());
            let back = through(rig, 2, OUT, &answer(&served, SYN | ACK));
            assert_eq!(ends(&back.1), (world.vip(80), client.clone()));
            let back = through(rig, 2, OUT, &answer(&first, SYN | ACK));
            assert_eq!(ends(&back.1), (world.backend(11, 8080), client));
        }
        assert_eq!(rig.outstanding(), 0);
    });
}

#[test]
fn what_is_neither_goes_to_the_kernel_as_it_came() {
    everywhere(|world, settings, policy| {
        let mut rig = Rig::with(settings, &[&world.web("tcp", &[11], policy)]);
        let own = std::net::SocketAddr::new(world.gateway(), 20_000).to_string();
        let macs = from_backend(13);
        let frames = [
            Build::tcp(&world.backend(13, 22), &own).macs(macs.0, macs.1),
            Build::tcp(&world.backend(13, 22), &world.client(9)).macs(macs.0, macs.1),
        ];
        for frame in &frames {
            assert_eq!(at(&mut rig, 1, BACKENDS, &frame.frame()), []);
            assert_eq!(rig.to_kernel(), [frame.frame()[14..].to_vec()]);
        }
        assert_eq!(
            (rig.drops(), rig.outstanding(), rig.connections()),
            (vec![], 0, 0)
        );
        let count = (0..settings.workers).map(|w| rig.counters(w).to_kernel.get());
        assert_eq!(count.sum::<u64>(), 2);
    });
}
