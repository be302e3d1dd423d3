//! A table's whole way: encoded, sent over a Unix socket, decoded, compiled, published, and seen by
//! a worker. Only the kernel's filter is left out, which needs root.
//!
//! The client sends tables and changes of them as the control plane does, the rest is the daemon's own
//! code. Which Services differ it sees by what two tables share, as that does. The worker does
//! nothing but look for a new snapshot; how long it takes to take one up is what a push costs it.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, ensure};
use sluice_benches::report::Report;
use sluice_benches::statistics::{quantile, sorted};
use sluice_benches::topology::{network, terms};
use sluice_conf::codec::{self, HEADER_LEN};
use sluice_conf::message::Hello;
use sluice_conf::message::dataplane::{Reply, SentRequest};
use sluice_conf::settings::dataplane::SourceNat;
use sluice_conf::{Generation, ServiceTable};
use sluice_dataplane::clock::{Clock, Time};
use sluice_dataplane::control::{About, Answers, serve};
use sluice_dataplane::gateway::{Around, Gate, Gateway, Slots};
use sluice_dataplane::snapshot::{Observer, Publisher, Snapshot};
use sluice_dataplane::stats::PerWorker;
use sluice_dataplane::steer::Filter;
use sluice_dataplane::xdp::SteerStats;
use tempfile::TempDir;

use crate::Measure;
use crate::change::{CHANGES, Flapping};

/// How long a push may take before something is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures pushes of this table.
///
/// # Errors
/// When the table is not applied.
pub fn run(measure: Measure, table: ServiceTable, report: &mut Report) -> anyhow::Result<()> {
    let mut link = Link::start()?;
    let mut full = Vec::new();
    for _ in 0..measure.rounds {
        full.push(link.push_whole(table.clone())?);
        link.push_whole(ServiceTable::default())?;
    }
    report.add("push of 10k Services, seen by a worker", "ms", &full);
    link.push(table.clone())?;
    let mut flapping = Flapping::new(table);
    let mut changes = Vec::with_capacity(CHANGES);
    for _ in 0..CHANGES {
        changes.push(link.push(flapping.advance())?);
    }
    for (label, share) in [("p50", 0.5), ("p99", 0.99)] {
        let of = |readings: &[f64]| -> Vec<f64> {
            quantile(&sorted(readings), share).into_iter().collect()
        };
        let name = format!("push of one endpoint's change, seen by a worker, {label}");
        report.add(name, "ms", &of(&changes));
        let name = format!("worker's stall at a push of 10k Services, {label}");
        report.add(name, "us", &of(&link.stalls));
    }
    Ok(())
}

/// What the worker tells of a snapshot that it has taken up.
struct Seen {
    generation: Option<Generation>,
    at: Time,
    /// Nanoseconds that it took.
    stall: u64,
}

/// A dataplane without frames, and a client's end.
struct Link {
    stream: UnixStream,
    /// What the dataplane has.
    base: ServiceTable,
    generation: u64,
    clock: Clock,
    seen: Receiver<Seen>,
    /// Microseconds of every push.
    stalls: Vec<f64>,
    stop: Arc<AtomicBool>,
    worker: Option<JoinHandle<()>>,
    _home: TempDir,
}

impl Link {
    fn start() -> anyhow::Result<Self> {
        let (clock, stop) = (Clock::start(), Arc::new(AtomicBool::new(false)));
        let snapshot = Snapshot::new(Arc::default(), Arc::new(network()));
        let (publisher, mut observers) = Publisher::new(snapshot, 1);
        let observer = observers.pop().context("no worker")?;
        let gateway = gateway(publisher, clock, &stop)?;
        let about = About {
            interfaces: Vec::new(),
            cores: Vec::new(),
            capacity: 0,
        };
        let answers = Arc::new(Answers::new(
            Arc::new(gateway),
            Arc::default(),
            about,
            clock,
        ));
        let home = tempfile::tempdir()?;
        let path = home.path().join("dataplane.sock");
        let listener = UnixListener::bind(&path)?;
        // Serves until the process ends.
        std::thread::spawn(move || serve(&listener, &answers));
        let (tell, seen) = channel();
        let over = Arc::clone(&stop);
        let mut link = Self {
            stream: UnixStream::connect(&path)?,
            base: ServiceTable::default(),
            generation: 0,
            clock,
            seen,
            stalls: Vec::new(),
            stop,
            worker: Some(std::thread::spawn(move || {
                look(observer, clock, &tell, &over)
            })),
            _home: home,
        };
        let hello = Hello {
            program: "bench".into(),
            release: String::new(),
        };
        link.stream
            .write_all(&codec::encode(&SentRequest::Hello(hello))?)?;
        link.reply()?;
        Ok(link)
    }

    /// Milliseconds until the worker has this table, of which what has changed is sent.
    fn push(&mut self, table: ServiceTable) -> anyhow::Result<f64> {
        self.until_seen(table, |table, base| SentRequest::Change(table.since(base)))
    }

    /// The same when all of it is sent.
    fn push_whole(&mut self, table: ServiceTable) -> anyhow::Result<f64> {
        self.until_seen(table, |table, _| SentRequest::Push(table))
    }

    fn until_seen(
        &mut self,
        mut table: ServiceTable,
        message: impl for<'a> Fn(&'a ServiceTable, &ServiceTable) -> SentRequest<'a>,
    ) -> anyhow::Result<f64> {
        self.generation += 1;
        table.generation = Generation(self.generation);
        let start = self.clock.now();
        let bytes = codec::encode(&message(&table, &self.base))?;
        self.stream.write_all(&bytes)?;
        let seen = self.seen.recv_timeout(PATIENCE)?;
        ensure!(
            seen.generation == Some(table.generation),
            "another table came"
        );
        let reply = self.reply()?;
        ensure!(reply == Reply::Applied(table.generation), "{reply:?}");
        self.stalls.push(seen.stall as f64 / 1e3);
        self.base = table;
        Ok((seen.at.0 - start.0) as f64 / 1e6)
    }

    fn reply(&mut self) -> anyhow::Result<Reply> {
        let mut header = [0; HEADER_LEN];
        self.stream.read_exact(&mut header)?;
        let mut body = vec![0; codec::body_len(&header, codec::MAX_BODY)?];
        self.stream.read_exact(&mut body)?;
        Ok(codec::decode(&body)?)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A worker that panicked has told so already.
        let _ = self.worker.take().map(JoinHandle::join);
    }
}

fn gateway(publisher: Publisher, clock: Clock, stop: &Arc<AtomicBool>) -> anyhow::Result<Gateway> {
    let (resolve, _) = sluice_dataplane::netlink::unresolved(1)?;
    let around = Around {
        source_nat: SourceNat::default(),
        terms: terms(1),
        counters: PerWorker::new(1),
        queries: Vec::new(),
        resolve,
        slots: Slots {
            total: 0,
            spare: Box::new(|| 0),
        },
        clock,
        stop: Arc::clone(stop),
    };
    Ok(Gateway::new(publisher, Box::new(Open), around))
}

/// A worker without frames.
fn look(mut observer: Observer, clock: Clock, tell: &Sender<Seen>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let before = clock.now();
        if !observer.observe() {
            std::hint::spin_loop();
            continue;
        }
        let at = clock.now();
        let generation = observer.current().services.generation();
        let stall = at.0 - before.0;
        // Nobody listens any more when the run has failed.
        let _ = tell.send(Seen {
            generation,
            at,
            stall,
        });
    }
}

/// No filter in the kernel.
struct Open;

impl Gate for Open {
    fn extend(&mut self, _: &Filter) -> Result<(), String> {
        Ok(())
    }

    fn shrink(&mut self, _: &Filter) -> Result<(), String> {
        Ok(())
    }

    fn stats(&self) -> Option<SteerStats> {
        None
    }
}
