//! How fast the machine itself is today: what every other figure is to be read against.

use std::fs::read_to_string;
use std::hint::black_box;

use sluice_dataplane::clock::Clock;
use sluice_dataplane::pipeline::MAX_BURST;
use sluice_dataplane::prefetch::prefetch;

use crate::harness::{Stopwatch, in_turns};
use crate::report::Report;
use crate::traffic::{permute, shuffle};

/// Lines that a reading touches.
const STEPS: usize = 1 << 16;

/// Memory that no cache should hold, unless it has to be more: a gigabyte is what a small machine
/// can spare.
const LEAST_DRAM: usize = 256 << 20;
const MOST_DRAM: usize = 1 << 30;

/// A cache line that names another one.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line {
    next: u32,
}

/// Memory of some size in which each line leads to another one, all in one circle without pattern.
#[derive(Debug)]
struct Circle {
    name: &'static str,
    lines: Vec<Line>,
    place: u32,
}

impl Circle {
    fn new(name: &'static str, bytes: usize) -> Self {
        let count = (bytes / size_of::<Line>()).max(2) as u32;
        let mut order: Vec<u32> = (0..count).collect();
        shuffle(&mut order);
        let mut lines = vec![Line { next: 0 }; count as usize];
        for (from, to) in order.iter().zip(order.iter().cycle().skip(1)) {
            lines[*from as usize].next = *to;
        }
        Self {
            name,
            lines,
            place: 0,
        }
    }

    /// Goes on for `steps` lines, each known only when the one before has come.
    fn chase(&mut self, steps: usize) {
        for _ in 0..steps {
            self.place = self.lines[self.place as usize].next;
        }
        black_box(self.place);
    }

    /// Reads a burst of lines that are known at once and asked for together.
    fn fetch(&self, burst: &[u32]) -> u32 {
        for line in burst {
            prefetch(&self.lines[*line as usize]);
        }
        let lines = burst.iter().map(|line| self.lines[*line as usize].next);
        lines.fold(0, u32::wrapping_add)
    }
}

/// Takes the calibration: latency of L2, L3 and memory, lines fetched by the burst, the clock.
pub fn run(watch: Stopwatch, rounds: usize, report: &mut Report) {
    report.section("Calibration of the machine");
    let (l2, l3) = (cache(2).unwrap_or(1 << 20), cache(3).unwrap_or(32 << 20));
    let mut circles = [
        Circle::new("L2", l2 / 2),
        Circle::new("L3", (l3 / 4).clamp(2 * l2, 16 << 20)),
        Circle::new("memory", (4 * l3).clamp(LEAST_DRAM, MOST_DRAM)),
    ];
    let chased = in_turns(rounds, &mut circles, |circle| {
        // What the other circles have pushed out of the caches comes back first.
        circle.chase(circle.lines.len().min(2 * STEPS));
        watch.time(|| circle.chase(STEPS)).0 / STEPS as f64
    });
    let mut start = 0;
    let fetched = in_turns(rounds, &mut circles, |circle| {
        circle.chase(circle.lines.len().min(2 * STEPS));
        let bursts = random_lines(&mut start, circle.lines.len());
        let read = || {
            bursts
                .chunks(MAX_BURST)
                .fold(0, |sum, burst| sum ^ circle.fetch(burst))
        };
        let (passed, sum) = watch.time(read);
        black_box(sum);
        passed / STEPS as f64
    });
    for (circle, (chased, fetched)) in circles.iter().zip(chased.iter().zip(&fetched)) {
        let (name, kib) = (circle.name, size_of_val(&circle.lines[..]) >> 10);
        report.add(format!("pointer chase in {name} ({kib} KiB)"), "ns", chased);
        let what = format!("random line in {name}, {MAX_BURST} prefetched at once");
        report.add(what, "ns", fetched);
    }
    let clock = in_turns(rounds, &mut [()], |()| reading_of_the_clock(watch));
    report.add("reading the clock", "ns", &clock[0]);
}

fn random_lines(start: &mut u32, lines: usize) -> Vec<u32> {
    let from = *start;
    *start = from.wrapping_add(STEPS as u32);
    let line = |n: u32| ((u64::from(permute(from.wrapping_add(n))) * lines as u64) >> 32) as u32;
    (0..STEPS as u32).map(line).collect()
}

fn reading_of_the_clock(watch: Stopwatch) -> f64 {
    const READINGS: u32 = 10_000;
    let clock = Clock::start();
    let read = || (0..READINGS).map(|_| clock.now().0).fold(0, u64::max);
    let (passed, last) = watch.time(read);
    black_box(last);
    passed / f64::from(READINGS)
}

/// Bytes of the first core's cache of a level, as the kernel knows it.
fn cache(level: u32) -> Option<usize> {
    let folder = "/sys/devices/system/cpu/cpu0/cache";
    (0..8).find_map(|index| {
        let file = |name| read_to_string(format!("{folder}/index{index}/{name}")).ok();
        let is_level = file("level")?.trim().parse() == Ok(level);
        is_level.then(|| file("size").and_then(|size| bytes(&size)))?
    })
}

/// A size as the kernel writes it, such as `512K`.
fn bytes(text: &str) -> Option<usize> {
    let text = text.trim();
    let (digits, shift) = match text.strip_suffix('K') {
        Some(digits) => (digits, 10),
        None => (text.strip_suffix('M')?, 20),
    };
    Some(digits.parse::<usize>().ok()? << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_comes_to_every_line_once() {
        let mut circle = Circle::new("test", 64 * 1000);
        let mut seen = vec![false; 1000];
        for _ in 0..1000 {
            circle.chase(1);
            assert!(!std::mem::replace(&mut seen[circle.place as usize], true));
        }
        assert!(seen.iter().all(|seen| *seen));
    }

    #[test]
    fn random_lines_lie_in_the_circle_and_differ_from_call_to_call() {
        let mut start = 0;
        let (first, second) = (random_lines(&mut start, 10), random_lines(&mut start, 10));
        assert!(first.iter().chain(&second).all(|line| *line < 10));
        assert_ne!(first, second);
    }

    #[test]
    fn sizes_are_read_as_the_kernel_writes_them() {
        let sizes = ["512K\n", "32768K", "2M", "512", "K"].map(bytes);
        let expected = [Some(512 << 10), Some(32 << 20), Some(2 << 20), None, None];
        assert_eq!(sizes, expected);
    }
}
