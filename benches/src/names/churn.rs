//! Questions while the zone changes: each answer must be what was true at some moment between the
//! question and the answer.
//!
//! The endpoints of a Service carry the number of the change that made them: `100.CHANGE.SERVICE.N`.
//! So an answer shows whether it is whole, of one change alone, not from the future, and not older
//! than what an answer that came before the question had shown.
//!
//! An answer has come when the kernel puts it into the client's socket. When the client reads it is
//! measured too: on a machine of two CPUs that are busy, its own thread waits for one of them.

use std::io::IoSliceMut;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, recvmsg, setsockopt,
    sockopt::{RcvBufForce, ReceiveTimestampns},
};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use sluice_tests::alone::Alone;
use sluice_tests::clock;
use sluice_tests::manifests::Folder;
use sluice_tests::names::message::{self, Answer};
use sluice_tests::names::of_service;

use super::{client, cluster};
use crate::report::Report;
use crate::statistics::{quantile, sorted};

/// Services that change in turn.
const SERVICES: usize = 200;
/// Endpoints of each.
const ENDPOINTS: u8 = 5;
/// Changes a second.
const CHANGES: u32 = 1_000;
/// Questions a second.
const QUESTIONS: u32 = 10_000;
/// How many numbers questions have.
const NUMBERS: usize = 1 << 16;
/// Bytes of answers that the client's socket holds.
const RECEIVE_BUFFER: usize = 1 << 22;
/// After so long a question counts as lost.
const PATIENCE: Duration = Duration::from_secs(1);
/// The largest number of a change.
const MOST: u64 = 250;

/// Writes the Services as they are before the first change.
///
/// # Errors
/// A file cannot be written.
pub fn write_first(folder: &Folder) -> Result<()> {
    (0..SERVICES).try_for_each(|service| write(folder, service, 0))
}

fn write(folder: &Folder, service: usize, change: u8) -> Result<()> {
    let name = name(service);
    let endpoints = (1..=ENDPOINTS).map(|n| format!("100.{change}.{service}.{n}"));
    let endpoints: Vec<String> = endpoints.collect();
    let text = cluster::service(&name, "None") + &cluster::slice(&name, &endpoints);
    folder.write_text(&format!("{name}.yaml"), &text)
}

fn name(service: usize) -> String {
    format!("churn-{service}")
}

/// What writer, asker and reader share.
struct Shared {
    began: Instant,
    done: AtomicBool,
    /// The change that was written last, of each Service.
    written: Vec<AtomicU8>,
    /// The newest change that was seen, of each Service.
    seen: Vec<AtomicU8>,
    /// When a question was sent, in nanoseconds of the clock of the day; 0: it is answered.
    sent: Vec<AtomicU64>,
    /// The newest change that had been seen when it was.
    at_least: Vec<AtomicU8>,
}

/// What the reader found.
#[derive(Default)]
struct Found {
    /// From a question to the arrival of its answer.
    latencies_ms: Vec<f64>,
    /// From a question to the client's reading of its answer.
    readings_ms: Vec<f64>,
    wrong: Vec<String>,
}

/// Changes the zone and asks, for `length`.
///
/// # Errors
/// A file cannot be written, or a socket is refused.
pub fn run(length: Duration, alone: &mut Alone, report: &mut Report) -> Result<()> {
    report.section("1,000 changes and 10,000 questions a second");
    let most = MOST * SERVICES as u64 / u64::from(CHANGES);
    ensure!(
        length.as_secs() < most,
        "changes are numbered for {most} s only"
    );
    let shared = Shared {
        began: clock::now(),
        done: AtomicBool::new(false),
        written: (0..SERVICES).map(|_| AtomicU8::new(0)).collect(),
        seen: (0..SERVICES).map(|_| AtomicU8::new(0)).collect(),
        sent: (0..NUMBERS).map(|_| AtomicU64::new(0)).collect(),
        at_least: (0..NUMBERS).map(|_| AtomicU8::new(0)).collect(),
    };
    let socket = client(alone)?;
    setsockopt(&socket, ReceiveTimestampns, &true)?;
    // What comes while the reader waits for a CPU is not to be lost.
    setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER)?;
    let folder = &alone.folder;
    let (changes, asked, found) = thread::scope(|scope| -> Result<_> {
        let reader = scope.spawn(|| read(&socket, &shared));
        let asker = scope.spawn(|| ask(&socket, &shared, length));
        let changes = change(folder, &shared, length);
        let asked = asker.join().ok().context("the asker panicked")?;
        clock::pause(PATIENCE)?;
        shared.done.store(true, Ordering::Relaxed);
        let found = reader.join().ok().context("the reader panicked")?;
        Ok((changes?, asked?, found?))
    })?;
    alone.process.still_running()?;
    for wrong in found.wrong.iter().take(5) {
        eprintln!("  {wrong}");
    }
    let answered = found.latencies_ms.len() + found.wrong.len();
    let missing = asked.saturating_sub(answered);
    let rate = |count: usize| count as f64 / length.as_secs_f64();
    report.add("changes made", "1/s", &[rate(changes)]);
    report.add("questions asked", "1/s", &[rate(asked)]);
    report.add("wrong answers", "answers", &[found.wrong.len() as f64]);
    report.add("questions without an answer", "answers", &[missing as f64]);
    for (what, readings) in [
        ("latency beside the changes", &found.latencies_ms),
        ("until the client reads", &found.readings_ms),
    ] {
        let ascending = sorted(readings);
        for (name, share) in [("median", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            let late = quantile(&ascending, share).context("no answers")?;
            report.add(format!("{what}, {name}"), "ms", &[late]);
        }
    }
    Ok(())
}

/// Makes changes as they are due; returns how many.
fn change(folder: &Folder, shared: &Shared, length: Duration) -> Result<usize> {
    let mut made = 0;
    paced(shared, CHANGES, length, |number| {
        let service = number % SERVICES;
        let change = u8::try_from(1 + number / SERVICES).context("too many changes")?;
        // Before the file: an answer may come before this returns.
        shared.written[service].store(change, Ordering::SeqCst);
        made += 1;
        write(folder, service, change)
    })?;
    Ok(made)
}

/// Asks as it is due; returns how often.
fn ask(socket: &UdpSocket, shared: &Shared, length: Duration) -> Result<usize> {
    let questions: Vec<Vec<u8>> = (0..SERVICES)
        .map(|service| message::question(0, &of_service(&name(service)), message::A))
        .collect();
    let mut asked = 0;
    paced(shared, QUESTIONS, length, |number| {
        let id = (number % NUMBERS) as u16;
        let service = service_of(id);
        let mut question = questions[service].clone();
        question[..2].copy_from_slice(&id.to_be_bytes());
        let place = usize::from(id);
        let seen = shared.seen[service].load(Ordering::SeqCst);
        shared.at_least[place].store(seen, Ordering::SeqCst);
        shared.sent[place].store(now()?, Ordering::SeqCst);
        asked += 1;
        socket.send(&question).map(drop).context("a question")
    })?;
    Ok(asked)
}

/// Does something so many times a second.
fn paced(
    shared: &Shared,
    rate: u32,
    length: Duration,
    mut act: impl FnMut(usize) -> Result<()>,
) -> Result<()> {
    let mut done = 0;
    while shared.began.elapsed() < length {
        let due = (shared.began.elapsed().as_secs_f64() * f64::from(rate)) as usize;
        while done < due {
            act(done)?;
            done += 1;
        }
        thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}

/// Reads and judges answers until all is done.
fn read(socket: &UdpSocket, shared: &Shared) -> Result<Found> {
    let mut found = Found::default();
    let mut buffer = [0; 2048];
    while !shared.done.load(Ordering::Relaxed) {
        // Nothing for a while is no error.
        let Some((length, came)) = receive(socket, &mut buffer) else {
            continue;
        };
        let read = now()?;
        let Some(answer) = message::answer(&buffer[..length]) else {
            found.wrong.push("an answer that cannot be read".to_owned());
            continue;
        };
        let sent = shared.sent[usize::from(answer.id)].swap(0, Ordering::SeqCst);
        match judge(&answer, shared) {
            Ok(()) if sent > 0 => {
                let after = |time: u64| time.saturating_sub(sent) as f64 / 1e6;
                found.latencies_ms.push(after(came));
                found.readings_ms.push(after(read));
            }
            Ok(()) => found.wrong.push(format!("nobody asked: {answer:?}")),
            Err(why) => found.wrong.push(format!("{why}: {answer:?}")),
        }
    }
    Ok(found)
}

/// What is wrong with an answer.
fn judge(answer: &Answer, shared: &Shared) -> Result<(), &'static str> {
    if answer.rcode != 0 || answer.truncated {
        return Err("no whole answer");
    }
    let service = service_of(answer.id);
    let change = answer
        .addresses
        .first()
        .map_or(0, |first| first.octets()[1]);
    let wanted = (1..=ENDPOINTS).map(|n| [100, change, service as u8, n]);
    if !answer.addresses.iter().map(|a| a.octets()).eq(wanted) {
        return Err("not the endpoints of one change");
    }
    if change > shared.written[service].load(Ordering::SeqCst) {
        return Err("a change that was not made");
    }
    if change < shared.at_least[usize::from(answer.id)].load(Ordering::SeqCst) {
        return Err("older than an answer before");
    }
    shared.seen[service].fetch_max(change, Ordering::SeqCst);
    Ok(())
}

fn service_of(id: u16) -> usize {
    usize::from(id) % SERVICES
}

/// Reads a datagram: its length, and when it came.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> Option<(usize, u64)> {
    let mut space = nix::cmsg_space!(TimeSpec);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::empty();
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags).ok()?;
    let came = message.cmsgs().ok()?.find_map(|about| match about {
        ControlMessageOwned::ScmTimestampns(time) => Some(nanoseconds(time)),
        _ => None,
    });
    Some((message.bytes, came?))
}

/// The clock by which the kernel says when a datagram came.
fn now() -> Result<u64> {
    let time = clock_gettime(ClockId::CLOCK_REALTIME)?;
    Ok(nanoseconds(time))
}

fn nanoseconds(time: TimeSpec) -> u64 {
    let time = Duration::from(time);
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
