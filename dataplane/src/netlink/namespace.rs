//! Network namespaces for tests, one thread each; they need root.

use std::process::Command;
use std::sync::mpsc::{Sender, channel};

use rustix::thread::{Pid, UnshareFlags, gettid, unshare_unsafe};

type Job = Box<dyn FnOnce() + Send>;

/// A fresh namespace with a loopback interface that is down; gone when this is dropped and nothing
/// else is in it.
pub(crate) struct Namespace {
    thread: Pid,
    jobs: Sender<Job>,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        let (jobs, todo) = channel::<Job>();
        let (started, wait) = channel();
        std::thread::spawn(move || {
            // SAFETY: only the network namespace of this thread changes; no memory, no descriptor.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("namespaces need root");
            started.send(gettid()).unwrap();
            todo.iter().for_each(|job| job());
        });
        let thread = wait.recv().expect("the namespace's thread starts");
        Self { thread, jobs }
    }

    /// Does something inside.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, wait) = channel();
        let job = move || _ = done.send(job());
        self.jobs.send(Box::new(job)).unwrap();
        wait.recv().expect("the job has failed, see above")
    }

    /// Its name for `ip link set ... netns`.
    pub(crate) fn name(&self) -> String {
        self.thread.as_raw_nonzero().to_string()
    }
}

/// Runs `ip` in the namespace of this thread; what it prints.
pub(crate) fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}
