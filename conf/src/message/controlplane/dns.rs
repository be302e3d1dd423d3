//! What the DNS server answers, and why.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// An explained answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsAnswer {
    /// The name that was asked for, with everything that a search list would add.
    pub name: String,
    /// The type that was asked for.
    pub record_type: String,
    /// Response code, for example `NXDOMAIN`.
    pub code: String,
    /// The records.
    pub records: Vec<DnsRecord>,
    /// Whether there are more than these.
    pub truncated: bool,
    /// The object that it is about, for example `Service default/web`.
    pub object: Option<String>,
    /// Why it is so.
    pub reason: String,
    /// Endpoints of that object, sorted by name and address.
    pub endpoints: Vec<DnsEndpoint>,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsRecord {
    /// `answer`, `authority` or `additional`.
    pub section: String,
    /// Owner.
    pub name: String,
    /// How long it holds, in seconds.
    pub ttl: u32,
    /// Type.
    pub record_type: String,
    /// Data, as in a zone file.
    pub data: String,
}

/// An endpoint of a Service, as DNS sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsEndpoint {
    /// Its name below the Service.
    pub host: String,
    /// Its address.
    pub address: IpAddr,
    /// Why it has no name; `None` when it has.
    pub left_out: Option<String>,
}
