//! `bench-control`: the control plane of a large cluster.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use serde_json::Map;
use sluice_benches::control::{self, Options};
use sluice_benches::report::goals::CONTROL;
use sluice_benches::report::{Machine, Report};

/// Measures the control plane with 10,000 Services and 100,000 endpoints, and writes
/// report-control.json, report-control.md and the report of all parts. Needs root and release builds
/// of Sluice's daemons beside this program.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Where the report goes.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// Few readings, no report: to see that it runs.
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let options = Options {
        starts: if cli.quick { 1 } else { 5 },
        changes: if cli.quick { 20 } else { 300 },
        probing: Duration::from_secs(if cli.quick { 5 } else { 15 }),
    };
    let mut report = Report::new(Machine::here(), CONTROL);
    control::run(options, &mut report)?;
    if cli.quick {
        return Ok(());
    }
    report.write(&cli.out, "control", Map::new(), "")
}
