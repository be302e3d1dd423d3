//! The two programs as an operator starts them: exit codes, sentences, signals.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper of a test fails as the test does"
)]

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use sluice_controlplane::clock::Clock;
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(20);

fn home() -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("m")).unwrap();
    let path = home.path().display();
    let text = format!(
        "[manifests]\nfolder = \"{path}/m\"\n[store]\npath = \"{path}/cp.redb\"\n[dataplane]\nsocket = \"{path}/dp.sock\"\n[control]\nsocket = \"{path}/cp.sock\"\n[dns]\nlisten = []\n"
    );
    let config = home.path().join("cp.toml");
    fs::write(&config, text).unwrap();
    (home, config)
}

fn daemon(config: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice-controlplane"));
    command.arg("--config").arg(config).args(more);
    command
}

fn ctl(home: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sluicectl"))
        .env("SLUICE_CONTROLPLANE_SOCKET", home.join("cp.sock"))
        .env("SLUICE_DATAPLANE_SOCKET", home.join("dp.sock"))
        .args(words)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A daemon that is killed when the test is over, whatever its end.
struct Running(Child);

impl Running {
    fn start(home: &Path, config: &Path) -> Self {
        let child = daemon(config, &[]).stderr(Stdio::null()).spawn().unwrap();
        let running = Self(child);
        let clock = Clock::start();
        while !ctl(home, &["get", "svc", "-A"]).status.success() {
            assert!(clock.now() < DEADLINE, "the daemon does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn check_tells_good_settings_from_bad_ones() {
    let (home, config) = home();
    let output = daemon(&config, &["--check"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), format!("{}: ok\n", config.display()));

    fs::write(&config, "[manifests]\nfolders = \"x\"\n").unwrap();
    let output = daemon(&config, &["--check"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let expected = format!("{}:2: manifests.folders: unknown field", config.display());
    assert!(stderr(&output).contains(&expected), "{}", stderr(&output));

    let missing = home.path().join("missing.toml");
    let output = daemon(&missing, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
}

#[test]
fn a_start_that_cannot_be_is_one_sentence_and_exit_code_2() {
    let (home, config) = home();
    fs::remove_dir(home.path().join("m")).unwrap();
    let output = daemon(&config, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).starts_with("sluice-controlplane: manifests.folder "),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_signal_ends_the_daemon_and_removes_its_socket() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let (home, config) = home();
        let mut running = Running::start(home.path(), &config);
        let pid = rustix::process::Pid::from_child(&running.0);
        let clock = Clock::start();
        rustix::process::kill_process(pid, signal).unwrap();
        let status = running.0.wait().unwrap();
        assert_eq!(status.code(), Some(0));
        assert!(clock.now() < Duration::from_secs(5), "{:?}", clock.now());
        assert!(!home.path().join("cp.sock").exists());
    }
}

#[test]
fn a_hangup_does_not_end_the_daemon() {
    let (home, config) = home();
    let running = Running::start(home.path(), &config);
    let pid = rustix::process::Pid::from_child(&running.0);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(ctl(home.path(), &["get", "svc"]).status.success());
}

#[test]
fn the_log_is_read_by_people() {
    let (home, config) = home();
    let log = home.path().join("log");
    let child = daemon(&config, &[])
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let _running = Running(child);
    let logged = |what: &str| {
        let clock = Clock::start();
        loop {
            let text = fs::read_to_string(&log).unwrap();
            let found = text.lines().any(|line| line.contains(what));
            if found {
                return text;
            }
            assert!(clock.now() < DEADLINE, "{what:?} is not in:\n{text}");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    logged("waiting for the dataplane");
    logged("generation 1: nothing to serve");
    let web = include_str!("../../conf/examples/services/web.yaml");
    fs::write(home.path().join("m/web.yaml"), web).unwrap();
    let text = logged("added default/web");
    let line = "INFO generation 2: added default/web; now 1 service port, 2 frontends, 3 backends";
    assert!(text.lines().any(|l| l.ends_with(line)), "{text}");
    fs::write(home.path().join("m/bad.yaml"), "a:\n\tb: 1\n").unwrap();
    logged("bad.yaml:2: is not valid YAML");
    fs::remove_file(home.path().join("m/bad.yaml")).unwrap();
    let text = logged("solved: ");
    for noise in ["os error", "Some(", "\u{1b}"] {
        assert!(!text.contains(noise), "{noise:?} in:\n{text}");
    }
    let waiting = text
        .lines()
        .filter(|line| line.contains("waiting for the dataplane"));
    assert_eq!(waiting.count(), 1);
}

#[test]
fn sluicectl_tells_by_its_exit_code_who_answers() {
    let (home, config) = home();
    let nobody = ctl(home.path(), &["status"]);
    assert_eq!(nobody.status.code(), Some(2));
    let running = Running::start(home.path(), &config);
    let half = ctl(home.path(), &["status"]);
    assert_eq!(half.status.code(), Some(1));
    let text = stdout(&half);
    assert!(
        text.contains("DATAPLANE\n  state        the dataplane is not reachable"),
        "{text}"
    );
    let drops = ctl(home.path(), &["drops"]);
    assert_eq!(drops.status.code(), Some(2));
    assert!(stderr(&drops).starts_with("sluicectl: the dataplane is not reachable"));
    assert_eq!(stderr(&drops).lines().count(), 1);
    assert_eq!(
        ctl(home.path(), &["get", "nonsense"]).status.code(),
        Some(2)
    );
    drop(running);
}

#[test]
fn lists_come_as_tables_json_and_yaml() {
    let (home, config) = home();
    let web = include_str!("../../conf/examples/services/web.yaml");
    fs::write(home.path().join("m/web.yaml"), web).unwrap();
    let running = Running::start(home.path(), &config);
    let clock = Clock::start();
    while stdout(&ctl(home.path(), &["get", "svc"])).is_empty() {
        assert!(clock.now() < DEADLINE, "the Service never showed up");
    }
    let table = stdout(&ctl(home.path(), &["get", "svc"]));
    assert!(table.starts_with("NAME   TYPE           CLUSTER-IP   EXTERNAL-IP    PORT(S)        AGE\nweb    LoadBalancer   10.96.0.10   203.0.113.10   80:30080/TCP   "), "{table}");
    let json = stdout(&ctl(home.path(), &["get", "ep", "-o", "json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["endpoints"][2]["address"], "10.0.2.13");
    let yaml = stdout(&ctl(home.path(), &["get", "svc", "-o", "yaml"]));
    assert!(yaml.contains("node_port: 30080"), "{yaml}");
    let one = ctl(home.path(), &["get", "svc", "web", "-o", "json"]);
    assert!(one.status.success() && stdout(&one).contains("\"web\""));
    let missing = ctl(home.path(), &["get", "svc", "web", "nope"]);
    assert_eq!(missing.status.code(), Some(1));
    assert_eq!(stdout(&missing).lines().count(), 2);
    assert_eq!(
        stderr(&missing),
        "service \"nope\" not found in default namespace\n"
    );
    let nothing = ctl(home.path(), &["get", "svc", "-n", "shop"]);
    assert_eq!(stderr(&nothing), "No resources found in shop namespace.\n");
    drop(running);
}

#[test]
fn an_answer_that_cannot_be_written_is_an_error() {
    let status = Command::new(env!("CARGO_BIN_EXE_sluicectl"))
        .args(["completions", "bash"])
        .stdout(fs::File::create("/dev/full").unwrap())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(2));
}

#[test]
fn a_reader_that_stops_early_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sluicectl"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut errors = String::new();
    let stderr = child.stderr.as_mut();
    stderr.map(|stderr| stderr.read_to_string(&mut errors).unwrap());
    assert!(child.wait().unwrap().success());
    assert_eq!(errors, "");
}

#[test]
fn env_prints_what_the_kept_files_hold_until_the_namespace_is_gone() {
    let (home, config) = home();
    let folder = home.path().join("env");
    let text = fs::read_to_string(&config).unwrap();
    let formats = "[\"shell\", \"docker\"]";
    let more = format!(
        "[environment]\nfolder = \"{}\"\nformats = {formats}\n",
        folder.display()
    );
    fs::write(&config, text + &more).unwrap();
    let web = include_str!("../../conf/examples/services/web.yaml");
    let manifest = home.path().join("m/web.yaml");
    fs::write(&manifest, web).unwrap();
    let _running = Running::start(home.path(), &config);
    let clock = Clock::start();
    let eventually = |what: &str, is_so: &mut dyn FnMut() -> bool| {
        while !is_so() {
            assert!(clock.now() < DEADLINE, "{what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let (shell, docker) = (folder.join("default.sh"), folder.join("default.env"));
    eventually("both files are there", &mut || {
        shell.exists() && docker.exists()
    });
    for (format, file) in [("shell", &shell), ("docker", &docker)] {
        let printed = ctl(home.path(), &["env", "--format", format]);
        assert!(printed.status.success(), "{}", stderr(&printed));
        let kept = fs::read_to_string(file).unwrap();
        let (head, kept) = kept.split_once('\n').unwrap();
        assert!(head.starts_with("# Services of the namespace default."));
        assert_eq!(kept, stdout(&printed));
    }
    let command = ". \"$1\" && echo \"$WEB_SERVICE_HOST $WEB_PORT\"";
    let output = Command::new("sh")
        .args(["-euc", command, "sh"])
        .arg(&shell)
        .output()
        .unwrap();
    assert_eq!(stdout(&output), "10.96.0.10 tcp://10.96.0.10:80\n");
    let elsewhere = ctl(home.path(), &["env", "-n", "shop", "--env", "A=b"]);
    assert_eq!(stdout(&elsewhere), "export A='b'\n");
    assert_eq!(stderr(&elsewhere), "nothing is known of a namespace shop\n");

    fs::write(&manifest, web.replace("port: 80 #", "port: 81 #")).unwrap();
    let new = "WEB_SERVICE_PORT=81\n";
    eventually("the port is another one", &mut || {
        fs::read_to_string(&docker).unwrap().contains(new)
    });
    fs::remove_file(&manifest).unwrap();
    eventually("both files are gone", &mut || {
        !shell.exists() && !docker.exists()
    });
}
