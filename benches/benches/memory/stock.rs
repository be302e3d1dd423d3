//! Gateways with so many connections, ready to be measured.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use sluice_benches::gateway::Plan;
use sluice_benches::lane::Lane;
use sluice_benches::process::available;
use sluice_benches::report::Report;
use sluice_benches::traffic::Numbered;
use sluice_conf::SourceNat;
use sluice_dataplane::flow::FiveTuple;

use crate::{Measure, short};

/// Connections of each family that are left room for beside those that live.
const ROOM: u32 = (1 << 18) + (1 << 16);

/// Bytes of memory that a connection of both families may take, with the lists of who sends:
/// generous, to be asked before the memory is.
const BYTES: u64 = 700;

/// Policies and numbers of connections. Preserved sources are like masqueraded ones once they are
/// established, so they are not measured at every size.
const STOCKS: [(SourceNat, u32); 8] = [
    (SourceNat::Masquerade, 1_000),
    (SourceNat::Masquerade, 10_000),
    (SourceNat::Masquerade, 100_000),
    (SourceNat::Masquerade, 1_000_000),
    (SourceNat::Masquerade, 10_000_000),
    (SourceNat::Preserve, 1_000),
    (SourceNat::Preserve, 100_000),
    (SourceNat::Preserve, 1_000_000),
];

/// Tuples that packets arrive with.
pub type Tuples<A> = Arc<[FiveTuple<A>]>;

/// A gateway with so many established connections of each family.
#[derive(Debug)]
pub struct Stock {
    /// Connections of each family.
    pub count: u32,
    /// Policy of its Services.
    pub source_nat: SourceNat,
    /// Its one worker.
    pub lane: Lane,
    /// What its IPv4 packets arrive with.
    pub v4: Tuples<Ipv4Addr>,
    /// What its IPv6 packets arrive with.
    pub v6: Tuples<Ipv6Addr>,
}

impl Stock {
    fn new(source_nat: SourceNat, count: u32) -> anyhow::Result<Self> {
        let plan = Plan::new(source_nat).with_room_for(count + ROOM);
        let mut lane = Lane::new(plan)?;
        Ok(Self {
            v4: lane.establish(count)?,
            v6: lane.establish(count)?,
            count,
            source_nat,
            lane,
        })
    }

    /// Whether backends get to see the gateway's address.
    pub fn is_masqueraded(&self) -> bool {
        self.source_nat == SourceNat::Masquerade
    }

    /// Family, policy and size, for names of figures.
    pub fn name<A: Numbered>(&self) -> String {
        let policy = policy(self.source_nat);
        format!("{} {policy} {}", A::NAME, short(self.count))
    }
}

/// Name of a policy.
pub fn policy(source_nat: SourceNat) -> &'static str {
    match source_nat {
        SourceNat::Masquerade => "masquerade",
        SourceNat::Preserve => "preserve",
    }
}

/// All gateways that there is memory for.
///
/// # Errors
/// When connections are not established.
pub fn all(measure: Measure, report: &mut Report) -> anyhow::Result<Vec<Stock>> {
    let mut stocks = Vec::new();
    for (source_nat, count) in STOCKS {
        if count > measure.most {
            continue;
        }
        let what = format!(
            "{}, {} connections of each family",
            policy(source_nat),
            short(count)
        );
        let (wanted, free) = (
            u64::from(count + ROOM) * BYTES,
            available().unwrap_or(u64::MAX),
        );
        if wanted > free {
            let gigabytes = |bytes| bytes as f64 / f64::from(1 << 30);
            let (wanted, free) = (gigabytes(wanted), gigabytes(free));
            report.leave_out(
                what,
                format!("they need {wanted:.1} GiB of memory, {free:.1} are free"),
            );
            continue;
        }
        let (passed, stock) = measure.watch.time(|| Stock::new(source_nat, count));
        println!("  {what}: established in {:.1} s", passed / 1e9);
        stocks.push(stock?);
    }
    Ok(stocks)
}
