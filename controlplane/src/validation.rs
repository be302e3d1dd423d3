//! Validation of Services and EndpointSlices as the API server does it, as pure functions over
//! objects that have been defaulted.
//!
//! Guarantees: every mistake is told at its JSON path, with the value (cut when it is long) and the
//! way out; any object is answered in time about linear in its size, none makes it panic. Nothing
//! is defaulted and nothing is changed here.
//!
//! The rules are those of Kubernetes 1.35 (pkg/apis/core/validation, pkg/apis/discovery/validation,
//! apimachinery pkg/api/validation), with these readings: the name of a Service may start with a
//! digit (KEP-5311), and addresses may have leading zeros (feature gate `StrictIPCIDRValidation`
//! off). `metadata.managedFields` is not looked at. Which addresses and node ports are free is not
//! for validation.

mod addresses;
mod cluster_ips;
mod endpoint_slice;
mod load_balancer;
mod metadata;
mod mistakes;
mod names;
mod ports;
mod service;
mod traffic;

#[cfg(test)]
mod tests;

pub use endpoint_slice::{endpoint_slice_create, endpoint_slice_update};
pub use load_balancer::service_status;
pub use service::{service_create, service_update};
