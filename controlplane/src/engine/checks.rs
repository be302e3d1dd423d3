//! The health check node ports of the Services, and how many endpoints stand behind each; and what
//! the nodes mean for the gateway's own health.

use std::collections::BTreeMap;

use tokio::sync::watch;

use crate::endpoints::Slice;
use crate::endpoints::choice::{Here, local_ready};
use crate::health_check::{HealthCheck, HealthCheckServer, ProxyHealth};
use crate::object::NamespacedName;
use crate::service::ServiceSpec;
use crate::slices::node::{Node, Nodes};

/// What is answered at which port.
#[derive(Debug, Default)]
pub(super) struct Checks {
    checks: BTreeMap<NamespacedName, (u16, usize)>,
    changed: bool,
    server: Option<HealthCheckServer>,
    own: Option<watch::Sender<ProxyHealth>>,
}

impl Checks {
    /// Has `server` told of every change.
    pub(super) fn serve(&mut self, server: HealthCheckServer) {
        self.server = Some(server);
        self.changed = true;
    }

    /// Has the gateway's own health follow the nodes.
    pub(super) fn own(&mut self, health: watch::Sender<ProxyHealth>) {
        self.own = Some(health);
    }

    /// Tells what the nodes that the gateway stands in front of mean for it.
    pub(super) fn look_at(&self, nodes: &Nodes, here: Here<'_>) {
        let Some(own) = &self.own else { return };
        let is_here = |node: &&Node| here.nodes.is_empty() || here.nodes.contains(&*node.name);
        let mut local = nodes.iter().filter(is_here).peekable();
        let none = local.peek().is_none();
        let eligible = none || local.any(|node| !node.leaving && !node.deleted);
        own.send_modify(|health| health.eligible(eligible));
    }

    /// Counts the endpoints of a Service; `None` when it is gone.
    pub(super) fn count(
        &mut self,
        name: &NamespacedName,
        spec: Option<&ServiceSpec>,
        slices: &[&Slice],
        here: Here<'_>,
    ) {
        let port = spec.and_then(|spec| Some((spec, spec.health_check_node_port?)));
        let before = match port {
            Some((spec, port)) => {
                let check = (port, local_ready(spec, slices, here));
                let before = self.checks.insert(name.clone(), check);
                self.changed |= before != Some(check);
                return;
            }
            None => self.checks.remove(name),
        };
        self.changed |= before.is_some();
    }

    /// Tells what has changed.
    pub(super) fn tell(&mut self) {
        let Some(server) = self.server.as_ref().filter(|_| self.changed) else {
            return;
        };
        self.changed = false;
        let checks = self.checks.iter();
        let checks = checks.map(|(service, (port, local_endpoints))| HealthCheck {
            service: service.clone(),
            port: *port,
            local_endpoints: *local_endpoints,
        });
        server.sync(checks.collect());
    }
}
