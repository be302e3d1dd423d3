//! One HTTP GET, with the redirects that belong to it.

use std::error::Error as _;
use std::net::SocketAddr;
use std::pin::pin;

use futures::future::{Either, select};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{
    ACCEPT, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT,
};
use hyper::rt::{Read, Write};
use hyper::{Error, Request, Response, Uri};
use hyper_util::rt::TokioIo;

use super::redirect::{self, Location};
use super::{Accept, Http, MAX_BODY, dial, tls};
use crate::health::failure::{Failure, Outcome};

/// Redirects that are followed (Go's net/http, `defaultCheckRedirect`).
const MAX_REDIRECTS: usize = 10;
/// Bytes that the head of an answer may have.
const MAX_HEAD: usize = 64 << 10;
/// Who asks.
const AGENT: &str = concat!("sluice-probe/", env!("CARGO_PKG_VERSION"));

/// Where a request goes.
pub(super) struct Place {
    address: SocketAddr,
    tls: bool,
    path: String,
}

impl Place {
    /// Where the first request goes.
    pub(super) fn of(address: SocketAddr, http: &Http) -> Self {
        let slash = if http.path.starts_with('/') { "" } else { "/" };
        Self {
            address,
            tls: http.tls,
            path: format!("{slash}{}", http.path),
        }
    }

    fn follow(&mut self, location: Location) {
        if let Some((tls, port)) = location.at {
            self.tls = tls;
            self.address.set_port(port);
        }
        self.path = location.path;
    }
}

/// Asks and judges the answer.
pub(super) async fn get(address: SocketAddr, http: &Http) -> Outcome {
    let mut place = Place::of(address, http);
    for _ in 0..=MAX_REDIRECTS {
        let answer = ask(http, &place).await?;
        let status = answer.status().as_u16();
        match leads_on(http, &place, &answer) {
            Some(location) => place.follow(location),
            None if http.accept.passes(status) => return Ok(()),
            None => return Err(Failure::Status(status)),
        }
    }
    Err(Failure::Redirects)
}

fn leads_on<B>(http: &Http, place: &Place, answer: &Response<B>) -> Option<Location> {
    let follows = http.accept == Accept::Kubelet;
    if !follows || !redirect::STATUSES.contains(&answer.status().as_u16()) {
        return None;
    }
    let location = answer.headers().get(LOCATION)?.to_str().ok()?;
    redirect::within(place.address.ip(), &place.path, location)
}

async fn ask(http: &Http, place: &Place) -> Result<Response<()>, Failure> {
    let request = request(http, place).map_err(Failure::Ours)?;
    let stream = dial::dial_to_speak(place.address).await?;
    if place.tls {
        let stream = tls::secure(stream, place.address, http.host.as_deref()).await?;
        exchange(TokioIo::new(stream), request).await
    } else {
        exchange(TokioIo::new(stream), request).await
    }
    .map_err(|error| failure(&error))
}

/// Sends the request and reads the answer, its body up to [`MAX_BODY`].
async fn exchange(
    stream: impl Read + Write + Unpin,
    request: Request<Empty<Bytes>>,
) -> Result<Response<()>, Error> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD);
    let (mut sender, connection) = builder.handshake(stream).await?;
    let asked = pin!(async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        drain(body).await?;
        Ok(Response::from_parts(head, ()))
    });
    match select(asked, pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        // The connection is at its end; what it brought is still to be taken.
        Either::Right((_, asked)) => asked.await,
    }
}

async fn drain(mut body: Incoming) -> Result<(), Error> {
    let mut read = 0;
    while read < MAX_BODY
        && let Some(frame) = body.frame().await
    {
        read += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok(())
}

/// What came before the request was sent cancels it, and is told as the cause of that.
fn failure(error: &Error) -> Failure {
    let cause = error.source().and_then(|cause| cause.downcast_ref());
    let error = cause.filter(|_| error.is_canceled()).unwrap_or(error);
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return Failure::Closed;
    }
    Failure::behind(error, Failure::NotHttp)
}

/// The request as it is sent, or which part of it is not possible in HTTP.
pub(super) fn request(http: &Http, place: &Place) -> Result<Request<Empty<Bytes>>, String> {
    let path = &place.path;
    let uri: Uri = path
        .parse()
        .map_err(|error| format!("path {path:?}: {error}"))?;
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = uri;
    *request.headers_mut() = headers(http, place)?;
    Ok(request)
}

fn headers(http: &Http, place: &Place) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::with_capacity(4 + http.headers.len());
    let address = place.address.to_string();
    let host = http.host.as_ref().unwrap_or(&address);
    headers.insert(HOST, value("host", host, host)?);
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    for (name, text) in &http.headers {
        let key = HeaderName::try_from(name.as_str())
            .map_err(|error| format!("header {name:?}: {error}"))?;
        let value = value("header", name, text)?;
        match key {
            USER_AGENT | ACCEPT if value.is_empty() => drop(headers.remove(&key)),
            HOST | USER_AGENT | ACCEPT => drop(headers.insert(key, value)),
            _ => drop(headers.append(key, value)),
        }
    }
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(headers)
}

fn value(what: &str, name: &str, text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|error| format!("{what} {name:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(http: &Http) -> (String, Vec<(String, String)>) {
        let place = Place::of("10.0.0.1:8080".parse().unwrap(), http);
        let request = request(http, &place).unwrap();
        let headers = request.headers().iter();
        let mut headers: Vec<(String, String)> = headers
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        headers.sort();
        (request.uri().to_string(), headers)
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        expected.iter().map(owned).collect()
    }

    #[test]
    fn a_plain_request_names_the_address_and_who_asks() {
        let (uri, headers) = sent(&Http::default());
        assert_eq!(uri, "/");
        let expected = [
            ("accept", "*/*"),
            ("connection", "close"),
            ("host", "10.0.0.1:8080"),
            ("user-agent", AGENT),
        ];
        assert_eq!(headers, pairs(&expected));
    }

    #[test]
    fn given_headers_are_added_and_replace_what_is_sent_otherwise() {
        let (uri, headers) = sent(&Http {
            path: "healthz?deep".into(),
            host: Some("app.example".into()),
            headers: pairs(&[
                ("User-Agent", ""),
                ("Accept", "text/plain"),
                ("X", "1"),
                ("X", "2"),
            ]),
            ..Http::default()
        });
        assert_eq!(uri, "/healthz?deep");
        let expected = [
            ("accept", "text/plain"),
            ("connection", "close"),
            ("host", "app.example"),
            ("x", "1"),
            ("x", "2"),
        ];
        assert_eq!(headers, pairs(&expected));
    }
}
