//! Which CPU does what: pinning, and what the kernel says each has done.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use rustix::process::setpriority_process;
use serde::{Deserialize, Serialize};

/// Highest priority of ordinary threads: what else runs on a shared machine waits.
const FIRST: i32 = -20;

/// Gives this thread a CPU, before all ordinary threads there.
///
/// # Errors
/// There is no such CPU for this process.
pub fn claim(cpu: usize) -> Result<()> {
    pin(Pid::from_raw(0), cpu)?;
    // Without the permission it is measured all the same, with more noise.
    let _ = setpriority_process(None, FIRST);
    Ok(())
}

/// Puts all threads of a process before all ordinary ones.
///
/// # Errors
/// The process is gone.
pub fn prefer_process(pid: u32) -> Result<()> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let id = thread.file_name().to_string_lossy().parse().ok();
        if let Some(id) = id.and_then(rustix::process::Pid::from_raw) {
            let _ = setpriority_process(Some(id), FIRST);
        }
    }
    Ok(())
}

/// Gives the threads of a process a CPU, before all ordinary ones, but for those whose names begin
/// with `but`.
///
/// # Errors
/// The process is gone, or there is no such CPU.
pub fn claim_for_process(pid: u32, cpu: usize, but: Option<&str>) -> Result<()> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let name = fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
        let number: Option<i32> = thread.file_name().to_string_lossy().parse().ok();
        let left = but.is_some_and(|but| name.starts_with(but));
        if let (false, Some(number)) = (left, number) {
            pin(Pid::from_raw(number), cpu)?;
            let _ = setpriority_process(rustix::process::Pid::from_raw(number), FIRST);
        }
    }
    Ok(())
}

/// Gives the threads whose names begin with one of `names` a CPU, before all ordinary ones; how
/// kernel threads are placed.
///
/// # Errors
/// There is no such CPU.
pub fn claim_for(names: &[String], cpu: usize) -> Result<()> {
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let number: Option<i32> = entry.file_name().to_string_lossy().parse().ok();
        let found = names.iter().any(|start| name.starts_with(start.as_str()));
        if let (true, Some(number)) = (found, number) {
            pin(Pid::from_raw(number), cpu)?;
            let _ = setpriority_process(rustix::process::Pid::from_raw(number), FIRST);
        }
    }
    Ok(())
}

fn pin(thread: Pid, cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu).with_context(|| format!("CPU {cpu}"))?;
    sched_setaffinity(thread, &set).with_context(|| format!("no CPU {cpu}"))
}

/// Share of a CPU that a process uses while it is watched for `time`.
///
/// # Errors
/// The process is gone.
pub fn share_of_process(pid: u32, time: Duration) -> Result<f64> {
    let before = time_of_process(pid)?;
    thread::sleep(time);
    let used = time_of_process(pid)?.saturating_sub(before);
    Ok(used as f64 / time.as_nanos() as f64)
}

/// Nanoseconds that all threads of a process have had a CPU. Short naps count by what they really
/// leave free, which the ticks of proc_pid_stat(5) miss.
///
/// # Errors
/// The process is gone.
pub fn time_of_process(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // The first number of Documentation/scheduler/sched-stats.rst; a thread may end meanwhile.
        let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        let first = text.split_whitespace().next();
        sum += first.and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}

/// What one CPU has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// Runs of the receiving soft interrupt: who ran NAPI.
    pub receives: u64,
    /// Share of the time that it did anything.
    pub busy: f64,
    /// Share of the time in soft interrupts.
    pub softirq: f64,
    /// Share of the time that the hypervisor kept it away.
    pub steal: f64,
}

/// The kernel's counters at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counters {
    receives: Vec<u64>,
    ticks: Vec<Vec<u64>>,
}

impl Counters {
    /// Reads them.
    ///
    /// # Errors
    /// There is no /proc.
    pub fn read() -> Result<Self> {
        let softirqs = fs::read_to_string("/proc/softirqs").context("/proc/softirqs")?;
        let stat = fs::read_to_string("/proc/stat").context("/proc/stat")?;
        Ok(Self::parse(&softirqs, &stat))
    }

    fn parse(softirqs: &str, stat: &str) -> Self {
        let numbers = |line: &str| {
            line.split_whitespace()
                .skip(1)
                .filter_map(|word| word.parse().ok())
                .collect()
        };
        let receives = softirqs
            .lines()
            .find(|line| line.trim_start().starts_with("NET_RX:"));
        let is_cpu = |line: &&str| {
            line.strip_prefix("cpu")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        Self {
            receives: receives.map(numbers).unwrap_or_default(),
            ticks: stat.lines().filter(is_cpu).map(numbers).collect(),
        }
    }

    /// What every CPU has done since `before`.
    pub fn since(&self, before: &Self) -> Vec<Work> {
        let ticks = self.ticks.iter().zip(&before.ticks);
        let receives = self.receives.iter().zip(&before.receives);
        ticks
            .zip(receives)
            .map(|((now, then), (receives, before))| {
                // user nice system idle iowait irq softirq steal (proc_stat(5)).
                let delta = |place: usize| match (now.get(place), then.get(place)) {
                    (Some(now), Some(then)) => now.saturating_sub(*then) as f64,
                    _ => 0.0,
                };
                let total: f64 = (0..8).map(delta).sum::<f64>().max(1.0);
                Work {
                    receives: receives.saturating_sub(*before),
                    busy: 1.0 - (delta(3) + delta(4)) / total,
                    softirq: delta(6) / total,
                    steal: delta(7) / total,
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cpu_is_told_apart() {
        let softirqs =
            |a, b| format!("   CPU0  CPU1\n  TIMER:  9  9\n  NET_TX: 1 1\n  NET_RX:  {a}  {b}\n");
        let before = Counters::parse(
            &softirqs(5, 6),
            "cpu  1 1\ncpu0 0 0 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0\nintr 1\n",
        );
        let after = Counters::parse(
            &softirqs(15, 6),
            "cpu  1 1\ncpu0 50 0 0 25 0 0 25 0\ncpu1 0 0 0 90 0 0 0 10\nintr 1\n",
        );
        let work = after.since(&before);
        assert_eq!(
            work[0],
            Work {
                receives: 10,
                busy: 0.75,
                softirq: 0.25,
                steal: 0.0
            }
        );
        assert_eq!(work[1].receives, 0);
        assert!((work[1].busy - 0.1).abs() < 1e-9 && (work[1].steal - 0.1).abs() < 1e-9);
        assert_eq!(work.len(), 2);
    }

    #[test]
    fn a_process_that_works_uses_time() {
        let own = std::process::id();
        let before = time_of_process(own).unwrap();
        let mut sum = 0u64;
        while time_of_process(own).unwrap() < before + 1_000_000 {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(sum > 0);
        assert!(time_of_process(0).is_err(), "there is no such process");
    }

    #[test]
    fn this_machine_has_cpus() {
        assert!(!Counters::read().unwrap().ticks.is_empty());
    }
}
