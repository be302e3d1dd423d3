//! Memory of a connection: how much the process grows by a full table, over tables of several
//! sizes.
//!
//! All-in: index, records, timers and free list of one worker's table. Records are written, so that
//! nothing is only promised.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, ensure};
use sluice_benches::process::{available, resident};
use sluice_benches::report::Report;
use sluice_benches::statistics::slope;
use sluice_benches::traffic::{Numbered, connection};
use sluice_conf::settings::dataplane::Timeouts;
use sluice_dataplane::conntrack::{ConnTable, Connection, Seconds};

use crate::{Measure, short};

/// Connections of the tables.
const SIZES: [u32; 4] = [500_000, 1_000_000, 4_000_000, 10_000_000];

/// Bytes of a connection, to be asked before the memory is.
const BYTES: u64 = 400;

/// Measures both families. All tables stay until the end: memory that one gives back to the
/// allocator would be another one's without any growth.
///
/// # Errors
/// When the process cannot be read, or when a table takes less than it says.
pub fn run(measure: Measure, report: &mut Report) -> anyhow::Result<()> {
    report.section("Memory of a connection: growth of the process's resident memory");
    let v4 = of_family::<Ipv4Addr>(measure, report)?;
    let v6 = of_family::<Ipv6Addr>(measure, report)?;
    drop((v4, v6));
    Ok(())
}

fn of_family<A: Numbered>(
    measure: Measure,
    report: &mut Report,
) -> anyhow::Result<Vec<ConnTable<A>>> {
    let (mut tables, mut points) = (Vec::new(), Vec::new());
    // Small tables say nothing: they fit into memory that the process has already.
    let most = measure.most.max(1_000_000);
    for size in SIZES.into_iter().filter(|size| *size <= most) {
        let name = format!("{} table of {}: bytes a connection", A::NAME, short(size));
        if u64::from(size) * BYTES > available().unwrap_or(u64::MAX) {
            report.leave_out(name, "there is not enough memory free");
            continue;
        }
        let before = resident().context("reading VmRSS of /proc/self/status")?;
        tables.push(full::<A>(size)?);
        let after = resident().context("reading VmRSS of /proc/self/status")?;
        let grown = after.saturating_sub(before) as f64;
        report.add(name, "bytes", &[grown / f64::from(size)]);
        points.push((f64::from(size), grown));
    }
    let rise: Vec<f64> = slope(&points).into_iter().collect();
    report.add(
        format!("memory of an {} connection", A::NAME),
        "bytes",
        &rise,
    );
    Ok(tables)
}

/// A table with as many connections as it has room for.
fn full<A: Numbered>(capacity: u32) -> anyhow::Result<ConnTable<A>> {
    let now = Seconds(1);
    let mut table = ConnTable::new(capacity, Timeouts::default(), 0x5eed, now);
    for number in 0..capacity {
        let original = connection::<A>(number);
        // A reply tuple like a masqueraded one's; as unique as the original.
        let mut reply = original.invert();
        reply.source.port = 8080;
        let connection = Connection {
            original,
            reply,
            created: now,
            last_seen: now,
            ..Connection::UNUSED
        };
        table
            .insert(connection)
            .with_context(|| format!("connection {number} of {capacity}"))?;
    }
    ensure!(table.len() == capacity as usize, "connections are missing");
    Ok(table)
}
