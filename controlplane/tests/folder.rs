//! The folder source on a real file system: every wait ends at a generous deadline.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper of a test fails as the test does"
)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sluice_conf::message::controlplane::Problem;
use sluice_controlplane::admission::{self, Admission};
use sluice_controlplane::clock::Clock;
use sluice_controlplane::engine::{Engine, View};
use sluice_controlplane::object::describe;
use sluice_controlplane::readiness::{Moment, Readiness};
use sluice_controlplane::rules::Rules;
use sluice_controlplane::source::{Event, Source, folder};
use sluice_controlplane::tables::Tables;
use tempfile::TempDir;
use tokio::sync::mpsc;

const DEADLINE: Duration = Duration::from_secs(20);

/// A Service with an address of its own, as long as names begin with different letters.
fn service(name: &str, port: u16) -> String {
    let last = name.bytes().next().unwrap_or_default();
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  clusterIP: 10.96.0.{last}\n  ports:\n  - port: {port}\n"
    )
}

/// A watched folder and the engine that it feeds.
struct Watched {
    _home: TempDir,
    folder: PathBuf,
    events: mpsc::Receiver<Event>,
    engine: Engine,
    synced: bool,
    runtime: tokio::runtime::Runtime,
}

impl Watched {
    fn start(prepare: impl FnOnce(&Path)) -> Self {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("manifests");
        fs::create_dir(&folder).unwrap();
        prepare(&folder);
        let (sender, events) = mpsc::channel(1024);
        folder::watch(folder.clone(), sender, Clock::start()).unwrap();
        let mut watched = Self {
            _home: home,
            folder,
            events,
            engine: Engine::new(
                Rules::default(),
                Admission::new(admission::Settings::default(), None).unwrap(),
                Readiness::default(),
                &[Source::Folder],
                Arc::new(Tables::default()),
            ),
            synced: false,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap(),
        };
        watched.until("the first scan", |_| true);
        watched
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Takes in events until `done`; it is asked only where the source is in sync.
    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let clock = Clock::start();
        while !(self.synced && done(self)) {
            let left = DEADLINE.saturating_sub(clock.now());
            let event = self
                .runtime
                .block_on(async { tokio::time::timeout(left, self.events.recv()).await });
            let Ok(Some(event)) = event else {
                panic!(
                    "{what} did not happen: {:?} {:?}",
                    self.served(),
                    self.problems()
                );
            };
            self.synced = self.engine.handle(event, Duration::ZERO);
            if self.synced {
                self.engine.settle(Moment::default());
            }
        }
    }

    fn until_served(&mut self, expected: &[&str]) {
        self.until(&format!("{expected:?}"), |w| w.served() == expected);
    }

    fn until_problems(&mut self, count: usize) {
        self.until(&format!("{count} problems"), |w| {
            w.problems().len() == count
        });
    }

    fn served(&self) -> Vec<String> {
        let View { services, .. } = self.engine.view();
        services
            .iter()
            .map(|known| format!("{}:{}", known.object.name, known.object.ports[0].port))
            .collect()
    }

    fn problems(&self) -> Vec<String> {
        let folder = format!("{}/", self.folder.display());
        // No Service has an endpoint here.
        let of_files = |problem: &&Problem| !problem.message.contains("has no EndpointSlice");
        let View { problems, .. } = self.engine.view();
        let problems: BTreeSet<&Problem> = problems.iter().filter(of_files).collect();
        problems
            .into_iter()
            .map(|problem| describe(problem).replace(&folder, ""))
            .collect()
    }
}

#[test]
fn files_that_are_written_renamed_and_deleted_are_noticed() {
    let mut watched = Watched::start(|folder| {
        fs::write(folder.join("a.yaml"), service("a", 1)).unwrap();
    });
    watched.until_served(&["a:1"]);
    watched.write("a.yaml", service("a", 2));
    watched.until_served(&["a:2"]);
    watched.write(".b.yaml.tmp", service("b", 3));
    fs::rename(watched.path(".b.yaml.tmp"), watched.path("b.yml")).unwrap();
    watched.until_served(&["a:2", "b:3"]);
    fs::rename(watched.path("b.yml"), watched.path("c.yaml")).unwrap();
    fs::remove_file(watched.path("a.yaml")).unwrap();
    watched.until_served(&["b:3"]);
    fs::remove_file(watched.path("c.yaml")).unwrap();
    watched.until_served(&[]);
    assert_eq!(watched.problems(), [""; 0]);
}

#[test]
fn files_of_editors_are_not_manifests() {
    let mut watched = Watched::start(|folder| {
        for name in [
            ".a.yaml",
            ".a.yaml.swp",
            "a.yaml~",
            "#a.yaml#",
            "a.yaml.tmp",
            "a.txt",
            "4913",
        ] {
            fs::write(folder.join(name), service("editor", 1)).unwrap();
        }
        fs::create_dir(folder.join("sub")).unwrap();
        fs::write(folder.join("sub/a.yaml"), service("sub", 1)).unwrap();
    });
    watched.write("z.json", r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"z"},"spec":{"clusterIP":"10.96.0.9","ports":[{"port":9}]}}"#);
    watched.until_served(&["z:9"]);
    assert_eq!(watched.problems(), [""; 0]);
}

#[test]
fn a_file_that_cannot_be_parsed_keeps_all_its_objects() {
    let good = format!("{}---\n{}", service("a", 1), service("b", 2));
    let mut watched = Watched::start(|folder| {
        fs::write(folder.join("ab.yaml"), &good).unwrap();
    });
    watched.write("ab.yaml", "a: [\n");
    watched.until_problems(1);
    assert_eq!(watched.served(), ["a:1", "b:2"]);
    watched.write("ab.yaml", format!("{}---\n: [ :\n", service("a", 3)));
    watched.until_served(&["a:3", "b:2"]);
    assert_eq!(watched.problems().len(), 1);
    watched.write("ab.yaml", service("a", 4));
    watched.until_served(&["a:4"]);
    assert_eq!(watched.problems(), [""; 0]);
}

#[test]
fn a_malformed_object_keeps_its_last_good_version() {
    let mut watched = Watched::start(|folder| {
        fs::write(folder.join("a.yaml"), service("a", 1)).unwrap();
    });
    let bad = service("a", 2).replace("port: 2", "port: two");
    watched.write("a.yaml", format!("{bad}---\n{}", service("b", 3)));
    watched.until_served(&["a:1", "b:3"]);
    assert_eq!(
        watched.problems(),
        [
            "a.yaml:8 Service default/a spec.ports[0].port: is text \"two\" and must be a whole number (its last good version stays in use)"
        ]
    );
    watched.write("a.yaml", service("b", 3));
    watched.until_served(&["b:3"]);
}

#[test]
fn what_cannot_be_read_is_one_problem_and_takes_nothing_away() {
    let mut watched = Watched::start(|folder| {
        fs::write(folder.join("a.yaml"), service("a", 1)).unwrap();
    });
    watched.write("a.yaml", b"\xff\xfe\x00");
    watched.until_problems(1);
    assert!(
        watched.problems()[0].contains("UTF-8"),
        "{:?}",
        watched.problems()
    );
    watched.write("a.yaml", vec![b'#'; (16 << 20) + 1]);
    watched.until("too long", |w| {
        w.problems().iter().any(|p| p.contains("16 MiB"))
    });
    assert_eq!(watched.problems().len(), 1);
    fs::create_dir(watched.path("a.dir")).unwrap();
    let (file, dir) = (watched.path("a.yaml"), watched.path("a.dir"));
    let (here, swap) = (rustix::fs::CWD, rustix::fs::RenameFlags::EXCHANGE);
    rustix::fs::renameat_with(here, &file, here, &dir, swap).unwrap();
    watched.until("a folder", |w| {
        w.problems().iter().any(|p| p.contains("regular"))
    });
    assert_eq!(watched.served(), ["a:1"]);
    fs::remove_dir(watched.path("a.yaml")).unwrap();
    watched.until_served(&[]);
    assert_eq!(watched.problems(), [""; 0]);
}

#[test]
fn a_named_pipe_does_not_hold_the_scan() {
    let mut watched = Watched::start(|_| {});
    let path = watched.path("pipe.yaml");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    watched.until_problems(1);
    watched.write("a.yaml", service("a", 1));
    watched.until_served(&["a:1"]);
}

#[test]
fn a_bomb_of_aliases_is_one_problem() {
    let mut watched = Watched::start(|_| {});
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let parent = format!("*a{}, ", level - 1).repeat(10);
        bomb.push_str(&format!("a{level}: &a{level} [{parent}]\n"));
    }
    watched.write("bomb.yaml", bomb);
    watched.until_problems(1);
    watched.write("a.yaml", service("a", 1));
    watched.until_served(&["a:1"]);
    assert_eq!(watched.problems().len(), 1);
}

#[test]
fn the_swap_of_a_mounted_config_map_is_noticed() {
    let mut watched = Watched::start(|folder| {
        fs::create_dir(folder.join("..v1")).unwrap();
        fs::write(folder.join("..v1/a.yaml"), service("a", 1)).unwrap();
        symlink("..v1", folder.join("..data")).unwrap();
        symlink("..data/a.yaml", folder.join("a.yaml")).unwrap();
    });
    watched.until_served(&["a:1"]);
    let folder = watched.folder.clone();
    fs::create_dir(folder.join("..v2")).unwrap();
    fs::write(folder.join("..v2/a.yaml"), service("a", 2)).unwrap();
    symlink("..v2", folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    fs::remove_dir_all(folder.join("..v1")).unwrap();
    watched.until_served(&["a:2"]);
    assert_eq!(watched.problems(), [""; 0]);
}

#[test]
fn a_folder_that_vanishes_takes_nothing_away_and_is_found_again() {
    let mut watched = Watched::start(|folder| {
        fs::write(folder.join("a.yaml"), service("a", 1)).unwrap();
    });
    let away = watched.folder.with_extension("away");
    fs::rename(&watched.folder, &away).unwrap();
    watched.until_problems(1);
    assert!(watched.problems()[0].contains("what it held stays in use"));
    assert_eq!(watched.served(), ["a:1"]);
    fs::create_dir(&watched.folder).unwrap();
    watched.write("b.yaml", service("b", 2));
    watched.until_served(&["b:2"]);
    watched.write("b.yaml", service("b", 3));
    watched.until_served(&["b:3"]);
    assert_eq!(watched.problems(), [""; 0]);
}

#[test]
fn a_folder_that_is_made_anew_is_watched_anew() {
    let mut watched = Watched::start(|folder| {
        fs::write(folder.join("a.yaml"), service("a", 1)).unwrap();
    });
    // The new folder gets the inode of the old one on most file systems.
    fs::remove_dir_all(&watched.folder).unwrap();
    fs::create_dir(&watched.folder).unwrap();
    watched.write("b.yaml", service("b", 2));
    watched.until("b", |w| w.served().contains(&"b:2".to_owned()));
    let best = (3..8)
        .map(|port| {
            let clock = Clock::start();
            watched.write("b.yaml", service("b", port));
            watched.until("b", |w| w.served().contains(&format!("b:{port}")));
            clock.now()
        })
        .min()
        .unwrap();
    // Without notices it would be the two seconds of a scan.
    assert!(best < Duration::from_secs(1), "{best:?}");
    watched.until_served(&["b:7"]);
}

#[test]
fn a_file_without_permission_keeps_its_objects() {
    if rustix::process::geteuid().is_root() {
        // Root may read everything; there is nothing to see.
        return;
    }
    let mut watched = Watched::start(|folder| {
        fs::write(folder.join("a.yaml"), service("a", 1)).unwrap();
    });
    fs::set_permissions(watched.path("a.yaml"), fs::Permissions::from_mode(0o000)).unwrap();
    watched.until_problems(1);
    assert_eq!(watched.served(), ["a:1"]);
}

#[test]
fn a_file_that_is_being_written_is_left_alone() {
    use std::io::Write;
    let mut watched = Watched::start(|folder| {
        fs::write(folder.join("a.yaml"), service("a", 1)).unwrap();
    });
    let mut file = fs::File::create(watched.path("a.yaml")).unwrap();
    watched.write("other.yaml", service("other", 1));
    // Seeing the other file proves that the folder was scanned while this one was empty.
    watched.until_served(&["a:1", "other:1"]);
    file.write_all(service("a", 2).as_bytes()).unwrap();
    drop(file);
    watched.until_served(&["a:2", "other:1"]);
}

#[test]
fn a_service_that_is_rewritten_in_place_again_and_again_is_never_away() {
    let mut watched = Watched::start(|folder| {
        fs::write(folder.join("a.yaml"), service("a", 1)).unwrap();
    });
    let path = watched.path("a.yaml");
    let writer = std::thread::spawn(move || {
        for port in 2..=200 {
            fs::write(&path, service("a", port)).unwrap();
            std::thread::sleep(Duration::from_millis(3));
        }
    });
    watched.until("the last version", |w| {
        assert_eq!(w.served().len(), 1);
        assert_eq!(w.problems(), [""; 0]);
        w.served() == ["a:200"]
    });
    writer.join().unwrap();
}
