//! `make bench-wire`: Sluice and its peers on one rig, in turns, by the same generator and sink.
//!
//! ```text
//!   namespace G: g0 --- wa :gateway: wb --- s0 :namespace S
//!     generator, CPU 0      one of the peers, CPU 1      sink
//! ```
//!
//! Frames of the generator are forwarded at the highest rate with hardly any loss ([`measure`]), open
//! connections of which nobody knows ([`first`]), are those of scenarios ([`flood`], [`updates`],
//! [`scale`], [`idle`]), or give way to real sockets ([`sockets`]), which is all that a proxy
//! understands.
//!
//! An absolute figure depends on the machine and on its neighbours. What counts are ratios of rounds
//! that followed one another, and who ran NAPI where: both stand in the report.

pub mod forwarder;
pub mod peer;
pub mod rig;

pub mod first;
pub mod measure;
pub mod readings;
pub mod sockets;

pub mod established;
pub mod known;

pub mod change;
pub mod flood;
pub mod idle;
pub mod pushing;
pub mod scale;
pub mod updater;
pub mod updates;
pub mod wake;

pub mod figures;
pub mod part;
pub mod report;
