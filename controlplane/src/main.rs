//! The daemon `sluice-controlplane`: reads its settings and runs until it is told to stop.
#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use clap::Parser;
use sluice_conf::settings::{Controlplane, LogLevel};
use sluice_controlplane::{daemon, words};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

/// Exit code for a mistake that the operator can mend.
const MISTAKE: u8 = 2;
/// How long tasks may take to end.
const SHUTDOWN: Duration = Duration::from_millis(300);

/// Compiles Kubernetes Services and keeps Sluice's dataplane up to date.
#[derive(Parser)]
#[command(name = "sluice-controlplane", version)]
struct Arguments {
    /// Settings file.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/sluice/controlplane.toml"
    )]
    config: PathBuf,
    /// Only check the settings file.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever started the daemon may have closed its outputs.
            let _ = writeln!(std::io::stderr(), "sluice-controlplane: {error}");
            ExitCode::from(MISTAKE)
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let file = arguments.config.display();
    let text = std::fs::read_to_string(&arguments.config)
        .map_err(|error| anyhow!("{file}: cannot be read: {}", words::plain(&error)))?;
    let settings = Controlplane::parse(&text, &file.to_string())?;
    if arguments.check {
        let _ = writeln!(std::io::stdout(), "{file}: ok");
        return Ok(());
    }
    start_logging(settings.log.level);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| anyhow!("cannot start threads: {}", words::plain(&error)))?;
    let result = runtime.block_on(async {
        let mut terminate = on_signal(SignalKind::terminate())?;
        let mut interrupt = on_signal(SignalKind::interrupt())?;
        let mut hangup = on_signal(SignalKind::hangup())?;
        let stop = async {
            loop {
                tokio::select! {
                    _ = terminate.recv() => return,
                    _ = interrupt.recv() => return,
                    // Other daemons reload on it, and its default is to die without a word.
                    _ = hangup.recv() => info!(
                        "nothing to reload: manifests are watched, settings are read at the start"
                    ),
                }
            }
        };
        daemon::run(&settings, stop).await.map_err(Into::into)
    });
    runtime.shutdown_timeout(SHUTDOWN);
    result
}

fn on_signal(kind: SignalKind) -> anyhow::Result<Signal> {
    signal(kind).map_err(|error| anyhow!("cannot wait for signals: {}", words::plain(&error)))
}

fn start_logging(level: LogLevel) {
    // Libraries are only heard when something is wrong.
    let others = match level {
        LogLevel::Error => LogLevel::Error,
        _ => LogLevel::Warn,
    };
    let filter = format!("{},sluice_controlplane={}", others.as_str(), level.as_str());
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_target(false)
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal() && !no_color())
        .with_writer(std::io::stderr)
        .init();
}

/// Whether the operator wants no colours (no-color.org).
fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}
