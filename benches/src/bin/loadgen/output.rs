//! What people and programs get: a line for each trial, JSON, CSV, charts.

use std::fs;
use std::io::{IsTerminal, Write as _, stderr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use sluice_benches::plot;
use sluice_benches::rate::Rate;
use sluice_benches::sink::Histogram;
use sluice_benches::trial::Outcome;

use crate::arguments::Traffic;

/// Every so many looks the line is written again.
const LOOKS: u32 = 10;

/// The line that tells how far a trial is; only on a terminal.
pub struct Progress {
    wanted: bool,
    looks: u32,
}

impl Progress {
    pub fn new() -> Self {
        Self {
            wanted: stderr().is_terminal(),
            looks: 0,
        }
    }

    pub fn show(&mut self, state: &Outcome) {
        self.looks += 1;
        if self.wanted && self.looks.is_multiple_of(LOOKS) {
            eprint!("\r\x1b[K{:5.1} s  {}", state.seconds, state.line());
            // A terminal that is gone is no reason to stop measuring.
            let _ = stderr().flush();
        }
    }

    pub fn clear(&self) {
        if self.wanted && self.looks >= LOOKS {
            eprint!("\r\x1b[K");
        }
    }
}

#[derive(Debug, Serialize)]
struct Trial {
    purpose: String,
    outcome: Outcome,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    loadgen: &'static str,
    command: Vec<String>,
    best: Option<Rate>,
    trials: &'a [Trial],
}

/// Collects trials and writes them at the end.
pub struct Output {
    json: Option<PathBuf>,
    csv: Option<PathBuf>,
    svg: Option<PathBuf>,
    trials: Vec<Trial>,
}

impl Output {
    /// Complains now rather than after minutes if a file cannot be written.
    pub fn new(traffic: &Traffic) -> Result<Self> {
        for path in [&traffic.json, &traffic.csv].into_iter().flatten() {
            write(path, "")?;
        }
        Ok(Self {
            json: traffic.json.clone(),
            csv: traffic.csv.clone(),
            svg: traffic.svg.clone(),
            trials: Vec::new(),
        })
    }

    pub fn add(&mut self, purpose: &str, outcome: &Outcome) -> Result<()> {
        println!("{purpose:<16} {}", outcome.line());
        self.trials.push(Trial {
            purpose: purpose.to_owned(),
            outcome: outcome.clone(),
        });
        Ok(())
    }

    pub fn finish(&self, best: Option<Rate>) -> Result<()> {
        if let Some(best) = best {
            println!("best: {best} packets a second");
        }
        if let Some(path) = &self.json {
            let document = Document {
                loadgen: env!("CARGO_PKG_VERSION"),
                command: std::env::args().collect(),
                best,
                trials: &self.trials,
            };
            write(path, &(serde_json::to_string_pretty(&document)? + "\n"))?;
        }
        if let Some(path) = &self.csv {
            write(path, &csv(&self.trials))?;
        }
        match &self.svg {
            Some(path) => self.draw(path),
            None => Ok(()),
        }
    }

    fn draw(&self, path: &Path) -> Result<()> {
        let file = |end: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(end);
            PathBuf::from(name)
        };
        let outcomes = self.trials.iter().map(|trial| &trial.outcome).collect();
        let loss = plot::loss("Loss", &[("this path".to_owned(), outcomes)])?;
        write(&file("-loss.svg"), &loss)?;
        let measured = self
            .trials
            .iter()
            .filter(|trial| trial.purpose != "search")
            .filter_map(|trial| {
                let tally = trial.outcome.tallies.first()?;
                let offered = Rate(trial.outcome.offered);
                let name = format!("{offered} packets a second");
                (tally.received > 0).then_some((name, &tally.latency))
            });
        let measured: Vec<(String, &Histogram)> = measured.collect();
        if measured.is_empty() {
            return Ok(());
        }
        write(&file("-latency.svg"), &plot::latency("Latency", &measured)?)
    }
}

fn csv(trials: &[Trial]) -> String {
    let mut text =
        "purpose,asked_pps,seconds,offered_pps,delivered_pps,bits_per_second,loss,left_out,\
                    average_ns,p50_ns,p90_ns,p99_ns,p999_ns,max_ns,wrong,moved,missing,late\n"
            .to_owned();
    for Trial { purpose, outcome } in trials {
        let tally = outcome.tallies.first().cloned().unwrap_or_default();
        let latency = outcome.latency;
        let numbers = [
            outcome.asked.0,
            outcome.seconds,
            outcome.offered,
            outcome.delivered,
            outcome.bits,
            outcome.loss,
            outcome.left_out,
        ];
        let counts = [
            latency.average,
            latency.p50,
            latency.p90,
            latency.p99,
            latency.p999,
            latency.max,
            tally.wrong(),
            tally.moved,
            tally.missing,
            tally.late,
        ];
        let cells: Vec<String> = std::iter::once(purpose.clone())
            .chain(numbers.iter().map(f64::to_string))
            .chain(counts.iter().map(u64::to_string))
            .collect();
        text += &cells.join(",");
        text.push('\n');
    }
    text
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("file {}", path.display()))
}
