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
