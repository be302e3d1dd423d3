//! Suite `dns-records`: questions to the DNS server, and its answers.
//!
//! How the file's words are taken:
//! - each case has a server of its own, at a socket of its own, that serves what its fixture holds;
//!   an `upstream` is another server that answers what it says;
//! - records are compared with the case of their letters, a SOA by owner, TTL and name server; of
//!   `unverified` cases the authority is not compared; in `specification` TTL, priority and weight are
//!   free, and other records may stand beside those that are named;
//! - `hosts` are the addresses at the name, and its SRV records;
//! - how a name splits (`request_parsing`) is asked of the same function that the server asks.

mod fixture;
mod records;
mod server;
mod splitting;

use std::net::IpAddr;

use hickory_proto::op::Message;
use hickory_proto::rr::{RData, RecordType};
use serde::Deserialize;
use serde_json::Value;
use sluice_controlplane::dns::options::{Options, Pods, zone as zone_name};

use self::fixture::Fixture;
use self::records::{RecordForm, Wanted};
use self::server::{Asking, Upstream};
use super::document::{Case, Document, parse};
use super::{Outcome, Report, each, guarded};

/// Name of the suite.
pub const NAME: &str = "dns-records";

type Judged = Result<(), String>;

/// Judges every case of the file.
pub fn judge(document: &Document, report: &mut Report) -> anyhow::Result<()> {
    let known = [
        "fixtures",
        "cases",
        "name_server_records",
        "request_parsing",
        "specification",
    ];
    for section in document.sections().filter(|name| !known.contains(name)) {
        report.note(format!("unknown section {section} is not read"));
    }
    questions(document, "cases", report, Wanted::Exactly)?;
    for case in document.cases("name_server_records")? {
        let outcome = read::<NameServers>(&case, report, |read| name_servers(document, read));
        report.add(&case.id, outcome);
    }
    each(document, "request_parsing", report, |read, _| {
        splitting::judge(read).into()
    })?;
    questions(document, "specification", report, Wanted::AtLeast)
}

fn questions(
    document: &Document,
    section: &str,
    report: &mut Report,
    wanted: Wanted,
) -> anyhow::Result<()> {
    for case in document.cases(section)? {
        let outcome = read::<QuestionCase>(&case, report, |read| question(document, read, wanted));
        report.add(&case.id, outcome);
    }
    Ok(())
}

fn read<T: serde::de::DeserializeOwned>(
    case: &Case<'_>,
    report: &mut Report,
    judge: impl FnOnce(&T) -> Judged,
) -> Outcome {
    match case.parse::<T>(report) {
        Ok(read) => guarded(|| judge(&read).into()),
        Err(error) => Outcome::Failed(error),
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct QuestionCase {
    fixture: String,
    #[serde(default)]
    options: OptionsForm,
    #[serde(default)]
    unverified: Option<Value>,
    query: QueryForm,
    expect: Expect,
    #[serde(default)]
    upstream: Option<Upstream>,
    #[serde(default)]
    additional_may_contain: Vec<RecordForm>,
    #[serde(default, rename = "about")]
    _about: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct QueryForm {
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OptionsForm {
    exposed_namespaces: Option<Namespaces>,
    pod_mode: Option<String>,
    #[serde(default)]
    ignore_empty_service: bool,
    backend_synced: Option<bool>,
    server_address: Option<IpAddr>,
    #[serde(default)]
    zones: Vec<String>,
    /// Which of the server's views is asked; only that of external addresses has a name.
    view: Option<String>,
    #[serde(default)]
    zonal_names: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Namespaces {
    Some(Vec<String>),
    Word(String),
}

#[derive(Debug, Deserialize)]
struct Expect {
    rcode: String,
    answer: Option<Vec<RecordForm>>,
    authority: Option<Vec<RecordForm>>,
    additional: Option<Vec<RecordForm>>,
    #[serde(default)]
    truncated: bool,
    hosts: Option<Vec<Host>>,
}

#[derive(Debug, Deserialize)]
struct Host {
    address: IpAddr,
    port: u16,
    ttl: u32,
    record: String,
    weight: Option<u16>,
}

fn question(document: &Document, case: &QuestionCase, wanted: Wanted) -> Judged {
    let fixture = fixture_of(document, &case.fixture)?;
    let options = case.options.options(&fixture)?;
    let mut zone = fixture.zone(&case.query.name)?;
    if case.options.backend_synced != Some(false) {
        zone.set_synced();
    }
    let upstream = case.upstream.as_ref();
    let asking = Asking::start(zone, options, upstream)?;
    let kind = record_type(&case.query.kind)?;
    let answer = asking.ask(&case.query.name, kind, case.expect.truncated)?;
    let code = records::code(&answer);
    if code != case.expect.rcode {
        return Err(format!(
            "rcode: expected {}, seen {code}",
            case.expect.rcode
        ));
    }
    if let Some(hosts) = &case.expect.hosts {
        return judge_hosts(&asking, &case.query.name, hosts);
    }
    if answer.truncation != case.expect.truncated {
        return Err(format!("truncated: {}", answer.truncation));
    }
    sections(case, &answer, wanted)
}

fn sections(case: &QuestionCase, answer: &Message, wanted: Wanted) -> Judged {
    let expect = &case.expect;
    records::compare("answer", expect.answer.as_deref(), &answer.answers, wanted)?;
    records::cnames_first(&answer.answers)?;
    if case.unverified.is_none() && wanted == Wanted::Exactly {
        let authority = expect.authority.as_deref();
        records::compare("authority", authority, &answer.authorities, wanted)?;
    }
    match (wanted, expect.additional.as_deref()) {
        (Wanted::AtLeast, None) => records::only(
            "additional",
            &case.additional_may_contain,
            &answer.additionals,
        ),
        (_, additional) => records::compare("additional", additional, &answer.additionals, wanted),
    }
}

fn judge_hosts(asking: &Asking, name: &str, hosts: &[Host]) -> Judged {
    let mut seen = Vec::new();
    for kind in [RecordType::A, RecordType::AAAA] {
        let answer = asking.ask(name, kind, false)?;
        seen.extend(answer.answers.iter().filter_map(|record| {
            let address = record.data.ip_addr()?;
            Some(format!("{address} for {} s", record.ttl))
        }));
    }
    let expected = hosts.iter();
    let expected = expected.map(|host| format!("{} for {} s", host.address, host.ttl));
    records::same("hosts", expected.collect(), seen)?;
    let answer = asking.ask(name, RecordType::SRV, false)?;
    let origin = zone_of(name);
    let expected = hosts.iter().map(|host| {
        let mut labels: Vec<&str> = host.record.split('/').rev().collect();
        labels.push(origin);
        let weight = host.weight.unwrap_or(100);
        format!("{}:{} by {weight}", labels.join("."), host.port)
    });
    let seen = answer
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(format!("{}:{} by {}", srv.target, srv.port, srv.weight)),
            _ => None,
        });
    let mut expected: Vec<String> = expected.collect();
    expected.dedup();
    records::same("SRV records of hosts", expected, seen.collect())
}

/// The zone of an external name: its last two labels.
fn zone_of(name: &str) -> &str {
    let dots = name.trim_end_matches('.').rmatch_indices('.');
    let start = dots.map(|(place, _)| place + 1).nth(1);
    name.get(start.unwrap_or_default()..).unwrap_or(name)
}

impl OptionsForm {
    fn options(&self, fixture: &Fixture) -> Result<Options, String> {
        let external = match self.view {
            Some(_) => fixture.zones.clone(),
            None => Vec::new(),
        };
        let zones = match (self.zones.is_empty(), &fixture.zone) {
            (false, _) => self.zones.clone(),
            (true, zone) => zone.iter().cloned().collect(),
        };
        let mut options = Options::new(&names(&zones)?, &names(&external)?);
        options.namespaces = match &self.exposed_namespaces {
            Some(Namespaces::Some(some)) => some.iter().cloned().collect(),
            Some(Namespaces::Word(word)) if word != "all" => {
                return Err(format!("exposedNamespaces: {word:?} is not known"));
            }
            _ => Default::default(),
        };
        options.pods = match self.pod_mode.as_deref() {
            None | Some("disabled") => Pods::Disabled,
            Some("insecure") => Pods::Insecure,
            Some("verified") => Pods::Verified,
            Some(other) => return Err(format!("podMode: {other:?} is not known")),
        };
        options.ignore_empty_service = self.ignore_empty_service;
        options.external_headless = self.view.is_some();
        options.zonal_names = self.zonal_names;
        options.addresses = fixture.server_addresses.clone();
        options.addresses.extend(self.server_address);
        options.ttl = fixture.ttl.unwrap_or(options.ttl);
        Ok(options)
    }
}

#[derive(Debug, Deserialize)]
struct NameServers {
    fixture: String,
    #[serde(default)]
    change: Option<String>,
    options: ServersOptions,
    expect: ServersExpect,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServersOptions {
    zone: Option<String>,
    #[serde(default)]
    external: bool,
    #[serde(default)]
    headless_endpoints: bool,
}

#[derive(Debug, Deserialize)]
struct ServersExpect {
    records: Vec<RecordForm>,
}

fn name_servers(document: &Document, case: &NameServers) -> Judged {
    let mut fixture = fixture_of(document, &case.fixture)?;
    if let Some(change) = &case.change {
        fixture.change(change)?;
    }
    let zone = case.options.zone.clone().or_else(|| fixture.zone.clone());
    let zone = zone.unwrap_or_else(|| "cluster.local.".to_owned());
    let names = names(std::slice::from_ref(&zone))?;
    let mut options = match case.options.external {
        true => Options::new(&[], &names),
        false => Options::new(&names, &[]),
    };
    options.external_headless = case.options.headless_endpoints;
    options.addresses = fixture.server_addresses.clone();
    let mut content = fixture.zone(&zone)?;
    content.set_synced();
    let asking = Asking::start(content, options, None)?;
    let answer = asking.ask(&zone, RecordType::NS, false)?;
    records::glue_of_servers(&answer)?;
    let expected = Some(case.expect.records.as_slice());
    records::compare("records", expected, &answer.additionals, Wanted::AtLeast)?;
    records::only("records", &case.expect.records, &answer.additionals)
}

fn fixture_of(document: &Document, name: &str) -> Result<Fixture, String> {
    let value = document.entry("fixtures", name);
    let value = value.ok_or_else(|| format!("there is no fixture {name:?}"))?;
    let (fixture, unknown) = parse::<Fixture>(value)?;
    let unknown: Vec<String> = unknown
        .into_iter()
        .filter(|key| !key.ends_with("note"))
        .collect();
    match unknown.is_empty() {
        true => Ok(fixture),
        false => Err(format!(
            "fixture {name}: unknown key {}",
            unknown.join(", ")
        )),
    }
}

fn names(texts: &[String]) -> Result<Vec<hickory_proto::rr::Name>, String> {
    let name = |text: &String| zone_name(text).ok_or_else(|| format!("{text:?} is not a zone"));
    texts.iter().map(name).collect()
}

fn record_type(text: &str) -> Result<RecordType, String> {
    text.parse().map_err(|_| format!("{text:?} is not a type"))
}
