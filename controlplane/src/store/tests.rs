//! The store as its users meet it: a file that may be anything, and processes that die.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::process::{Command, Stdio};

use super::*;

/// Where a child finds the store.
const STORE: &str = "SLUICE_TEST_STORE";

fn name(name: &str) -> NamespacedName {
    NamespacedName::new("default", name)
}

fn keep(service: &str, value: &str) -> Change {
    Change::Keep(name(service), value.as_bytes().to_vec())
}

fn stored(service: &str, value: &str) -> Stored {
    Stored {
        name: name(service),
        bytes: value.as_bytes().to_vec(),
    }
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    (folder, path)
}

/// What is said about a store that does not open.
fn refusal(path: &Path) -> String {
    let error = Store::open(path).unwrap_err().to_string();
    let start = format!("store {}: ", path.display());
    error.strip_prefix(&start).unwrap().to_owned()
}

#[test]
fn what_was_committed_is_there_when_it_is_opened_again() {
    let (_folder, path) = folder();
    let mut store = Store::open(&path).unwrap();
    assert_eq!(store.load().unwrap(), []);
    store.commit(&[keep("web", "1"), keep("api", "2")]).unwrap();
    let drain = Change::Drain("node n1".into(), b"{}".to_vec());
    let later = [keep("web", "3"), Change::Forget(name("api")), drain];
    store.commit(&later).unwrap();
    drop(store);

    let mut store = Store::open(&path).unwrap();
    assert_eq!(store.load().unwrap(), [stored("web", "3")]);
    let drains = BTreeMap::from([("node n1".to_owned(), b"{}".to_vec())]);
    assert_eq!(store.drains().unwrap(), drains);
    store.commit(&[Change::Undrain("node n1".into())]).unwrap();
    assert_eq!(store.drains().unwrap(), BTreeMap::new());
}

#[test]
fn only_the_last_generations_are_kept() {
    let (_folder, path) = folder();
    let mut store = Store::open(&path).unwrap();
    for generation in 1..=5 {
        let bytes = [u8::try_from(generation).unwrap()];
        store.record(generation, &bytes, 3).unwrap();
    }
    assert_eq!(store.generations().unwrap(), [3, 4, 5]);
    assert_eq!(store.generation(4).unwrap(), Some(vec![4]));
    assert_eq!(store.generation(2).unwrap(), None);
}

#[test]
fn a_store_has_one_user() {
    let (_folder, path) = folder();
    let store = Store::open(&path).unwrap();
    let in_use = "is in use by another process; only one control plane may use a store";
    assert_eq!(refusal(&path), in_use);
    drop(store);
    assert!(Store::open(&path).is_ok());
}

#[test]
fn a_store_without_a_folder_or_that_is_one_says_so() {
    let (folder, _) = folder();
    let missing =
        "cannot be opened: No such file or directory; its folder must be there and writable";
    assert_eq!(refusal(&folder.path().join("no/store.redb")), missing);
    let is_folder = "cannot be opened: Is a directory; its folder must be there and writable";
    assert_eq!(refusal(folder.path()), is_folder);
}

#[test]
fn a_store_of_another_version_is_left_alone() {
    let (_folder, path) = folder();
    drop(Store::open(&path).unwrap());
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let mut meta = transaction.open_table(META).unwrap();
    meta.insert("schema", 2).unwrap();
    drop(meta);
    transaction.commit().unwrap();
    drop(database);
    let other = "has the layout 2, this version of Sluice has 1; use the version that wrote it, or move it away to begin with a new one";
    assert_eq!(refusal(&path), other);
}

#[test]
fn a_damaged_store_is_refused_or_whole() {
    let (_folder, path) = folder();
    let mut store = Store::open(&path).unwrap();
    let changes: Vec<_> = (0..200)
        .map(|n| keep(&format!("s{n}"), "0123456789"))
        .collect();
    store.commit(&changes).unwrap();
    let whole = store.load().unwrap();
    drop(store);
    let good = fs::read(&path).unwrap();

    let mut refused = 0;
    let cut = good.get(..good.len() / 2).unwrap().to_vec();
    let text = b"apiVersion: v1\n".repeat(1000);
    let flipped = (0..good.len()).step_by(good.len() / 61).map(|position| {
        let mut bytes = good.clone();
        *bytes.get_mut(position).unwrap() ^= 0x55;
        bytes
    });
    for bytes in [cut, text].into_iter().chain(flipped) {
        fs::write(&path, &bytes).unwrap();
        match Store::open(&path) {
            Ok(store) => assert_eq!(store.load().unwrap(), whole),
            Err(error) => {
                assert!(matches!(error.kind, Kind::Damaged(_)), "{error}");
                assert!(error.to_string().contains("restore it from a backup"));
                refused += 1;
            }
        }
    }
    assert!(refused >= 2, "{refused}");
}

// === Children ===

/// A child that runs one test of this file on the store `path`.
fn child(test: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--nocapture", "--exact"])
        .arg(format!("store::tests::{test}"))
        .env(STORE, path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// What the allocations of a store are: Services by number, each with its address.
fn allocations(store: &Store) -> BTreeMap<u32, IpAddr> {
    let services = store.load().unwrap().into_iter();
    services
        .map(|service| {
            let address = String::from_utf8(service.bytes).unwrap();
            (service.name.name.parse().unwrap(), address.parse().unwrap())
        })
        .collect()
}

/// Tells the parent a whole line or nothing: one write to a pipe is not torn (POSIX, PIPE_BUF).
fn tell(line: &str) {
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// The child of the crash test: allocates and releases, and tells each change once it is on disk.
#[test]
#[ignore = "is the child of another test"]
fn allocate_until_killed() {
    let mut store = Store::open(std::env::var_os(STORE).unwrap()).unwrap();
    let mut held = allocations(&store);
    for step in held.keys().next_back().map_or(0, |last| last + 1).. {
        let taken: BTreeSet<_> = held.values().copied().collect();
        let mut addresses = (1..=255).map(|last| IpAddr::from([192, 0, 2, last]));
        let address = addresses.find(|address| !taken.contains(address)).unwrap();
        store
            .commit(&[keep(&step.to_string(), &address.to_string())])
            .unwrap();
        held.insert(step, address);
        tell(&format!("+ {step} {address}\n"));
        if held.len() > 30 {
            let (oldest, _) = held.pop_first().unwrap();
            store
                .commit(&[Change::Forget(name(&oldest.to_string()))])
                .unwrap();
            tell(&format!("- {oldest}\n"));
        }
    }
}

#[test]
fn a_process_that_is_killed_loses_nothing_and_gives_nothing_twice() {
    let (_folder, path) = folder();
    let mut acknowledged: BTreeMap<u32, IpAddr> = BTreeMap::new();
    for round in 0..200_usize {
        let mut child = child("allocate_until_killed", &path).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut told: Vec<String> = Vec::new();
        // Killed after so many acknowledgements, at whatever the child then is about.
        let wanted = round * 7 % 12;
        while told.len() < wanted {
            told.push(lines.next().unwrap().unwrap());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        told.extend(lines.map(Result::unwrap));
        for line in told {
            let parts: Vec<_> = line.split(' ').collect();
            match parts[..] {
                ["+", step, address] => {
                    let address = address.parse().unwrap();
                    acknowledged.insert(step.parse().unwrap(), address);
                }
                ["-", step] => {
                    acknowledged.remove(&step.parse().unwrap());
                }
                _ => panic!("{line}"),
            }
        }
        let found = allocations(&Store::open(&path).unwrap());
        let addresses: BTreeSet<_> = found.values().collect();
        assert_eq!(
            addresses.len(),
            found.len(),
            "an address was given twice: {found:?}"
        );
        // Beyond what was told, at most the one change that was on disk but not yet told.
        let more = found
            .iter()
            .filter(|(step, _)| !acknowledged.contains_key(step));
        let more = more.count();
        let lost = acknowledged.keys().filter(|step| !found.contains_key(step));
        let lost: Vec<_> = lost.collect();
        let oldest: Vec<_> = acknowledged.keys().take(lost.len()).collect();
        assert_eq!(lost, oldest, "round {round}");
        assert!(
            more + lost.len() <= 1,
            "round {round}: {more} more, {lost:?} lost"
        );
        for (step, address) in &found {
            assert!(acknowledged.get(step).is_none_or(|told| told == address));
        }
        acknowledged = found;
    }
    assert!(acknowledged.len() > 10);
}

/// The child of the test of a full disk: files may not grow beyond a limit for a while.
#[test]
#[ignore = "is the child of another test"]
fn meet_a_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // The signal kills by default; handled, the write fails as on a full disk.
    let flag = std::sync::Arc::default();
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, flag).unwrap();
    let path = PathBuf::from(std::env::var_os(STORE).unwrap());
    let mut store = Store::open(&path).unwrap();
    store.commit(&[keep("web", "1")]).unwrap();
    let unlimited = getrlimit(Resource::Fsize);
    let current = Some(fs::metadata(&path).unwrap().len());
    setrlimit(
        Resource::Fsize,
        Rlimit {
            current,
            ..unlimited
        },
    )
    .unwrap();
    let large = keep("large", &"x".repeat(8 << 20));
    let error = store
        .commit(&[keep("api", "2"), large.clone()])
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.ends_with("File too large; nothing was changed, raise the limit"),
        "{text}"
    );
    assert_eq!(store.load().unwrap(), [stored("web", "1")]);
    store.commit(&[keep("web", "2")]).unwrap();
    setrlimit(Resource::Fsize, unlimited).unwrap();
    store.commit(&[large]).unwrap();
    drop(store);
    let services = Store::open(&path).unwrap().load().unwrap();
    assert_eq!(services.len(), 2);
    assert_eq!(services[1], stored("web", "2"));
}

#[test]
fn a_full_disk_changes_nothing_and_is_got_over() {
    let (_folder, path) = folder();
    let output = child("meet_a_limit", &path).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
}
