//! Over real sockets, on loopback addresses that no other process uses.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::health_check::http::MAX_CONNECTIONS;

/// An address of this process: 127.64.0.0/10 by its number.
fn own() -> IpAddr {
    let process = std::process::id() & 0x3f_ffff;
    Ipv4Addr::from_bits(0x7f40_0000 | process).into()
}

fn check(name: &str, port: u16, local_endpoints: usize) -> HealthCheck {
    HealthCheck {
        service: NamespacedName::new("shop", name),
        port,
        local_endpoints,
    }
}

struct Served {
    server: HealthCheckServer,
    problems: watch::Receiver<Vec<(NamespacedName, PortError)>>,
    health: watch::Sender<ProxyHealth>,
}

impl Served {
    async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    async fn with(settings: Settings) -> Self {
        let settings = Settings {
            addresses: vec![own()],
            ..settings
        };
        // A table that waits makes it unhealthy at once.
        let health = watch::Sender::new(ProxyHealth::new(Duration::ZERO));
        let server = HealthCheckServer::start(settings, health.subscribe(), Clock::start());
        let mut problems = server.problems();
        // The first value is that of the start.
        problems.changed().await.unwrap();
        Self {
            server,
            problems,
            health,
        }
    }

    /// Syncs and waits until that is in force; what could not be done.
    async fn sync(&mut self, services: &[HealthCheck]) -> Vec<String> {
        self.server.sync(services.to_vec());
        self.problems.changed().await.unwrap();
        let told = self.problems.borrow_and_update();
        let lines = told
            .iter()
            .map(|(service, error)| format!("{service}: {error}"));
        lines.collect()
    }
}

/// The answer to the bytes of a request, to the end of the connection.
async fn raw(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect((own(), port)).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

async fn status(port: u16, method: &str, path: &str) -> String {
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let answer = raw(port, &request).await;
    answer.lines().next().unwrap_or_default().to_owned()
}

const OK: &str = "HTTP/1.1 200 OK";
const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable";

#[tokio::test]
async fn every_path_and_method_gets_the_answer_of_the_service() {
    let mut served = Served::start().await;
    assert_eq!(served.sync(&[check("web", 30501, 2)]).await, [""; 0]);
    for path in ["/", "/healthz", "/any/where?x=1"] {
        assert_eq!(status(30501, "GET", path).await, OK);
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        assert_eq!(status(30501, method, "/").await, OK);
    }
    let answer = raw(30501, "GET / HTTP/1.0\r\n\r\n").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
    for header in [
        "content-type: application/json",
        "x-content-type-options: nosniff",
        "x-load-balancing-endpoint-weight: 2",
    ] {
        assert!(head.lines().any(|line| line == header), "{head}");
    }
    assert_eq!(body, answer::service(&check("web", 30501, 2), true).body());
    let answer = raw(
        30501,
        "HEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    )
    .await;
    let length = format!("content-length: {}", body.len());
    assert!(answer.starts_with(OK), "{answer}");
    assert!(answer.lines().any(|line| line == length), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn ports_come_and_go_with_their_services() {
    let mut served = Served::start().await;
    served
        .sync(&[check("a", 30502, 1), check("b", 30503, 0)])
        .await;
    assert_eq!(status(30502, "GET", "/").await, OK);
    assert_eq!(status(30503, "GET", "/").await, UNAVAILABLE);
    // The port goes over to the other Service, whose own is closed.
    assert_eq!(served.sync(&[check("b", 30502, 5)]).await, [""; 0]);
    let answer = raw(30502, "GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.contains("\"name\": \"b\""), "{answer}");
    assert!(TcpStream::connect((own(), 30503)).await.is_err());
}

#[tokio::test]
async fn counts_and_the_gateways_health_are_those_of_the_moment() {
    let mut served = Served::start().await;
    served.sync(&[check("web", 30504, 1)]).await;
    assert_eq!(status(30504, "GET", "/").await, OK);
    served
        .health
        .send_modify(|health| health.queued(Duration::ZERO));
    assert_eq!(status(30504, "GET", "/").await, UNAVAILABLE);
    served
        .health
        .send_modify(|health| health.applied(Duration::ZERO));
    assert_eq!(status(30504, "GET", "/").await, OK);
    served.sync(&[check("web", 30504, 0)]).await;
    assert_eq!(status(30504, "GET", "/").await, UNAVAILABLE);
}

#[tokio::test]
async fn a_port_that_somebody_has_is_told_and_taken_when_it_is_free() {
    let other = TcpListener::bind((own(), 30505)).await.unwrap();
    let mut served = Served::with(Settings {
        retry: Duration::from_millis(1),
        ..Settings::default()
    })
    .await;
    let told = served
        .sync(&[check("a", 30505, 1), check("b", 30506, 1)])
        .await;
    let address = own();
    assert_eq!(
        told,
        [format!(
            "shop/a: cannot listen at {address}:30505: Address already in use"
        )]
    );
    assert_eq!(status(30506, "GET", "/").await, OK);
    drop(other);
    let is_done = |problems: &Vec<_>| problems.is_empty();
    served.problems.wait_for(is_done).await.unwrap();
    assert_eq!(status(30505, "GET", "/").await, OK);
}

#[tokio::test]
async fn what_is_no_request_gets_no_answer_of_the_service() {
    let mut served = Served::start().await;
    served.sync(&[check("web", 30507, 1)]).await;
    for nonsense in [
        "\r\n\r\n\0\0\0\0\r\n\r\n".to_owned(),
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65)),
        format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 17)),
    ] {
        let mut stream = TcpStream::connect((own(), 30507)).await.unwrap();
        // It may be closed before all is written or read.
        let _ = stream.write_all(nonsense.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(!answer.contains("200"), "{answer}");
    }
    assert_eq!(status(30507, "GET", "/").await, OK);
}

#[tokio::test]
async fn clients_that_say_nothing_are_sent_away_and_do_not_block_the_others_for_ever() {
    let mut served = Served::with(Settings {
        head_time: Duration::from_millis(50),
        ..Settings::default()
    })
    .await;
    served.sync(&[check("web", 30508, 1)]).await;
    let mut silent = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        silent.push(TcpStream::connect((own(), 30508)).await.unwrap());
    }
    assert_eq!(status(30508, "GET", "/").await, OK);
    for stream in &mut silent {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(!String::from_utf8_lossy(&rest).contains("200"));
    }
}

#[tokio::test]
async fn the_gateways_own_health_has_two_paths() {
    let health = watch::Sender::new(ProxyHealth::new(Duration::ZERO));
    let listen = SocketAddr::new(own(), 30509);
    let own_health = serve_own(listen, health.subscribe(), Clock::start()).unwrap();
    assert_eq!(own_health.addresses(), [listen]);
    assert_eq!(status(30509, "GET", "/healthz").await, OK);
    assert_eq!(status(30509, "GET", "/livez").await, OK);
    assert_eq!(status(30509, "GET", "/").await, "HTTP/1.1 404 Not Found");
    health.send_modify(|health| health.queued(Duration::ZERO));
    assert_eq!(status(30509, "GET", "/healthz").await, UNAVAILABLE);
    assert_eq!(status(30509, "GET", "/livez").await, UNAVAILABLE);
    own_health.close().await;
    assert!(TcpStream::connect(listen).await.is_err());
}
