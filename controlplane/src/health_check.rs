//! Answers to load balancers: which gateway has endpoints of a Service (`healthCheckNodePort`), and
//! whether the gateway itself is well (`/healthz`, `/livez`).
//!
//! ```text
//!   tables applied, nodes --> ProxyHealth --.
//!                                           +--> answer (pure) --> http --> one listener a port
//!   ready endpoints here of each Service ---'
//! ```
//!
//! Guarantees: answers are those of kube-proxy (pkg/proxy/healthcheck of kubernetes/kubernetes),
//! byte for byte apart from the times, which are RFC 3339, and null where there is none. A listener
//! holds at most [`http::MAX_CONNECTIONS`] connections, each of bounded memory and age. A port that
//! cannot be had is told and tried again, and keeps no other port from opening. It does not decide
//! which Services have such a port, nor count endpoints; those come in by
//! [`HealthCheckServer::sync`].

mod answer;
pub mod http;
mod proxy;
mod server;

pub use answer::service;
pub use http::{Listening, PortError, Settings};
pub use proxy::{ProxyHealth, TO_BE_DELETED, is_eligible};
pub use server::{HealthCheck, HealthCheckServer, serve_own};
