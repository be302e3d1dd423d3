//! Sluice's control plane: Kubernetes objects in, one service table out.
//!
//! ```text
//!   folder of manifests, live Kubernetes API
//!        | source: apply / doubt / delete / report / synced             sluicectl
//!        v                                                                  | control, view
//!   engine: index (versions, problems)                                      |
//!        |-- Services --> admission (registry, pools, store) --.
//!        |-- Pods, Nodes --> slices ---------------------------+--> catalog --> compile --> tables --> push
//!        '-- EndpointSlices -----------------------------------'                  ^                     |
//!                                       health, evidence, drains --> readiness ---+               the dataplane
//!                                                                                 '--> dns --> clients
//! ```
//!
//! Guarantees: what served goes on serving, whatever is written into the folder, until a good
//! version replaces it or its file is gone; the same objects always compile to the same table; what
//! a Service was given is its own over restarts. It does not move packets. Of objects other than
//! Services the last good version is not stored, so after a restart only what the files hold is
//! known of them.
#![forbid(unsafe_code)]

// In the order of the path: a module uses those above it. (`object` and `source` know each other:
// objects carry the lines that the source read them from.)
pub mod clock;

pub mod words;

mod parallel;

pub mod aside;

pub mod field;

pub mod object;

pub mod source;

pub mod address;

pub mod validation;

pub mod annotations;

pub mod kinds;

pub mod service;

pub mod endpoints;

pub mod health;

pub mod slices;

pub mod index;

pub mod registry;

pub mod pools;

pub mod store;

pub mod admission;

pub mod rules;

pub mod catalog;

pub mod readiness;

pub mod dns;

pub mod compile;

pub mod status;

pub mod tables;

pub mod health_check;

pub mod metrics;

pub mod env;

pub mod engine;

pub mod env_files;

pub mod framing;

pub mod push;

pub mod evidence;

pub mod plan;

pub mod history;

pub mod view;

pub mod listener;

pub mod control;

pub mod daemon;

pub mod client;

pub mod pcapng;

#[cfg(test)]
mod testing;
