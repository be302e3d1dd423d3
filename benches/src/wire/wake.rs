//! What waking a thread costs on this machine, without any packet: the least that a worker which
//! sleeps can be late by.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::rig::{GENERATOR_CPU, PEER_CPU};
use crate::cpu;
use crate::generator::sockets::monotonic;

/// As long as single packets are apart.
const PAUSE: Duration = Duration::from_millis(8);

/// Nanoseconds from ringing on the generator's CPU to running on the peer's, for each time.
///
/// # Errors
/// There are no such CPUs, or no file descriptor is left.
pub fn delays(times: usize) -> Result<Vec<f64>> {
    let bell = &eventfd(0, EventfdFlags::CLOEXEC)?;
    let (tell, woken) = mpsc::channel();
    thread::scope(|scope| {
        let sleeper = scope.spawn(move || -> Result<()> {
            cpu::claim(PEER_CPU)?;
            for _ in 0..times {
                poll(&mut [PollFd::new(bell, PollFlags::IN)], None)?;
                let awake = monotonic();
                rustix::io::read(bell, &mut [0; 8])?;
                tell.send(awake)?;
            }
            Ok(())
        });
        let ringer = scope.spawn(move || -> Result<Vec<f64>> {
            cpu::claim(GENERATOR_CPU)?;
            let mut delays = Vec::with_capacity(times);
            for _ in 0..times {
                let ring = monotonic() + PAUSE.as_nanos() as u64;
                while monotonic() < ring {
                    std::hint::spin_loop();
                }
                let rung = monotonic();
                rustix::io::write(bell, &1u64.to_ne_bytes())?;
                let awake = woken.recv_timeout(PAUSE * 100).context("nobody woke up")?;
                delays.push(awake.saturating_sub(rung) as f64);
            }
            Ok(delays)
        });
        let delays = ringer.join().map_err(|_| anyhow!("a thread died"))??;
        sleeper.join().map_err(|_| anyhow!("a thread died"))??;
        Ok(delays)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ring_wakes_once() {
        let cpus = thread::available_parallelism().unwrap().get();
        let woken = delays(5).ok().map(|delays| delays.len());
        assert_eq!(woken, (cpus > PEER_CPU).then_some(5));
    }
}
