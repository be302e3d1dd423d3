//! How fast the machine itself is today: what every other figure is to be read against.

use std::fs::read_to_string;
use std::hint::black_box;

use sluice_dataplane::clock::Clock;
use sluice_dataplane::memory::prefetch;
use sluice_dataplane::pipeline::MAX_BURST;

use crate::harness::{BATCH, Stopwatch, in_turns};
use crate::report::Report;
use crate::traffic::{permute, shuffle};

/// Lines that are touched before a reading: more than what a core's share of a cache has.
const WARM_UP: usize = 1 << 17;

/// Memory that no cache should hold, unless it has to be more: a gigabyte is what a small machine
/// can spare.
const LEAST_DRAM: usize = 256 << 20;
const MOST_DRAM: usize = 1 << 30;

/// What one of many cores can hope for of a cache that all share.
const MOST_L3: usize = 16 << 20;

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

    /// What the other circles have pushed out of the caches comes back, if it has room there.
    fn warm_up(&mut self) {
        self.chase(self.lines.len().min(WARM_UP));
    }

    /// Some line, as good as any other.
    fn any(&self, number: u32) -> u32 {
        ((u64::from(permute(number)) * self.lines.len() as u64) >> 32) as u32
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
        Circle::new("L3", (l3 / 4).min(MOST_L3).max(2 * l2)),
        Circle::new("memory", (4 * l3).clamp(LEAST_DRAM, MOST_DRAM)),
    ];
    let chased = in_turns(rounds, &mut circles, |circle| {
        circle.warm_up();
        watch.items(circle, |_| {}, |circle| circle.chase(BATCH))
    });
    let mut numbers = 0u32..;
    let fetched = in_turns(rounds, &mut circles, |circle| {
        circle.warm_up();
        let mut lines = Vec::with_capacity(BATCH);
        let draw = |lines: &mut Vec<u32>| {
            lines.clear();
            let drawn = numbers.by_ref().take(BATCH);
            lines.extend(drawn.map(|number| circle.any(number)));
        };
        watch.items(&mut lines, draw, |lines| {
            for burst in lines.chunks(MAX_BURST) {
                black_box(circle.fetch(burst));
            }
        })
    });
    for (circle, (chased, fetched)) in circles.iter().zip(chased.iter().zip(&fetched)) {
        let (name, kib) = (circle.name, size_of_val(&circle.lines[..]) >> 10);
        report.add(format!("pointer chase in {name} ({kib} KiB)"), "ns", chased);
        let what = format!("random line in {name}, {MAX_BURST} prefetched at once");
        report.add(what, "ns", fetched);
    }
    let read = |clock: &mut Clock| {
        for _ in 0..BATCH {
            black_box(clock.now());
        }
    };
    let clock = in_turns(rounds, &mut [Clock::start()], |clock| {
        watch.items(clock, |_| {}, read)
    });
    report.add("reading the clock", "ns", &clock[0]);
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
    use std::collections::HashSet;

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
    fn lines_are_drawn_from_the_whole_circle() {
        let circle = Circle::new("test", 64 * 1000);
        let drawn: HashSet<u32> = (0..20_000).map(|number| circle.any(number)).collect();
        assert_eq!(drawn.len(), 1000);
        assert!(drawn.iter().all(|line| *line < 1000));
    }

    #[test]
    fn sizes_are_read_as_the_kernel_writes_them() {
        let sizes = ["512K\n", "32768K", "2M", "512", "K"].map(bytes);
        let expected = [Some(512 << 10), Some(32 << 20), Some(2 << 20), None, None];
        assert_eq!(sizes, expected);
    }
}
