//! The health check node ports of all Services.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::answer;
use super::http::{Listening, PortError, Settings};
use super::proxy::ProxyHealth;
use crate::clock::Clock;
use crate::object::NamespacedName;

/// A Service with a health check node port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// Its name.
    pub service: NamespacedName,
    /// `spec.healthCheckNodePort`.
    pub port: u16,
    /// Its ready endpoints here (`endpoints::choice::local_ready`).
    pub local_endpoints: usize,
}

/// Serves the ports until it is dropped.
#[derive(Debug)]
pub struct HealthCheckServer {
    wanted: watch::Sender<Vec<HealthCheck>>,
    problems: watch::Receiver<Vec<(NamespacedName, PortError)>>,
    _task: JoinSet<()>,
}

impl HealthCheckServer {
    /// Starts without any port. Needs a tokio runtime.
    pub fn start(settings: Settings, health: watch::Receiver<ProxyHealth>, clock: Clock) -> Self {
        let (wanted, changes) = watch::channel(Vec::new());
        let (told, problems) = watch::channel(Vec::new());
        let ports = Ports {
            settings,
            health,
            clock,
            open: BTreeMap::new(),
        };
        let mut task = JoinSet::new();
        task.spawn(ports.run(changes, told));
        Self {
            wanted,
            problems,
            _task: task,
        }
    }

    /// From now on these Services are answered for, and no others. Ports that stay keep their
    /// connections. Returns at once; what could not be done is told by [`Self::problems`].
    pub fn sync(&self, services: Vec<HealthCheck>) {
        self.wanted.send_replace(services);
    }

    /// Services whose port could not be had, sorted. A new value comes after each change of the
    /// Services and each new attempt.
    pub fn problems(&self) -> watch::Receiver<Vec<(NamespacedName, PortError)>> {
        self.problems.clone()
    }
}

/// Answers `/healthz` and `/livez` at this address until the value is dropped; any other path is
/// 404. Needs a tokio runtime.
///
/// # Errors
/// The address cannot be listened at.
pub fn serve_own(
    listen: SocketAddr,
    health: watch::Receiver<ProxyHealth>,
    clock: Clock,
) -> Result<Listening, PortError> {
    let settings = Settings {
        addresses: vec![listen.ip()],
        ..Settings::default()
    };
    Listening::open(&settings, listen.port(), move |path| {
        let (now, time) = (clock.now(), clock.time());
        match path {
            "/healthz" => health.borrow().healthz(now, time),
            "/livez" => health.borrow().livez(now, time),
            _ => answer::not_found(),
        }
    })
}

struct Ports {
    settings: Settings,
    health: watch::Receiver<ProxyHealth>,
    clock: Clock,
    open: BTreeMap<NamespacedName, Port>,
}

struct Port {
    check: Arc<watch::Sender<HealthCheck>>,
    listening: Listening,
}

impl Ports {
    async fn run(
        mut self,
        mut wanted: watch::Receiver<Vec<HealthCheck>>,
        told: watch::Sender<Vec<(NamespacedName, PortError)>>,
    ) {
        loop {
            let checks = wanted.borrow_and_update().clone();
            let problems = self.apply(checks).await;
            let is_done = problems.is_empty();
            if *told.borrow() != problems {
                report(&problems);
            }
            told.send_replace(problems);
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(self.settings.retry), if !is_done => {}
            }
        }
    }

    /// Closes what is not wanted before anything is opened: a port may go from one Service to
    /// another.
    async fn apply(&mut self, checks: Vec<HealthCheck>) -> Vec<(NamespacedName, PortError)> {
        let wanted: BTreeMap<NamespacedName, HealthCheck> = checks
            .into_iter()
            .map(|check| (check.service.clone(), check))
            .collect();
        let goes = |service: &NamespacedName, port: &mut Port| {
            let stays = |check: &HealthCheck| check.port == port.check.borrow().port;
            !wanted.get(service).is_some_and(stays)
        };
        let gone: Vec<_> = self.open.extract_if(.., goes).collect();
        for (_, port) in gone {
            port.listening.close().await;
        }
        let mut problems = Vec::new();
        for (service, check) in wanted {
            if let Some(port) = self.open.get(&service) {
                port.check.send_replace(check);
                continue;
            }
            match self.open(check) {
                Ok(port) => {
                    self.open.insert(service, port);
                }
                Err(error) => problems.push((service, error)),
            }
        }
        problems
    }

    fn open(&self, check: HealthCheck) -> Result<Port, PortError> {
        let (health, clock) = (self.health.clone(), self.clock);
        let number = check.port;
        let check = Arc::new(watch::Sender::new(check));
        let current = Arc::clone(&check);
        let listening = Listening::open(&self.settings, number, move |_| {
            let is_healthy = health.borrow().is_healthy(clock.now());
            answer::service(&current.borrow(), is_healthy)
        })?;
        info!(
            "health checks of {} at port {number}",
            check.borrow().service
        );
        Ok(Port { check, listening })
    }
}

fn report(problems: &[(NamespacedName, PortError)]) {
    for (service, error) in problems {
        warn!("health checks of {service}: {error}; trying again");
    }
}

#[cfg(test)]
mod tests;
