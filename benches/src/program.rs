//! What the programs have in common that measure one part and write its report.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::Map;

use crate::report::goals::Goal;
use crate::report::{Machine, Report};

/// How such a program is called.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Where the report goes.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// Few readings, no report: to see that it runs.
    #[arg(long)]
    quick: bool,
}

impl Arguments {
    /// Which of two amounts is meant: of a quick run, or of a long one.
    pub fn pick<T>(&self, quick: T, long: T) -> T {
        if self.quick { quick } else { long }
    }

    /// Measures `part`, and writes its report unless the run is a quick one.
    pub fn run(
        &self,
        part: &str,
        goals: &'static [Goal],
        measure: impl FnOnce(&mut Report) -> anyhow::Result<()>,
    ) -> ExitCode {
        let mut report = Report::new(Machine::here(), goals);
        let written = measure(&mut report).and_then(|()| match self.quick {
            true => Ok(()),
            false => report.write(&self.out, part, Map::new(), ""),
        });
        match written {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("bench-{part}: {error:#}");
                ExitCode::FAILURE
            }
        }
    }
}
