//! Instructions of one packet, and of one turn of a worker, counted by callgrind: figures without
//! noise.
//!
//! `cargo bench --bench instructions` compares with `benches/instructions.json`, `-- --keep` writes
//! that file, `-- --profile` shows in which functions the instructions are. The program runs itself
//! under valgrind once a case; only what [`only_this_counts`] calls is counted.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use sluice_benches::callgrind::{Kept, by_function, total};
use sluice_benches::gateway::Plan;
use sluice_benches::harness::BATCH;
use sluice_benches::lane::Lane;
use sluice_benches::order::Walk;
use sluice_benches::traffic::Numbered;
use sluice_conf::SourceNat;
use sluice_dataplane::wire::parse::TcpFlags;

/// Counts of the last change that was meant to change them.
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.json");

/// Percent by which a count may differ from the one that is kept.
const TOLERANCE: f64 = 3.0;

const CONNECTIONS: u32 = 1000;

/// Functions of a profile that are shown.
const SHOWN: usize = 25;

/// Batches that are counted.
const BATCHES: usize = 40;

/// Turns that are counted, and the time between two: as they follow on each other on a core of its
/// own, so that what is done only now and then has its share.
const TURNS: usize = 10_000;
const IDLE_TURN: Duration = Duration::from_nanos(100);
const BUSY_TURN: Duration = Duration::from_micros(1);

/// What is counted.
struct Case {
    name: &'static str,
    /// Of what one is counted, and how many there are.
    one: &'static str,
    count: usize,
    /// Has a gateway's only worker do it.
    run: fn(Lane) -> anyhow::Result<()>,
}

const CASES: [Case; 7] = [
    packets("established IPv4 masquerade", established::<Ipv4Addr>),
    packets("established IPv6 masquerade", established::<Ipv6Addr>),
    packets("new connection IPv4 masquerade", opening::<Ipv4Addr>),
    packets("new connection IPv6 masquerade", opening::<Ipv6Addr>),
    of_turns("turn without frames", turns::<0>),
    of_turns("turn with one frame", turns::<1>),
    of_turns("turn with four frames", turns::<4>),
];

const fn packets(name: &'static str, run: fn(Lane) -> anyhow::Result<()>) -> Case {
    Case {
        name,
        one: "packet",
        count: BATCHES * BATCH,
        run,
    }
}

const fn of_turns(name: &'static str, run: fn(Lane) -> anyhow::Result<()>) -> Case {
    Case {
        name,
        one: "turn",
        count: TURNS,
        run,
    }
}

/// Counts the instructions of one packet and of one turn.
#[derive(Debug, Parser)]
struct Options {
    /// Write what is counted to benches/instructions.json.
    #[arg(long)]
    keep: bool,
    /// Show the functions with the most instructions.
    #[arg(long)]
    profile: bool,
    /// Run this case; under valgrind only.
    #[arg(long, hide = true)]
    case: Option<usize>,
    /// Cargo passes it to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if let Some(case) = options.case {
        let case = CASES.get(case).context("there is no such case")?;
        let mut plan = Plan::new(SourceNat::Masquerade);
        plan.connections.capacity = 1 << 15;
        return (case.run)(Lane::new(plan)?);
    }
    let mut counts = Vec::new();
    for (number, case) in CASES.iter().enumerate() {
        let Case { name, one, .. } = case;
        let each = |instructions: u64| instructions as f64 / case.count as f64;
        let profile = profile(number).with_context(|| format!("counting {name}"))?;
        let all = total(&profile).context("callgrind's profile has no total")?;
        ensure!(
            all > 0,
            "callgrind has not seen the function that it was to count"
        );
        println!("{name:<34} {:>8.1} instructions a {one}", each(all));
        counts.push((*name, each(all)));
        let shown = if options.profile { SHOWN } else { 0 };
        for (function, own) in by_function(&profile).into_iter().take(shown) {
            println!("{:>10.1}  {function}", each(own));
        }
    }
    if options.keep {
        keep(&counts)
    } else {
        compare(&counts)
    }
}

fn established<A: Numbered>(mut lane: Lane) -> anyhow::Result<()> {
    let mut walk = settled::<A>(&mut lane)?;
    for _ in 0..BATCHES {
        lane.fill(walk.step(), TcpFlags::ACK);
        only_this_counts(|| lane.process());
    }
    lane.check()
}

/// Packets of connections of which each direction has found out where its packets leave.
fn settled<A: Numbered>(lane: &mut Lane) -> anyhow::Result<Walk<A>> {
    let mut walk = Walk::evenly(lane.establish::<A>(CONNECTIONS)?);
    for _ in 0..(4 * CONNECTIONS as usize).div_ceil(BATCH) {
        lane.fill(walk.step(), TcpFlags::ACK);
        lane.process();
    }
    Ok(walk)
}

fn opening<A: Numbered>(mut lane: Lane) -> anyhow::Result<()> {
    for _ in 0..BATCHES {
        lane.fill_new::<A>();
        only_this_counts(|| lane.process());
    }
    lane.check()
}

fn turns<const FRAMES: usize>(mut lane: Lane) -> anyhow::Result<()> {
    let mut walk = settled::<Ipv4Addr>(&mut lane)?;
    let mut turning = lane.into_turning()?;
    let pause = if FRAMES == 0 { IDLE_TURN } else { BUSY_TURN };
    for _ in 0..TURNS {
        turning.pass(pause);
        turning.arrive(walk.step().take(FRAMES));
        only_this_counts(|| turning.turn());
        turning.take(FRAMES)?;
    }
    Ok(())
}

/// Callgrind counts from the moment that this is entered until it is left.
#[inline(never)]
fn only_this_counts(work: impl FnOnce()) {
    work();
}

/// What callgrind writes about a case.
fn profile(case: usize) -> anyhow::Result<String> {
    let program = std::env::current_exe().context("finding this program")?;
    let profile = program.with_extension(format!("callgrind.{}", std::process::id()));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*only_this_counts*"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(program)
        .args(["--case", &case.to_string()])
        .output()
        .context("starting valgrind; apt-get install valgrind")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "valgrind: {}\n{errors}",
        output.status
    );
    let text = std::fs::read_to_string(&profile).context("reading callgrind's profile")?;
    std::fs::remove_file(&profile).context("removing callgrind's profile")?;
    Ok(text)
}

fn keep(counts: &[(&str, f64)]) -> anyhow::Result<()> {
    let rounded = |(name, counted): &(&str, f64)| ((*name).into(), (counted * 10.0).round() / 10.0);
    let kept = Kept {
        tolerance_percent: TOLERANCE,
        instructions: counts.iter().map(rounded).collect(),
    };
    let text = serde_json::to_string_pretty(&kept)? + "\n";
    std::fs::write(KEPT, text).with_context(|| format!("writing {KEPT}"))?;
    println!("kept in {}", Path::new(KEPT).display());
    Ok(())
}

fn compare(counts: &[(&str, f64)]) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(KEPT).with_context(|| format!("reading {KEPT}"))?;
    let kept: Kept = serde_json::from_str(&text).with_context(|| format!("reading {KEPT}"))?;
    let judged = counts
        .iter()
        .map(|(name, counted)| kept.judge(name, *counted));
    let changes: Vec<String> = judged.filter_map(Result::err).collect();
    if changes.is_empty() {
        println!(
            "as kept in benches/instructions.json, within {} %",
            kept.tolerance_percent
        );
        return Ok(());
    }
    bail!(
        "{}\nif that is meant: cargo bench -p sluice-benches --bench instructions -- --keep",
        changes.join("\n")
    )
}
