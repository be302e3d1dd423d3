use super::*;
use notify::event::{CreateKind, DataChange, RemoveKind};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn event(kind: EventKind, name: &str) -> notify::Result<notify::Event> {
    Ok(notify::Event::new(kind).add_path(Path::new("/m").join(name)))
}

fn data() -> EventKind {
    EventKind::Modify(ModifyKind::Data(DataChange::Any))
}

fn close() -> EventKind {
    EventKind::Access(AccessKind::Close(AccessMode::Write))
}

fn renamed() -> EventKind {
    EventKind::Modify(ModifyKind::Name(RenameMode::To))
}

/// The files that a scan reads.
fn written(pending: &mut Pending, now: Duration) -> Vec<String> {
    let written = pending.take(now).written;
    written
        .into_iter()
        .map(|name| name.into_string().unwrap())
        .collect()
}

#[test]
fn our_own_reading_is_no_change() {
    let mut pending = Pending::default();
    let opened = EventKind::Access(AccessKind::Open(AccessMode::Any));
    let closed = EventKind::Access(AccessKind::Close(AccessMode::Read));
    pending.notice(ms(0), event(opened, "a.yaml"));
    pending.notice(ms(0), event(closed, "a.yaml"));
    assert_eq!(pending.due(), None);
}

#[test]
fn notices_are_collected_until_it_is_quiet_but_not_for_ever() {
    let mut pending = Pending::default();
    pending.notice(ms(0), event(EventKind::Create(CreateKind::File), "a.yaml"));
    assert_eq!(pending.due(), Some(QUIET));
    for now in (0..100).step_by(5) {
        pending.notice(
            ms(now),
            event(EventKind::Remove(RemoveKind::File), "b.yaml"),
        );
    }
    assert_eq!(pending.due(), Some(COLLECT));
    let hints = pending.take(ms(105));
    assert_eq!(hints.written.len(), 2);
    assert_eq!(pending.due(), None);
}

#[test]
fn a_file_that_is_written_again_and_again_is_left_alone_but_not_for_ever() {
    let mut pending = Pending::default();
    pending.notice(ms(0), event(close(), "b.yaml"));
    assert!(pending.take(ms(0)).open.is_empty());
    for now in (0..40).step_by(5) {
        pending.notice(ms(now), event(close(), "a.yaml"));
    }
    let hints = pending.take(COLLECT);
    assert!(hints.open.contains(&OsString::from("a.yaml")));
    assert_eq!(pending.due(), Some(ms(35) + QUIET));
    for now in (40..HOLD.as_millis() as u64).step_by(5) {
        pending.notice(ms(now), event(close(), "a.yaml"));
        pending.take(ms(now));
    }
    assert_eq!(pending.due(), Some(HOLD));
    assert!(pending.take(HOLD).open.is_empty());
}

#[test]
fn a_writer_is_waited_for_until_it_closes() {
    let mut pending = Pending::default();
    pending.notice(ms(0), event(data(), "a.yaml"));
    assert_eq!(pending.due(), Some(WRITER));
    let hints = pending.take(ms(50));
    assert!(hints.open.contains(&OsString::from("a.yaml")));
    pending.notice(ms(60), event(close(), "a.yaml"));
    assert_eq!(pending.due(), Some(ms(60)));
    assert_eq!(written(&mut pending, ms(60)), ["a.yaml"]);
}

#[test]
fn a_finished_file_is_read_at_once_and_what_follows_is_collected() {
    for finished in [close(), renamed()] {
        let mut pending = Pending::default();
        pending.notice(ms(0), event(finished, "a.yaml"));
        assert_eq!(pending.due(), Some(ms(0)));
        assert_eq!(written(&mut pending, ms(0)), ["a.yaml"]);
        assert_eq!(pending.due(), None);
        for (now, name) in [(1, "b.yaml"), (3, "c.yaml"), (5, "a.yaml")] {
            pending.notice(ms(now), event(finished, name));
            assert_eq!(pending.due(), Some(ms(now) + QUIET));
        }
        let together = written(&mut pending, ms(5) + QUIET);
        assert_eq!(together, ["a.yaml", "b.yaml", "c.yaml"]);
        pending.notice(ms(15), event(finished, "b.yaml"));
        assert_eq!(pending.due(), Some(ms(15)), "it was quiet");
    }
}

#[test]
fn a_file_that_is_opened_again_before_it_is_read_is_waited_for() {
    let mut pending = Pending::default();
    pending.notice(ms(0), event(close(), "a.yaml"));
    pending.notice(ms(0), event(data(), "a.yaml"));
    assert_eq!(pending.due(), Some(WRITER));
    assert_eq!(written(&mut pending, ms(0)), [""; 0]);
    pending.notice(ms(1), event(close(), "a.yaml"));
    assert_eq!(pending.due(), Some(ms(1) + QUIET));
}

#[test]
fn what_may_change_once_more_is_not_read_at_once() {
    let created = EventKind::Create(CreateKind::File);
    let gone = EventKind::Modify(ModifyKind::Name(RenameMode::From));
    let removed = EventKind::Remove(RemoveKind::File);
    for kind in [created, gone, removed] {
        let mut pending = Pending::default();
        pending.notice(ms(0), event(kind, "a.yaml"));
        assert_eq!(pending.due(), Some(QUIET), "{kind:?}");
        assert_eq!(written(&mut pending, ms(0)), [""; 0], "{kind:?}");
    }
}

#[test]
fn a_file_renamed_into_place_waits_for_no_other_name() {
    for name in [".a.yaml.tmp", "a.yaml.tmp"] {
        let mut pending = Pending::default();
        let both = EventKind::Modify(ModifyKind::Name(RenameMode::Both));
        pending.notice(ms(0), event(EventKind::Create(CreateKind::File), name));
        pending.notice(ms(0), event(data(), name));
        pending.notice(ms(0), event(close(), name));
        pending.notice(ms(1), event(renamed(), "a.yaml"));
        pending.notice(ms(1), event(both, "a.yaml"));
        assert_eq!(pending.due(), Some(ms(1)), "{name}");
        let hints = pending.take(ms(1));
        assert!(hints.only, "{name}: the other files need no look yet");
        assert!(hints.written.contains(OsStr::new("a.yaml")), "{name}");
        assert_eq!(
            pending.take(ms(1) + QUIET).only,
            is_hidden(OsStr::new(name))
        );
    }
}

#[test]
fn a_writer_that_never_closes_is_not_waited_for_longer_than_the_limit() {
    let mut pending = Pending::default();
    pending.notice(ms(0), event(data(), "a.yaml"));
    assert!(pending.take(WRITER).open.is_empty());
}

#[test]
fn a_lost_notice_leads_to_a_scan_of_everything() {
    let mut pending = Pending::default();
    pending.notice(ms(0), Err(notify::Error::generic("overflow")));
    assert_eq!(pending.due(), Some(QUIET));
    assert!(!pending.take(QUIET).only);
}

#[test]
fn only_what_was_noticed_is_looked_at_unless_it_is_no_file_of_ours() {
    for (name, only) in [
        ("a.yaml", true),
        (".a.yaml.swp", true),
        ("..data", false),
        ("current", false),
    ] {
        let mut pending = Pending::default();
        pending.notice(ms(0), event(close(), name));
        assert_eq!(pending.take(QUIET).only, only, "{name}");
    }
}
