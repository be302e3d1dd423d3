use std::collections::BTreeMap;

use proptest::prelude::*;
use sluice_conf::Protocol;
use sluice_conf::message::dataplane::ServiceEvidence;
use tokio::net::UnixListener;
use tokio::sync::mpsc::{Receiver, channel};

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

fn counts(answered: u64, refused: u64, silent: u64) -> Attempts {
    Attempts {
        answered,
        refused,
        silent,
    }
}

fn name(name: &str) -> ServiceName {
    ServiceName {
        namespace: "default".into(),
        name: name.into(),
        port: String::new(),
        protocol: Protocol::Tcp,
    }
}

fn backend(last: u16) -> SocketAddr {
    let [high, low] = last.to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 80))
}

fn evidence(mark: u64, told: &[(&str, u16, Attempts)]) -> Evidence {
    let service = |(service, last, attempts): &(&str, u16, Attempts)| ServiceEvidence {
        name: name(service),
        backends: vec![(backend(*last), *attempts)],
    };
    Evidence {
        mark: Mark(vec![mark]),
        services: told.iter().map(service).collect(),
    }
}

fn news(service: &str, last: u16, attempts: Attempts) -> News {
    News {
        service: name(service),
        backend: backend(last),
        attempts,
    }
}

#[test]
fn only_what_was_counted_between_two_answers_is_news() {
    let mut known = Known::default();
    let first = evidence(1, &[("a", 1, counts(90, 5, 5)), ("b", 1, counts(0, 7, 0))]);
    assert_eq!(known.take(first), [], "what was before is nobody's news");
    assert_eq!(known.mark, Mark(vec![1]));
    let second = evidence(
        2,
        &[
            ("a", 1, counts(92, 5, 6)),
            ("a", 2, counts(0, 3, 0)),
            ("b", 1, counts(0, 7, 0)),
        ],
    );
    let expected = [news("a", 1, counts(2, 0, 1)), news("a", 2, counts(0, 3, 0))];
    assert_eq!(known.take(second.clone()), expected);
    assert_eq!(known.take(second), [], "told twice, it is news once");
}

#[test]
fn counts_that_begin_again_are_news_as_they_are() {
    let mut known = Known::default();
    known.take(evidence(1, &[("a", 1, counts(100, 4, 4))]));
    // More was answered than before it left, so that one lower count must tell.
    let back = evidence(2, &[("a", 1, counts(150, 0, 1))]);
    assert_eq!(known.take(back), [news("a", 1, counts(150, 0, 1))]);
    let on = evidence(3, &[("a", 1, counts(151, 0, 1))]);
    assert_eq!(known.take(on), [news("a", 1, counts(1, 0, 0))]);
}

#[test]
fn backends_that_come_and_go_do_not_fill_the_memory() {
    let mut known = Known::default();
    known.take(evidence(1, &[("a", 0, counts(1, 0, 0))]));
    let most = u16::try_from(SLACK).unwrap() + 1;
    for last in 1..=most {
        assert!(!known.is_stale(), "{last}");
        known.take(evidence(2, &[("a", last, counts(1, 0, 0))]));
    }
    known.take(evidence(2, &[("a", most + 1, counts(1, 0, 0))]));
    assert!(known.is_stale());
}

proptest! {
    #[test]
    fn the_news_add_up_to_what_was_counted(
        steps in proptest::collection::vec((0u16..4, 0u64..3, 0u64..3, 0u64..3), 1..60),
    ) {
        let mut known = Known::default();
        known.take(Evidence::default());
        let mut counted: BTreeMap<u16, Attempts> = BTreeMap::new();
        let mut heard: BTreeMap<SocketAddr, Attempts> = BTreeMap::new();
        for (last, answered, refused, silent) in steps {
            let now = counted.entry(last).or_default();
            now.answered += answered;
            now.refused += refused;
            now.silent += silent;
            for each in known.take(evidence(1, &[("a", last, *now)])) {
                prop_assert_ne!(each.attempts, Attempts::default());
                let sum = heard.entry(each.backend).or_default();
                sum.answered += each.attempts.answered;
                sum.refused += each.attempts.refused;
                sum.silent += each.attempts.silent;
            }
        }
        for (last, now) in counted {
            prop_assert_eq!(heard.get(&backend(last)).copied().unwrap_or_default(), now);
        }
    }
}

/// A watch of a dataplane that the test plays.
fn watched(socket: PathBuf) -> Receiver<Vec<News>> {
    let (to, from) = channel(1);
    let period = Duration::from_millis(5);
    tokio::spawn(watch(Settings { socket, period }, to));
    from
}

/// The next client, after its hello.
async fn accept(listener: &UnixListener) -> UnixStream {
    let (mut stream, _) = timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
    let hello: Request = framing::read(&mut stream, MAX_BODY).await.unwrap();
    assert!(matches!(hello, Request::Hello(_)), "{hello:?}");
    let hello = Reply::Hello {
        release: "0".into(),
        generation: None,
    };
    framing::write(&mut stream, &hello).await.unwrap();
    stream
}

/// Answers the next question, which must be for what came after `since`.
async fn answer(stream: &mut UnixStream, since: Mark, evidence: Evidence) {
    let asked = timeout(LIMIT, framing::read(stream, MAX_BODY)).await;
    let asked: Request = asked.unwrap().unwrap();
    assert_eq!(asked, Request::Evidence { since });
    let reply = Reply::Evidence(evidence);
    framing::write(stream, &reply).await.unwrap();
}

#[tokio::test]
async fn a_watch_asks_from_the_last_mark_on_and_begins_again_with_another_dataplane() {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("dp.sock");
    let mut heard = watched(socket.clone());
    let listener = UnixListener::bind(&socket).unwrap();
    let mut stream = accept(&listener).await;
    let told = |mark, silent| evidence(mark, &[("a", 1, counts(0, 0, silent))]);
    answer(&mut stream, Mark::default(), told(1, 5)).await;
    answer(&mut stream, Mark(vec![1]), told(2, 7)).await;
    let got = timeout(LIMIT, heard.recv()).await.unwrap();
    assert_eq!(got, Some(vec![news("a", 1, counts(0, 0, 2))]));
    answer(&mut stream, Mark(vec![2]), evidence(2, &[])).await;
    drop(stream);
    let mut stream = accept(&listener).await;
    answer(&mut stream, Mark::default(), told(1, 1)).await;
    answer(&mut stream, Mark(vec![1]), told(4, 4)).await;
    let got = timeout(LIMIT, heard.recv()).await.unwrap();
    assert_eq!(got, Some(vec![news("a", 1, counts(0, 0, 3))]));
}

#[tokio::test]
async fn a_watch_whose_dataplane_answers_nonsense_tries_again_and_ends_with_its_listener() {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("dp.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let (to, heard) = channel(1);
    let period = Duration::from_millis(5);
    let watch = tokio::spawn(watch(Settings { socket, period }, to));
    let mut stream = accept(&listener).await;
    let asked: Request = framing::read(&mut stream, MAX_BODY).await.unwrap();
    assert!(matches!(asked, Request::Evidence { .. }));
    let refused = Reply::Refused("not now".into());
    framing::write(&mut stream, &refused).await.unwrap();
    let _stream = accept(&listener).await;
    drop(heard);
    timeout(LIMIT, watch).await.unwrap().unwrap();
}
