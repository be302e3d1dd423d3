//! `bench-dns`: the DNS server of the control plane.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use sluice_benches::names::{self, Options};
use sluice_benches::program::Arguments;
use sluice_benches::report::goals::DNS;

/// Measures the DNS server beside nsd, Knot and BIND with the same zone, and while the zone changes;
/// writes report-dns.json, report-dns.md and the report of all parts. Needs root, two CPUs and release
/// builds of Sluice's daemons beside this program.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    arguments: Arguments,
}

fn main() -> ExitCode {
    let Cli { arguments } = Cli::parse();
    let options = Options {
        rounds: arguments.pick(1, 7),
        turn: Duration::from_secs(arguments.pick(1, 5)),
        changes: arguments.pick(10, 100),
        churn: Duration::from_secs(arguments.pick(3, 30)),
    };
    arguments.run("dns", DNS, |report| names::run(options, report))
}
