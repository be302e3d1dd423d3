//! The stages of the path, each alone: where the time of a packet goes.
//!
//! A stage is called for 256 packets in a row with everything else it needs prepared, so that the
//! processor overlaps what it can. The stages do not add up to the whole path: there they share
//! caches and wait for one another. `insert` finds its buckets and records uncached, as new
//! connections do; `expire` takes out connections that were inserted just before, so that it finds
//! them in the cache, as an old connection is not.

use std::hint::black_box;
use std::net::Ipv4Addr;

use anyhow::ensure;
use criterion::Criterion;
use sluice_benches::harness::{BATCH, ONE, criterion, items, title};
use sluice_benches::lane::{Lane, Walk};
use sluice_benches::topology::{BACKEND_SIDE, CLIENT_SIDE, gateway_mac};
use sluice_benches::traffic::{Tuple, connection};
use sluice_conf::settings::dataplane::{Connections, Timeouts};
use sluice_conf::{Pool, Protocol, SourceNat};
use sluice_dataplane::conntrack::{ConnTable, Connection, Seconds, State, TcpState};
use sluice_dataplane::flow::End;
use sluice_dataplane::io::PacketIo;
use sluice_dataplane::neighbour::{Network, Tags};
use sluice_dataplane::pipeline::MAX_BURST;
use sluice_dataplane::service::Target;
use sluice_dataplane::wire::parse::{Datagram, Packet, Parsed, TcpFlags, parse};
use sluice_dataplane::wire::rewrite::{EthernetPair, translate, write_ethernet};

fn main() -> anyhow::Result<()> {
    title("Stages of the path: time and throughput of one packet in one stage, on one core.");
    let mut criterion = criterion();
    frames(&mut criterion)?;
    lookups(&mut criterion)?;
    ways(&mut criterion)?;
    choices(&mut criterion)?;
    changes(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}

fn packets(lane: &mut Lane) -> Vec<Packet<Ipv4Addr>> {
    let (io, frames) = lane.frames();
    let parsed = frames
        .iter()
        .map(|frame| parse(io.bytes(frame), Tags::default()));
    let packets = parsed.filter_map(|parsed| match parsed {
        Ok(Parsed::V4(Datagram::Packet(packet))) => Some(packet),
        _ => None,
    });
    packets.collect()
}

/// What reads or writes the frame.
fn frames(criterion: &mut Criterion) -> anyhow::Result<()> {
    let mut lane = Lane::new(SourceNat::Masquerade)?;
    let tuples: Vec<Tuple> = (0..BATCH as u32).map(connection).collect();
    let fill = |lane: &mut Lane| lane.fill(&tuples, TcpFlags::ACK);
    fill(&mut lane);
    let packets = packets(&mut lane);
    ensure!(packets.len() == BATCH, "not all frames are packets");
    let mut group = criterion.benchmark_group("stage");
    group.throughput(ONE);
    group.bench_function("parse", |bencher| {
        items(bencher, &mut lane, fill, |lane| {
            let (io, frames) = lane.frames();
            for frame in frames {
                let _ = black_box(parse(io.bytes(frame), Tags::default()));
            }
        });
    });
    let to = Tuple {
        source: End::new([10, 0, 2, 1].into(), 20_000),
        destination: End::new([10, 0, 2, 77].into(), 8080),
        protocol: Protocol::Tcp,
    };
    let ethernet = EthernetPair {
        source: gateway_mac(BACKEND_SIDE),
        destination: gateway_mac(CLIENT_SIDE),
    };
    group.bench_function("translate", |bencher| {
        items(bencher, &mut lane, fill, |lane| {
            let (io, frames) = lane.frames();
            for (frame, packet) in frames.iter_mut().zip(&packets) {
                let frame = io.bytes_mut(frame);
                black_box(translate(frame, packet, black_box(&to)));
                black_box(write_ethernet(frame, ethernet));
            }
        });
    });
    group.finish();
    Ok(())
}

/// What finds the connection, fetching ahead in bursts as the pipeline does.
fn lookups(criterion: &mut Criterion) -> anyhow::Result<()> {
    let mut group = criterion.benchmark_group("stage");
    group.throughput(ONE);
    for (count, connections) in [(1_000, "1k"), (10_000, "10k"), (100_000, "100k")] {
        let mut lane = Lane::new(SourceNat::Masquerade)?;
        let mut walk = Walk::new(lane.establish(count)?);
        let table = lane.engine().table();
        let mut batch: Vec<(Tuple, u64)> = Vec::with_capacity(BATCH);
        let mut fill = |batch: &mut Vec<(Tuple, u64)>| {
            batch.clear();
            batch.extend(walk.step().map(|tuple| (*tuple, table.hash(tuple))));
        };
        if count == 1_000 {
            group.bench_function("hash", |bencher| {
                items(bencher, &mut batch, &mut fill, |batch| {
                    for (tuple, _) in batch {
                        black_box(table.hash(black_box(tuple)));
                    }
                });
            });
        }
        group.bench_function(format!("lookup, {connections} connections"), |bencher| {
            items(bencher, &mut batch, &mut fill, |batch| {
                for burst in batch.chunks(MAX_BURST) {
                    look_up(table, burst);
                }
            });
        });
    }
    group.finish();
    Ok(())
}

fn look_up(table: &ConnTable<Ipv4Addr>, burst: &[(Tuple, u64)]) {
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
fn ways(criterion: &mut Criterion) -> anyhow::Result<()> {
    let mut lane = Lane::new(SourceNat::Masquerade)?;
    let mut tuples: Vec<Tuple> = lane.establish(1_000)?;
    // What is left are packets from backends; their sources are where requests go.
    tuples.retain(|tuple| tuple.source.address.octets()[0] == 10);
    let network = lane.snapshot().network.clone();
    let mut walk = Walk::new(tuples);
    let mut group = criterion.benchmark_group("stage");
    group.throughput(ONE);
    let to_client = |n: u32| connection(n).source.address;
    let mut batch = Vec::with_capacity(BATCH);
    group.bench_function("next hop to a backend", |bencher| {
        let fill = |batch: &mut Vec<_>| {
            batch.clear();
            batch.extend(walk.step().map(|tuple| tuple.source.address));
        };
        items(bencher, &mut batch, fill, |batch| {
            find_ways(&network, batch)
        });
    });
    group.bench_function("next hop to a client", |bencher| {
        let fill = |batch: &mut Vec<_>| {
            batch.clear();
            batch.extend((0..BATCH as u32).map(to_client));
        };
        items(bencher, &mut batch, fill, |batch| {
            find_ways(&network, batch)
        });
    });
    group.finish();
    Ok(())
}

fn find_ways(network: &Network, destinations: &[Ipv4Addr]) {
    for destination in destinations {
        let Some(hop) = network.next_hop(*destination) else {
            continue;
        };
        black_box(network.link(hop.interface));
        black_box(network.mac(hop.interface, hop.address));
    }
}

/// What finds the backend of a new connection.
fn choices(criterion: &mut Criterion) -> anyhow::Result<()> {
    let lane = Lane::new(SourceNat::Masquerade)?;
    let services = &lane.snapshot().services;
    let mut walk = Walk::new((0..16_384).map(connection).collect());
    let mut group = criterion.benchmark_group("stage");
    group.throughput(ONE);
    group.bench_function("choose a backend", |bencher| {
        let mut batch = Vec::with_capacity(BATCH);
        let fill = |batch: &mut Vec<Tuple>| {
            batch.clear();
            batch.extend(walk.step());
        };
        items(bencher, &mut batch, fill, |batch| {
            for tuple in batch {
                let target = Target::from_end(tuple.destination, tuple.protocol);
                if let Some(served) = services.frontend(&target) {
                    let hash = tuple.hash(0);
                    black_box(
                        served
                            .service
                            .choose(Pool::Cluster, target.address, hash, None),
                    );
                }
            }
        });
    });
    group.finish();
    Ok(())
}

/// A table of its own, with new connections for it.
struct Changing {
    table: ConnTable<Ipv4Addr>,
    next: u32,
    now: Seconds,
    batch: Vec<Connection<Ipv4Addr>>,
}

impl Changing {
    fn new() -> Self {
        let now = Seconds(0);
        Self {
            table: ConnTable::new(
                Connections::default().capacity,
                Timeouts::default(),
                0x5eed,
                now,
            ),
            next: 0,
            now,
            batch: Vec::with_capacity(BATCH),
        }
    }

    fn prepare(&mut self) {
        let (first, now) = (self.next, self.now);
        let opened = |number| {
            let original = connection(number);
            // A reply tuple like a masqueraded one's; as unique as the original.
            let mut reply = original.invert();
            reply.source.port = 8080;
            Connection {
                original,
                reply,
                state: State::Tcp(TcpState::SynSent),
                last_seen: now,
                ..Connection::UNUSED
            }
        };
        self.batch.clear();
        self.batch.extend((first..).take(BATCH).map(opened));
        self.next = self.next.wrapping_add(BATCH as u32);
    }

    fn insert(&mut self) {
        for connection in &self.batch {
            let _ = black_box(self.table.insert(*connection));
        }
    }

    /// Lets the timeouts of all connections run out.
    fn pass(&mut self) {
        self.now.0 += 200;
    }

    fn expire(&mut self) {
        let mut gone = 0;
        self.table.expire(self.now, BATCH, |_| gone += 1);
        black_box(gone);
    }
}

/// What changes the table.
fn changes(criterion: &mut Criterion) -> anyhow::Result<()> {
    let mut group = criterion.benchmark_group("stage");
    group.throughput(ONE);
    let mut changing = Changing::new();
    group.bench_function("insert", |bencher| {
        let prepare = |changing: &mut Changing| {
            changing.pass();
            changing.expire();
            changing.prepare();
        };
        items(bencher, &mut changing, prepare, Changing::insert);
    });
    ensure!(
        changing.table.len().is_multiple_of(BATCH),
        "connections were refused"
    );
    let mut changing = Changing::new();
    group.bench_function("expire", |bencher| {
        let prepare = |changing: &mut Changing| {
            changing.prepare();
            changing.insert();
            changing.pass();
        };
        items(bencher, &mut changing, prepare, Changing::expire);
    });
    ensure!(changing.table.is_empty(), "connections did not expire");
    group.finish();
    Ok(())
}
