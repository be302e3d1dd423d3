//! Records as the file writes them, beside those that were answered.

use std::net::IpAddr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record};
use serde::Deserialize;

use super::Judged;

/// How records are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// These and no others.
    Exactly,
    /// These, with any TTL, priority and weight; others may stand beside them.
    AtLeast,
}

/// A record.
#[derive(Debug, Deserialize)]
pub struct RecordForm {
    name: String,
    ttl: Option<u32>,
    #[serde(rename = "type")]
    kind: String,
    address: Option<IpAddr>,
    target: Option<String>,
    text: Option<String>,
    priority: Option<u16>,
    weight: Option<u16>,
    port: Option<u16>,
    mname: Option<String>,
    /// Not compared, as in the reference tests.
    #[serde(default, rename = "rname")]
    _rname: Option<String>,
    #[serde(default, rename = "minimum")]
    _minimum: Option<u32>,
}

impl RecordForm {
    fn line(&self, wanted: Wanted) -> String {
        let numbers = match (wanted, self.port) {
            (_, None) => String::new(),
            (Wanted::AtLeast, Some(port)) => format!("{port} "),
            (Wanted::Exactly, Some(port)) => {
                let number = |number: Option<u16>| number.unwrap_or_default();
                format!("{} {} {port} ", number(self.priority), number(self.weight))
            }
        };
        let address = self.address.map(|address| address.to_string());
        let parts = [&address, &self.target, &self.text, &self.mname];
        let data: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
        let ttl = self.ttl.filter(|_| wanted == Wanted::Exactly);
        line(&self.name, ttl, &self.kind, &(numbers + &data.join(" ")))
    }
}

fn seen_line(record: &Record, wanted: Wanted) -> String {
    let data = match &record.data {
        RData::SOA(soa) => soa.mname.to_ascii(),
        RData::SRV(srv) => match wanted {
            Wanted::AtLeast => format!("{} {}", srv.port, srv.target.to_ascii()),
            Wanted::Exactly => format!(
                "{} {} {} {}",
                srv.priority,
                srv.weight,
                srv.port,
                srv.target.to_ascii()
            ),
        },
        RData::TXT(text) => {
            let parts = text.txt_data.iter();
            parts.map(|part| String::from_utf8_lossy(part)).collect()
        }
        RData::CNAME(name) => name.0.to_ascii(),
        RData::NS(name) => name.0.to_ascii(),
        RData::PTR(name) => name.0.to_ascii(),
        other => other.to_string(),
    };
    let ttl = Some(record.ttl).filter(|_| wanted == Wanted::Exactly);
    let kind = record.record_type().to_string();
    line(&record.name.to_ascii(), ttl, &kind, &data)
}

fn line(name: &str, ttl: Option<u32>, kind: &str, data: &str) -> String {
    let ttl = ttl.map(|ttl| format!("{ttl} ")).unwrap_or_default();
    format!("{name} {ttl}{kind} {data}")
}

/// Compares a section; records that are not named at all are free unless all must be.
pub fn compare(
    section: &str,
    expected: Option<&[RecordForm]>,
    seen: &[Record],
    wanted: Wanted,
) -> Judged {
    let is_none = expected.is_some_and(<[RecordForm]>::is_empty);
    let expected = expected.unwrap_or_default().iter();
    let expected: Vec<String> = expected.map(|record| record.line(wanted)).collect();
    let seen: Vec<String> = seen
        .iter()
        .map(|record| seen_line(record, wanted))
        .collect();
    if wanted == Wanted::Exactly || is_none {
        return same(section, expected, seen);
    }
    match expected.iter().find(|line| !seen.contains(line)) {
        Some(missing) => Err(format!("{section}: {missing:?} is missing in {seen:?}")),
        None => Ok(()),
    }
}

/// Fails for a record of a section that is none of these.
pub fn only(section: &str, allowed: &[RecordForm], seen: &[Record]) -> Judged {
    let allowed = allowed.iter();
    let allowed: Vec<String> = allowed.map(|record| record.line(Wanted::AtLeast)).collect();
    let mut seen = seen.iter().map(|record| seen_line(record, Wanted::AtLeast));
    match seen.find(|line| !allowed.contains(line)) {
        Some(more) => Err(format!("{section}: {more:?} is not expected")),
        None => Ok(()),
    }
}

/// Compares lines in any order.
pub fn same(what: &str, mut expected: Vec<String>, mut seen: Vec<String>) -> Judged {
    expected.sort();
    seen.sort();
    match expected == seen {
        true => Ok(()),
        false => Err(format!("{what}: expected {expected:?}, seen {seen:?}")),
    }
}

/// Each CNAME stands before the records of its target.
pub fn cnames_first(answers: &[Record]) -> Judged {
    for (place, record) in answers.iter().enumerate() {
        let RData::CNAME(target) = &record.data else {
            continue;
        };
        if answers
            .iter()
            .take(place)
            .any(|other| other.name == target.0)
        {
            return Err(format!(
                "answer: records of {} stand before the CNAME",
                target.0
            ));
        }
    }
    Ok(())
}

/// All glue is of a server that is listed.
pub fn glue_of_servers(answer: &Message) -> Judged {
    let servers = answer
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::NS(name) => Some(&name.0),
            _ => None,
        });
    let servers: Vec<_> = servers.collect();
    match answer
        .additionals
        .iter()
        .find(|r| !servers.contains(&&r.name))
    {
        Some(record) => Err(format!("{} is no server", record.name)),
        None if servers.is_empty() => Err("no server is listed".to_owned()),
        None => Ok(()),
    }
}

/// The response code as it is written everywhere.
pub fn code(answer: &Message) -> &'static str {
    match answer.response_code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::NotImp => "NOTIMP",
        _ => "another",
    }
}
