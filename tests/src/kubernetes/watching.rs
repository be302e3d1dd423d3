//! Watches, and lists that come as watches.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::response::Response;
use serde_json::Value;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::Shared;
use super::answer;
use super::faults::End;
use super::kinds::Target;
use super::serve::{Options, send, streamed};

/// Time between bookmarks.
const BOOKMARKS: Duration = Duration::from_millis(200);

/// Answers a watch.
pub fn watch(
    shared: &Arc<Shared>,
    target: Target,
    options: Options,
) -> Result<Response, (u16, Value)> {
    let habits = shared.habits();
    if options.send_initial_events && habits.paged {
        return Err(answer::not_streaming());
    }
    let current = shared.store().version();
    let from = match options.resource_version.as_str() {
        "" | "0" => current,
        version => version.parse().unwrap_or(0),
    };
    if from > current {
        return Err(answer::too_large(from, current));
    }
    let (sender, pieces) = mpsc::channel(16);
    let watching = Watching {
        ends: shared.ends.subscribe(),
        changes: shared.version.subscribe(),
        shared: Arc::clone(shared),
        target,
        options,
        from,
        sender,
    };
    tokio::spawn(watching.run());
    Ok(streamed(pieces))
}

struct Watching {
    shared: Arc<Shared>,
    target: Target,
    options: Options,
    /// Up to where everything was told.
    from: u64,
    changes: watch::Receiver<u64>,
    ends: broadcast::Receiver<(&'static str, End)>,
    sender: mpsc::Sender<io::Result<Bytes>>,
}

impl Watching {
    /// Goes on until the watch ends or nobody reads it.
    async fn run(mut self) {
        let slow = self.shared.habits().slow;
        if self.options.send_initial_events && !send(self.initial(), slow, &self.sender).await {
            return;
        }
        let seconds = self.options.timeout_seconds.unwrap_or(300);
        let over = Instant::now() + Duration::from_secs(seconds);
        let mut bookmark = Instant::now() + BOOKMARKS;
        loop {
            let news = match self.news() {
                Ok(news) => news,
                Err(status) => {
                    let expired = answer::event("ERROR", &status);
                    send(expired, slow, &self.sender).await;
                    return;
                }
            };
            if !news.is_empty() && !send(news, slow, &self.sender).await {
                return;
            }
            tokio::select! {
                // What was told to end does not tell what changed later.
                biased;
                end = self.ends.recv() => match end {
                    Ok((plural, end)) if plural == self.target.kind.plural => {
                        return self.end(end).await;
                    }
                    Ok(_) => {}
                    Err(_) => return,
                },
                _ = self.changes.changed() => {}
                () = sleep_until(over) => return,
                () = self.sender.closed() => return,
                () = sleep_until(bookmark) => {
                    bookmark = Instant::now() + BOOKMARKS;
                    let text = answer::bookmark(self.target.kind, self.from, false);
                    if !self.shared.habits().held && !send(text, slow, &self.sender).await {
                        return;
                    }
                }
            }
        }
    }

    fn initial(&mut self) -> String {
        let store = self.shared.store();
        self.from = store.version();
        let objects = store.list(&self.target, self.options.field_selector.as_deref());
        let added = objects.iter().map(|object| answer::event("ADDED", object));
        let mut text: String = added.collect();
        text.push_str(&answer::bookmark(self.target.kind, self.from, true));
        text
    }

    /// The lines of what changed since then.
    fn news(&mut self) -> Result<String, Value> {
        let habits = self.shared.habits();
        if habits.held {
            return Ok(String::new());
        }
        let store = self.shared.store();
        let changes = store.since(&self.target, self.from)?;
        self.from = store.version();
        let line = |change: &super::store::Change| answer::event(change.verb, &change.object);
        let mut lines: Vec<String> = changes.iter().map(line).collect();
        if habits.reversed {
            lines.reverse();
        }
        let times = if habits.doubled { 2 } else { 1 };
        Ok(lines.iter().map(|line| line.repeat(times)).collect())
    }

    async fn end(self, end: End) {
        let last = match end {
            End::Close => return,
            End::Break => Err(io::Error::other("asked to break")),
            End::Expire => {
                let message = "too old resource version: 1 (2)";
                let status = answer::status(410, "Expired", message);
                Ok(Bytes::from(answer::event("ERROR", &status)))
            }
            End::Say(bytes) => Ok(Bytes::from(bytes)),
        };
        // Whoever does not read any more does not miss it.
        let _ = self.sender.send(last).await;
    }
}
