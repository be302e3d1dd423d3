//! The whole path: what one packet costs the engine, bursts of 64 frames of 60 or 74 bytes.
//!
//! Timed: `Engine::process`. Not timed: writing the frames, because no engine does that; they are
//! written anew before each batch of 256. Packets of both directions of established TCP
//! connections arrive evenly (each connection as often as any other, without pattern) or by Zipf's
//! law. `loop alone` is what the timed part costs without an engine: it looks at each frame and
//! pushes a verdict.

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};

use sluice_benches::harness::{BATCH, in_turns};
use sluice_benches::lane::Lane;
use sluice_benches::order::Walk;
use sluice_benches::report::Report;
use sluice_benches::topology::BACKEND_SIDE;
use sluice_benches::traffic::Numbered;
use sluice_dataplane::io::PacketIo;
use sluice_dataplane::verdict::Verdict;
use sluice_dataplane::wire::parse::TcpFlags;

use crate::Measure;
use crate::stock::{Stock, Tuples};

/// Exponent of Zipf's law.
const EXPONENT: f64 = 1.1;

/// One figure: packets in some order through one of the gateways.
struct Case {
    name: String,
    stock: usize,
    warm_up: usize,
    fill: Box<dyn FnMut(&mut Lane)>,
    timed: fn(&mut Lane),
}

impl Case {
    fn new<A: Numbered>(name: String, stock: usize, mut walk: Walk<A>) -> Self {
        Self {
            name,
            stock,
            warm_up: walk.warm_up(),
            fill: Box::new(move |lane| lane.fill(walk.step(), TcpFlags::ACK)),
            timed: Lane::process,
        }
    }

    fn read(&mut self, measure: Measure, stocks: &mut [Stock]) -> f64 {
        let lane = &mut stocks[self.stock].lane;
        for _ in 0..self.warm_up {
            (self.fill)(lane);
            lane.process();
        }
        measure.watch.items(lane, &mut self.fill, self.timed)
    }
}

/// Measures all cases in turns.
///
/// # Errors
/// When packets were not forwarded.
pub fn run(measure: Measure, stocks: &mut [Stock], report: &mut Report) -> anyhow::Result<()> {
    report.section("The whole path of a packet of an established connection, on one core");
    let mut cases = Vec::new();
    for (place, stock) in stocks.iter().enumerate() {
        add::<Ipv4Addr>(&mut cases, place, stock, &stock.v4);
        add::<Ipv6Addr>(&mut cases, place, stock, &stock.v6);
    }
    if let Some(stock) = stocks.first() {
        cases.push(Case {
            timed: look_only,
            ..Case::new(
                "loop alone".into(),
                0,
                Walk::evenly(Tuples::clone(&stock.v4)),
            )
        });
    }
    let readings = in_turns(measure.rounds, &mut cases, |case| {
        case.read(measure, stocks)
    });
    for (case, readings) in cases.iter().zip(&readings) {
        report.add(&case.name, "ns", readings);
    }
    let values = ["1k", "10M"]
        .map(|size| report.value(&format!("established IPv4 masquerade {size} evenly")));
    if let [Some(few), Some(many)] = values {
        report.add(
            "established IPv4 masquerade 10M over 1k",
            "ratio",
            &[many / few],
        );
    }
    stocks.iter_mut().try_for_each(|stock| stock.lane.check())
}

fn add<A: Numbered>(cases: &mut Vec<Case>, place: usize, stock: &Stock, tuples: &Tuples<A>) {
    let name = |order| format!("established {} {order}", stock.name::<A>());
    let evenly = Walk::evenly(Tuples::clone(tuples));
    cases.push(Case::new(name("evenly"), place, evenly));
    if stock.is_masqueraded() {
        let zipf = Walk::zipf(Tuples::clone(tuples), EXPONENT);
        cases.push(Case::new(name("Zipf 1.1"), place, zipf));
    }
}

fn look_only(lane: &mut Lane) {
    for place in 0..BATCH {
        let (io, frames) = lane.frames();
        black_box(io.bytes(&frames[place])[0]);
        lane.verdicts().push(Verdict::Forward(BACKEND_SIDE));
    }
}
