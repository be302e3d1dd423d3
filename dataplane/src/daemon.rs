//! Puts the daemon together: checks, sockets, threads; and takes it apart again.
//!
//! Order of the start: what can be refused is refused before anything is changed; the control
//! socket comes first, so that a second daemon on the same settings stops before it touches an
//! interface. Order of the end: workers stop, then sockets and XDP program go with the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use rustix::thread::{sched_getaffinity, sched_setaffinity};
use sluice_conf::message::dataplane::Interface as InterfaceStatus;
use sluice_conf::settings::dataplane::Dataplane as Settings;

use crate::affinity::AffinityTable;
use crate::clock::Clock;
use crate::control::{self, About, Answers, Listener, SocketError};
use crate::gateway::{Around, Gateway, KernelGate, Slots};
use crate::handover::Handover;
use crate::hygiene::Hygiene;
use crate::interface::{self, InterfaceError, Watch};
use crate::io::xsk::{self, Device, Opened, XskError, XskFrame, XskIo};
use crate::kernel::{NoWay, ToKernel};
use crate::listing::Query;
use crate::metrics;
use crate::nat::alarm::PortAlarm;
use crate::netlink::{self, NetlinkError, Resolve};
use crate::pipeline::{Engine, EngineSettings};
use crate::service::Terms;
use crate::snapshot::{Observer, Publisher, Snapshot};
use crate::stats::{PerWorker, WorkerCounters};
use crate::tap::Tap;
use crate::tun::Tun;
use crate::worker::{Connections, Noted, Worker};
use crate::xdp::{AttachedMode, Steering, XdpError};

/// Requests to resolve a next hop that may wait for the netlink thread.
const RESOLVE_QUEUE: usize = 4096;

/// How often the kernel is asked to keep the ways to all backends fresh.
const CONFIRM_PERIOD: Duration = Duration::from_secs(10);

/// Why the daemon cannot start, or had to end. Each sentence names the thing, the value and the way out.
#[derive(Debug, thiserror::Error)]
#[allow(
    missing_docs,
    reason = "every variant passes on the sentence of its source"
)]
pub enum DaemonError {
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error(transparent)]
    Xdp(#[from] XdpError),
    #[error(transparent)]
    Xsk(#[from] XskError),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("metrics.listen {listen}: {reason}; choose a free local address or remove the key")]
    Metrics {
        listen: std::net::SocketAddr,
        reason: String,
    },
    #[error("source_nat.ports {ports}: {count} ports are too few for {workers} workers")]
    TooFewPorts {
        ports: String,
        count: usize,
        workers: u32,
    },
    #[error("workers.cores: core {core} does not exist on this host; it has {available}")]
    NoCore { core: u32, available: String },
    #[error("{0} workers have ended by a panic; the reason stands above, please report it")]
    Workers(usize),
    #[error("the system refuses a thread or a descriptor: {0}")]
    System(#[from] std::io::Error),
}

/// Everything that runs.
struct Running {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<XskIo>>,
    gateway: Arc<Gateway>,
    answers: Arc<Answers>,
    watch: Watch,
    ports: PortAlarm,
}

/// Runs until `stop` is set.
///
/// # Errors
/// What prevented the start; nothing is left behind then.
pub fn run(settings: &Settings, stop: &Arc<AtomicBool>) -> Result<(), DaemonError> {
    let facts = interface::check(&settings.interfaces, &settings.frames)?;
    let workers = facts.first().map_or(1, |facts| facts.rx_queues);
    check_ports(settings, workers)?;
    let cores = cores(&settings.workers.cores, workers)?;
    leave_to_workers(&cores);
    let listener = Listener::bind(&settings.control.socket)?;
    if let Some(listen) = settings.metrics.listen {
        metrics::serve(listen).map_err(|error| DaemonError::Metrics {
            listen,
            reason: error.to_string(),
        })?;
    }
    let mut steering = Steering::load()?;
    let (opened, interfaces) = attach(settings, workers, &mut steering)?;

    let (resolve, unresolved) = netlink::unresolved(RESOLVE_QUEUE)?;
    let clock = Clock::start();
    let names: Vec<String> = settings.interfaces.iter().map(|i| i.name.clone()).collect();
    let counters = PerWorker::with(workers as u16, || WorkerCounters::new(&names));
    let (sender, networks) = bounded(64);
    let (_netlink, network) = netlink::start(&settings.interfaces, unresolved, move |network| {
        // Full only while a table is being applied; then this thread waits a moment.
        let _ = sender.send(network);
    })?;
    let snapshot = Snapshot::new(Arc::default(), Arc::new(network));
    let handovers = Handover::new(workers as u16, settings.workers.handover)?;
    let wakes = handovers.iter().filter_map(Handover::wake).collect();
    let (publisher, observers) = Publisher::waking(snapshot, workers as u16, wakes);

    let (queries, asked): (Vec<Sender<Query>>, Vec<Receiver<Query>>) =
        (0..workers).map(|_| bounded(4)).unzip();
    let pool = Arc::clone(&opened.spare);
    let slots = Slots {
        total: opened.slots,
        spare: Box::new(move || pool.slots()),
    };
    let around = Around {
        source_nat: settings.source_nat.clone(),
        terms: Terms {
            workers: workers as u16,
            reserved: settings.source_nat.ports,
            limits: settings.limits,
        },
        counters: Arc::clone(&counters),
        queries,
        resolve: resolve.clone(),
        slots,
        clock,
        stop: Arc::clone(stop),
    };
    let hygiene = Hygiene::new(settings);
    let gate = KernelGate::new(steering, hygiene);
    let gateway = Arc::new(Gateway::new(publisher, Box::new(gate), around));
    let about = About {
        interfaces,
        cores: cores.clone(),
        capacity: settings.connections.capacity,
    };
    let tap = Arc::default();
    let answers = Arc::new(Answers::new(
        Arc::clone(&gateway),
        Arc::clone(&tap),
        about,
        clock,
    ));
    let stop = Arc::clone(stop);
    let crew = Crew {
        settings,
        cores,
        clock,
        counters,
        affinity: Arc::new(AffinityTable::new(settings.affinity.clients, random()?)),
        tun: open_tun(&settings.kernel.tun),
        resolve,
        tap,
        stop: Arc::clone(&stop),
    };
    let workers = crew.start(opened, handovers, observers, asked)?;
    follow_network(Arc::clone(&gateway), networks)?;
    let running = Running {
        stop,
        workers,
        gateway,
        answers,
        watch: Watch::new(&settings.interfaces, &facts, settings.frames.size),
        ports: PortAlarm::default(),
    };
    running.serve(listener)
}

fn check_ports(settings: &Settings, workers: u32) -> Result<(), DaemonError> {
    let ports = settings.source_nat.ports;
    let count = ports.count();
    if count < workers as usize {
        return Err(DaemonError::TooFewPorts {
            ports: ports.to_string(),
            count,
            workers,
        });
    }
    let local = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let local: Vec<u16> = local
        .unwrap_or_default()
        .split_whitespace()
        .flat_map(str::parse)
        .collect();
    if let [low, high] = local[..]
        && ports.first <= high
        && low <= ports.last
    {
        tracing::warn!(
            %ports,
            "source_nat.ports overlaps net.ipv4.ip_local_port_range {low}-{high}: replies to the \
             host's own connections would be taken for Sluice's; move one of the two"
        );
    }
    Ok(())
}

/// The core of each worker.
fn cores(wanted: &[u32], workers: u32) -> Result<Vec<Option<u32>>, DaemonError> {
    let available: Vec<u32> = core_affinity::get_core_ids()
        .unwrap_or_default()
        .iter()
        .map(|id| id.id as u32)
        .collect();
    if let Some(core) = wanted.iter().find(|core| !available.contains(core)) {
        return Err(DaemonError::NoCore {
            core: *core,
            available: format!("{available:?}"),
        });
    }
    let core = |worker: u32| wanted.get(worker as usize % wanted.len().max(1)).copied();
    Ok((0..workers).map(core).collect())
}

/// Keeps this thread, and those that it starts, off the workers' cores if there are others: while
/// anything else runs there, frames wait or are lost.
fn leave_to_workers(cores: &[Option<u32>]) {
    let Ok(mut others) = sched_getaffinity(None) else {
        return;
    };
    for core in cores.iter().flatten() {
        others.unset(*core as usize);
    }
    if others.count() > 0
        && let Err(error) = sched_setaffinity(None, &others)
    {
        tracing::warn!(%error, "other threads may run on the workers' cores");
    }
}

/// Attaches the program and opens all sockets.
fn attach(
    settings: &Settings,
    workers: u32,
    steering: &mut Steering,
) -> Result<(Opened, Vec<InterfaceStatus>), DaemonError> {
    let mut devices = Vec::new();
    let mut modes = Vec::new();
    for interface in &settings.interfaces {
        let mode = steering.attach(interface)?;
        let native = mode == AttachedMode::Native;
        devices.push(Device {
            name: interface.name.clone(),
            copy: interface.copy,
            native,
        });
        modes.push(mode);
    }
    let opened = xsk::open(
        &devices,
        workers,
        &settings.frames,
        settings.workers.handover,
    )?;
    let mut status = Vec::new();
    for socket in &opened.sockets {
        let name = &devices[usize::from(socket.interface.0)].name;
        steering.register(name, socket.queue, socket.fd)?;
        if socket.queue == 0 {
            let mode = modes[usize::from(socket.interface.0)];
            tracing::info!(
                interface = name,
                queues = workers,
                xdp = mode.as_str(),
                frames = socket.mode.as_str(),
                "interface served"
            );
            status.push(InterfaceStatus {
                name: name.clone(),
                queues: workers,
                xdp: mode.as_str().to_owned(),
                frames: socket.mode.as_str().to_owned(),
            });
        }
    }
    Ok((opened, status))
}

/// What all workers are made of.
struct Crew<'a> {
    settings: &'a Settings,
    cores: Vec<Option<u32>>,
    clock: Clock,
    counters: Arc<PerWorker<WorkerCounters>>,
    affinity: Arc<AffinityTable>,
    tun: Option<Arc<Tun>>,
    resolve: Resolve,
    tap: Arc<Tap>,
    stop: Arc<AtomicBool>,
}

impl Crew<'_> {
    fn start(
        self,
        opened: Opened,
        handovers: Vec<Handover<Noted<XskFrame>>>,
        observers: Vec<Observer>,
        queries: Vec<Receiver<Query>>,
    ) -> Result<Vec<JoinHandle<XskIo>>, DaemonError> {
        let count = opened.workers.len() as u16;
        let parts = opened
            .workers
            .into_iter()
            .zip(handovers)
            .zip(observers)
            .zip(queries);
        let mut threads = Vec::new();
        for (id, (((io, handover), observer), queries)) in (0..).zip(parts) {
            let links = Connections {
                handover,
                kernel: way_back(self.tun.as_ref()),
                observer,
                resolve: self.resolve.clone(),
                queries,
                counters: Arc::clone(&self.counters),
                tap: Arc::clone(&self.tap),
            };
            let engine = self.engine(id, count)?;
            let worker = Worker::new(
                id,
                self.settings.workers.burst,
                &self.settings.fragments,
                io,
                engine,
                links,
            );
            threads.push(self.spawn(id, worker)?);
        }
        Ok(threads)
    }

    fn engine(&self, worker: u16, workers: u16) -> Result<Engine, DaemonError> {
        let settings = EngineSettings {
            worker,
            workers,
            connections: self.settings.connections.clone(),
            timeouts: self.settings.timeouts.clone(),
            source_nat: self.settings.source_nat.clone(),
            fragments: self.settings.fragments.clone(),
            answers: self.settings.answers.clone(),
            seed: random()?,
        };
        Ok(Engine::new(
            &settings,
            Arc::clone(&self.counters),
            Arc::clone(&self.affinity),
            self.clock.now(),
        ))
    }

    fn spawn(&self, id: u16, worker: Worker<XskIo>) -> Result<JoinHandle<XskIo>, DaemonError> {
        let core = self.cores.get(usize::from(id)).copied().flatten();
        let (clock, stop) = (self.clock, Arc::clone(&self.stop));
        let polling = self.settings.workers.polling;
        let body = move || {
            if let Some(core) = core
                && !core_affinity::set_for_current(core_affinity::CoreId { id: core as usize })
            {
                tracing::warn!(worker = id, core, "worker could not be pinned to its core");
            }
            worker.run(polling, &clock, &stop)
        };
        Ok(std::thread::Builder::new()
            .name(format!("worker-{id}"))
            .spawn(body)?)
    }
}

/// The device by which packets go back to the kernel. Without it the gateway serves on, and drops
/// what is nobody's.
fn open_tun(name: &str) -> Option<Arc<Tun>> {
    if name.is_empty() {
        return None;
    }
    let opened = Tun::open(name);
    if let Err(error) = &opened {
        tracing::warn!(%error, "packets that are no Service's cannot go back to the kernel and are dropped");
    }
    opened.ok().map(Arc::new)
}

fn way_back(tun: Option<&Arc<Tun>>) -> Box<dyn ToKernel> {
    match tun {
        Some(tun) => Box::new(Arc::clone(tun)),
        None => Box::new(NoWay),
    }
}

/// A number that nobody outside can know.
fn random() -> Result<u64, DaemonError> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(std::io::Error::from)?;
    Ok(u64::from_ne_bytes(bytes))
}

fn follow_network(
    gateway: Arc<Gateway>,
    networks: Receiver<crate::neighbour::Network>,
) -> Result<(), DaemonError> {
    std::thread::Builder::new()
        .name("network".into())
        .spawn(move || {
            for network in &networks {
                // Only the newest counts.
                let network = networks.try_iter().last().unwrap_or(network);
                gateway.set_network(network);
            }
        })?;
    Ok(())
}

impl Running {
    fn serve(self, listener: Listener) -> Result<(), DaemonError> {
        let listener = Arc::new(listener);
        let (serving, answers) = (Arc::clone(&listener), Arc::clone(&self.answers));
        std::thread::Builder::new()
            .name("control".into())
            .spawn(move || control::serve(serving.socket(), &answers))?;
        tracing::info!("ready, waiting for a service table");
        let mut periods = 0u32;
        let (mut watch, mut ports) = (self.watch, self.ports);
        let confirm_every = (CONFIRM_PERIOD.as_millis() / metrics::PERIOD.as_millis()) as u32;
        while !self.stop.load(Ordering::Relaxed)
            && !self.workers.iter().any(JoinHandle::is_finished)
        {
            metrics::publish(&self.gateway);
            watch.look();
            ports.look(self.gateway.counters());
            if periods.is_multiple_of(confirm_every) {
                self.gateway.confirm_next_hops();
            }
            periods = periods.wrapping_add(1);
            std::thread::park_timeout(metrics::PERIOD);
        }
        tracing::info!("stopping");
        self.stop.store(true, Ordering::Relaxed);
        let failed = self
            .workers
            .into_iter()
            .map(JoinHandle::join)
            .filter(Result::is_err)
            .count();
        listener.remove();
        self.gateway.end();
        if failed > 0 {
            return Err(DaemonError::Workers(failed));
        }
        Ok(())
    }
}
