//! `conformance SUITE DIR [--verbose]`: judges Sluice by the cases of `DIR/SUITE.yaml`.
//!
//! Exits with 0 if no case failed, 1 if one did, 2 if there is nothing to judge by: wrong usage, a
//! file that cannot be read, another format.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sluice_tests::conformance;

#[derive(Parser)]
#[command(about = "Judges Sluice by the cases of DIR/SUITE.yaml")]
struct Arguments {
    /// Which cases, for example proxy-flows or envvars.
    suite: String,
    /// Folder of the files.
    dir: PathBuf,
    /// Also prints the cases that passed or could not be judged.
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match conformance::run(&arguments.suite, &arguments.dir) {
        Ok(report) => {
            for line in report.lines(arguments.verbose) {
                println!("{line}");
            }
            ExitCode::from(u8::from(report.failed() > 0))
        }
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::from(2)
        }
    }
}
