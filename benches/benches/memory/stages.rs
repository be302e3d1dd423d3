//! The stages of the path, each alone: where the time of a packet goes.
//!
//! A stage is called for 256 packets in a row with everything else it needs prepared, so that the
//! processor overlaps what it can. The stages do not add up to the whole path: there they share
//! caches and wait for one another. `insert` finds its buckets and records uncached, as new
//! connections do; `expire` takes out connections that were inserted just before, so that it finds
//! them in the cache, as an old connection is not.

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::ensure;
use sluice_benches::gateway::Plan;
use sluice_benches::harness::{BATCH, in_turns};
use sluice_benches::lane::Lane;
use sluice_benches::order::Walk;
use sluice_benches::report::Report;
use sluice_benches::topology::{BACKEND_SIDE, CLIENT_SIDE, gateway_mac};
use sluice_benches::traffic::{Numbered, connection};
use sluice_conf::{Pool, Protocol, SourceNat};
use sluice_dataplane::conntrack::ConnTable;
use sluice_dataplane::flow::{End, FiveTuple};
use sluice_dataplane::io::PacketIo;
use sluice_dataplane::neighbour::{Network, Tags};
use sluice_dataplane::pipeline::MAX_BURST;
use sluice_dataplane::service::{ServiceMap, Target};
use sluice_dataplane::wire::parse::{Datagram, Packet, Parsed, TcpFlags, parse};
use sluice_dataplane::wire::rewrite::{EthernetPair, translate, write_ethernet};

use crate::Measure;
use crate::changing::Changing;
use crate::stock::{Stock, Tuples};

/// One figure: takes a reading of a stage.
struct Case<'a> {
    name: String,
    read: Box<dyn FnMut() -> f64 + 'a>,
}

/// Measures all stages in turns.
///
/// # Errors
/// When what a stage needs cannot be prepared.
pub fn run(measure: Measure, stocks: &[Stock], report: &mut Report) -> anyhow::Result<()> {
    report.section("Stages of the path, each alone, on one core");
    let mut cases = Vec::new();
    frames(measure, &mut cases)?;
    for stock in stocks.iter().filter(|stock| stock.is_masqueraded()) {
        cases.push(lookup(measure, stock, &stock.v4));
        cases.push(lookup(measure, stock, &stock.v6));
    }
    if let Some(stock) = stocks.first() {
        cases.push(hash(measure, stock, &stock.v4));
        cases.push(hash(measure, stock, &stock.v6));
        let snapshot = stock.lane.snapshot();
        ways(measure, &snapshot.network, &mut cases);
        cases.push(choice(measure, &snapshot.services));
    }
    changes::<Ipv4Addr>(measure, &mut cases);
    changes::<Ipv6Addr>(measure, &mut cases);
    let readings = in_turns(measure.rounds, &mut cases, |case| (case.read)());
    for (case, readings) in cases.iter().zip(&readings) {
        report.add(format!("stage {}", case.name), "ns", readings);
    }
    Ok(())
}

impl<'a> Case<'a> {
    fn new(name: impl Into<String>, read: impl FnMut() -> f64 + 'a) -> Self {
        Self {
            name: name.into(),
            read: Box::new(read),
        }
    }
}

/// What reads or writes the frame.
fn frames<'a>(measure: Measure, cases: &mut Vec<Case<'a>>) -> anyhow::Result<()> {
    let v4 = |packet: &Parsed| match packet {
        Parsed::V4(Datagram::Packet(packet)) => Some(*packet),
        _ => None,
    };
    let v6 = |packet: &Parsed| match packet {
        Parsed::V6(Datagram::Packet(packet)) => Some(*packet),
        _ => None,
    };
    of_family::<Ipv4Addr>(measure, v4, cases)?;
    of_family::<Ipv6Addr>(measure, v6, cases)
}

fn of_family<A: Numbered>(
    measure: Measure,
    packet: impl Fn(&Parsed) -> Option<Packet<A>>,
    cases: &mut Vec<Case<'_>>,
) -> anyhow::Result<()> {
    let tuples: Tuples<A> = (0..BATCH as u32).map(connection).collect();
    let fill = move |lane: &mut Lane| lane.fill(tuples.iter(), TcpFlags::ACK);
    let mut lane = Lane::new(Plan::new(SourceNat::Masquerade))?;
    fill(&mut lane);
    let (io, frames) = lane.frames();
    let parsed = frames
        .iter()
        .filter_map(|frame| parse(io.bytes(frame), Tags::default()).ok());
    let packets: Vec<Packet<A>> = parsed.filter_map(|parsed| packet(&parsed)).collect();
    ensure!(packets.len() == BATCH, "not all frames are packets");
    let (mut other, refill) = (Lane::new(Plan::new(SourceNat::Masquerade))?, fill.clone());
    cases.push(Case::new(format!("parse {}", A::NAME), move || {
        measure.watch.items(&mut other, &refill, |lane| {
            let (io, frames) = lane.frames();
            for frame in frames {
                let _ = black_box(parse(io.bytes(frame), Tags::default()));
            }
        })
    }));
    let to = FiveTuple {
        source: End::new(A::node(150), 20_000),
        destination: End::new(A::node(77), 8080),
        protocol: Protocol::Tcp,
    };
    let ethernet = EthernetPair {
        source: gateway_mac(BACKEND_SIDE),
        destination: gateway_mac(CLIENT_SIDE),
    };
    cases.push(Case::new(format!("translate {}", A::NAME), move || {
        measure.watch.items(&mut lane, &fill, |lane| {
            let (io, frames) = lane.frames();
            for (frame, packet) in frames.iter_mut().zip(&packets) {
                let frame = io.bytes_mut(frame);
                black_box(translate(frame, packet, black_box(&to)));
                black_box(write_ethernet(frame, ethernet));
            }
        })
    }));
    Ok(())
}

fn hash<'a, A: Numbered>(measure: Measure, stock: &'a Stock, tuples: &Tuples<A>) -> Case<'a> {
    let table = stock.lane.engine().table::<A>();
    let mut walk = Walk::evenly(Tuples::clone(tuples));
    let mut batch = Vec::with_capacity(BATCH);
    Case::new(format!("hash {}", A::NAME), move || {
        let fill = |batch: &mut Vec<FiveTuple<A>>| {
            batch.clear();
            batch.extend(walk.step());
        };
        measure.watch.items(&mut batch, fill, |batch| {
            for tuple in batch {
                black_box(table.hash(black_box(tuple)));
            }
        })
    })
}

/// What finds the connection, fetching ahead in bursts as the pipeline does.
fn lookup<'a, A: Numbered>(measure: Measure, stock: &'a Stock, tuples: &Tuples<A>) -> Case<'a> {
    let table = stock.lane.engine().table::<A>();
    let mut walk = Walk::evenly(Tuples::clone(tuples));
    let mut batch = Vec::with_capacity(BATCH);
    let warm_up = walk.warm_up();
    Case::new(format!("lookup {}", stock.name::<A>()), move || {
        let mut fill = |batch: &mut Vec<(FiveTuple<A>, u64)>| {
            batch.clear();
            batch.extend(walk.step().map(|tuple| (*tuple, table.hash(tuple))));
        };
        for _ in 0..warm_up {
            fill(&mut batch);
            look_up(table, &batch);
        }
        measure.watch.items(&mut batch, fill, |batch| {
            for burst in batch.chunks(MAX_BURST) {
                look_up(table, burst);
            }
        })
    })
}

fn look_up<A: Numbered>(table: &ConnTable<A>, burst: &[(FiveTuple<A>, u64)]) {
    for (_, hash) in burst {
        table.prefetch_bucket(*hash);
    }
    for (_, hash) in burst {
        table.prefetch_record(*hash);
    }
    for (tuple, hash) in burst {
        black_box(table.lookup(*hash, tuple));
    }
}

/// Where the packet goes next: route, link and neighbour.
fn ways<'a>(measure: Measure, network: &'a Network, cases: &mut Vec<Case<'a>>) {
    let backend = |number: u32| Ipv4Addr::node((number % 200) as u16);
    let client = |number: u32| connection::<Ipv4Addr>(number).source.address;
    for (name, address) in [
        ("next hop to a backend", backend as fn(u32) -> Ipv4Addr),
        ("next hop to a client", client),
    ] {
        let mut numbers = 0u32..;
        let mut batch = Vec::with_capacity(BATCH);
        cases.push(Case::new(name, move || {
            let fill = |batch: &mut Vec<Ipv4Addr>| {
                batch.clear();
                batch.extend(numbers.by_ref().take(BATCH).map(address));
            };
            measure.watch.items(&mut batch, fill, |batch| {
                for destination in batch {
                    if let Some(hop) = network.next_hop(*destination) {
                        black_box(network.link(hop.interface));
                        black_box(network.mac(hop.interface, hop.address));
                    }
                }
            })
        }));
    }
}

/// What finds the backend of a new connection.
fn choice(measure: Measure, services: &ServiceMap) -> Case<'_> {
    let mut numbers = 0u32..;
    let mut batch = Vec::with_capacity(BATCH);
    Case::new("choose a backend", move || {
        let fill = |batch: &mut Vec<FiveTuple<Ipv4Addr>>| {
            batch.clear();
            batch.extend(numbers.by_ref().take(BATCH).map(connection::<Ipv4Addr>));
        };
        measure.watch.items(&mut batch, fill, |batch| {
            for tuple in batch {
                let target = Target::from_end(tuple.destination, tuple.protocol);
                if let Some(served) = services.frontend(&target) {
                    let (service, hash) = (served.service, tuple.hash());
                    let _ = black_box(service.choose(Pool::Cluster, target.address, hash, None));
                }
            }
        })
    })
}

/// What changes the table.
fn changes<A: Numbered>(measure: Measure, cases: &mut Vec<Case<'_>>) {
    let mut inserting = Changing::<A>::new();
    cases.push(Case::new(format!("insert {}", A::NAME), move || {
        let prepare = |changing: &mut Changing<A>| {
            changing.pass();
            changing.expire();
            changing.prepare();
        };
        measure
            .watch
            .items(&mut inserting, prepare, Changing::insert)
    }));
    let mut expiring = Changing::<A>::new();
    cases.push(Case::new(format!("expire {}", A::NAME), move || {
        let prepare = |changing: &mut Changing<A>| {
            changing.prepare();
            changing.insert();
            changing.pass();
        };
        measure
            .watch
            .items(&mut expiring, prepare, Changing::expire)
    }));
}
