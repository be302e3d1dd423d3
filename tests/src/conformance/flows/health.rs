//! What health checks are answered, asked over a real socket of the loopback interface.
//!
//! `request` says who is asked: the proxy's own `/healthz` or `/livez`, or the health check node
//! port of a Service. What a step does is told in prose, of which these words are understood: a node
//! with a taint that is unrelated or an autoscaler's, a node that is being deleted, an update that
//! is late or applied, `N local endpoints`. A step that says anything else fails.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_controlplane::clock::Clock;
use sluice_controlplane::health_check::{
    HealthCheck, HealthCheckServer, Listening, PortError, ProxyHealth, Settings, TO_BE_DELETED,
    serve_own,
};
use sluice_controlplane::object::NamespacedName;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::form::nullable;

/// Ports of the cases, each its own; the address is the process's own.
static NEXT_PORT: AtomicU16 = AtomicU16::new(20_000);

/// What is asked, and what is answered after each step.
#[derive(Debug, Deserialize)]
pub struct Asked {
    request: String,
    #[serde(default, deserialize_with = "nullable")]
    steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    #[serde(rename = "do")]
    told: String,
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<Value>,
}

/// Plays the steps.
pub fn judge(case: &Asked) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    let _context = runtime.enter();
    let mut asked = Server::of(&case.request, &runtime)?;
    for (number, step) in case.steps.iter().enumerate() {
        let result = asked
            .deed(&step.told, &runtime)
            .and_then(|()| asked.judge(step));
        result.map_err(|error| format!("step {} ({}): {error}", number + 1, step.told))?;
    }
    Ok(())
}

struct Server {
    method: String,
    path: String,
    listen: SocketAddr,
    health: watch::Sender<ProxyHealth>,
    answers: Answers,
}

enum Answers {
    Own(#[expect(dead_code, reason = "answers until it is dropped")] Listening),
    Service(Port),
}

struct Port {
    server: HealthCheckServer,
    problems: watch::Receiver<Vec<(NamespacedName, PortError)>>,
    check: HealthCheck,
}

impl Server {
    fn of(request: &str, runtime: &Runtime) -> Result<Self, String> {
        let mut words = request.splitn(3, ' ');
        let mut next = || words.next().unwrap_or_default().to_owned();
        let (method, path, whom) = (next(), next(), next());
        // A table that waits is late at once.
        let health = watch::Sender::new(ProxyHealth::new(Duration::ZERO));
        let listen = SocketAddr::new(own(), NEXT_PORT.fetch_add(1, Ordering::Relaxed));
        let answers = if whom.contains("node port") {
            Answers::Service(Port::open(&whom, listen, &health, runtime)?)
        } else if whom == "of the proxy" {
            let own = serve_own(listen, health.subscribe(), Clock::start());
            Answers::Own(own.map_err(|error| error.to_string())?)
        } else {
            return Err(format!("request {request:?} is not understood"));
        };
        Ok(Self {
            method,
            path,
            listen,
            health,
            answers,
        })
    }

    fn deed(&mut self, told: &str, runtime: &Runtime) -> Result<(), String> {
        let says = |words: &[&str]| words.iter().any(|word| told.contains(word));
        let set_node = |taint: Option<&str>, goes: bool| {
            let node = node(taint, goes)?;
            self.health.send_modify(|health| health.nodes([&node]));
            Ok(())
        };
        if says(&["autoscaler"]) {
            set_node(Some(TO_BE_DELETED), false)
        } else if says(&["unrelated taint"]) {
            set_node(Some("unrelated"), false)
        } else if says(&["being deleted"]) {
            set_node(None, true)
        } else if says(&["update is late"]) {
            self.health
                .send_modify(|health| health.queued(Duration::ZERO));
            Ok(())
        } else if says(&["update is applied"]) {
            self.health
                .send_modify(|health| health.applied(Duration::ZERO));
            Ok(())
        } else if let (Some(count), Answers::Service(port)) = (counted(told), &mut self.answers) {
            port.count(count, runtime)
        } else {
            Err("is not understood".to_owned())
        }
    }

    fn judge(&self, step: &Step) -> Result<(), String> {
        let answer = Answer::to(&self.method, &self.path, self.listen)?;
        if answer.status != step.status {
            let (expected, seen) = (step.status, answer.status);
            return Err(format!("expected status {expected}, seen {seen}"));
        }
        let common = [
            ("content-type", "application/json"),
            ("x-content-type-options", "nosniff"),
        ];
        common
            .into_iter()
            .try_for_each(|(name, value)| answer.has(name, value))?;
        let mut written = step.headers.iter();
        written.try_for_each(|(name, value)| answer.has(&name.to_lowercase(), value))?;
        match &self.answers {
            Answers::Own(_) => answer.has_times()?,
            Answers::Service(port) => {
                port.judge(&answer, self.health.borrow().is_healthy(Duration::MAX))?
            }
        }
        match &step.body {
            Some(body) if *body != answer.body => {
                Err(format!("expected body {body}, seen {}", answer.body))
            }
            _ => Ok(()),
        }
    }
}

impl Port {
    fn open(
        whom: &str,
        listen: SocketAddr,
        health: &watch::Sender<ProxyHealth>,
        runtime: &Runtime,
    ) -> Result<Self, String> {
        let named = whom.split(' ').find_map(|word| word.split_once('/'));
        let (namespace, name) = named.unwrap_or(("default", "service"));
        let settings = Settings {
            addresses: vec![listen.ip()],
            ..Settings::default()
        };
        let server = HealthCheckServer::start(settings, health.subscribe(), Clock::start());
        let check = HealthCheck {
            service: NamespacedName::new(namespace, name),
            port: listen.port(),
            local_endpoints: 0,
        };
        let mut problems = server.problems();
        // The first value is that of the start.
        let _ = runtime.block_on(problems.changed());
        let mut port = Self {
            server,
            problems,
            check,
        };
        port.count(0, runtime)?;
        Ok(port)
    }

    /// Sets the count, and waits until it is told.
    fn count(&mut self, count: usize, runtime: &Runtime) -> Result<(), String> {
        self.check.local_endpoints = count;
        self.server.sync(vec![self.check.clone()]);
        let gone = |_| "the server is gone".to_owned();
        runtime.block_on(self.problems.changed()).map_err(gone)?;
        match self.problems.borrow_and_update().first() {
            None => Ok(()),
            Some((_, error)) => Err(error.to_string()),
        }
    }

    fn judge(&self, answer: &Answer, is_healthy: bool) -> Result<(), String> {
        let (service, count) = (&self.check.service, self.check.local_endpoints);
        answer.has("x-load-balancing-endpoint-weight", &count.to_string())?;
        let body = json!({
            "service": {"namespace": service.namespace, "name": service.name},
            "localEndpoints": count,
            "serviceProxyHealthy": is_healthy,
        });
        match answer.body == body {
            true => Ok(()),
            false => Err(format!("expected body {body}, seen {}", answer.body)),
        }
    }
}

/// 127.64.0.0/10 by the number of the process.
fn own() -> IpAddr {
    let process = std::process::id() & 0x3f_ffff;
    Ipv4Addr::from_bits(0x7f40_0000 | process).into()
}

fn node(taint: Option<&str>, goes: bool) -> Result<Node, String> {
    let taints = taint.map(|key| vec![json!({"key": key, "effect": "NoSchedule"})]);
    let value = json!({
        "metadata": {"name": "node", "deletionTimestamp": goes.then_some("2026-01-01T00:00:00Z")},
        "spec": {"taints": taints},
    });
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// The number of `N local endpoints`.
fn counted(told: &str) -> Option<usize> {
    let (before, _) = told.split_once(" local endpoint")?;
    match before.rsplit(' ').next()? {
        "no" => Some(0),
        number => number.parse().ok(),
    }
}

struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Value,
}

impl Answer {
    fn to(method: &str, path: &str, listen: SocketAddr) -> Result<Self, String> {
        let asked = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(listen)?;
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            let head = format!("{method} {path} HTTP/1.1\r\nhost: {listen}\r\n");
            stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let text = asked().map_err(|error| format!("no answer: {error}"))?;
        Self::parse(&text).ok_or_else(|| format!("expected an answer in HTTP, seen {text:?}"))
    }

    fn parse(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_lowercase(), value.trim().to_owned()))
        };
        Some(Self {
            status,
            headers: lines.map(header).collect::<Option<_>>()?,
            body: serde_json::from_str(body).ok()?,
        })
    }

    fn has(&self, name: &str, value: &str) -> Result<(), String> {
        match self.headers.get(name) {
            Some(seen) if seen == value => Ok(()),
            seen => Err(format!("expected header {name}: {value}, seen {seen:?}")),
        }
    }

    fn has_times(&self) -> Result<(), String> {
        match self.body["currentTime"].is_string() && self.body.get("lastUpdated").is_some() {
            true => Ok(()),
            false => Err(format!("expected times in the body, seen {}", self.body)),
        }
    }
}
