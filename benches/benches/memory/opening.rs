//! New connections: SYNs that find nothing in the table, beside so many connections that live.
//!
//! Timed: the miss, the choice of a backend, the source port, both directions inserted, the timer,
//! and the translated SYN. A gateway without live connections forgets the new ones before the next
//! reading; the others have room for all.

use std::net::{Ipv4Addr, Ipv6Addr};

use sluice_benches::gateway::Plan;
use sluice_benches::harness::in_turns;
use sluice_benches::lane::Lane;
use sluice_benches::report::Report;
use sluice_benches::statistics::Summary;
use sluice_benches::traffic::Numbered;
use sluice_conf::SourceNat;

use crate::stock::{Stock, policy};
use crate::{Measure, short};

/// From how many live connections on a gateway is worth a figure of its own.
const MANY: u32 = 1_000_000;

/// One figure: new connections of a family in one gateway.
struct Case {
    name: String,
    lane: usize,
    is_empty: bool,
    fill: fn(&mut Lane),
}

impl Case {
    fn new<A: Numbered>(lane: usize, source_nat: SourceNat, live: u32) -> Self {
        let (policy, live_text) = (policy(source_nat), short(live));
        Self {
            name: format!("new connections {} {policy}, {live_text} live", A::NAME),
            lane,
            is_empty: live == 0,
            fill: Lane::fill_new::<A>,
        }
    }

    fn read(&self, measure: Measure, lanes: &mut [&mut Lane]) -> f64 {
        let lane = &mut *lanes[self.lane];
        let reading = measure.watch.items(lane, self.fill, Lane::process);
        if self.is_empty {
            lane.forget_opened();
        }
        reading
    }
}

/// Measures all cases in turns.
///
/// # Errors
/// When a connection was not made.
pub fn run(measure: Measure, stocks: &mut [Stock], report: &mut Report) -> anyhow::Result<()> {
    report.section("New connections, on one core");
    let mut masquerading = Lane::new(Plan::new(SourceNat::Masquerade))?;
    let mut preserving = Lane::new(Plan::new(SourceNat::Preserve))?;
    let mut gateways = vec![
        (SourceNat::Masquerade, 0, &mut masquerading),
        (SourceNat::Preserve, 0, &mut preserving),
    ];
    let many = stocks.iter_mut().filter(|stock| stock.is_masqueraded());
    let many = many.filter(|stock| stock.count >= measure.most.min(MANY));
    gateways.extend(many.map(|stock| (stock.source_nat, stock.count, &mut stock.lane)));
    let (mut cases, mut lanes) = (Vec::new(), Vec::new());
    for (place, (source_nat, live, lane)) in gateways.into_iter().enumerate() {
        cases.push(Case::new::<Ipv4Addr>(place, source_nat, live));
        cases.push(Case::new::<Ipv6Addr>(place, source_nat, live));
        lanes.push(lane);
    }
    let readings = in_turns(measure.rounds, &mut cases, |case| {
        case.read(measure, &mut lanes)
    });
    for (case, readings) in cases.iter().zip(&readings) {
        if let Some(summary) = Summary::of(readings) {
            report.add_summary(&case.name, "million/s", summary.map(|ns| 1000.0 / ns));
        }
    }
    lanes.into_iter().try_for_each(Lane::check)
}
