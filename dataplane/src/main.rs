//! `sluice-dataplane`: reads the settings, starts the daemon, waits for the end.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use clap::Parser;
use sluice_conf::settings::Dataplane as Settings;
use sluice_dataplane::daemon;

/// Sluice's dataplane: pulls frames through AF_XDP, tracks connections, translates addresses and
/// spreads connections over backends.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Settings file; conf/examples/dataplane.toml explains every key.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/sluice/dataplane.toml"
    )]
    config: PathBuf,
    /// Validate the settings file and exit.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluice-dataplane: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let file = arguments.config.display().to_string();
    let text = std::fs::read_to_string(&arguments.config)
        .with_context(|| format!("settings file {file} cannot be read"))?;
    let settings = Settings::parse(&text, &file)?;
    if arguments.check {
        println!("{file}: ok");
        return Ok(());
    }
    log_to_stderr(&settings);
    let stop = Arc::new(AtomicBool::new(false));
    end_on_signal(&stop)?;
    daemon::run(&settings, &stop)?;
    Ok(())
}

fn log_to_stderr(settings: &Settings) {
    let filter = tracing_subscriber::EnvFilter::new(settings.log.level.as_str());
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}

/// SIGINT and SIGTERM end the daemon in order, a second one at once. SIGHUP, by which other
/// daemons read their settings again, must not end this one.
fn end_on_signal(stop: &Arc<AtomicBool>) -> Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGHUP,
    ])?;
    let main = std::thread::current();
    let stop = Arc::clone(stop);
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                if signal == signal_hook::consts::SIGHUP {
                    tracing::info!("SIGHUP ignored: a changed settings file needs a restart");
                    continue;
                }
                if stop.swap(true, Ordering::Relaxed) {
                    std::process::exit(130);
                }
                main.unpark();
            }
        })?;
    Ok(())
}
