//! All that can be measured in memory, without root: `cargo bench --bench memory`.
//!
//! ```text
//!   footprint:    bytes a connection, by the process's own resident memory; first of all, while
//!                 the process is small
//!   calibration:  the machine itself
//!   change:       Maglev tables; a table of 10,000 Services and the change of one endpoint
//!   gateways of 1k to 10M connections:
//!     established   the whole path of a packet
//!     stages        the same path cut into pieces
//!     opening       new connections beside so many live ones
//!     storm         all connections time out at once
//!   workers:      1 to 16 workers of one gateway; nothing shared is written for a packet
//! ```
//!
//! A whole run writes `report-memory.json` and `report-memory.md` into `target/bench`; a part of it,
//! chosen by name, or a quick one only prints.

mod change;
mod changing;
mod established;
mod footprint;
mod opening;
mod push;
mod stages;
mod stock;
mod storm;
mod workers;

use std::path::{Path, PathBuf};

use clap::Parser;
use sluice_benches::calibration;
use sluice_benches::harness::Stopwatch;
use sluice_benches::report::goals::MEMORY;
use sluice_benches::report::{Machine, Report};

/// Measures the packet path in memory.
#[derive(Debug, Parser)]
struct Options {
    /// Only these parts: footprint, calibration, change, established, stages, opening, storm, workers.
    only: Vec<String>,
    /// Few rounds, no more than 100,000 connections: to see that it runs.
    #[arg(long)]
    quick: bool,
    /// Cargo passes it to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| part.contains(only.as_str()))
    }
}

/// What all parts go by.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// The clock.
    pub watch: Stopwatch,
    /// Readings of each figure.
    pub rounds: usize,
    /// Most connections of a gateway.
    pub most: u32,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let measure = Measure {
        watch: Stopwatch::default(),
        rounds: if options.quick { 3 } else { 15 },
        most: if options.quick { 100_000 } else { 10_000_000 },
    };
    let mut report = Report::new(Machine::here(), MEMORY);
    if options.wants("footprint") {
        footprint::run(measure, &mut report)?;
    }
    if options.wants("calibration") {
        calibration::run(measure.watch, measure.rounds, &mut report);
    }
    if options.wants("change") {
        change::run(measure, &mut report)?;
    }
    gateways(&options, measure, &mut report)?;
    if options.wants("workers") {
        workers::run(measure, &mut report)?;
    }
    if options.only.is_empty() && !options.quick {
        write(&report)?;
    }
    Ok(())
}

fn gateways(options: &Options, measure: Measure, report: &mut Report) -> anyhow::Result<()> {
    let parts = ["established", "stages", "opening", "storm"];
    if !parts.iter().any(|part| options.wants(part)) {
        return Ok(());
    }
    report.section("Gateways");
    let mut stocks = stock::all(measure, report)?;
    if options.wants("established") {
        established::run(measure, &mut stocks, report)?;
    }
    if options.wants("stages") {
        stages::run(measure, &stocks, report)?;
    }
    if options.wants("opening") {
        opening::run(measure, &mut stocks, report)?;
    }
    if options.wants("storm") {
        storm::run(measure, &mut stocks, report)?;
    }
    Ok(())
}

/// Writes the report where cargo builds.
fn write(report: &Report) -> anyhow::Result<()> {
    let target = std::env::var("CARGO_TARGET_DIR").map(PathBuf::from);
    let here = || Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target");
    let folder = target.unwrap_or_else(|_| here()).join("bench");
    println!();
    report.write(&folder, "memory", serde_json::Map::new(), "")
}

/// A number of connections as it stands in names.
fn short(count: u32) -> String {
    match count {
        millions if millions >= 1_000_000 => format!("{}M", millions / 1_000_000),
        thousands if thousands >= 1000 => format!("{}k", thousands / 1000),
        few => few.to_string(),
    }
}
