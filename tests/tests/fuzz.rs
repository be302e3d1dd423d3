//! The fuzz targets without a fuzzer: over the kept corpus, and over pseudo-random bytes that are
//! the same every time.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

#[path = "../fuzz/src/lib.rs"]
mod targets;

use targets::TARGETS;

/// Pseudo-random inputs for each target.
const INPUTS: u64 = 400;
const LONGEST: u64 = 2048;

fn run(name: &str) -> Result<()> {
    let found = TARGETS.iter().find(|(target, _)| *target == name);
    let (_, target) = found.with_context(|| format!("no target {name}"))?;
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let mut kept = Vec::new();
    for entry in fs::read_dir(&corpus).with_context(|| corpus.display().to_string())? {
        kept.push(fs::read(entry?.path())?);
    }
    ensure!(!kept.is_empty(), "{} is empty", corpus.display());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for number in 0..INPUTS {
        target(&random.bytes());
        let place = random.next() as usize % kept.len();
        target(&random.spoiled(&kept[place], number));
    }
    kept.iter().for_each(|bytes| target(bytes));
    Ok(())
}

/// xorshift64 (Marsaglia, 2003): enough to spread garbage, and the same every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = self.next() % LONGEST;
        (0..len).map(|_| (self.next() >> 32) as u8).collect()
    }

    /// Some bytes of `bytes` replaced, and a piece cut off every other time.
    fn spoiled(&mut self, bytes: &[u8], number: u64) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=number % 8 {
            let place = (self.next() >> 8) as usize;
            let value = (self.next() >> 32) as u8;
            if let Some(place) = place.checked_rem(bytes.len()) {
                bytes[place] = value;
            }
        }
        if number % 2 == 1 {
            bytes.truncate(self.next() as usize % (bytes.len() + 1));
        }
        bytes
    }
}

#[test]
fn fragments_are_followed_whatever_comes() -> Result<()> {
    run("fragments")
}

#[test]
fn every_frame_is_accounted_for_whatever_comes() -> Result<()> {
    run("frames")
}

#[test]
fn manifests_compile_to_valid_tables_or_to_problems_whatever_they_hold() -> Result<()> {
    run("manifests")
}

#[test]
fn messages_are_read_or_refused_whatever_comes() -> Result<()> {
    run("messages")
}

#[test]
fn datagrams_are_answered_or_dropped_whatever_they_hold() -> Result<()> {
    run("names")
}

#[test]
fn settings_are_read_or_refused_whatever_they_hold() -> Result<()> {
    run("settings")
}

#[test]
fn service_tables_are_used_or_refused_whatever_they_hold() -> Result<()> {
    run("tables")
}

#[test]
fn headers_lie_within_their_frame_whatever_comes() -> Result<()> {
    run("wire")
}
