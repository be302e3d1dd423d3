//! What the dataplane does with packets, from bytes in memory to real kernels, clients and servers.
//!
//! One program for all of them: linking takes longer than most of them run.
#![forbid(unsafe_code)]

mod answers;
mod bad_input;
mod determinism;
mod differential;
mod direct;
mod dns;
mod dual_stack;
mod established;
mod harness;
mod hostile;
mod icmp_errors;
mod kernel;
mod large_datagrams;
mod not_ours;
mod path_mtu;
mod path_probes;
mod policies;
mod resets;
mod restarts;
mod sctp;
mod spread;
mod streams;
mod throughput;
mod vlan;
mod wire;
