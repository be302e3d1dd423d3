//! Async code of a test itself inside a namespace: servers and clients that need no process of
//! their own.

use std::fs::File;
use std::future::Future;
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use crate::netns::Netns;

/// Runs `task` to its end on a thread of its own that has joined `namespace`, with everything that
/// it spawns. A panic of it is passed on as an error, after its message was printed.
///
/// # Errors
/// The thread cannot join the namespace, or the task fails.
pub fn run<T: Send>(namespace: &Netns, task: impl Future<Output = Result<T>> + Send) -> Result<T> {
    let file = File::open(format!("/run/netns/{}", namespace.name()))
        .with_context(|| format!("opening the namespace {}", namespace.name()))?;
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            setns(&file, CloneFlags::CLONE_NEWNET).context("joining the namespace")?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(task)
        });
        inside.join().map_err(|_| anyhow!("the test panicked"))?
    })
}
