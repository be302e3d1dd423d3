//! `bench-dns`: the DNS server of the control plane.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use serde_json::Map;
use sluice_benches::names::{self, Options};
use sluice_benches::report::goals::DNS;
use sluice_benches::report::{Machine, Report};

/// Measures the DNS server beside nsd, Knot and BIND with the same zone, and while the zone changes;
/// writes report-dns.json, report-dns.md and the report of all parts. Needs root, two CPUs and release
/// builds of Sluice's daemons beside this program.
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
            eprintln!("bench-dns: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let seconds = |quick, long| Duration::from_secs(if cli.quick { quick } else { long });
    let options = Options {
        rounds: if cli.quick { 1 } else { 7 },
        turn: seconds(1, 5),
        churn: seconds(3, 30),
    };
    let mut report = Report::new(Machine::here(), DNS);
    names::run(options, &mut report)?;
    if cli.quick {
        return Ok(());
    }
    report.write(&cli.out, "dns", Map::new(), "")
}
