//! `make bench-wire`: Sluice and its peers on one rig, in turns, by the same generator and sink.
//!
//! ```text
//!   namespace G: g0 --- wa :gateway: wb --- s0 :namespace S
//!     generator, CPU 0      one of the peers, CPU 1      sink
//! ```
//!
//! An absolute figure depends on the machine and on its neighbours. What counts are ratios of rounds
//! that followed one another, and who ran NAPI where: both stand in the report.

pub mod forwarder;
pub mod peer;
pub mod rig;

pub mod measure;
pub mod readings;

pub mod established;
pub mod known;

pub mod change;
pub mod flood;
pub mod idle;
pub mod pushing;
pub mod scale;
pub mod updater;
pub mod updates;

pub mod figures;
pub mod report;
