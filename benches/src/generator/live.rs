//! The generator inside the kernel: a BPF program that BPF_PROG_RUN runs on live frames.
//!
//! Each call of BPF_PROG_RUN takes some 20 ms to begin and to end, hence one long call in a thread
//! of its own, paced by the program itself and ended by a signal.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::thread::JoinHandleExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aya::maps::{Array, MapData};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};
use nix::sys::pthread::pthread_kill;
use nix::sys::signal::Signal;

use super::plan::{Plan, Share};
use super::program_run;
use super::state::{Progress, STATE_WORDS};
use crate::cpu;
use crate::namespace::{Interface, Namespace};

static PROGRAM: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/generate.bpf.o"));

/// Interrupts BPF_PROG_RUN. Its handler does nothing.
const WAKE: Signal = Signal::SIGUSR1;
const PAUSE: Duration = Duration::from_millis(2);

/// The program, loaded with a plan.
pub(super) struct Program {
    ebpf: Ebpf,
    state: Array<MapData, [u64; STATE_WORDS]>,
}

impl Program {
    pub(super) fn load(plan: &Plan, share: Share) -> Result<Self> {
        let config = plan.bytes(share);
        let targets = plan.target_bytes();
        let mut ebpf = EbpfLoader::new()
            .set_global("config", config.as_slice(), true)
            .set_max_entries("targets", targets.len() as u32)
            .set_max_entries("draws", plan.draws.len().max(1) as u32)
            .set_max_entries("sequences", drawn_flows(plan))
            .load(PROGRAM)
            .context("the generator's BPF program cannot be loaded; it needs root")?;
        let mut map: Array<_, [u8; 20]> = map_of(&mut ebpf, "targets")?;
        for (index, target) in (0..).zip(targets) {
            map.set(index, target, 0)?;
        }
        let mut map: Array<_, u32> = map_of(&mut ebpf, "draws")?;
        for (index, flow) in (0..).zip(&plan.draws) {
            map.set(index, flow, 0)?;
        }
        let state = map_of(&mut ebpf, "state")?;
        let mut program = Self { ebpf, state };
        program
            .xdp()?
            .load()
            .context("the kernel refuses the generator's BPF program")?;
        Ok(program)
    }

    fn xdp(&mut self) -> Result<&mut Xdp> {
        let program = self.ebpf.program_mut("generate");
        Ok(program.context("no BPF program `generate`")?.try_into()?)
    }

    #[cfg(test)]
    pub(super) fn once(&mut self, frame: &mut Vec<u8>) -> Result<u32> {
        let fd = self.xdp()?.fd()?.as_fd().try_clone_to_owned()?;
        Ok(program_run::once(fd.as_fd(), frame)?)
    }

    #[cfg(test)]
    pub(super) fn progress(&self) -> Result<Progress> {
        Ok(Progress::from_words(self.state.get(&0, 0)?))
    }

    /// Frames that were due so far.
    #[cfg(test)]
    pub(super) fn frames(&self) -> Result<u64> {
        Ok(self.state.get(&0, 0)?[2])
    }
}

fn drawn_flows(plan: &Plan) -> u32 {
    if plan.draws.is_empty() {
        1
    } else {
        plan.flows as u32
    }
}

fn map_of<V: aya::Pod>(ebpf: &mut Ebpf, name: &str) -> Result<Array<MapData, V>> {
    let map = ebpf.take_map(name);
    let map = map.with_context(|| format!("no BPF map `{name}`"))?;
    Ok(Array::try_from(map)?)
}

/// Where a generator sends from, and on which CPU it runs.
#[derive(Debug, Clone)]
pub struct Seat {
    /// Namespace of the interface.
    pub namespace: Namespace,
    /// The interface.
    pub interface: Interface,
    /// CPU; any when there is none.
    pub cpu: Option<usize>,
    /// Frames that are handed to the driver together.
    pub batch: u32,
}

/// A generator at work. Dropping it stops it.
pub struct Live {
    state: Array<MapData, [u64; STATE_WORDS]>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Live {
    /// Starts to send `share` of `plan`.
    ///
    /// # Errors
    /// The program cannot be loaded.
    pub fn start(plan: &Plan, share: Share, seat: &Seat) -> Result<Self> {
        plan.check()?;
        // The default action of the signal would end the process.
        signal_hook::flag::register(WAKE as i32, Arc::default())?;
        let Program { mut ebpf, state } = Program::load(plan, share)?;
        let frame = vec![0; usize::from(plan.largest())];
        let stop = Arc::new(AtomicBool::new(false));
        let (seat, stopped) = (seat.clone(), Arc::clone(&stop));
        let thread = thread::Builder::new().name("loadgen".into()).spawn(move || {
            seat.namespace.enter()?;
            if let Some(cpu) = seat.cpu {
                cpu::claim(cpu)?;
            }
            let program = ebpf.program_mut("generate");
            let program: &mut Xdp = program.context("no BPF program `generate`")?.try_into()?;
            let program = program.fd()?.as_fd();
            while !stopped.load(Ordering::Relaxed) {
                match program_run::live(program, &frame, seat.interface.index, seat.batch) {
                    Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                        return Err(error).context(
                            "BPF_PROG_RUN with live frames; it needs root, Linux 5.18, and a driver \
                             that transmits XDP frames: over veth the other end needs an XDP program",
                        );
                    }
                    _ => {}
                }
            }
            Ok(())
        })?;
        Ok(Self {
            state,
            stop,
            thread: Some(thread),
        })
    }

    /// How far it is.
    ///
    /// # Errors
    /// It ended with an error, or the kernel does not tell.
    pub fn progress(&mut self) -> Result<Progress> {
        if self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
            self.stop()?;
            bail!("the generator ended before its time");
        }
        Ok(Progress::from_words(self.state.get(&0, 0)?))
    }

    /// Stops it.
    ///
    /// # Errors
    /// With what it ended before.
    pub fn stop(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        self.stop.store(true, Ordering::Relaxed);
        while !thread.is_finished() {
            // It may have ended in between.
            let _ = pthread_kill(thread.as_pthread_t(), WAKE);
            thread::sleep(PAUSE);
        }
        match thread.join() {
            Ok(result) => result,
            Err(_) => bail!("the generator's thread died"),
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}
