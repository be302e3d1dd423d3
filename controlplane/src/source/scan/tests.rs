//! Scans of a real folder at times that the test chooses.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::testing::{Gateway, service};

struct Scene {
    home: TempDir,
    scanner: Scanner,
    gateway: Gateway,
}

impl Scene {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("m");
        fs::create_dir(&folder).unwrap();
        Self {
            home,
            scanner: Scanner::new(folder),
            gateway: Gateway::default(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scanner.folder.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// A scan of everything; returns when the next one is wanted.
    fn scan(&mut self, ms: u64) -> Option<Duration> {
        self.scan_with(&Hints::default(), ms)
    }

    /// A scan after notices of these files.
    fn noticed(&mut self, names: &[&str], ms: u64) -> Option<Duration> {
        let hints = Hints {
            only: true,
            written: names.iter().map(OsString::from).collect(),
            ..Hints::default()
        };
        self.scan_with(&hints, ms)
    }

    fn scan_with(&mut self, hints: &Hints, ms: u64) -> Option<Duration> {
        let gateway = &mut self.gateway;
        let mut tell = |event| gateway.event(event);
        let found = (self.scanner).scan(hints, Duration::from_millis(ms), &mut tell);
        self.gateway.settle();
        found.again
    }

    fn served(&self) -> Vec<String> {
        let services = self.gateway.services();
        let names = services
            .iter()
            .map(|s| &s.object)
            .map(|s| format!("{} {}:{}", s.name, s.vips[0].address, s.ports[0].port));
        names.collect()
    }

    fn problems(&self) -> Vec<String> {
        let folder = format!("{}/", self.scanner.folder.display());
        let mut problems = self.gateway.problems();
        problems.retain(|line| !line.contains("has no EndpointSlice"));
        problems.retain(|line| !line.contains("does not get it"));
        let lines = problems.iter();
        lines.map(|line| line.replace(&folder, "")).collect()
    }
}

const LOST: u64 = LOSS.as_millis() as u64;
const EMPTIED: u64 = EMPTY.as_millis() as u64;

#[test]
fn a_file_that_is_empty_for_a_moment_takes_nothing_away() {
    let mut scene = Scene::new();
    scene.write("a.yaml", &service("a", "10.0.0.1"));
    scene.scan(0);
    scene.write("a.yaml", "");
    assert_eq!(
        scene.noticed(&["a.yaml"], 100),
        Some(Duration::from_millis(100 + EMPTIED))
    );
    assert_eq!(scene.served(), ["a 10.0.0.1:80"]);
    scene.write("a.yaml", &service("a", "10.0.0.1").replace("80", "81"));
    assert_eq!(scene.noticed(&["a.yaml"], 110), None);
    assert_eq!(scene.served(), ["a 10.0.0.1:81"]);
    scene.write("a.yaml", "");
    scene.noticed(&["a.yaml"], 120);
    scene.scan(119 + EMPTIED);
    assert_eq!(scene.served(), ["a 10.0.0.1:81"]);
    scene.scan(120 + EMPTIED);
    assert_eq!(scene.served(), [""; 0]);
}

#[test]
fn half_a_file_takes_nothing_away_and_is_no_problem_yet() {
    let mut scene = Scene::new();
    let both = format!(
        "{}---\n{}",
        service("a", "10.0.0.1"),
        service("b", "10.0.0.2")
    );
    scene.write("a.yaml", &both);
    scene.scan(0);
    for half in [&both[..both.len() / 2], "apiVersion: v1\n", "a: ["] {
        scene.write("a.yaml", half);
        scene.noticed(&["a.yaml"], 10);
        assert_eq!(scene.served().len(), 2);
        assert_eq!(scene.problems(), [""; 0], "{half}");
    }
    scene.scan(10 + LOST);
    assert_eq!(scene.served().len(), 2);
    assert_eq!(scene.problems().len(), 1);
    assert!(
        scene.problems()[0].ends_with("; what it held stays in use"),
        "{:?}",
        scene.problems()
    );
}

#[test]
fn a_file_that_is_gone_for_a_moment_takes_nothing_away() {
    let mut scene = Scene::new();
    scene.write("a.yaml", &service("a", "10.0.0.1"));
    scene.scan(0);
    fs::remove_file(scene.path("a.yaml")).unwrap();
    assert!(scene.noticed(&["a.yaml"], 10).is_some());
    assert_eq!(scene.served(), ["a 10.0.0.1:80"]);
    scene.write("a.yaml", &service("a", "10.0.0.1"));
    scene.noticed(&["a.yaml"], 20);
    fs::remove_file(scene.path("a.yaml")).unwrap();
    assert!(scene.scan(30 + LOST).is_some());
    assert_eq!(scene.served(), ["a 10.0.0.1:80"]);
    assert_eq!(scene.scan(30 + 2 * LOST), None);
    assert_eq!(scene.served(), [""; 0]);
}

#[test]
fn an_object_that_moves_to_another_file_is_neither_away_nor_in_dispute() {
    let mut scene = Scene::new();
    scene.write("a.yaml", &service("a", "10.0.0.1"));
    scene.write("z.yaml", &service("z", "10.0.0.9"));
    scene.scan(0);
    fs::rename(scene.path("a.yaml"), scene.path("b.yaml")).unwrap();
    scene.write("z.yaml", "# nothing\n");
    scene.write("y.yaml", &service("z", "10.0.0.9"));
    scene.noticed(&["a.yaml", "b.yaml", "y.yaml", "z.yaml"], 10);
    assert_eq!(scene.served().len(), 2);
    assert_eq!(scene.problems(), [""; 0]);
    assert_eq!(scene.scan(10 + LOST), None);
    assert_eq!(scene.served().len(), 2);
    assert_eq!(scene.problems(), [""; 0]);
}

#[test]
fn an_empty_folder_in_the_place_of_another_takes_nothing_away() {
    let mut scene = Scene::new();
    scene.write("a.yaml", &service("a", "10.0.0.1"));
    scene.scan(0);
    let away = scene.home.path().join("away");
    fs::rename(&scene.scanner.folder, away).unwrap();
    fs::create_dir(&scene.scanner.folder).unwrap();
    for ms in [1000, 10_000, 100_000] {
        scene.scan(ms);
        assert_eq!(scene.served(), ["a 10.0.0.1:80"]);
        assert_eq!(scene.problems().len(), 1);
        assert!(scene.problems()[0].contains("is another folder than before"));
    }
    scene.write("b.yaml", &service("b", "10.0.0.2"));
    scene.scan(100_100);
    assert_eq!(scene.problems(), [""; 0]);
    assert_eq!(scene.served(), ["a 10.0.0.1:80", "b 10.0.0.2:80"]);
    // Whoever fills the folder has a while for each file.
    scene.write("c.yaml", &service("c", "10.0.0.3"));
    scene.scan(101_000);
    let settle = SETTLE.as_millis() as u64;
    scene.scan(100_100 + settle);
    assert_eq!(scene.served().len(), 3);
    scene.scan(101_000 + settle);
    assert_eq!(scene.served(), ["b 10.0.0.2:80", "c 10.0.0.3:80"]);
}

#[test]
fn a_folder_that_is_emptied_by_hand_is_empty() {
    let mut scene = Scene::new();
    scene.write("a.yaml", &service("a", "10.0.0.1"));
    scene.scan(0);
    fs::remove_file(scene.path("a.yaml")).unwrap();
    scene.scan(10);
    scene.scan(10 + LOST);
    assert_eq!(scene.served(), [""; 0]);
    assert_eq!(scene.problems(), [""; 0]);
}

#[test]
fn what_cannot_be_read_in_doubt_is_not_looked_at_for_ever() {
    let mut scene = Scene::new();
    scene.write("a.yaml", &service("a", "10.0.0.1"));
    scene.scan(0);
    scene.write("a.yaml", "");
    assert!(scene.scan(10).is_some());
    fs::remove_file(scene.path("a.yaml")).unwrap();
    symlink("a.yaml", scene.path("a.yaml")).unwrap();
    assert_eq!(scene.scan(20), None);
    assert_eq!(
        scene.problems(),
        ["a.yaml: cannot be read: Too many levels of symbolic links; what it held stays in use"]
    );
}

#[test]
fn a_device_behind_a_link_is_not_a_manifest() {
    let mut scene = Scene::new();
    symlink("/dev/zero", scene.path("a.yaml")).unwrap();
    scene.scan(0);
    assert_eq!(scene.problems(), ["a.yaml: is not a regular file"]);
}

#[test]
fn the_case_of_an_extension_does_not_matter() {
    for name in ["a.yaml", "a.YAML", "a.Yml", "a.JSON"] {
        assert!(is_manifest(OsStr::new(name)), "{name}");
    }
    for name in ["a", "a.txt", ".a.yaml", "a.yaml~", "a.yaml.bak", "#a.yaml"] {
        assert!(!is_manifest(OsStr::new(name)), "{name}");
    }
}
