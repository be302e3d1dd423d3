//! Counts of a table, for metrics.

use std::sync::Arc;

use sluice_conf::{Backend, BackendState, FrontendKind, Pool, Service};

/// Service ports with endpoints none of which is local, though a policy asks for local ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WithoutLocal {
    /// By `internalTrafficPolicy`.
    pub internal: usize,
    /// By `externalTrafficPolicy`.
    pub external: usize,
}

/// How much a table holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Service ports.
    pub ports: usize,
    /// Frontends.
    pub frontends: usize,
    /// Backends.
    pub backends: usize,
    /// Those of [`WithoutLocal`].
    pub without_local: WithoutLocal,
}

impl Sizes {
    fn of(services: &[Arc<Service>]) -> Self {
        Self {
            ports: services.len(),
            frontends: services.iter().map(|s| s.frontends.len()).sum(),
            backends: services.iter().map(|s| s.backends.len()).sum(),
            without_local: count_without_local(services),
        }
    }

    /// Takes note that `before` made room for `after`.
    pub(super) fn replace(&mut self, before: &[Arc<Service>], after: &[Arc<Service>]) {
        let (before, after) = (Self::of(before), Self::of(after));
        let change = |size: &mut usize, before: usize, after: usize| {
            *size = size.saturating_add(after).saturating_sub(before);
        };
        change(&mut self.ports, before.ports, after.ports);
        change(&mut self.frontends, before.frontends, after.frontends);
        change(&mut self.backends, before.backends, after.backends);
        let (before, after) = (before.without_local, after.without_local);
        let without_local = &mut self.without_local;
        change(&mut without_local.internal, before.internal, after.internal);
        change(&mut without_local.external, before.external, after.external);
    }
}

/// Counts them (kube-proxy's metric sync_proxy_rules_no_local_endpoints_total).
pub fn count_without_local(services: &[Arc<Service>]) -> WithoutLocal {
    let lacks = |service: &Service, internal: bool| {
        let mut frontends = service.frontends.iter();
        frontends.any(|frontend| {
            let is_ours = (frontend.kind == FrontendKind::ClusterIp) == internal;
            let family = |b: &&Backend| b.address.is_ipv4() == frontend.address.is_ipv4();
            let backends = || service.backends.iter().filter(family);
            is_ours
                && frontend.others.pool == Pool::Local
                && backends().any(|backend| backend.state == BackendState::Active)
                && !backends().any(|backend| backend.local)
        })
    };
    let count = |internal| services.iter().filter(|s| lacks(s, internal)).count();
    WithoutLocal {
        internal: count(true),
        external: count(false),
    }
}
