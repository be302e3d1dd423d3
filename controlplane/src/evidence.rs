//! Asks the dataplane once a second what backends make of the connections opened to them.
//!
//! Guarantees: a piece of evidence is handed on once at most. What was counted before a connection to
//! the dataplane was made is nobody's news and is never handed on, nor is what is counted while
//! there is none. While nobody takes what was found, the dataplane is not asked, and nothing is lost.
//! It judges nobody.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sluice_conf::ServiceName;
use sluice_conf::codec::MAX_BODY;
use sluice_conf::message::Hello;
use sluice_conf::message::dataplane::{Attempts, Evidence, Mark, Reply, Request};
use tokio::net::UnixStream;
use tokio::sync::mpsc::Sender;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::debug;

use crate::framing::{self, FrameError};

/// How long the dataplane may take for an answer; it may be busy with a table.
const PATIENCE: Duration = Duration::from_secs(30);
/// Backends that may be forgotten late; see [`Known::is_stale`].
const SLACK: usize = 1024;

/// Whom to ask, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Control socket of the dataplane.
    pub socket: PathBuf,
    /// Time between two questions.
    pub period: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            socket: sluice_conf::settings::dataplane::Control::default().socket,
            period: Duration::from_secs(1),
        }
    }
}

/// What has become of connections to a backend since it was last told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Of which Service port.
    pub service: ServiceName,
    /// Which backend; port 0 stands for whatever port a client uses.
    pub backend: SocketAddr,
    /// How many; at least one of the counts is not 0.
    pub attempts: Attempts,
}

/// Asks until nobody listens any more; a dataplane that is away is tried again every period. Each
/// answer with news is one message.
pub async fn watch(settings: Settings, to: Sender<Vec<News>>) {
    let asking = async {
        loop {
            let Err(error) = session(&settings, &to).await;
            debug!("no evidence from the dataplane, trying again: {error}");
            sleep(settings.period).await;
        }
    };
    tokio::select! {
        () = to.closed() => {}
        () = asking => {}
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Late,
    #[error("it answered something else than {0}")]
    Unexpected(&'static str),
}

/// One connection, from start to end. It only ever ends by an error.
async fn session(settings: &Settings, to: &Sender<Vec<News>>) -> Result<Infallible, LinkError> {
    let connected = UnixStream::connect(&settings.socket).await;
    let mut stream = connected.map_err(FrameError::from)?;
    let hello = Request::Hello(Hello {
        program: env!("CARGO_PKG_NAME").to_owned(),
        release: env!("CARGO_PKG_VERSION").to_owned(),
    });
    let Reply::Hello { .. } = ask(&mut stream, &hello).await? else {
        return Err(LinkError::Unexpected("a hello"));
    };
    let mut known = Known::default();
    let mut ticks = interval(settings.period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if known.is_stale() {
            known = Known::default();
        }
        let since = known.mark.clone();
        let Reply::Evidence(evidence) = ask(&mut stream, &Request::Evidence { since }).await?
        else {
            return Err(LinkError::Unexpected("evidence"));
        };
        let news = known.take(evidence);
        if !news.is_empty() {
            // Whoever listens to nothing any more ends the watch, too.
            let _ = to.send(news).await;
        }
    }
}

async fn ask(stream: &mut UnixStream, request: &Request) -> Result<Reply, LinkError> {
    let exchange = async {
        framing::write(stream, request).await?;
        Ok(framing::read(stream, MAX_BODY).await?)
    };
    timeout(PATIENCE, exchange)
        .await
        .unwrap_or(Err(LinkError::Late))
}

/// The counts that the dataplane has told, on one connection.
#[derive(Debug, Default)]
struct Known {
    mark: Mark,
    /// How many backends the first answer told of; `None` before it.
    first: Option<usize>,
    counts: HashMap<ServiceName, HashMap<SocketAddr, Attempts>>,
    backends: usize,
}

impl Known {
    /// Takes in an answer; returns what is new in it. The first one is where counting begins.
    fn take(&mut self, evidence: Evidence) -> Vec<News> {
        let is_first = self.first.is_none();
        let mut news = Vec::new();
        for told in evidence.services {
            let counts = self.counts.entry(told.name.clone()).or_default();
            for (backend, now) in told.backends {
                let before = counts.insert(backend, now);
                self.backends += usize::from(before.is_none());
                let attempts = since(before.unwrap_or_default(), now);
                if !is_first && attempts != Attempts::default() {
                    news.push(News {
                        service: told.name.clone(),
                        backend,
                        attempts,
                    });
                }
            }
        }
        self.mark = evidence.mark;
        self.first.get_or_insert(self.backends);
        news
    }

    /// Whether many backends are known that may have left since: nobody tells of that, so all are
    /// forgotten then, and counting begins again.
    fn is_stale(&self) -> bool {
        self.first
            .is_some_and(|first| self.backends > 2 * first + SLACK)
    }
}

/// What was counted between two answers. A count that is lower than before has begun again at 0: the
/// backend had left and come back.
fn since(before: Attempts, now: Attempts) -> Attempts {
    let counts = [
        (before.answered, now.answered),
        (before.refused, now.refused),
        (before.silent, now.silent),
    ];
    let goes_on = counts.iter().all(|(before, now)| before <= now);
    let [answered, refused, silent] = counts.map(|(before, now)| match goes_on {
        true => now - before,
        false => now,
    });
    Attempts {
        answered,
        refused,
        silent,
    }
}

#[cfg(test)]
mod tests;
