//! EndpointSlices for Services that select Pods, as Kubernetes' endpointslice controller makes them
//! (kubernetes/endpointslice reconciler.go, utils.go).
//!
//! ```text
//!   api::Pod --> Pod (facts, shared strings) --.
//!   api::Node -> Node ---------------------.   |
//!   api::Service --> selectors             |   |
//!                       |  who is affected |   |
//!                       v                  v   v
//!   deriver: dirty Services --> reconcile (families -> fill -> hints) --> slices, unchanged ones shared
//! ```
//!
//! Guarantees: pure; the same calls in the same order give the same slices. An endpoint stays in its
//! slice as long as its Pod, its ports and its family do; no slice holds more than the limit; a
//! slice in which nothing changed stays the same `Arc`. How endpoints are spread over slices depends
//! on history, which ones there are does not.
//!
//! It holds facts of Pods and Nodes, not their objects: 100,000 Pods are tens of megabytes.

pub mod deriver;
mod fill;
mod hints;
pub mod node;
pub mod pod;
pub mod reconcile;
pub mod selectors;
pub mod service;
mod shared;
pub mod slice;
mod zones;

#[cfg(test)]
mod tests;

/// Most endpoints that a slice may be told to hold (kube-controller-manager
/// `--max-endpoints-per-slice`).
pub const MAX_ENDPOINTS: usize = 1000;

/// How slices are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Most endpoints of a slice, 1 to [`MAX_ENDPOINTS`]; what is beyond is taken as the nearest.
    pub max_endpoints: usize,
    /// Whether Services may ask for zone hints in proportion to CPUs, by the annotation
    /// `service.kubernetes.io/topology-mode: Auto` (KEP-2433).
    pub zone_hints: bool,
    /// Whether a Pod needs its Node to be known, as in a cluster. Where no Nodes are written down
    /// nobody could serve otherwise.
    pub needs_node: bool,
    /// Who the slices say they are managed by (`endpointslice.kubernetes.io/managed-by`).
    pub manager: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_endpoints: 100,
            zone_hints: true,
            needs_node: true,
            manager: "sluice.dev".to_owned(),
        }
    }
}

impl Settings {
    fn limit(&self) -> usize {
        self.max_endpoints.clamp(1, MAX_ENDPOINTS)
    }
}
