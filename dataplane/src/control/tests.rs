use std::sync::atomic::AtomicBool;

use super::*;
use crate::clock::{Clock, Time};
use crate::gateway::{Around, Gate, Gateway, Slots};
use crate::handover::Handover;
use crate::io::memory::MemoryPool;
use crate::pipeline::{Engine, EngineSettings};
use crate::snapshot::{Publisher, Snapshot};
use crate::stats::PerWorker;
use crate::steer::Filter;
use crate::testutil::{RESERVED, rig, table};
use crate::worker::{Connections, Worker};
use crate::xdp::SteerStats;
use proptest::prelude::*;
use sluice_conf::Generation;
use sluice_conf::message::Hello;
use sluice_conf::message::dataplane::explain::{Outcome, Question};
use sluice_conf::message::dataplane::tap::{TapBatch, TapFilter};
use sluice_conf::message::dataplane::{ConnectionFilter, Request};
use sluice_conf::settings::dataplane as settings;

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

/// A dataplane in memory with one worker on a thread of its own, and one client's end.
fn with_client(test: impl FnOnce(&mut UnixStream, &Arc<Answers>)) {
    let network = Arc::new(rig::network([11]));
    let snapshot = Snapshot::new(Arc::default(), network);
    let (publisher, mut observers) = Publisher::new(snapshot, 1);
    let counters = PerWorker::new(1);
    let (resolve, _requests) = crate::netlink::unresolved(64).unwrap();
    let (ask, queries) = crossbeam::channel::bounded(1);
    let source_nat = settings::SourceNat {
        ports: RESERVED,
        ..settings::SourceNat::default()
    };
    let affinity = Arc::new(crate::affinity::AffinityTable::new(1024, 1));
    let engine = EngineSettings {
        worker: 0,
        workers: 1,
        connections: settings::Connections { capacity: 1024 },
        timeouts: settings::Timeouts::default(),
        source_nat: source_nat.clone(),
        fragments: settings::Fragments::default(),
        answers: settings::Answers::default(),
        seed: 1,
    };
    let engine = Engine::new(&engine, Arc::clone(&counters), affinity, Time(0));
    let tap = Arc::default();
    let links = Connections {
        handover: Handover::new(1, 1).unwrap().remove(0),
        kernel: Box::new(crate::kernel::NoWay),
        observer: observers.remove(0),
        resolve: resolve.clone(),
        queries,
        counters: Arc::clone(&counters),
        tap: Arc::clone(&tap),
    };
    let io = MemoryPool::new(16, 1778).io(2);
    let fragments = settings::Fragments::default();
    let worker = Worker::new(0, 64, &fragments, io, engine, links);
    let around = Around {
        source_nat,
        terms: crate::service::Terms {
            workers: 1,
            reserved: RESERVED,
            limits: settings::Limits::default(),
        },
        counters,
        queries: vec![ask],
        resolve,
        slots: Slots {
            total: 16,
            spare: Box::new(|| 0),
        },
        clock: Clock::start(),
        stop: Arc::default(),
    };
    let gateway = Gateway::new(publisher, Box::new(Open), around);
    let about = About {
        interfaces: Vec::new(),
        cores: vec![None],
        capacity: 1024,
    };
    let clock = Clock::start();
    let answers = Arc::new(Answers::new(Arc::new(gateway), tap, about, clock));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| worker.run(settings::Polling::Adaptive, &clock, &stop));
        let (mut client, server) = UnixStream::pair().unwrap();
        let serving = Arc::clone(&answers);
        scope.spawn(move || {
            let _ = converse(&server, &serving);
        });
        test(&mut client, &answers);
        drop(client);
        stop.store(true, Ordering::Relaxed);
    });
}

fn ask(client: &mut UnixStream, request: &Request) -> Reply {
    client.write_all(&codec::encode(request).unwrap()).unwrap();
    let mut header = [0; HEADER_LEN];
    client.read_exact(&mut header).unwrap();
    let mut body = vec![0; codec::body_len(&header, MAX_BODY).unwrap()];
    client.read_exact(&mut body).unwrap();
    codec::decode(&body).unwrap()
}

fn hello() -> Request {
    Request::Hello(Hello {
        program: "test".into(),
        release: "0".into(),
    })
}

#[test]
fn a_push_is_applied_and_shows_in_hello_and_status() {
    with_client(|client, _| {
        assert!(matches!(
            ask(client, &hello()),
            Reply::Hello {
                generation: None,
                ..
            }
        ));
        let push = Request::Push(table(&["a tcp 203.0.113.1:80 -> 10.0.2.11:80"]));
        assert_eq!(ask(client, &push), Reply::Applied(Generation(1)));
        assert!(matches!(
            ask(client, &hello()),
            Reply::Hello {
                generation: Some(Generation(1)),
                ..
            }
        ));
        let Reply::Status(status) = ask(client, &Request::Status) else {
            panic!("no status")
        };
        assert_eq!(
            (status.services, status.frontends, status.backends),
            (1, 1, 1)
        );
        assert_eq!(status.workers.len(), 1);
    });
}

#[test]
fn a_refused_table_leaves_the_old_one_and_says_why() {
    with_client(|client, _| {
        ask(client, &hello());
        ask(
            client,
            &Request::Push(table(&["a tcp 203.0.113.1:80 -> 10.0.2.11:80"])),
        );
        let mut bad = table(&["a tcp 127.0.0.1:80 -> 10.0.2.11:80"]);
        bad.generation = Generation(2);
        let Reply::Rejected { generation, reason } = ask(client, &Request::Push(bad)) else {
            panic!("not rejected")
        };
        assert_eq!(generation, Generation(2));
        assert!(
            reason.contains("127.0.0.1 is a loopback address"),
            "{reason}"
        );
        let Reply::Status(status) = ask(client, &Request::Status) else {
            panic!("no status")
        };
        assert_eq!(status.generation, Some(Generation(1)));
        assert_eq!(status.last_rejection, Some(reason));
    });
}

#[test]
fn stats_list_every_drop_reason_and_every_backend() {
    with_client(|client, _| {
        ask(client, &hello());
        ask(
            client,
            &Request::Push(table(&[
                "a tcp 203.0.113.1:80 -> 10.0.2.11:80 10.0.2.12:80",
            ])),
        );
        let Reply::Stats(stats) = ask(client, &Request::Stats) else {
            panic!("no stats")
        };
        // And the four that the kernel counts.
        assert_eq!(stats.drops.len(), crate::verdict::DropReason::COUNT + 4);
        assert_eq!(stats.services[0].backends.len(), 2);
        let listing = Request::Connections(ConnectionFilter {
            limit: 10,
            ..Default::default()
        });
        let Reply::Connections(listed) = ask(client, &listing) else {
            panic!("no listing")
        };
        assert!(listed.connections.is_empty() && !listed.truncated);
        let Reply::Counts(counts) = ask(client, &Request::Count(Vec::new())) else {
            panic!("no count")
        };
        assert!(counts.counts.is_empty() && !counts.truncated);
    });
}

#[test]
fn the_first_message_must_be_a_hello() {
    with_client(|client, _| {
        assert!(matches!(ask(client, &Request::Status), Reply::Refused(_)));
        let mut rest = Vec::new();
        assert_eq!(client.read_to_end(&mut rest).unwrap(), 0);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn garbage_closes_its_connection_and_harms_nothing(
        garbage in proptest::collection::vec(any::<u8>(), 1..200),
        after_hello in any::<bool>(),
        with_header in any::<bool>(),
    ) {
        with_client(|client, answers| {
            if after_hello {
                ask(client, &hello());
            }
            let mut bytes = garbage.clone();
            if with_header {
                bytes = [b"Sl\x01\0".as_slice(), &(garbage.len() as u32).to_le_bytes(), &garbage].concat();
            }
            // The other side may have closed already.
            let _ = client.write_all(&bytes);
            let _ = client.shutdown(std::net::Shutdown::Write);
            let mut rest = Vec::new();
            let _ = client.read_to_end(&mut rest);
            assert!(answers.status().generation.is_none());
        });
    }
}

#[test]
fn a_socket_is_replaced_when_its_owner_is_dead_and_refused_when_alive() {
    let folder = std::env::temp_dir().join(format!("sluice-control-{}", std::process::id()));
    let path = folder.join("deeper").join("dataplane.sock");
    let listener = Listener::bind(&path).unwrap();
    assert!(matches!(Listener::bind(&path), Err(SocketError::InUse(_))));
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    drop(listener);
    assert!(!path.exists());

    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    drop(Listener::bind(&path).unwrap());

    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(
        Listener::bind(&path),
        Err(SocketError::NotASocket(_))
    ));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_packet_is_explained_by_the_worker_that_owns_it() {
    with_client(|client, _| {
        ask(client, &hello());
        let push = table(&["a tcp 203.0.113.1:80 -> 10.0.2.11:80"]);
        ask(client, &Request::Push(push));
        let mut question = Question {
            protocol: sluice_conf::Protocol::Tcp,
            source: "10.0.1.10:40000".parse().unwrap(),
            destination: "203.0.113.1:80".parse().unwrap(),
        };
        let Reply::Explained(said) = ask(client, &Request::Explain(question)) else {
            panic!("no explanation")
        };
        assert_eq!(said.outcome, Outcome::Forward);
        assert_eq!(said.generation, Some(Generation(1)));
        question.source = "[2001:db8::1]:40000".parse().unwrap();
        assert!(matches!(
            ask(client, &Request::Explain(question)),
            Reply::Refused(reason) if reason.contains("two address families")
        ));
    });
}

#[test]
fn the_tap_answers_at_once_refuses_a_second_client_and_ends_with_its_own() {
    with_client(|client, answers| {
        ask(client, &hello());
        let settings = TapSettings {
            filter: TapFilter::default(),
            sample: 1,
            snap_len: 0,
        };
        let first = ask(client, &Request::Tap(settings.clone()));
        assert_eq!(first, Reply::Tapped(TapBatch::default()));
        let reason = answers.tap(&settings).unwrap_err();
        assert!(reason.contains("another sluicectl"), "{reason}");
        client.shutdown(std::net::Shutdown::Both).unwrap();
        while answers.tap(&settings).is_err() {
            std::thread::yield_now();
        }
    });
}

#[test]
fn changes_build_on_what_their_own_connection_has_pushed() {
    with_client(|client, answers| {
        let first = table(&["a tcp 203.0.113.1:80 -> 10.0.2.11:80"]);
        let mut second = table(&["a tcp 203.0.113.1:80 -> 10.0.2.12:80"]);
        second.generation = Generation(2);
        let change = Request::Change(second.since(&first));
        ask(client, &hello());
        let needs_whole = Reply::NeedsWhole(Generation(2));
        assert_eq!(ask(client, &change), needs_whole);
        ask(client, &Request::Push(first.clone()));
        assert_eq!(ask(client, &change), Reply::Applied(Generation(2)));
        assert_eq!(ask(client, &change), needs_whole, "it is made already");
        let push = Request::Push(first);
        let elsewhere = answers.answer(push, &mut crate::gateway::Base::default());
        assert_eq!(elsewhere, Reply::Applied(Generation(1)));
        assert_eq!(ask(client, &change), needs_whole);
    });
}
