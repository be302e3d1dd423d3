//! Children: run to their end within a time limit, or kept in the background behind a guard.
//!
//! Every child leads a process group of its own, so that what it starts ends with it. Nothing is
//! ever signalled but such a group or its leader, by id.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::clock;

/// Lines of a log that an error quotes.
const TAIL_LINES: usize = 40;

/// How a child that ran to its end did.
#[derive(Debug)]
pub struct Finished {
    /// The command line, for errors.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Finished {
    /// Itself, if the child succeeded.
    ///
    /// # Errors
    /// The command line, how it ended and what it printed, if it failed.
    pub fn success(self) -> Result<Self> {
        if self.status.success() {
            return Ok(self);
        }
        let Self {
            command,
            status,
            stdout,
            stderr,
        } = &self;
        bail!("`{command}` ended with {status}: {}{}", stderr.trim(), {
            let said = stdout.trim();
            if said.is_empty() {
                String::new()
            } else {
                format!(" (it printed: {said})")
            }
        })
    }
}

/// Runs `command` to its end, at most for `limit`, with `input` on its standard input.
///
/// # Errors
/// It cannot be started, or it is still running at the limit (and is then killed).
pub fn run(command: &mut Command, input: &str, limit: Duration) -> Result<Finished> {
    let line = line_of(command);
    let mut child = command
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("`{line}` cannot be started"))?;
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    if let Some(mut stdin) = child.stdin.take() {
        // A child that does not read its input may close it first; its exit status tells.
        let _ = stdin.write_all(input.as_bytes());
    }
    let ended = clock::wait_for(&line, limit, || Ok(child.try_wait()?));
    if ended.is_err() {
        end_group(&mut child);
    }
    let text = |reader: Option<thread::JoinHandle<String>>| {
        reader
            .and_then(|handle| handle.join().ok())
            .unwrap_or_default()
    };
    let (stdout, stderr) = (text(stdout), text(stderr));
    let status = ended.with_context(|| format!("it printed: {stdout}{stderr}"))?;
    Ok(Finished {
        command: line,
        status,
        stdout,
        stderr,
    })
}

fn collect(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // Whatever arrived before an error is what the child said.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn line_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

fn end_group(child: &mut Child) {
    // Still unreaped, so the id is ours. The group may be gone already.
    let _ = killpg(pid_of(child), Signal::SIGKILL);
    let _ = child.wait();
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

/// A child in the background. Dropping the guard kills its process group.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Bytes of the log that others wrote before.
    before: usize,
}

impl Process {
    /// Starts `command`; what it prints and complains of is appended to `log`.
    ///
    /// # Errors
    /// It cannot be started or the log cannot be opened.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let out = File::options().create(true).append(true).open(log);
        let out = out.with_context(|| format!("log {}", log.display()))?;
        let before = usize::try_from(out.metadata()?.len())?;
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("`{}` cannot be started", line_of(command)))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
            before,
        })
    }

    /// Its name in errors.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails with the end of its log when it has ended.
    ///
    /// # Errors
    /// It has ended.
    pub fn still_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}\n{}", self.name, self.tail()),
        }
    }

    /// Sends `signal` to it alone, unless it has ended.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        kill(pid_of(&self.child), signal).with_context(|| format!("{signal} to {}", self.name))
    }

    /// Sends `signal` and waits for its end.
    ///
    /// # Errors
    /// It is still running after `limit`.
    pub fn end(&mut self, signal: Signal, limit: Duration) -> Result<ExitStatus> {
        self.signal(signal)?;
        let what = format!("end of {} after {signal}", self.name);
        clock::wait_for(&what, limit, || Ok(self.child.try_wait()?)).context(self.tail())
    }

    /// All that it has printed so far, without what others printed to the same log before.
    pub fn log(&self) -> String {
        fs::read(&self.log).map_or_else(
            |error| format!("(log {}: {error})", self.log.display()),
            |bytes| {
                String::from_utf8_lossy(bytes.get(self.before..).unwrap_or_default()).into_owned()
            },
        )
    }

    /// The last lines of its log, for errors.
    pub fn tail(&self) -> String {
        tail(&self.name, &self.log())
    }
}

/// The last lines of `text` under a heading.
pub fn tail(name: &str, text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(TAIL_LINES);
    format!(
        "--- end of {name}'s log\n{}\n---",
        lines[first..].join("\n")
    )
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            end_group(&mut self.child);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failed_child_is_reported_with_its_complaint() {
        let run = run(
            &mut shell("cat; echo oh no >&2; exit 3"),
            "given",
            Duration::from_secs(5),
        );
        let finished = run.unwrap();
        assert_eq!(finished.stdout, "given");
        let error = finished.success().unwrap_err().to_string();
        assert!(error.contains("exit status: 3: oh no"), "{error}");
    }

    #[test]
    fn a_child_that_hangs_is_killed_with_what_it_started() {
        let begin = clock::now();
        let error = run(
            &mut shell("sleep 60 & sleep 60"),
            "",
            Duration::from_millis(50),
        );
        assert!(error.is_err());
        assert!(begin.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_background_child_ends_with_its_guard() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut process = Process::start("sleeper", &mut shell("echo up; sleep 60"), &log).unwrap();
        clock::wait_for("its line", Duration::from_secs(5), || {
            Ok(process.log().contains("up").then_some(()))
        })
        .unwrap();
        process.still_running().unwrap();
        let pid = pid_of(&process.child);
        drop(process);
        assert!(kill(pid, None).is_err());
    }
}
