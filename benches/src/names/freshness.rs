//! How long it takes until a change of endpoints is what is answered.
//!
//! Measured from before the file is written, so that reading it counts too: from the control plane's
//! index to DNS it takes less.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_tests::alone::Alone;
use sluice_tests::clock;
use sluice_tests::manifests::Folder;
use sluice_tests::names::message;
use sluice_tests::names::of_service;

use super::{client, cluster};
use crate::report::Report;
use crate::statistics::{quantile, sorted};

/// The Service that changes.
const NAME: &str = "fresh";
/// Pause after a change, so that each is one of its own.
const PAUSE: Duration = Duration::from_millis(200);
/// How long one is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Writes the Service as it is before the first change.
///
/// # Errors
/// The file cannot be written.
pub fn write_first(folder: &Folder) -> Result<()> {
    write(folder, address(0))
}

fn write(folder: &Folder, address: Ipv4Addr) -> Result<()> {
    let endpoints = [address.to_string()];
    let text = cluster::service(NAME, "None") + &cluster::slice(NAME, &endpoints);
    folder.write_text(&format!("{NAME}.yaml"), &text)
}

/// The endpoint that a change makes.
fn address(change: u16) -> Ipv4Addr {
    let [high, low] = change.to_be_bytes();
    Ipv4Addr::new(101, 0, high, low)
}

/// Makes so many changes, one after the other.
///
/// # Errors
/// A file cannot be written, or a change is not answered.
pub fn run(changes: u16, alone: &mut Alone, report: &mut Report) -> Result<()> {
    report.section("A change of endpoints until it is answered, from before its file is written");
    let socket = client(alone)?;
    let mut taken_ms = Vec::new();
    for change in 1..=changes {
        let began = clock::now();
        write(&alone.folder, address(change))?;
        while answered(&socket, change)? != Some(address(change)) {
            ensure!(
                began.elapsed() < PATIENCE,
                "change {change} is not answered"
            );
        }
        taken_ms.push(began.elapsed().as_secs_f64() * 1e3);
        alone.process.still_running()?;
        clock::pause(PAUSE)?;
    }
    report.add("change until it is answered", "ms", &taken_ms);
    let p99 = quantile(&sorted(&taken_ms), 0.99).context("no changes")?;
    report.add("change until it is answered, p99", "ms", &[p99]);
    Ok(())
}

/// The endpoint that is answered; `None` when no answer comes.
fn answered(socket: &UdpSocket, id: u16) -> Result<Option<Ipv4Addr>> {
    socket.send(&message::question(id, &of_service(NAME), message::A))?;
    let mut buffer = [0; 2048];
    // Nothing for a while is no error.
    let Ok(length) = socket.recv(&mut buffer) else {
        return Ok(None);
    };
    let answer = message::answer(&buffer[..length]).context("an answer that cannot be read")?;
    Ok(answer.addresses.first().copied())
}
