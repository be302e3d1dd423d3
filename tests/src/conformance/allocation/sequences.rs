//! Section `allocator_sequences`: one pool, used step by step.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;
use sluice_controlplane::address::Family;
use sluice_controlplane::registry::networks;
use sluice_controlplane::registry::pool::{Pool, Refusal, port_band};

use super::numbers::{Kind, equal, network, ports};

#[derive(Debug, Deserialize)]
pub struct Sequence {
    #[serde(rename = "about")]
    _about: Option<String>,
    allocator: Allocator,
    steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
struct Allocator {
    kind: Kind,
    range: String,
    /// How many values are usable; all without it.
    cap: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    op: Op,
    times: Option<usize>,
    value: Option<Value>,
    first: Option<Value>,
    last: Option<Value>,
    expect: Option<Value>,
    free: Option<u64>,
    used: Option<u64>,
    allocations: Option<u64>,
    errors: Option<u64>,
    dynamic_allocations: Option<u64>,
    static_errors: Option<u64>,
    #[serde(default)]
    dry_run: bool,
    name: Option<String>,
    range: Option<String>,
    on: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Op {
    Count,
    AllocateNext,
    Allocate,
    AllocateEach,
    Allocated,
    Release,
    ReleaseAll,
    AllocateAgain,
    List,
    Snapshot,
    Restore,
    SameAsSnapshot,
    Metrics,
}

/// Runs a sequence.
pub fn judge(case: &Sequence) -> Result<(), String> {
    let mut run = Run::new(&case.allocator)?;
    for (index, step) in case.steps.iter().enumerate() {
        let judged = run.step(step);
        judged.map_err(|error| format!("step {} ({:?}): {error}", index + 1, step.op))?;
    }
    Ok(())
}

struct Run {
    kind: Kind,
    range: String,
    pool: Pool,
    /// What the gauges show: free and used, of when the pool last changed.
    gauges: (u64, u64),
    /// What this sequence holds.
    held: BTreeSet<u128>,
    snapshots: BTreeMap<String, (String, Vec<u128>)>,
}

impl Run {
    fn new(allocator: &Allocator) -> Result<Self, String> {
        Ok(Self {
            kind: allocator.kind,
            range: allocator.range.clone(),
            pool: pool(allocator.kind, &allocator.range, allocator.cap)?,
            gauges: (0, 0),
            held: BTreeSet::new(),
            snapshots: BTreeMap::new(),
        })
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        if let Some(on) = &step.on {
            return self.on_a_twin(on, step);
        }
        if step.dry_run {
            let (pool, held) = (self.pool.clone(), self.held.clone());
            let gauges = self.gauges;
            let judged = self.act(step);
            (self.pool, self.held, self.gauges) = (pool, held, gauges);
            return judged;
        }
        let before = (self.pool.free(), self.pool.used());
        self.act(step)?;
        let now = (self.pool.free(), self.pool.used());
        if now != before {
            self.gauges = now;
        }
        Ok(())
    }

    /// A second pool of the same range, whose gauges nobody reads.
    fn on_a_twin(&mut self, on: &str, step: &Step) -> Result<(), String> {
        if on != "twin without metrics" {
            return Err(format!("{on:?} is not understood"));
        }
        let allocator = Allocator {
            kind: self.kind,
            range: self.range.clone(),
            cap: None,
        };
        Run::new(&allocator)?.act(step)
    }

    fn act(&mut self, step: &Step) -> Result<(), String> {
        match step.op {
            Op::Count => self.count(step),
            Op::AllocateNext => self.allocate_next(step),
            Op::Allocate => {
                let value = self.number(step.value.as_ref())?;
                let seen = self.allocate(value);
                expected(step, &[seen.to_owned()])
            }
            Op::AllocateEach => {
                let values = self.number(step.first.as_ref())?..=self.number(step.last.as_ref())?;
                let seen: Vec<_> = values
                    .map(|value| self.allocate(value).to_owned())
                    .collect();
                expected(step, &seen)
            }
            Op::AllocateAgain => {
                let values: Vec<_> = self.held.iter().copied().take(times(step)).collect();
                equal(&times(step), &values.len())?;
                let seen = values
                    .into_iter()
                    .map(|value| self.allocate(value).to_owned());
                expected(step, &seen.collect::<Vec<_>>())
            }
            Op::Allocated => {
                let range = self.number(step.first.as_ref())?..=self.number(step.last.as_ref())?;
                let taken: BTreeSet<u128> = self.pool.taken().collect();
                match range.clone().find(|value| !taken.contains(value)) {
                    None => Ok(()),
                    Some(value) => Err(format!("{} is free", self.text(value))),
                }
            }
            Op::Release => {
                let value = self.number(step.value.as_ref())?;
                self.release(value);
                Ok(())
            }
            Op::ReleaseAll => {
                for value in self.held.clone() {
                    self.release(value);
                }
                Ok(())
            }
            Op::List => {
                let taken: Vec<_> = self.pool.taken().map(|value| self.text(value)).collect();
                let wanted = step.expect.as_ref().and_then(Value::as_array);
                let wanted = wanted.ok_or("expect is no list")?;
                equal(&wanted.iter().map(plain).collect(), &taken)
            }
            Op::Snapshot => {
                let taken = self.pool.taken().collect();
                let name = step.name.clone().ok_or("has no name")?;
                self.snapshots.insert(name, (self.range.clone(), taken));
                Ok(())
            }
            Op::Restore => self.restore(step),
            Op::SameAsSnapshot => {
                let (_, taken) = self.snapshot(step)?;
                equal(taken, &self.pool.taken().collect())
            }
            Op::Metrics => self.metrics(step),
        }
    }

    fn count(&self, step: &Step) -> Result<(), String> {
        equal_if(step.free, self.pool.free())?;
        equal_if(step.used, self.pool.used())
    }

    fn metrics(&self, step: &Step) -> Result<(), String> {
        let counters = self.pool.counters();
        equal_if(step.free, self.gauges.0)?;
        equal_if(step.used, self.gauges.1)?;
        equal_if(step.allocations, counters.requested + counters.automatic)?;
        equal_if(step.errors, counters.refused + counters.exhausted)?;
        equal_if(step.dynamic_allocations, counters.automatic)?;
        equal_if(step.static_errors, counters.refused)
    }

    fn allocate_next(&mut self, step: &Step) -> Result<(), String> {
        let mut seen = Vec::new();
        for _ in 0..times(step) {
            seen.push(match self.pool.allocate_next(0) {
                None => "full".to_owned(),
                Some(value) if !self.held.insert(value) => {
                    return Err(format!("{} is given twice", self.text(value)));
                }
                Some(value) => match step.expect.as_ref().map(plain) {
                    Some(wanted) if wanted == self.text(value) => wanted,
                    _ => "ok".to_owned(),
                },
            });
        }
        expected(step, &seen)
    }

    fn allocate(&mut self, value: u128) -> &'static str {
        match self.pool.allocate(value) {
            Ok(()) => {
                self.held.insert(value);
                "ok"
            }
            Err(Refusal::Taken) => "already_allocated",
            Err(Refusal::OutOfRange) => "out_of_range",
        }
    }

    fn release(&mut self, value: u128) {
        self.pool.release(value);
        self.held.remove(&value);
    }

    /// Loads a snapshot into a fresh pool, which takes the place of the old one.
    fn restore(&mut self, step: &Step) -> Result<(), String> {
        let range = step.range.as_ref().ok_or("has no range")?;
        let (of, taken) = self.snapshot(step)?.clone();
        let mut fresh = pool(self.kind, range, None)?;
        let fits = of == *range && taken.iter().all(|value| fresh.allocate(*value).is_ok());
        if fits {
            self.pool = fresh;
            expected(step, &["ok".to_owned()])
        } else {
            expected(step, &["mismatched_range".to_owned()])
        }
    }

    fn snapshot(&self, step: &Step) -> Result<&(String, Vec<u128>), String> {
        let name = step.name.as_ref().ok_or("has no name")?;
        let found = self.snapshots.get(name);
        found.ok_or_else(|| format!("there is no snapshot {name}"))
    }

    fn number(&self, value: Option<&Value>) -> Result<u128, String> {
        let text = value.map(plain).ok_or("has no value")?;
        let number = match self.kind {
            Kind::ClusterIp => text.parse().ok().map(networks::number),
            Kind::NodePort => text.parse().ok(),
        };
        number.ok_or_else(|| format!("{text:?} is no value of this pool"))
    }

    fn text(&self, number: u128) -> String {
        let family = network(&self.range).ok().map(|network| network.addr());
        let family = family.map(Family::of);
        let address = family.and_then(|family| networks::address(family, number));
        address.map_or_else(|| number.to_string(), |address| address.to_string())
    }
}

fn pool(kind: Kind, range: &str, cap: Option<u64>) -> Result<Pool, String> {
    let pool = match kind {
        Kind::ClusterIp => networks::pool(network(range)?),
        Kind::NodePort => {
            let ports = ports(range)?;
            let band = port_band(ports.end() - ports.start() + 1);
            Pool::new(ports, band)
        }
    };
    match cap {
        None => Ok(pool),
        Some(cap) if kind == Kind::ClusterIp => {
            let first = networks::number(network(range)?.network()) + 1;
            Ok(Pool::new(first..=first + u128::from(cap) - 1, 256))
        }
        Some(_) => Err("a cap of node ports is not understood".to_owned()),
    }
}

fn times(step: &Step) -> usize {
    step.times.unwrap_or(1)
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn equal_if(expected: Option<u64>, seen: u64) -> Result<(), String> {
    expected.map_or(Ok(()), |expected| equal(&expected, &seen))
}

/// `ok` means each of them, `2 ok then 3 full` so many of each in turn.
fn expected(step: &Step, seen: &[String]) -> Result<(), String> {
    let words = step
        .expect
        .as_ref()
        .map(plain)
        .ok_or("has no expectation")?;
    let parts: Vec<_> = words.split(" then ").collect();
    let wanted: Option<Vec<String>> = match parts.as_slice() {
        [one] if !one.contains(' ') => Some(vec![(*one).to_owned(); seen.len()]),
        parts => {
            let counted = parts.iter().map(|part| {
                let (count, word) = part.split_once(' ')?;
                Some(vec![word.to_owned(); count.parse().ok()?])
            });
            counted
                .collect::<Option<Vec<_>>>()
                .map(|parts| parts.concat())
        }
    };
    let wanted = wanted.ok_or_else(|| format!("{words:?} is not understood"))?;
    match wanted
        .iter()
        .zip(seen)
        .position(|(wanted, seen)| wanted != seen)
    {
        Some(index) => Err(format!(
            "expected {:?} at number {}, seen {:?}",
            wanted[index],
            index + 1,
            seen[index]
        )),
        None => equal(&wanted.len(), &seen.len()),
    }
}
