//! One question to a gRPC health service (grpc/grpc doc/health-checking.md).

use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper_util::rt::TokioIo;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::dial::{self, Stream};
use crate::health::failure::{Failure, Outcome};

/// Bytes that an answer may have; a status is two.
const MAX_ANSWER: usize = 1 << 10;
/// Bytes that the metadata of an answer may have.
const MAX_METADATA: u32 = 16 << 10;
/// Who asks.
const AGENT: &str = concat!("sluice-probe/", env!("CARGO_PKG_VERSION"));

/// Asks how `service` does.
pub(super) async fn check(address: SocketAddr, service: &str) -> Outcome {
    let stream = dial::dial_to_speak(address).await?;
    let channel = channel(address, stream).await?;
    let mut client = HealthClient::new(channel).max_decoding_message_size(MAX_ANSWER);
    let question = HealthCheckRequest {
        service: service.to_owned(),
    };
    match client.check(question).await {
        Ok(answer) => match answer.get_ref().status() {
            ServingStatus::Serving => Ok(()),
            other => Err(Failure::Grpc(other.as_str_name().to_owned())),
        },
        Err(status) => Err(failure(&status)),
    }
}

/// Speaks gRPC on `stream`, and on no other connection when it ends.
async fn channel(address: SocketAddr, stream: Stream) -> Result<Channel, Failure> {
    let ours = |error: &tonic::transport::Error| Failure::behind(error, Failure::Ours);
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .and_then(|endpoint| endpoint.user_agent(AGENT))
        .map_err(|error| ours(&error))?
        .http2_max_header_list_size(MAX_METADATA);
    let once = Once(Some(stream));
    let connected = endpoint.connect_with_connector(once).await;
    connected.map_err(|error| Failure::behind(&error, Failure::Connection))
}

/// A connection's failure tells more than the code that it leads to.
fn failure(status: &Status) -> Failure {
    match Failure::behind(status, Failure::Connection) {
        told @ (Failure::Reset | Failure::Refused) => told,
        _ => Failure::Grpc(name(status.code()).to_owned()),
    }
}

/// Names of the codes (grpc/grpc doc/statuscodes.md).
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Hands out one connection.
struct Once(Option<Stream>);

impl Service<Uri> for Once {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Ready<io::Result<TokioIo<Stream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let stream = self.0.take().map(TokioIo::new);
        ready(stream.ok_or_else(|| io::ErrorKind::ConnectionReset.into()))
    }
}
