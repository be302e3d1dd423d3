//! Health probes against real servers and against servers that misbehave, each test in a network
//! namespace of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use sluice_controlplane::clock::Clock;
use sluice_controlplane::health::failure::{Failure, Outcome};
use sluice_controlplane::health::passive::{Evidence, Passive};
use sluice_controlplane::health::probe::{Accept, Action, Http, Probe, StatusRange, Timing};
use sluice_controlplane::health::{By, Health, Judged, Settings, Target};
use sluice_controlplane::object::NamespacedName;
use sluice_tests::netns::{CONFIGURE, Netns};
use sluice_tests::peer::{Manner, Peer};
use sluice_tests::process::Process;
use sluice_tests::{clock, inside};
use tonic_health::ServingStatus;

/// Long enough for every answer that comes at all.
const PATIENT: Duration = Duration::from_secs(20);
/// For answers that never come.
const SHORT: Duration = Duration::from_millis(300);

fn probe(action: Action, timeout: Duration) -> Probe {
    let timing = Timing {
        period: Duration::from_millis(100),
        timeout,
        success: 1,
        failure: 2,
        jitter_percent: None,
    };
    Probe { action, timing }
}

fn get(path: &str) -> Http {
    Http {
        path: path.into(),
        ..Http::default()
    }
}

fn https(path: &str) -> Http {
    Http {
        tls: true,
        ..get(path)
    }
}

fn only(status: u16) -> Accept {
    let range = StatusRange {
        first: status,
        last: status,
    };
    Accept::Statuses(vec![range])
}

async fn ask(address: SocketAddr, action: Action, timeout: Duration) -> Outcome {
    probe(action, timeout).send(address).await
}

async fn http(address: SocketAddr, http: Http) -> Outcome {
    ask(address, Action::Http(http), PATIENT).await
}

/// What an outcome says, for comparing.
fn words(outcome: Outcome) -> String {
    outcome.map_or_else(|failure| failure.to_string(), |()| "passed".into())
}

fn grpc(service: &str) -> Action {
    Action::Grpc {
        service: service.into(),
    }
}

/// An nginx that answers in all the ways that matter; it is ready while there is a file `ready`.
fn nginx(namespace: &Netns, dir: &Path) -> Result<Process> {
    let key = rcgen::generate_simple_self_signed(["app.example".to_owned()])?;
    fs::write(dir.join("cert.pem"), key.cert.pem())?;
    fs::write(dir.join("key.pem"), key.signing_key.serialize_pem())?;
    fs::write(dir.join("ready"), "yes\n")?;
    fs::write(dir.join("big"), vec![b'x'; 10 << 20])?;
    let folder = dir.display();
    let text = format!(
        "daemon off; user root; worker_processes 1; pid {folder}/pid; error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    absolute_redirect off;
    server {{
        listen 8080; listen [::]:8080; listen 8443 ssl;
        ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
        root {folder};
        location = / {{ return 200 \"fine\"; }}
        location = /busy {{ return 503; }}
        location = /moved {{ return 301 /; }}
        location = /over {{ return 302 https://127.0.0.1:8443/; }}
        location = /away {{ return 302 http://192.0.2.1/; }}
        location = /broken {{ return 302 /busy; }}
        location = /round {{ return 302 /round; }}
        location = /virtual {{ if ($http_host != app.example) {{ return 421; }} return 204; }}
        location = /named {{ if ($ssl_server_name != app.example) {{ return 421; }} return 204; }}
        location = /token {{ if ($http_x_token != secret) {{ return 401; }} return 204; }}
        location = /ready {{ try_files /ready =503; }}
    }}
}}
"
    );
    let file = dir.join("nginx.conf");
    fs::write(&file, text)?;
    let (file, prefix) = (file.to_string_lossy(), dir.to_string_lossy());
    let words = ["nginx", "-p", &*prefix, "-c", &*file, "-e", "stderr"];
    let mut process = namespace.start("nginx", &words, &dir.join("nginx.log"))?;
    clock::wait_for("nginx listening", PATIENT, || {
        process.still_running()?;
        let listening = namespace.run(&["ss", "-Hltn"], CONFIGURE)?;
        Ok(listening.contains(":8443").then_some(()))
    })?;
    Ok(process)
}

const NGINX: ([u8; 4], u16) = ([127, 0, 0, 1], 8080);
const NGINX_TLS: ([u8; 4], u16) = ([127, 0, 0, 1], 8443);

#[test]
fn nginx_passes_and_fails_as_the_kubelet_would_see_it() {
    let namespace = Netns::create("probed").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let _nginx = nginx(&namespace, dir.path()).unwrap();
    let plain = SocketAddr::from(NGINX);
    let secure = SocketAddr::from(NGINX_TLS);
    let virtual_host = |http: Http| Http {
        host: Some("app.example".into()),
        ..http
    };
    let accepting = |accept: Accept, http: Http| Http { accept, ..http };
    let with_token = Http {
        headers: vec![("X-Token".into(), "secret".into())],
        ..get("/token")
    };
    let cases = [
        (plain, get("/"), "passed"),
        (plain, get("?query"), "passed"),
        (plain, get("/big"), "passed"),
        (plain, get("/busy"), "HTTP 503"),
        (plain, get("/nowhere"), "HTTP 404"),
        (plain, get("/moved"), "passed"),
        (plain, get("/over"), "passed"),
        (plain, get("/away"), "passed"),
        (plain, get("/broken"), "HTTP 503"),
        (plain, get("/round"), "too many HTTP redirects"),
        (plain, accepting(only(503), get("/busy")), "passed"),
        (plain, accepting(only(503), get("/")), "HTTP 200"),
        (plain, accepting(only(302), get("/broken")), "passed"),
        (plain, get("/virtual"), "HTTP 421"),
        (plain, virtual_host(get("/virtual")), "passed"),
        (plain, get("/token"), "HTTP 401"),
        (plain, with_token, "passed"),
        (
            plain,
            https("/"),
            "no TLS session: received corrupt message of type InvalidContentType",
        ),
        (secure, https("/"), "passed"),
        (secure, https("/busy"), "HTTP 503"),
        (secure, https("/named"), "HTTP 421"),
        (secure, virtual_host(https("/named")), "passed"),
        (secure, get("/"), "HTTP 400"),
        (
            SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 8080)),
            get("/"),
            "passed",
        ),
    ];
    inside::run(&namespace, async {
        for (address, asked, expected) in cases {
            let told = words(http(address, asked.clone()).await);
            assert_eq!(told, expected, "{asked:?}");
        }
        assert_eq!(ask(plain, Action::Connect, PATIENT).await, Ok(()));
        Ok(())
    })
    .unwrap();
}

#[test]
fn probes_leave_no_sockets_behind_in_the_gateway() {
    let namespace = Netns::create("probed").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let _nginx = nginx(&namespace, dir.path()).unwrap();
    inside::run(&namespace, async {
        for _ in 0..50 {
            assert_eq!(ask(NGINX.into(), Action::Connect, PATIENT).await, Ok(()));
            assert_eq!(http(NGINX.into(), get("/")).await, Ok(()));
            assert_eq!(http(NGINX.into(), get("/big")).await, Ok(()));
            assert_eq!(http(NGINX_TLS.into(), https("/")).await, Ok(()));
        }
        Ok(())
    })
    .unwrap();
    // The gateway's ends; nginx may keep an end of its own in TIME_WAIT.
    let ends = "( dport = :8080 or dport = :8443 )";
    let ss = ["ss", "-Htan", "state", "all", ends];
    clock::wait_for("sockets to go", PATIENT, || {
        let left = namespace.run(&ss, CONFIGURE)?;
        assert!(!left.contains("TIME-WAIT"), "{left}");
        Ok(left.trim().is_empty().then_some(()))
    })
    .unwrap();
}

#[test]
fn a_server_that_misbehaves_fails_with_its_reason() {
    let namespace = Netns::create("probed").unwrap();
    // A device that nothing comes back from.
    let hole = "link add hole type veth peer name end
link set end up
addr add 10.9.0.1/24 dev hole
link set hole up
neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev hole nud permanent
";
    namespace.ip_batch(hole).unwrap();
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n".to_owned();
    let head = "HTTP/1.1 200 OK\r\nX-Long: ".to_owned();
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    let timeout = "timeout after 0.3 s";
    let closed = "connection closed before the answer was through";
    let reset = "connection reset";
    let (no_http, no_tls) = ("not HTTP: *", "no TLS session: *");
    let banner = b"SSH-2.0-OpenSSH_9.9\r\n".to_vec();
    let noise = vec![0xff; 100_000];
    // What TCP, HTTP, HTTPS and gRPC make of each manner. Some of them take the end of gRPC's
    // preface for that of a request, some do not.
    let cases = [
        (Manner::Silent, ["passed", timeout, timeout, timeout]),
        (
            Manner::Closing,
            ["passed", "connection *", "connection *", "*"],
        ),
        (Manner::Resetting, ["passed", reset, timeout, "*"]),
        (
            Manner::Saying(banner),
            ["passed", no_http, no_tls, "gRPC *"],
        ),
        (Manner::Saying(noise), ["passed", no_http, no_tls, "gRPC *"]),
        (
            Manner::Answering(answer.clone()),
            ["passed", closed, "*", "*"],
        ),
        (
            Manner::Slow(answer.clone()),
            ["passed", timeout, timeout, "*"],
        ),
        (
            Manner::Slow(head.clone()),
            ["passed", timeout, timeout, "*"],
        ),
        (Manner::Endless(answer), ["passed", "passed", "*", "*"]),
        (Manner::Endless(head), ["passed", no_http, "*", "*"]),
        (Manner::Endless(chunked), ["passed", no_http, "*", "*"]),
    ];
    let actions = [
        Action::Connect,
        Action::Http(get("/")),
        Action::Http(https("/")),
        grpc(""),
    ];
    inside::run(&namespace, async {
        for (manner, expected) in cases {
            let peer = Peer::start("127.0.0.1", manner.clone()).await?;
            for (action, expected) in actions.iter().zip(expected) {
                let told = words(ask(peer.address, action.clone(), SHORT).await);
                let fits = match expected.strip_suffix('*') {
                    Some(start) => told.starts_with(start) && !told.starts_with("passed"),
                    None => told == expected,
                };
                assert!(fits, "{manner:?} {action:?}: {told}, expected {expected}");
            }
        }
        for action in actions {
            let nobody = ask("127.0.0.1:9".parse()?, action.clone(), PATIENT).await;
            assert_eq!(nobody, Err(Failure::Refused), "{action:?}");
            let hole = ask("10.9.0.2:80".parse()?, action.clone(), SHORT).await;
            assert_eq!(hole, Err(Failure::Timeout(SHORT)), "{action:?}");
            let nowhere = ask("192.0.2.1:80".parse()?, action.clone(), PATIENT).await;
            assert_eq!(nowhere, Err(Failure::Unreachable("network")), "{action:?}");
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn an_http_request_says_who_asks_and_that_no_more_will_come() {
    let namespace = Netns::create("probed").unwrap();
    inside::run(&namespace, async {
        let answer = Manner::Answering("HTTP/1.1 204 No Content\r\n\r\n".into());
        let peer = Peer::start("127.0.0.1", answer).await?;
        assert_eq!(http(peer.address, get("/healthz?full=1")).await, Ok(()));
        let request = peer.requests().remove(0);
        let mut lines: Vec<&str> = request.trim_end().split("\r\n").collect();
        assert_eq!(lines.remove(0), "GET /healthz?full=1 HTTP/1.1");
        lines.sort_unstable();
        let host = format!("host: {}", peer.address);
        let agent = concat!("user-agent: sluice-probe/", env!("CARGO_PKG_VERSION"));
        assert_eq!(lines, ["accept: */*", "connection: close", &host, agent]);
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_grpc_server_is_asked_for_its_health() {
    let namespace = Netns::create("probed").unwrap();
    inside::run(&namespace, async {
        let incoming = tonic::transport::server::TcpIncoming::bind("127.0.0.1:0".parse()?)?;
        let address = incoming.local_addr()?;
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter
            .set_service_status("store", ServingStatus::Serving)
            .await;
        reporter
            .set_service_status("cart", ServingStatus::NotServing)
            .await;
        let server = tonic::transport::Server::builder().add_service(health);
        tokio::spawn(server.serve_with_incoming(incoming));
        let told = async |service: &str| words(ask(address, grpc(service), PATIENT).await);
        assert_eq!(told("").await, "passed");
        assert_eq!(told("store").await, "passed");
        assert_eq!(told("cart").await, "gRPC NOT_SERVING");
        assert_eq!(told("unknown").await, "gRPC NOT_FOUND");
        reporter
            .set_service_status("cart", ServingStatus::Serving)
            .await;
        assert_eq!(told("cart").await, "passed");

        let incoming = tonic::transport::server::TcpIncoming::bind("127.0.0.1:0".parse()?)?;
        let without = incoming.local_addr()?;
        let routes = tonic::service::Routes::default();
        let server = tonic::transport::Server::builder().add_routes(routes);
        tokio::spawn(server.serve_with_incoming(incoming));
        let told = words(ask(without, grpc(""), PATIENT).await);
        assert_eq!(told, "gRPC UNIMPLEMENTED");
        Ok(())
    })
    .unwrap();
}

fn wanted(address: SocketAddr, action: Action) -> Target {
    let by = By::Probe(Arc::new(probe(action, PATIENT)));
    Target { address, by }
}

/// The next changes, as health and reason.
async fn told(health: &Health) -> Result<Vec<(bool, String)>> {
    let changes = tokio::time::timeout(PATIENT, health.changes()).await?;
    let told = |judged: Judged| (judged.verdict.healthy, judged.verdict.reason.to_string());
    Ok(changes.into_iter().map(told).collect())
}

#[test]
fn a_backend_that_stops_being_ready_is_told_and_so_is_its_return() {
    let namespace = Netns::create("probed").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let _nginx = nginx(&namespace, dir.path()).unwrap();
    let ready = dir.path().join("ready");
    inside::run(&namespace, async {
        let health = Health::new(Settings::default(), Clock::start());
        let _probing = health.start()?;
        let name = NamespacedName::new("default", "web");
        let web = wanted(NGINX.into(), Action::Http(get("/ready")));
        health.set(&name, vec![web.clone()]);
        let before = health.verdict(&web).unwrap();
        assert!(before.healthy && before.reason.is_open());
        fs::remove_file(&ready)?;
        assert_eq!(told(&health).await?, [(false, "HTTP 503".into())]);
        fs::write(&ready, "again\n")?;
        assert_eq!(told(&health).await?, [(true, "probe passed".into())]);
        let now = health.of_service(&name);
        assert_eq!(now.len(), 1);
        assert!(now[0].verdict.since > before.since);
        health.set(&name, Vec::new());
        assert_eq!(health.all(), []);
        Ok(())
    })
    .unwrap();
}

#[test]
fn many_services_with_one_backend_cause_one_probe_at_a_time() {
    let namespace = Netns::create("probed").unwrap();
    inside::run(&namespace, async {
        let peer = Peer::start("127.0.0.1", Manner::Resetting).await?;
        let health = Health::new(Settings::default(), Clock::start());
        let probing = health.start()?;
        let target = wanted(peer.address, Action::Http(get("/")));
        for service in 0..50 {
            let name = NamespacedName::new("default", service.to_string());
            health.set(&name, vec![target.clone()]);
        }
        let changes = told(&health).await?;
        assert_eq!(changes, [(false, "connection reset".into())]);
        drop(probing);
        // Two failures make a verdict; a third probe may have begun.
        let asked = peer.requests().len();
        assert!((2..=3).contains(&asked), "{asked}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_backend_without_probe_is_judged_by_its_connections() {
    let namespace = Netns::create("probed").unwrap();
    inside::run(&namespace, async {
        let health = Health::new(Settings::default(), Clock::start());
        let _probing = health.start()?;
        let target = Target {
            address: "127.0.0.1:9".parse()?,
            by: By::Connections(Passive::default()),
        };
        let name = NamespacedName::new("default", "web");
        health.set(&name, vec![target.clone()]);
        let failed = Evidence {
            unanswered: 3,
            resets: 2,
            answered: 0,
        };
        health.evidence(&target, failed);
        let why = "5 connections in a row failed, out of use for 30 s";
        assert_eq!(told(&health).await?, [(false, why.into())]);
        Ok(())
    })
    .unwrap();
}
