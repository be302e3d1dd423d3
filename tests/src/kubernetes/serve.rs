//! Answers requests as an API server does.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::Value;
use tokio::sync::mpsc;

use super::answer;
use super::faults::{Fault, Verb};
use super::kinds::{OWN, Target, target};
use super::store::Rest;
use super::watching;
use super::{Seen, Shared};

/// Largest body of a request, in bytes.
const MAX_BODY: usize = 3 << 20;
/// Pieces that an endless answer comes in.
const PIECE: usize = 64 << 10;

/// What a request may ask for, as far as the stand-in knows it.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether it is a watch.
    pub watch: bool,
    /// Version to go on from; empty when none is given.
    pub resource_version: String,
    /// Whether a watch begins with what there is.
    pub send_initial_events: bool,
    /// Objects of one page.
    pub limit: Option<usize>,
    /// Where the next page begins.
    pub r#continue: Option<String>,
    /// Which objects.
    pub field_selector: Option<String>,
    /// When a watch ends.
    pub timeout_seconds: Option<u64>,
}

impl Options {
    fn read(query: &str) -> Self {
        let mut options = Self::default();
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        for (key, value) in pairs {
            let value = decoded(value);
            match key {
                "watch" => options.watch = matches!(value.as_str(), "1" | "true"),
                "resourceVersion" => options.resource_version = value,
                "sendInitialEvents" => options.send_initial_events = value == "true",
                "limit" => options.limit = value.parse().ok(),
                "continue" => options.r#continue = Some(value),
                "fieldSelector" => options.field_selector = Some(value),
                "timeoutSeconds" => options.timeout_seconds = value.parse().ok(),
                _ => {}
            }
        }
        options
    }
}

/// A value of a query, without its escapes.
fn decoded(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let code = after
            .get(..2)
            .and_then(|code| u8::from_str_radix(code, 16).ok());
        bytes.push(code.unwrap_or(b'%'));
        rest = code.map_or(after, |_| &after[2..]);
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Answers one request.
pub async fn serve(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Infallible> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let options = Options::read(head.uri.query().unwrap_or_default());
    shared.saw(Seen {
        method: head.method.to_string(),
        path: path.clone(),
    });
    if let Some(token) = &shared.token {
        let given = head.headers.get(header::AUTHORIZATION);
        if given.is_none_or(|given| given.as_bytes() != format!("Bearer {token}").as_bytes()) {
            let unauthorized = answer::status(401, "Unauthorized", "Unauthorized");
            return Ok(json(401, &unauthorized));
        }
    }
    let own = shared.own();
    let known = target(&path).filter(|target| own || target.kind.group_version != OWN);
    let Some(target) = known else {
        return Ok(match answer::discovery(&path, own) {
            Some(found) => json(200, &found),
            None => (StatusCode::NOT_FOUND, "404 page not found\n").into_response(),
        });
    };
    let verb = match (&head.method, &target.name, options.watch) {
        (&Method::GET, None, true) => Verb::Watch,
        (&Method::GET, None, false) => Verb::List,
        (&Method::GET, Some(_), _) => Verb::Get,
        _ => Verb::Write,
    };
    if let Some(fault) = shared.faults().take(verb, target.kind.plural) {
        return Ok(wrong(fault));
    }
    let answer = match verb {
        Verb::Watch => watching::watch(&shared, target, options),
        Verb::List => list(&shared, &target, &options),
        Verb::Get => shared.store().get(&target).map(|object| json(200, &object)),
        Verb::Write => {
            let body = axum::body::to_bytes(body, MAX_BODY).await;
            write(&shared, &head.method, &target, &body.unwrap_or_default())
        }
    };
    Ok(answer.unwrap_or_else(|(code, status)| json(code, &status)))
}

fn list(shared: &Shared, target: &Target, options: &Options) -> Result<Response, (u16, Value)> {
    let mut store = shared.store();
    let Rest { version, items } = match &options.r#continue {
        Some(token) => store.rest(token).ok_or_else(answer::expired_continue)?,
        None => Rest {
            version: store.version(),
            items: store.list(target, options.field_selector.as_deref()),
        },
    };
    let mut page = items;
    let rest = page.split_off(options.limit.unwrap_or(usize::MAX).min(page.len()));
    let more = (!rest.is_empty()).then(|| {
        let remaining = rest.len();
        let token = store.keep(Rest {
            version,
            items: rest,
        });
        (token, remaining)
    });
    let list = answer::list(target.kind, version, page, more);
    let slow = shared.habits().slow;
    let text = list.to_string();
    Ok(if slow { slowly(text) } else { json(200, &list) })
}

fn write(
    shared: &Shared,
    method: &Method,
    target: &Target,
    body: &[u8],
) -> Result<Response, (u16, Value)> {
    let malformed = |_| {
        (
            400,
            answer::status(400, "BadRequest", "the body is not JSON"),
        )
    };
    let read = || serde_json::from_slice::<Value>(body).map_err(malformed);
    let mut store = shared.store();
    let done = match *method {
        Method::POST => (201, store.create(target, read()?)?),
        Method::PUT => (200, store.update(target, read()?)?),
        Method::PATCH => (200, store.patch(target, &read()?)?),
        Method::DELETE => (200, store.delete(target)?),
        _ => {
            let message = "the server does not allow this method on the requested resource";
            return Err((405, answer::status(405, "MethodNotAllowed", message)));
        }
    };
    shared.changed(store.version());
    Ok(json(done.0, &done.1))
}

fn wrong(fault: Fault) -> Response {
    match fault {
        Fault::Refuse { code, after } => {
            let reason = match code {
                401 => "Unauthorized",
                403 => "Forbidden",
                429 => "TooManyRequests",
                _ => "InternalError",
            };
            let mut response = json(code, &answer::status(code, reason, "asked to go wrong"));
            if let Some(after) = after {
                let headers = response.headers_mut();
                headers.insert(header::RETRY_AFTER, after.into());
            }
            response
        }
        Fault::Say(bytes) => bytes.into_response(),
        Fault::Endless(byte) => {
            let piece = Bytes::from(vec![byte; PIECE]);
            let pieces = stream::repeat_with(move || Ok::<_, io::Error>(piece.clone()));
            Body::from_stream(pieces).into_response()
        }
        Fault::Break => {
            let pieces = [
                Ok(Bytes::from_static(b"{\"kind\":")),
                Err(io::Error::other("asked to break")),
            ];
            Body::from_stream(stream::iter(pieces)).into_response()
        }
    }
}

/// A JSON answer.
pub fn json(code: u16, value: &Value) -> Response {
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (code, axum::Json(value)).into_response()
}

/// An answer whose pieces come one by one.
pub fn streamed(pieces: mpsc::Receiver<io::Result<Bytes>>) -> Response {
    let next = |mut pieces: mpsc::Receiver<io::Result<Bytes>>| async {
        pieces.recv().await.map(|piece| (piece, pieces))
    };
    Body::from_stream(stream::unfold(pieces, next)).into_response()
}

/// Sends text in small pieces; returns whether somebody takes them.
pub async fn send(text: String, slow: bool, to: &mpsc::Sender<io::Result<Bytes>>) -> bool {
    if !slow {
        return to.send(Ok(Bytes::from(text))).await.is_ok();
    }
    for piece in text.as_bytes().chunks(97) {
        if to.send(Ok(Bytes::copy_from_slice(piece))).await.is_err() {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    true
}

fn slowly(text: String) -> Response {
    let (sender, pieces) = mpsc::channel(1);
    tokio::spawn(async move { send(text, true, &sender).await });
    streamed(pieces)
}
