//! The short way does to packets what the whole way does.

use super::world::*;
use super::*;
use crate::conntrack::{State, TcpState};
use crate::flow::Direction;
use crate::io::InterfaceId;
use crate::testutil::rig::RigSettings;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Two gateways that see the same. The other one gets a new network before each packet, so that
/// whatever connections have learnt is void.
struct Twins {
    one: Rig,
    other: Rig,
}

impl Twins {
    fn new(settings: &RigSettings, lines: &[&str]) -> Self {
        let [one, other] = [(); 2].map(|()| Rig::with(settings, lines));
        Self { one, other }
    }

    /// Sends a packet through both and returns what leaves.
    fn send(&mut self, worker: usize, from: InterfaceId, frame: &[u8]) -> Vec<Sent> {
        let sent = at(&mut self.one, worker, from, frame);
        let network = (*self.other.snapshot().network).clone();
        self.other.set_network(network);
        assert_eq!(sent, at(&mut self.other, worker, from, frame));
        sent
    }

    fn pass(&mut self, seconds: u64) {
        for rig in [&mut self.one, &mut self.other] {
            rig.pass(Duration::from_secs(seconds));
        }
    }

    fn check(&self) {
        assert_eq!(remembered(&self.one), remembered(&self.other));
        assert_eq!(self.one.drops(), self.other.drops());
        assert_eq!(traffic(&self.one), traffic(&self.other));
    }
}

fn of_family<A: Tracked>(rig: &Rig) -> Vec<String> {
    let mut all = Vec::new();
    for worker in 0..rig.workers() {
        let table = rig.engine(worker).table::<A>();
        let (ids, _) = table.page(0, table.capacity() as u32);
        all.extend(ids.map(|id| {
            let connection = table.get(id);
            let idle = connection.last_seen;
            format!("{:?} {:?} {idle:?}", connection.state, connection.progress)
        }));
    }
    all.sort();
    all
}

/// What all connections remember, without where their packets leave.
fn remembered(rig: &Rig) -> Vec<String> {
    [of_family::<Ipv4Addr>(rig), of_family::<Ipv6Addr>(rig)].concat()
}

fn traffic(rig: &Rig) -> Vec<String> {
    let snapshot = rig.snapshot();
    let services = snapshot.services.services();
    services
        .map(|service| format!("{:?}", service.totals()))
        .collect()
}

/// Directions of connections whose packets go the short way from now on.
fn learnt<A: Tracked>(rig: &Rig) -> usize {
    let snapshot = rig.snapshot();
    let versions = (snapshot.services.version(), snapshot.network_version());
    let engines = (0..rig.workers()).map(|worker| rig.engine(worker));
    let up_to_date = engines.filter(|engine| engine.express.is_of(versions));
    up_to_date
        .map(|engine| {
            let table = engine.table::<A>();
            let (ids, _) = table.page(0, table.capacity() as u32);
            let both = [Direction::Original, Direction::Reply];
            let known = |id| both.map(|way| engine.express.knows(table.shortcut(id), way));
            ids.flat_map(known).filter(|known| *known).count()
        })
        .sum()
}

fn all_learnt(rig: &Rig) -> usize {
    learnt::<Ipv4Addr>(rig) + learnt::<Ipv6Addr>(rig)
}

/// A connection that both sides use.
fn settle(twins: &mut Twins, world: World, udp: bool) -> Sent {
    let build = if udp { Build::udp } else { Build::tcp };
    let client = build(&world.client(40_000), &world.vip(80));
    let syn = if udp {
        client.clone()
    } else {
        client.clone().flags(SYN).numbers(1000, 0)
    };
    let sent = twins.send(0, CLIENTS, &syn.frame()).remove(0);
    let answer = answering(&sent);
    let answer = if udp {
        answer
    } else {
        answer.flags(SYN | ACK).numbers(1999, 1001)
    };
    twins.send(1, BACKENDS, &answer.frame());
    twins.pass(3);
    let client = if udp {
        client
    } else {
        client.numbers(1001, 2000)
    };
    twins.send(2, CLIENTS, &client.frame());
    let answer = answering(&sent);
    let answer = if udp {
        answer
    } else {
        answer.numbers(2000, 1001)
    };
    twins.send(3, BACKENDS, &answer.frame());
    sent
}

#[derive(Debug, Clone)]
struct Step {
    from_client: bool,
    flags: u8,
    numbers: (u32, u32),
    len: usize,
    ttl: u8,
    bent: Option<usize>,
    worker: usize,
    pass: u64,
}

fn step() -> impl Strategy<Value = Step> {
    let flags = prop::sample::select(vec![
        ACK,
        ACK,
        ACK,
        ACK | 0x08,
        ACK | 0x20,
        FIN | ACK,
        RST,
        0,
    ]);
    let len = prop::sample::select(vec![0usize, 1, 7, 100, 1460, 1480]);
    let place = prop::option::weighted(0.05, 14usize..60);
    (
        any::<bool>(),
        flags,
        (0u32..3000, 0u32..3000),
        len,
        1u8..4,
        place,
        0usize..4,
        0u64..3,
    )
        .prop_map(
            |(from_client, flags, ahead, len, ttl, bent, worker, pass)| Step {
                from_client,
                flags,
                numbers: ahead,
                len,
                ttl,
                bent,
                worker,
                pass,
            },
        )
}

impl Step {
    fn frame(&self, world: World, udp: bool, sent: &Sent) -> Vec<u8> {
        let build = match (self.from_client, udp) {
            (false, _) => answering(sent),
            (true, true) => Build::udp(&world.client(40_000), &world.vip(80)),
            (true, false) => Build::tcp(&world.client(40_000), &world.vip(80)),
        };
        let (mine, other) = if self.from_client {
            (1001, 2000)
        } else {
            (2000, 1001)
        };
        let build = match udp {
            true => build,
            false => build
                .flags(self.flags)
                .numbers(mine + self.numbers.0, other + self.numbers.1),
        };
        let mut frame = build.ttl(self.ttl).payload(&vec![7; self.len]).frame();
        if let Some(place) = self.bent
            && let Some(byte) = frame.get_mut(place)
        {
            *byte ^= 0x10;
        }
        frame
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn both_ways_do_the_same_to_every_packet(
        steps in prop::collection::vec(step(), 1..40),
        udp in any::<bool>(),
    ) {
        everywhere(|world, settings, policy| {
            let protocol = if udp { "udp" } else { "tcp" };
            let mut twins = Twins::new(settings, &[&world.web(protocol, &[11, 12], policy)]);
            let sent = settle(&mut twins, world, udp);
            assert_eq!((all_learnt(&twins.one), all_learnt(&twins.other)), (2, 2));
            for step in &steps {
                let from = if step.from_client { CLIENTS } else { BACKENDS };
                twins.pass(step.pass);
                twins.send(step.worker, from, &step.frame(world, udp, &sent));
            }
            twins.check();
        });
    }
}

#[test]
fn what_a_connection_has_learnt_ends_with_the_table_and_the_network() {
    let web = |backend: u8| format!("web tcp 203.0.113.10:80 -> 10.0.2.{backend}:8080");
    let mut rig = Rig::new(&[&web(11)]);
    let sent = establish(&mut rig, CLIENT);
    rig.exchange(BACKENDS, &answer(&sent, ACK));
    rig.exchange(
        CLIENTS,
        &Build::tcp(CLIENT, VIP).numbers(1001, 2000).frame(),
    );
    assert_eq!(learnt::<Ipv4Addr>(&rig), 2);
    // Another neighbour: frames follow it at once.
    let network = crate::testutil::rig::network([12]);
    rig.set_network(network);
    assert_eq!(learnt::<Ipv4Addr>(&rig), 0);
    let lost = rig.send(
        CLIENTS,
        &Build::tcp(CLIENT, VIP).numbers(1001, 2000).frame(),
    );
    assert_eq!(lost, [], "its backend is not resolved any more");
    rig.set_network(crate::testutil::rig::network(11..=19));
    rig.run();
    // Its backend leaves: the next packet is told.
    rig.push(&[&web(12)]);
    let told = rig.send(BACKENDS, &answer(&sent, ACK));
    let both = told
        .iter()
        .filter(|sent| packet(&sent.1).flags.any(RST))
        .count();
    assert_eq!(both, 2);
    let table = rig.engine(0).table::<Ipv4Addr>();
    let (mut ids, _) = table.page(0, 1);
    assert_eq!(
        table.get(ids.next().unwrap()).state,
        State::Tcp(TcpState::Close)
    );
}
