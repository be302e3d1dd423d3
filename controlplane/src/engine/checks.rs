//! The health check node ports of the Services, and how many endpoints stand behind each.

use std::collections::BTreeMap;

use crate::endpoints::Slice;
use crate::endpoints::choice::{Here, local_ready};
use crate::health_check::{HealthCheck, HealthCheckServer};
use crate::object::NamespacedName;
use crate::service::ServiceSpec;

/// What is answered at which port.
#[derive(Debug, Default)]
pub(super) struct Checks {
    checks: BTreeMap<NamespacedName, (u16, usize)>,
    changed: bool,
    server: Option<HealthCheckServer>,
}

impl Checks {
    /// Has `server` told of every change.
    pub(super) fn serve(&mut self, server: HealthCheckServer) {
        self.server = Some(server);
        self.changed = true;
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
