//! Follows the objects of one kind: lists them, then watches from there, for ever.
//!
//! ```text
//!   list in one stream, or page by page --> watch from its version --ended--> watch again
//!      ^                                         | expired, out of order, nonsense
//!      '-----------------------------------------'
//! ```
//!
//! Guarantees: an object is told to be gone only by an event of a watch or by a complete list that
//! does not hold it; an event that was told already, or that is older than what is known of its
//! object, changes nothing.

use std::time::Duration;

use kube::api::{ListParams, WatchParams};
use kube::core::{Request, Status};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::debug;

use super::Timing;
use super::backoff::Backoff;
use super::client::{Api, ApiError, built, nonsense};
use super::discovery::knows;
use super::ledger::{Ledger, Mistrust};
use super::resource::{Filter, Item, Resource};
use crate::clock::Clock;
use crate::metrics;
use crate::object::{Lines, ObjectId, Origin};
use crate::source::Event;

/// Objects of one page of a list.
const PAGE: u32 = 100;
/// Most pages of one list.
const MAX_PAGES: usize = 10_000;
/// Marks the bookmark behind the last object of a streamed list (KEP-3157).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// What a reflector tells.
#[derive(Debug)]
pub(super) enum Update {
    /// A change.
    Event(Event),
    /// Every object there is has been told.
    Listed,
    /// The API server answers.
    Up,
    /// It does not, or not well.
    Down(String),
}

/// Why a session ended early.
#[derive(Debug)]
enum Ending {
    /// A request failed.
    Failed(ApiError),
    /// A watch that stood broke off.
    Dropped,
    /// The version to go on from is too old.
    Expired,
    /// The events are out of order.
    Disordered,
    /// The server knows no way to stream a list.
    NotStreaming,
    /// The server does not know the kind.
    Absent,
    /// Nobody listens any more.
    Closed,
}

impl From<ApiError> for Ending {
    fn from(error: ApiError) -> Self {
        match error.code() {
            Some(410) => Ending::Expired,
            _ => Ending::Failed(error),
        }
    }
}

impl From<Mistrust> for Ending {
    fn from(mistrust: Mistrust) -> Self {
        match mistrust {
            Mistrust::Disordered => Ending::Disordered,
            Mistrust::TooMany => {
                let message = "more objects than a cluster can have".to_owned();
                Ending::Failed(ApiError::Nonsense(message))
            }
        }
    }
}

#[derive(Deserialize)]
struct Page {
    kind: String,
    metadata: PageMeta,
    items: Option<Vec<Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMeta {
    resource_version: String,
    r#continue: Option<String>,
}

#[derive(Deserialize)]
struct WatchLine {
    r#type: String,
    object: Value,
}

/// What a reflector is made of.
pub(super) struct Reflector {
    pub(super) number: usize,
    pub(super) api: Api,
    pub(super) file: String,
    pub(super) resource: Resource,
    /// The one namespace that is asked for; all when none.
    pub(super) namespace: Option<String>,
    pub(super) filter: Filter,
    pub(super) timing: Timing,
    pub(super) clock: Clock,
    pub(super) updates: mpsc::Sender<(usize, Update)>,
}

/// Goes on until nobody listens any more.
pub(super) async fn run(reflector: Reflector) {
    let timing = &reflector.timing;
    let mut backoff = Backoff::new(timing.first_pause, timing.longest_pause);
    let mut state = Following {
        ledger: Ledger::default(),
        counted: 0,
        streaming: true,
        paged: true,
        reflector: &reflector,
    };
    loop {
        let start = reflector.clock.now();
        let ending = state.session().await.err();
        if reflector.clock.now().saturating_sub(start) >= timing.steady {
            backoff.reset();
        }
        let pause = match ending {
            Some(Ending::Closed) => return,
            Some(ending) => state.after(ending, &mut backoff).await,
            // What watches do every few minutes.
            None => Some(timing.first_pause),
        };
        let Some(pause) = pause else { return };
        sleep(pause).await;
    }
}

/// A reflector at work.
struct Following<'a> {
    ledger: Ledger,
    /// How many objects the metrics tell of.
    counted: usize,
    /// Whether the server can stream lists, as far as is known.
    streaming: bool,
    /// Whether to list page by page.
    paged: bool,
    reflector: &'a Reflector,
}

impl Following<'_> {
    /// Lists where that is due, then watches to the end of the answer.
    async fn session(&mut self) -> Result<(), Ending> {
        let reflector = self.reflector;
        let timing = &reflector.timing;
        if self.ledger.from().is_none() {
            self.ledger.begin();
            if !self.streaming {
                self.list().await?;
            }
        }
        let request = self.watch_request()?;
        let mut lines = match reflector.api.lines(request, timing.answer).await {
            Ok(lines) => lines,
            Err(error) => return Err(self.not_opened(error).await),
        };
        if !self.ledger.is_listing() {
            self.tell(Update::Up).await?;
        }
        loop {
            let silence = match self.ledger.is_listing() {
                true => timing.answer,
                false => timing.watch + timing.answer,
            };
            match lines.next(silence).await {
                Ok(Some(line)) => self.line(&line).await?,
                Ok(None) if self.ledger.is_listing() => {
                    let early = "the list ended before its last object".to_owned();
                    return Err(Ending::Failed(ApiError::Broken(early)));
                }
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.not_read(error)),
            }
        }
    }

    fn not_read(&self, error: ApiError) -> Ending {
        match (self.ledger.is_listing(), error) {
            // A server from before streamed lists takes the request for a plain watch.
            (true, ApiError::Late(_)) => Ending::NotStreaming,
            (false, ApiError::Broken(_) | ApiError::Late(_)) => Ending::Dropped,
            (_, error) => error.into(),
        }
    }

    async fn not_opened(&self, error: ApiError) -> Ending {
        match error.code() {
            Some(400 | 422) if self.ledger.is_listing() => Ending::NotStreaming,
            Some(404) => self.absent(error).await,
            _ => error.into(),
        }
    }

    /// Makes ready for the next session; how long to wait before it, `None` when nobody listens.
    async fn after(&mut self, ending: Ending, backoff: &mut Backoff) -> Option<Duration> {
        let timing = &self.reflector.timing;
        let kind = self.reflector.resource.kind;
        debug!("{kind}s of {}: {ending:?}", self.reflector.file);
        match ending {
            Ending::Closed => None,
            Ending::NotStreaming => {
                self.streaming = false;
                Some(Duration::ZERO)
            }
            Ending::Absent => {
                let told = self.complete(None).await;
                told.is_ok().then_some(timing.absent)
            }
            Ending::Expired => {
                // Where a list expires, its pages came too slowly for one version.
                self.paged = self.ledger.from().is_some();
                self.ledger.distrust();
                Some(backoff.pause())
            }
            Ending::Disordered => {
                self.ledger.distrust();
                Some(backoff.pause())
            }
            Ending::Dropped => Some(backoff.pause()),
            Ending::Failed(error) => {
                let ahead = matches!(error, ApiError::Refused { ahead: true, .. });
                if ahead || matches!(error, ApiError::Nonsense(_)) {
                    self.ledger.distrust();
                }
                let asked = error.retry_after().unwrap_or_default();
                let pause = backoff.pause().max(asked.min(timing.longest_asked));
                let told = self.tell(Update::Down(format!("{kind}s: {error}"))).await;
                told.is_ok().then_some(pause)
            }
        }
    }

    fn watch_request(&self) -> Result<hyper::Request<Vec<u8>>, ApiError> {
        let reflector = self.reflector;
        let namespace = reflector.namespace.as_deref();
        let seconds = u32::try_from(reflector.timing.watch.as_secs()).unwrap_or(u32::MAX);
        let params = WatchParams {
            field_selector: reflector.resource.fields(namespace),
            timeout: Some(seconds),
            bookmarks: true,
            send_initial_events: self.ledger.is_listing(),
            ..WatchParams::default()
        };
        let from = self.ledger.from().unwrap_or_default();
        let path = reflector.resource.path(namespace);
        built(Request::new(path).watch(&params, from))
    }

    /// Lists page by page.
    async fn list(&mut self) -> Result<(), Ending> {
        let mut token = None;
        for _ in 0..MAX_PAGES {
            let page = self.page(token).await?;
            for value in page.items.unwrap_or_default() {
                let Reflector {
                    resource, filter, ..
                } = self.reflector;
                let item = resource.item(value, filter, true)?;
                self.upsert(item).await?;
            }
            token = page.metadata.r#continue.filter(|token| !token.is_empty());
            if token.is_none() {
                self.paged = true;
                return self.complete(Some(&page.metadata.resource_version)).await;
            }
        }
        let endless = format!("a list of more than {MAX_PAGES} pages");
        Err(ApiError::Nonsense(endless).into())
    }

    async fn page(&mut self, token: Option<String>) -> Result<Page, Ending> {
        let reflector = self.reflector;
        let namespace = reflector.namespace.as_deref();
        let params = ListParams {
            field_selector: reflector.resource.fields(namespace),
            limit: self.paged.then_some(PAGE),
            continue_token: token,
            ..ListParams::default()
        };
        let path = reflector.resource.path(namespace);
        let request = built(Request::new(path).list(&params))?;
        let page: Page = match reflector.api.json(request, reflector.timing.page).await {
            Ok(page) => page,
            Err(error) if error.code() == Some(404) => return Err(self.absent(error).await),
            Err(error) => return Err(error.into()),
        };
        let wanted = format!("{}List", reflector.resource.kind);
        if page.kind != wanted {
            let found: String = page.kind.chars().take(63).collect();
            let message = format!("a {found:?} where a {wanted} should be");
            return Err(ApiError::Nonsense(message).into());
        }
        Ok(page)
    }

    /// What a 404 means: that the server says of its own accord that it does not know the kind,
    /// or that something is wrong on the way to it.
    async fn absent(&self, error: ApiError) -> Ending {
        let Reflector { resource, api, .. } = self.reflector;
        if !resource.optional {
            return error.into();
        }
        match knows(api, resource, self.reflector.timing.answer).await {
            Ok(true) => error.into(),
            Ok(false) => Ending::Absent,
            Err(error) => error.into(),
        }
    }

    async fn line(&mut self, line: &[u8]) -> Result<(), Ending> {
        let WatchLine { r#type, object } =
            serde_json::from_slice(line).map_err(|error| nonsense(line, &error))?;
        let Reflector {
            resource, filter, ..
        } = self.reflector;
        match r#type.as_str() {
            "ADDED" | "MODIFIED" => {
                let item = resource.item(object, filter, true)?;
                self.upsert(item).await
            }
            "DELETED" => {
                let item = resource.item(object, filter, false)?;
                self.gone(item).await
            }
            "BOOKMARK" => self.bookmark(&object).await,
            "ERROR" => {
                let status: Status =
                    serde_json::from_value(object).map_err(|error| nonsense(line, &error))?;
                Err(ApiError::from_status(&status).into())
            }
            other => {
                let other: String = other.chars().take(63).collect();
                Err(ApiError::Nonsense(format!("an event of type {other:?}")).into())
            }
        }
    }

    async fn bookmark(&mut self, object: &Value) -> Result<(), Ending> {
        let metadata = &object["metadata"];
        let version = metadata["resourceVersion"].as_str();
        let Some(version) = version.filter(|version| !version.is_empty()) else {
            return Err(ApiError::Nonsense("a bookmark without resourceVersion".into()).into());
        };
        if self.ledger.is_listing() && metadata["annotations"][INITIAL_EVENTS_END] == "true" {
            return self.complete(Some(version)).await;
        }
        self.ledger.advance(version);
        Ok(())
    }

    /// Takes in an object that is there.
    async fn upsert(&mut self, item: Item) -> Result<(), Ending> {
        if !item.wanted {
            return self.gone(item).await;
        }
        if !self.ledger.there(&item.id, &item.version)? {
            return Ok(());
        }
        self.count();
        metrics::kubernetes_event(self.reflector.resource.kind);
        let file = self.reflector.file.clone();
        let event = Event::Apply {
            id: item.id,
            origin: Origin { file, line: None },
            object: item.object,
            issues: item.issues,
            lines: Lines::default(),
            admitted: true,
        };
        self.tell(Update::Event(event)).await
    }

    /// Takes in that an object is not there, or not ours.
    async fn gone(&mut self, item: Item) -> Result<(), Ending> {
        match self.ledger.gone(&item.id, &item.version)? {
            true => {
                self.count();
                metrics::kubernetes_event(self.reflector.resource.kind);
                self.delete(item.id).await
            }
            false => Ok(()),
        }
    }

    /// Takes in that a list is complete at `version`; without one the server has no such kind.
    async fn complete(&mut self, version: Option<&str>) -> Result<(), Ending> {
        for id in self.ledger.complete(version) {
            self.delete(id).await?;
        }
        self.count();
        metrics::kubernetes_listed(self.reflector.resource.kind);
        self.tell(Update::Listed).await
    }

    fn count(&mut self) {
        let known = self.ledger.len();
        let more = known as f64 - self.counted as f64;
        self.counted = known;
        metrics::kubernetes_objects(self.reflector.resource.kind, more);
    }

    async fn delete(&self, id: ObjectId) -> Result<(), Ending> {
        let file = self.reflector.file.clone();
        self.tell(Update::Event(Event::Delete { id, file })).await
    }

    async fn tell(&self, update: Update) -> Result<(), Ending> {
        let Reflector {
            updates, number, ..
        } = self.reflector;
        let sent = updates.send((*number, update)).await;
        sent.map_err(|_| Ending::Closed)
    }
}
