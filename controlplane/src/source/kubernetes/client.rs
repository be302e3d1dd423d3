//! Requests to a Kubernetes API server, each with a deadline and a bound.
//!
//! Guarantees: no answer makes this process grow: bodies and lines have limits, and so has the
//! silence between them; whatever a server sends ends in a value or in one [`ApiError`] of bounded
//! length. Nothing is retried here; the callers know what may be repeated.

use std::error::Error as StdError;
use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Bytes;
use hyper::header::RETRY_AFTER;
use hyper::{Request, Response};
use kube::client::Body;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::core::Status;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::words;

/// Largest answer to one request, in bytes: a page of a list with room to spare.
const MAX_BODY: usize = 64 << 20;
/// Largest event of a watch, in bytes. etcd takes objects of 1.5 MiB, an API server requests of
/// 3 MiB.
const MAX_LINE: usize = 4 << 20;
/// Largest error answer, in bytes; what is longer is cut.
const MAX_ERROR: usize = 64 << 10;
/// Longest message of a server that is repeated, in characters.
const MAX_MESSAGE: usize = 400;

/// Where the credentials for an API server come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Credentials {
    /// `KUBECONFIG` or `~/.kube/config` if there is one, otherwise the Pod's own.
    #[default]
    Default,
    /// A kubeconfig file.
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// The context; none means the file's current one.
        context: Option<String>,
    },
    /// The service account of the Pod that this process runs in.
    InCluster,
}

/// Why the credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The kubeconfig file.
    #[error("kubernetes.kubeconfig {}: {reason}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The service account.
    #[error("kubernetes: no service account to be used inside a cluster: {0}")]
    InCluster(String),
    /// Neither a kubeconfig nor a service account.
    #[error(
        "kubernetes: no credentials; set kubernetes.kubeconfig, or run as a Pod with a service \
         account: {0}"
    )]
    None(String),
    /// They are there, but no client can be made of them.
    #[error("kubernetes: the credentials for {server} cannot be used: {reason}")]
    Unusable {
        /// The API server.
        server: String,
        /// What is wrong.
        reason: String,
    },
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// There is no connection.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// The connection broke while the answer was read.
    #[error("the answer broke off: {0}")]
    Broken(String),
    /// Nothing came for so long.
    #[error("no answer within {} s", .0.as_secs_f32())]
    Late(Duration),
    /// The server says no.
    #[error("answered {code}: {message}")]
    Refused {
        /// HTTP status, or that of an event of a watch.
        code: u16,
        /// The server's sentence.
        message: String,
        /// How long the server asks to be left alone.
        retry_after: Option<Duration>,
        /// Whether the resource version that was asked for is newer than the server.
        ahead: bool,
    },
    /// There can be no such request.
    #[error("cannot be asked: {0}")]
    Unaskable(String),
    /// The answer is not what an API server says.
    #[error("sent nonsense: {0}")]
    Nonsense(String),
}

impl ApiError {
    /// The HTTP status of a refusal.
    pub fn code(&self) -> Option<u16> {
        match self {
            ApiError::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// How long the server asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            ApiError::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The refusal that a Status tells.
    pub(crate) fn from_status(status: &Status) -> Self {
        let details = status.details.as_ref();
        let seconds = details.map_or(0, |details| details.retry_after_seconds);
        let ahead = details.is_some_and(|details| {
            let mut causes = details.causes.iter();
            causes.any(|cause| cause.reason == "ResourceVersionTooLarge")
        });
        ApiError::Refused {
            code: status.code,
            message: quoted(&status.message),
            retry_after: (seconds > 0).then(|| Duration::from_secs(seconds.into())),
            ahead,
        }
    }
}

/// A connection to one API server.
#[derive(Clone)]
pub struct Api {
    client: kube::Client,
    name: String,
    namespace: String,
}

impl Api {
    /// Reads the credentials; asks the server nothing yet. Needs a tokio runtime.
    ///
    /// # Errors
    /// There are no credentials, or they are malformed.
    pub async fn new(credentials: &Credentials) -> Result<Self, CredentialsError> {
        let (mut config, context) = config(credentials).await?;
        let host = config.cluster_url.authority().map(ToString::to_string);
        let name = context.or(host).unwrap_or_default();
        // A retry inside the client would hide that the server is away.
        config.default_retry = false;
        let namespace = config.default_namespace.clone();
        let unusable = |error: kube::Error| CredentialsError::Unusable {
            server: name.clone(),
            reason: chain(&error),
        };
        let client = kube::Client::try_from(config).map_err(unusable)?;
        Ok(Self {
            client,
            name,
            namespace,
        })
    }

    /// Context of the kubeconfig, or host of the server.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace of the kubeconfig's context or of the service account.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// No good answer within `limit`.
    pub async fn json<T: DeserializeOwned>(
        &self,
        request: Request<Vec<u8>>,
        limit: Duration,
    ) -> Result<T, ApiError> {
        let whole = async {
            let mut body = self.send(request).await?.into_body();
            let mut bytes = Vec::new();
            while let Some(chunk) = chunk(&mut body).await? {
                if bytes.len() + chunk.len() > MAX_BODY {
                    let size = MAX_BODY >> 20;
                    return Err(ApiError::Nonsense(format!("an answer above {size} MiB")));
                }
                bytes.extend_from_slice(&chunk);
            }
            serde_json::from_slice(&bytes).map_err(|error| nonsense(&bytes, &error))
        };
        timeout(limit, whole)
            .await
            .map_err(|_| ApiError::Late(limit))?
    }

    /// Sends a request whose answer comes line by line.
    ///
    /// # Errors
    /// The answer does not begin within `limit`.
    pub async fn lines(
        &self,
        request: Request<Vec<u8>>,
        limit: Duration,
    ) -> Result<Lines, ApiError> {
        let begun = timeout(limit, self.send(request)).await;
        let response = begun.map_err(|_| ApiError::Late(limit))??;
        Ok(Lines {
            body: response.into_body(),
            buffer: Vec::new(),
            start: 0,
            searched: 0,
        })
    }

    async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Body>, ApiError> {
        let sent = self.client.send(request.map(Body::from)).await;
        let response = sent.map_err(|error| ApiError::Unreachable(chain(&error)))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refusal(response).await)
    }
}

/// An answer that comes line by line.
pub struct Lines {
    body: Body,
    buffer: Vec<u8>,
    /// Where the next line starts in the buffer.
    start: usize,
    /// Up to where the buffer is known to hold no end of that line.
    searched: usize,
}

impl Lines {
    /// The next line, without its end; `None` at the end of the answer. What stands there behind
    /// the last end of a line was cut off and is left out.
    ///
    /// # Errors
    /// The connection broke, nothing came within `silence`, or the line is too long.
    pub async fn next(&mut self, silence: Duration) -> Result<Option<Vec<u8>>, ApiError> {
        loop {
            let mut rest = self.buffer[self.searched..].iter();
            if let Some(length) = rest.position(|byte| *byte == b'\n') {
                let end = self.searched + length;
                let line = self.buffer[self.start..end].to_vec();
                self.start = end + 1;
                self.searched = self.start;
                return Ok(Some(line));
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            self.searched = self.buffer.len();
            if self.searched > MAX_LINE {
                let size = MAX_LINE >> 20;
                return Err(ApiError::Nonsense(format!("an event above {size} MiB")));
            }
            let next = timeout(silence, chunk(&mut self.body)).await;
            match next.map_err(|_| ApiError::Late(silence))?? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

async fn config(credentials: &Credentials) -> Result<(Config, Option<String>), CredentialsError> {
    match credentials {
        Credentials::InCluster => {
            let config = Config::incluster();
            let config = config.map_err(|error| CredentialsError::InCluster(chain(&error)))?;
            Ok((config, None))
        }
        Credentials::Kubeconfig { path, context } => {
            let wrong = |error: kube::config::KubeconfigError| CredentialsError::Kubeconfig {
                path: path.clone(),
                reason: chain(&error),
            };
            let file = Kubeconfig::read_from(path).map_err(wrong)?;
            let context = context.clone().or_else(|| file.current_context.clone());
            let options = KubeConfigOptions {
                context: context.clone(),
                ..KubeConfigOptions::default()
            };
            let config = Config::from_custom_kubeconfig(file, &options).await;
            Ok((config.map_err(wrong)?, context))
        }
        Credentials::Default => {
            let context = Kubeconfig::read()
                .ok()
                .and_then(|file| file.current_context);
            let config = Config::infer().await;
            let config = config.map_err(|error| CredentialsError::None(chain(&error)))?;
            Ok((config, context))
        }
    }
}

async fn chunk(body: &mut Body) -> Result<Option<Bytes>, ApiError> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Err(error)) => return Err(ApiError::Broken(chain(&error))),
            // Trailers say nothing that is needed.
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

async fn refusal(response: Response<Body>) -> ApiError {
    let code = response.status().as_u16();
    let after = response.headers().get(RETRY_AFTER);
    let after = after.and_then(|value| value.to_str().ok()?.parse().ok());
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = chunk(&mut body).await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_ERROR {
            bytes.truncate(MAX_ERROR);
            break;
        }
    }
    // A path that no API group owns, and every proxy, answers in plain text.
    let status = serde_json::from_slice(&bytes).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(&bytes);
        Status::failure(text.trim(), "").with_code(code)
    });
    match ApiError::from_status(&status) {
        ApiError::Refused {
            message,
            retry_after,
            ahead,
            ..
        } => ApiError::Refused {
            code,
            message,
            retry_after: after.map(Duration::from_secs).or(retry_after),
            ahead,
        },
        other => other,
    }
}

/// The request, where it can be one.
pub(crate) fn built<E: Display>(
    request: Result<Request<Vec<u8>>, E>,
) -> Result<Request<Vec<u8>>, ApiError> {
    request.map_err(|error| ApiError::Unaskable(quoted(&error.to_string())))
}

/// What is wrong with text that should be JSON, and how it begins.
pub(crate) fn nonsense(bytes: &[u8], error: &serde_json::Error) -> ApiError {
    let start = &bytes[..bytes.len().min(60)];
    let start = quoted(&String::from_utf8_lossy(start));
    ApiError::Nonsense(format!("{error} in an answer that begins with \"{start}\""))
}

/// Text of a server as part of one line of ours.
fn quoted(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut quoted: String = printable.take(MAX_MESSAGE).collect();
    if text.chars().nth(MAX_MESSAGE).is_some() {
        quoted.push_str("...");
    }
    quoted
}

/// An error with what caused it, without what was said before.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = words::plain(&error);
    let mut next = error.source();
    while let Some(error) = next {
        let cause = words::plain(&error);
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        next = error.source();
    }
    quoted(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_server_cannot_forge_a_line_of_the_log_and_is_cut() {
        assert_eq!(quoted("a\nb\u{1b}[2J"), "a b [2J");
        let long = quoted(&"x".repeat(MAX_MESSAGE + 1));
        assert_eq!(long.len(), MAX_MESSAGE + 3);
        assert!(long.ends_with("x..."));
        assert_eq!(quoted(&"x".repeat(MAX_MESSAGE)).len(), MAX_MESSAGE);
    }

    #[test]
    fn a_status_tells_how_long_to_wait_and_whether_the_version_is_ahead() {
        let status: Status = serde_json::from_value(serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "Timeout: Too large resource version: 99999999, current: 290",
            "reason": "Timeout",
            "details": {
                "causes": [{
                    "reason": "ResourceVersionTooLarge",
                    "message": "Too large resource version"
                }],
                "retryAfterSeconds": 1
            },
            "code": 504
        }))
        .unwrap();
        let error = ApiError::from_status(&status);
        assert_eq!(error.code(), Some(504));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
        assert!(matches!(error, ApiError::Refused { ahead: true, .. }));
        assert_eq!(
            error.to_string(),
            "answered 504: Timeout: Too large resource version: 99999999, current: 290"
        );
    }

    #[test]
    fn nonsense_is_told_by_how_it_begins() {
        let bytes = b"<html>\n<body>".to_vec();
        let error = serde_json::from_slice::<serde_json::Value>(&bytes).unwrap_err();
        assert_eq!(
            nonsense(&bytes, &error).to_string(),
            "sent nonsense: expected value at line 1 column 1 in an answer that begins with \
             \"<html> <body>\""
        );
    }
}
