//! `bench-control`: the control plane of a large cluster.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use sluice_benches::control::{self, Options};
use sluice_benches::program::Arguments;
use sluice_benches::report::goals::CONTROL;

/// Measures the control plane with 10,000 Services and 100,000 endpoints, and writes
/// report-control.json, report-control.md and the report of all parts. Needs root and release builds
/// of Sluice's daemons beside this program.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    arguments: Arguments,
}

fn main() -> ExitCode {
    let Cli { arguments } = Cli::parse();
    let options = Options {
        starts: arguments.pick(1, 5),
        changes: arguments.pick(20, 300),
        probing: Duration::from_secs(arguments.pick(5, 15)),
    };
    arguments.run("control", CONTROL, |report| control::run(options, report))
}
