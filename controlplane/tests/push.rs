//! The link to the dataplane, against a dataplane played by the test.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper of a test fails as the test does"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sluice_conf::message::controlplane::DataplaneLink;
use sluice_conf::message::dataplane::{Reply, Request};
use sluice_conf::{Generation, Protocol, Service, ServiceName, ServiceTable, codec};
use sluice_controlplane::clock::Clock;
use sluice_controlplane::framing;
use sluice_controlplane::push::Pusher;
use sluice_controlplane::tables::Tables;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(20);
/// Long enough for a second push to show up, were there one.
const SILENCE: Duration = Duration::from_millis(300);

/// A table of nothing but Services with these names.
fn table(names: &[&str]) -> ServiceTable {
    let service = |name: &&str| {
        Service::new(ServiceName {
            namespace: "default".into(),
            name: (*name).into(),
            port: String::new(),
            protocol: Protocol::Tcp,
        })
    };
    ServiceTable {
        services: names.iter().map(service).map(Arc::new).collect(),
        ..ServiceTable::default()
    }
}

struct Link {
    _home: TempDir,
    socket: PathBuf,
    tables: Arc<Tables>,
    state: watch::Receiver<DataplaneLink>,
}

impl Link {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let socket = home.path().join("dp.sock");
        let tables = Arc::new(Tables::default());
        let pusher = Pusher::new(socket.clone(), Arc::clone(&tables), Clock::start());
        let state = pusher.link();
        tokio::spawn(pusher.run());
        Self {
            _home: home,
            socket,
            tables,
            state,
        }
    }

    async fn until(&mut self, done: impl FnMut(&DataplaneLink) -> bool) -> DataplaneLink {
        let state = timeout(DEADLINE, self.state.wait_for(done)).await;
        state.expect("the link never got there").unwrap().clone()
    }
}

/// The dataplane's side of one connection, and the table that it has by way of that.
struct Dataplane(UnixStream, ServiceTable);

impl Dataplane {
    fn listen(socket: &Path) -> UnixListener {
        let _ = std::fs::remove_file(socket);
        UnixListener::bind(socket).unwrap()
    }

    /// Accepts a connection and says hello.
    async fn accept(listener: &UnixListener, generation: Option<u64>) -> Self {
        let accepted = timeout(DEADLINE, listener.accept()).await;
        let stream = accepted.expect("nobody connected").unwrap().0;
        let mut dataplane = Self(stream, ServiceTable::default());
        let Request::Hello(hello) = dataplane.next().await else {
            panic!("the first request is not Hello");
        };
        assert_eq!(hello.program, "sluice-controlplane");
        let generation = generation.map(Generation);
        let release = "9.9.9".to_owned();
        dataplane
            .reply(Reply::Hello {
                release,
                generation,
            })
            .await;
        dataplane
    }

    async fn next(&mut self) -> Request {
        let request = timeout(DEADLINE, framing::read(&mut self.0, codec::MAX_BODY)).await;
        request.expect("no request").unwrap()
    }

    async fn table(&mut self) -> ServiceTable {
        match self.next().await {
            Request::Push(table) => table,
            other => panic!("not a table: {other:?}"),
        }
    }

    async fn apply(&mut self) -> ServiceTable {
        self.1 = match self.next().await {
            Request::Push(table) => table,
            Request::Change(change) => {
                assert_eq!(change.base, self.1.generation);
                change.apply(&self.1).unwrap()
            }
            other => panic!("not a table: {other:?}"),
        };
        self.reply(Reply::Applied(self.1.generation)).await;
        self.1.clone()
    }

    async fn reply(&mut self, reply: Reply) {
        framing::write(&mut self.0, &reply).await.unwrap();
    }

    async fn is_silent(&mut self) -> bool {
        let read = framing::read::<Request>(&mut self.0, codec::MAX_BODY);
        timeout(SILENCE, read).await.is_err()
    }
}

/// A link, and a dataplane that has applied its first table: Service "a", generation 1.
async fn applied_once() -> (Link, UnixListener, Dataplane) {
    let mut link = Link::start();
    let listener = Dataplane::listen(&link.socket);
    link.tables.publish(table(&["a"]));
    let mut dataplane = Dataplane::accept(&listener, None).await;
    dataplane.apply().await;
    link.until(applied(1)).await;
    (link, listener, dataplane)
}

fn applied(generation: u64) -> impl FnMut(&DataplaneLink) -> bool {
    move |link| matches!(link, DataplaneLink::Connected { applied: Some(g), rejected: None } if g.0 == generation)
}

#[tokio::test]
async fn a_dataplane_that_starts_late_gets_the_table() {
    let mut link = Link::start();
    link.tables.publish(table(&["a"]));
    let missing = link
        .until(|link| matches!(link, DataplaneLink::Disconnected { reason, .. } if reason.contains("No such file")))
        .await;
    assert!(
        matches!(missing, DataplaneLink::Disconnected { socket, .. } if socket.ends_with("dp.sock"))
    );
    let listener = Dataplane::listen(&link.socket);
    let mut dataplane = Dataplane::accept(&listener, None).await;
    let pushed = dataplane.apply().await;
    assert_eq!(pushed.generation, Generation(1));
    assert_eq!(pushed.services, table(&["a"]).services);
    link.until(applied(1)).await;
}

#[tokio::test]
async fn nothing_is_sent_before_the_first_table() {
    let link = Link::start();
    let listener = Dataplane::listen(&link.socket);
    let mut dataplane = Dataplane::accept(&listener, Some(5)).await;
    assert!(dataplane.is_silent().await);
    link.tables.publish(table(&[]));
}

#[tokio::test]
async fn every_change_is_sent_once() {
    let mut link = Link::start();
    let listener = Dataplane::listen(&link.socket);
    link.tables.publish(table(&["a"]));
    let mut dataplane = Dataplane::accept(&listener, None).await;
    dataplane.apply().await;
    link.tables.publish(table(&["a"]));
    assert!(dataplane.is_silent().await, "an equal table is no change");
    link.tables.publish(table(&["b"]));
    assert_eq!(dataplane.apply().await.generation, Generation(2));
    link.until(applied(2)).await;
}

#[tokio::test]
async fn the_table_is_sent_again_after_the_dataplane_restarts() {
    let (mut link, listener, dataplane) = applied_once().await;
    drop((dataplane, listener));
    link.until(|link| matches!(link, DataplaneLink::Disconnected { .. }))
        .await;
    let listener = Dataplane::listen(&link.socket);
    let mut dataplane = Dataplane::accept(&listener, None).await;
    assert_eq!(dataplane.apply().await.services, table(&["a"]).services);
    link.until(applied(1)).await;
}

#[tokio::test]
async fn after_its_own_restart_it_counts_on_above_the_dataplane() {
    let mut link = Link::start();
    link.tables.publish(table(&["a"]));
    let listener = Dataplane::listen(&link.socket);
    let mut dataplane = Dataplane::accept(&listener, Some(41)).await;
    assert_eq!(dataplane.apply().await.generation, Generation(42));
    link.until(applied(42)).await;
    link.tables.publish(table(&["b"]));
    assert_eq!(dataplane.apply().await.generation, Generation(43));
}

#[tokio::test]
async fn a_rejected_table_is_shown_and_not_sent_again() {
    let mut link = Link::start();
    link.tables.publish(table(&["a"]));
    let listener = Dataplane::listen(&link.socket);
    let mut dataplane = Dataplane::accept(&listener, Some(0)).await;
    let generation = dataplane.table().await.generation;
    let reason = "no memory".to_owned();
    dataplane
        .reply(Reply::Rejected { generation, reason })
        .await;
    let state = link
        .until(|link| {
            matches!(
                link,
                DataplaneLink::Connected {
                    rejected: Some(_),
                    ..
                }
            )
        })
        .await;
    assert_eq!(
        state,
        DataplaneLink::Connected {
            applied: Some(Generation(0)),
            rejected: Some("generation 1: no memory".into()),
        }
    );
    assert!(dataplane.is_silent().await);
    link.tables.publish(table(&["b"]));
    assert_eq!(dataplane.apply().await.generation, Generation(2));
    link.until(applied(2)).await;
}

#[tokio::test]
async fn a_garbage_reply_ends_the_connection_and_the_next_one_works() {
    let mut link = Link::start();
    link.tables.publish(table(&["a"]));
    let listener = Dataplane::listen(&link.socket);
    let mut dataplane = Dataplane::accept(&listener, None).await;
    dataplane.table().await;
    dataplane
        .0
        .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        .await
        .unwrap();
    let mut dataplane = Dataplane::accept(&listener, None).await;
    let table = dataplane.table().await;
    // The answer to another table is garbage, too.
    dataplane
        .reply(Reply::Applied(Generation(table.generation.0 + 7)))
        .await;
    let mut dataplane = Dataplane::accept(&listener, None).await;
    dataplane.apply().await;
    link.until(applied(1)).await;
}

#[tokio::test]
async fn a_refusal_is_the_reason_shown() {
    let mut link = Link::start();
    let listener = Dataplane::listen(&link.socket);
    let (stream, _) = timeout(DEADLINE, listener.accept()).await.unwrap().unwrap();
    let mut dataplane = Dataplane(stream, ServiceTable::default());
    dataplane.next().await;
    dataplane
        .reply(Reply::Refused("user 7 may not ask".into()))
        .await;
    link.until(|link| matches!(link, DataplaneLink::Disconnected { reason, .. } if reason.contains("user 7 may not ask")))
        .await;
}

#[tokio::test]
async fn after_the_first_table_only_changes_are_sent() {
    let mut link = Link::start();
    let listener = Dataplane::listen(&link.socket);
    link.tables.publish(table(&["a", "b", "c"]));
    let mut dataplane = Dataplane::accept(&listener, None).await;
    let whole = dataplane.table().await;
    dataplane.reply(Reply::Applied(Generation(1))).await;
    link.until(applied(1)).await;
    link.tables.publish(table(&["a", "c", "d"]));
    let Request::Change(change) = dataplane.next().await else {
        panic!("not a change");
    };
    assert_eq!(
        (change.base, change.generation),
        (Generation(1), Generation(2))
    );
    let sizes: Vec<_> = change
        .edits
        .iter()
        .map(|e| (e.place, e.removed, e.added.len()))
        .collect();
    assert_eq!(sizes, [(1, 1, 0), (3, 0, 1)]);
    let made = change.apply(&whole).unwrap();
    assert_eq!(made.services, table(&["a", "c", "d"]).services);
    // What was not applied is no base.
    let (generation, reason) = (Generation(2), "no memory".to_owned());
    dataplane
        .reply(Reply::Rejected { generation, reason })
        .await;
    link.tables.publish(table(&["a"]));
    let Request::Change(change) = dataplane.next().await else {
        panic!("not a change");
    };
    assert_eq!(
        (change.base, change.generation),
        (Generation(1), Generation(3))
    );
    assert_eq!(
        change.apply(&whole).unwrap().services,
        table(&["a"]).services
    );
}

#[tokio::test]
async fn a_dataplane_that_has_another_table_is_sent_the_whole() {
    let (mut link, _listener, mut dataplane) = applied_once().await;
    link.tables.publish(table(&["b"]));
    let Request::Change(change) = dataplane.next().await else {
        panic!("not a change");
    };
    dataplane.reply(Reply::NeedsWhole(change.generation)).await;
    let whole = dataplane.apply().await;
    assert_eq!(
        (whole.generation, &whole.services),
        (Generation(2), &table(&["b"]).services)
    );
    link.until(applied(2)).await;
    link.tables.publish(table(&["b", "c"]));
    assert_eq!(
        dataplane.apply().await.services,
        table(&["b", "c"]).services
    );
    link.until(applied(3)).await;
}
