//! `make demo`: Sluice at work on this machine, in network namespaces, told to a stranger.
//!
//! It changes nothing outside namespaces and a temporary folder of its own, and removes both, also
//! when it is interrupted. The last line tells how many requests failed; only with none is the exit
//! status success.
#![forbid(unsafe_code)]

mod manifest;
mod stage;
mod tally;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use sluice_tests::clock;
use sluice_tests::topology::VIP;
use sluice_tests::traffic::Ongoing;

use stage::Stage;
use tally::Tally;

/// Port of the example's node port.
const NODE_PORT: u16 = 30_080;
/// Requests through each address.
const REQUESTS: u32 = 300;
/// Requests that show a change.
const SAMPLE: u32 = 60;
/// The backend that leaves and comes back; the last of three.
const LEAVING: usize = 2;

/// Shows Sluice at work in network namespaces.
#[derive(Debug, Parser)]
struct Arguments {
    /// Manifest of the Service `web`.
    #[arg(default_value = "conf/examples/services/web.yaml")]
    manifest: PathBuf,
}

fn main() -> ExitCode {
    let mut tally = Tally::default();
    let finished = prepare().and_then(|()| run(&Arguments::parse(), &mut tally));
    if clock::stopped() {
        eprintln!("\ndemo: interrupted; everything it made is removed");
        return ExitCode::FAILURE;
    }
    if let Err(error) = finished {
        eprintln!("\ndemo: it did not come to its end: {error:#}");
        return ExitCode::FAILURE;
    }
    println!("\n{tally}");
    if tally.failed() == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Signals stop every wait from now on, so that all guards are dropped.
fn prepare() -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("waiting for signals")?;
    }
    clock::stop_on(stop);
    Ok(())
}

fn run(arguments: &Arguments, tally: &mut Tally) -> Result<()> {
    stage::check_machine()?;
    let example = manifest::read(&arguments.manifest)?;

    heading(1, "A network: a client, a gateway, three backends");
    let mut stage = Stage::build()?;
    println!(
        "   client 10.0.1.10 --- gateway --- backends 10.0.2.11, 10.0.2.12, 10.0.2.13 (nginx)"
    );

    heading(2, "Sluice on the gateway: dataplane and control plane");
    stage.start_daemons()?;
    println!("   both run; no Service is known yet, so {VIP} answers nobody");

    heading(3, "A Service: its manifest goes into the watched folder");
    stage.write_manifest(&example)?;
    println!(
        "   cp {} {}",
        arguments.manifest.display(),
        stage.folder().display()
    );

    heading(4, "Requests with curl, each on a connection of its own");
    let node_port = format!("{}:{NODE_PORT}", stage.node_address());
    println!("{}", stage.tally_heading());
    stage.requests(tally, &format!("{VIP}:80"), REQUESTS)?;
    stage.requests(tally, &node_port, REQUESTS)?;

    heading(5, "What the operator sees");
    stage.show(&["status"])?;
    stage.show(&["get", "services"])?;

    heading(6, "A backend leaves and comes back while requests run");
    leave_and_return(&mut stage, &example, tally)?;

    heading(7, "Everything is removed again");
    Ok(())
}

fn leave_and_return(stage: &mut Stage, example: &str, tally: &mut Tally) -> Result<()> {
    let leaving = stage.backend(LEAVING)?;
    let address = leaving.address.to_string();
    let frontend = format!("{VIP}:80");
    let ongoing = Ongoing::start(stage.client(), &format!("http://{frontend}/"), 4)?;

    println!(
        "   {} is marked as terminating: it serves what it has, nothing new",
        leaving.name
    );
    stage.write_manifest(&manifest::draining(example, &address)?)?;
    stage.wait_for_drained(leaving.address)?;
    println!("   its last connection has ended: its endpoint is deleted from the manifest");
    stage.write_manifest(&manifest::without(example, &address)?)?;
    println!("{}", stage.tally_heading());
    let answered = stage.requests(tally, &frontend, SAMPLE)?;
    ensure!(
        !answered.contains_key(&leaving.name),
        "{} still gets requests",
        leaving.name
    );

    println!("   {} is back in the manifest", leaving.name);
    stage.write_manifest(example)?;
    println!("{}", stage.tally_heading());
    let answered = stage.requests(tally, &frontend, SAMPLE)?;
    ensure!(
        answered.contains_key(&leaving.name),
        "{} gets no requests",
        leaving.name
    );

    clock::pause(Duration::from_millis(200))?;
    let meanwhile = ongoing.finish()?;
    println!(
        "   meanwhile 4 clients sent requests all the time: {} answered, {} failed",
        meanwhile.ok, meanwhile.failed
    );
    tally.add(&meanwhile);
    Ok(())
}

fn heading(number: u32, text: &str) {
    println!("\n== {number}. {text}");
}
