//! The one thread that sends probes: starts what is due, takes in what ends, sleeps until either.

use std::future::pending;
use std::io;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::sleep;

use super::board::Job;
use super::failure::Outcome;
use super::{Health, metrics};
use crate::aside::{self, Aside};
use crate::clock::Clock;

/// A probe that ended.
struct Ended {
    job: Job,
    outcome: Outcome,
    took: Duration,
}

impl Health {
    /// Sends probes from now on, until what is returned is dropped.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(&self) -> io::Result<Aside> {
        let health = self.clone();
        aside::start("probes", async move { health.run().await })
    }

    async fn run(&self) {
        let mut flights = FuturesUnordered::new();
        loop {
            let pause = self.launch(|job| flights.push(fly(job, self.0.clock)));
            tokio::select! {
                Some(ended) = flights.next() => self.land(ended),
                () = wait(pause) => {}
                () = self.0.work.notified() => {}
            }
        }
    }

    /// Starts what is due; says how long until more is.
    fn launch(&self, mut start: impl FnMut(Job)) -> Option<Duration> {
        let now = self.0.clock.now();
        let mut board = self.board();
        board.release(now);
        while let Some(job) = board.start(now) {
            if job.late {
                metrics::late();
            }
            start(job);
        }
        metrics::in_flight(board.in_flight());
        if board.has_changes() {
            self.0.news.notify_one();
        }
        board.next().map(|next| next.saturating_sub(now))
    }

    fn land(&self, ended: Ended) {
        let Ended { job, outcome, took } = ended;
        metrics::ended(job.probe.action.kind(), &outcome, took);
        let now = self.0.clock.now();
        self.board().finish(job.id, &job.probe, outcome, now);
    }
}

async fn fly(job: Job, clock: Clock) -> Ended {
    let start = clock.now();
    let outcome = job.probe.send(job.target.address).await;
    let took = clock.now().saturating_sub(start);
    Ended { job, outcome, took }
}

async fn wait(pause: Option<Duration>) {
    match pause {
        Some(pause) => sleep(pause).await,
        None => pending().await,
    }
}
