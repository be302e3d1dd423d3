//! What the control plane does with objects, sockets and what happens around it.
//!
//! One program for all of them: linking takes longer than most of them run.
#![forbid(unsafe_code)]

mod allocation;
mod control_input;
mod dns;
mod evidence;
mod health_probes;
mod kubernetes;
mod kubernetes_source;
mod manifests;
mod plan;
mod readiness;
mod walkthrough;
