//! From a question to its answer.
//!
//! Guarantees: an answer depends on zone, options and question alone; it holds at most as many
//! records as were asked for, of more those that are next in turn, and says so; a CNAME stands before
//! the records of its target; chains of names end. Names keep the case in which they were asked for.

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::find::{Finder, Found, Why};
use super::options::{Options, Origin, View};
use super::path;
use super::records::Named;
use super::servers;
use super::zone::Zone;
use crate::object::NamespacedName;

mod hosts;
mod reverse;

/// The version of the Kubernetes DNS specification, and how long that holds, in seconds (CoreDNS).
const VERSION: &str = "1.1.0";
const VERSION_TTL: u32 = 28_800;
/// Times of the SOA record, in seconds (CoreDNS); nobody transfers the zone.
const REFRESH: i32 = 7200;
const RETRY: i32 = 1800;
const EXPIRE: i32 = 86_400;
/// Names that lead to each other, at most (CoreDNS).
const LONGEST_CHAIN: usize = 8;

/// A question.
#[derive(Debug, Clone, Copy)]
pub struct Question<'q> {
    /// The name, with the root.
    pub name: &'q Name,
    /// The type.
    pub kind: RecordType,
    /// Whose turn it is among equal records.
    pub turn: u32,
    /// Most records of the answer that are of use.
    pub most: usize,
}

/// An answer.
#[derive(Debug)]
pub struct Answer<'z> {
    /// Response code.
    pub code: ResponseCode,
    /// Answer section.
    pub answers: Vec<Record>,
    /// Authority section.
    pub authorities: Vec<Record>,
    /// Additional section.
    pub additionals: Vec<Record>,
    /// Whether there are more records.
    pub truncated: bool,
    /// Whether it depends on whose turn it is.
    pub turns: bool,
    /// The name at which the answer goes on, outside of all zones.
    pub follow: Option<Name>,
    /// The Service that it is about.
    pub named: Option<&'z Named>,
    /// Why it is so.
    pub why: Why,
}

/// Whose a question is.
#[derive(Debug)]
pub enum Outcome<'z> {
    /// This server's.
    Ours(Box<Answer<'z>>),
    /// Somebody else's.
    Elsewhere,
}

/// Answers a question.
pub fn answer<'z>(zone: &'z Zone, options: &Options, question: Question<'_>) -> Outcome<'z> {
    let answering = Answering {
        zone,
        options,
        question,
    };
    if matches!(question.kind, RecordType::AXFR | RecordType::IXFR) {
        let refused = Answer::new(ResponseCode::Refused, Why::Transfer);
        return Outcome::Ours(Box::new(refused));
    }
    match answering.at(question.name, 0) {
        Some(answer) => Outcome::Ours(Box::new(answer)),
        None => Outcome::Elsewhere,
    }
}

impl<'z> Answer<'z> {
    fn new(code: ResponseCode, why: Why) -> Self {
        Self {
            code,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
            truncated: false,
            turns: false,
            follow: None,
            named: None,
            why,
        }
    }

    fn of(answers: Vec<Record>) -> Self {
        Self {
            answers,
            ..Self::new(ResponseCode::NoError, Why::Answered)
        }
    }

    fn about(mut self, named: &'z Named) -> Self {
        self.named = Some(named);
        self
    }
}

#[derive(Clone, Copy)]
struct Answering<'z, 'o> {
    zone: &'z Zone,
    options: &'o Options,
    question: Question<'o>,
}

/// A name in one of the zones.
struct Place<'n> {
    name: &'n Name,
    /// How many labels are those of the zone.
    depth: usize,
    view: View,
}

impl Place<'_> {
    /// The zone, in the case of the question.
    fn origin(&self) -> Name {
        self.name.trim_to(self.depth)
    }

    /// Labels before those of the zone.
    fn own(&self) -> usize {
        self.name.iter().count().saturating_sub(self.depth)
    }
}

impl<'z> Answering<'z, '_> {
    /// The answer at a name, behind so many others; `None` when it is in no zone.
    fn at(&self, name: &Name, depth: usize) -> Option<Answer<'z>> {
        let origin = self.options.origin(name);
        let Some(Origin { name: zone, view }) = origin else {
            return self.reverse_elsewhere(name);
        };
        let place = Place {
            name,
            depth: zone.iter().count(),
            view: *view,
        };
        if !self.zone.is_synced() {
            return Some(self.negative(&place, ResponseCode::ServFail, Why::NotSynced));
        }
        Some(match view {
            View::Reverse => self.reverse(&place),
            View::Cluster | View::External => self.forward(&place, depth),
        })
    }

    fn forward(&self, place: &Place<'_>, depth: usize) -> Answer<'z> {
        let lower = place.name.to_lowercase();
        let labels = lower.iter().take(place.own()).map(std::str::from_utf8);
        let labels: Result<Vec<&str>, _> = labels.collect();
        let labels = labels.as_deref().ok();
        let path = labels.and_then(|labels| match place.view {
            View::External => path::external(labels),
            View::Cluster | View::Reverse => path::cluster(labels, self.options.zonal_names),
        });
        let Some(path) = path else {
            return self.negative(place, ResponseCode::NXDomain, Why::Form);
        };
        let finder = Finder {
            zone: self.zone,
            options: self.options,
            view: place.view,
        };
        match finder.find(&path) {
            Found::Apex => self.apex(place),
            Found::Version => self.version(place),
            Found::NameServer => self.name_server(place),
            Found::Pod(address) => self.addresses(place, vec![address]),
            Found::Hosts(named, hosts) => self.hosts(place, named, &hosts).about(named),
            Found::Alias(named, target) => self.alias(place, target, depth).about(named),
            Found::Empty(why) => self.negative(place, ResponseCode::NoError, why),
            Found::Nothing(named, why) => Answer {
                named,
                ..self.negative(place, ResponseCode::NXDomain, why)
            },
        }
    }

    fn apex(&self, place: &Place<'_>) -> Answer<'z> {
        match self.question.kind {
            RecordType::SOA => Answer::of(vec![self.soa(place)]),
            RecordType::NS => self.name_servers(place),
            _ => self.negative(place, ResponseCode::NoError, Why::NoSuchType),
        }
    }

    fn version(&self, place: &Place<'_>) -> Answer<'z> {
        if self.question.kind != RecordType::TXT {
            return self.negative(place, ResponseCode::NoError, Why::NoSuchType);
        }
        let text = RData::TXT(TXT::new(vec![VERSION.to_owned()]));
        Answer::of(vec![Record::from_rdata(
            place.name.clone(),
            VERSION_TTL,
            text,
        )])
    }

    fn name_servers(&self, place: &Place<'_>) -> Answer<'z> {
        let origin = place.origin();
        let hosts = servers::hosts(self.zone, self.options, place.view, &origin);
        let mut names: Vec<&Name> = hosts.iter().map(|(name, _)| name).collect();
        names.dedup();
        let unnamed = servers::default_name(&origin);
        if names.is_empty() {
            names.extend(&unnamed);
        }
        let names = names.into_iter();
        let names = names.map(|name| self.record(&origin, RData::NS(NS(name.clone()))));
        let mut answer = Answer::of(names.collect());
        let glue = hosts.iter();
        let glue = glue.map(|(name, address)| self.record(name, address_data(*address)));
        answer.additionals = glue.take(self.question.most).collect();
        answer
    }

    fn name_server(&self, place: &Place<'_>) -> Answer<'z> {
        let hosts = servers::hosts(self.zone, self.options, place.view, &place.origin());
        let addresses = hosts.into_iter().map(|(_, address)| address);
        self.addresses(place, addresses.collect())
    }

    /// What a name stands for that stands for another one.
    fn alias(&self, place: &Place<'_>, target: &Name, depth: usize) -> Answer<'z> {
        let cname = self.record(place.name, RData::CNAME(CNAME(target.clone())));
        if self.question.kind == RecordType::CNAME {
            return Answer::of(vec![cname]);
        }
        if depth == LONGEST_CHAIN || target == place.name {
            return self.negative(place, ResponseCode::ServFail, Why::Circle);
        }
        let Some(mut answer) = self.at(target, depth + 1) else {
            let mut answer = Answer::of(vec![cname]);
            answer.follow = Some(target.clone());
            return answer;
        };
        answer.answers.insert(0, cname);
        answer
    }

    fn negative(&self, place: &Place<'_>, code: ResponseCode, why: Why) -> Answer<'z> {
        let mut answer = Answer::new(code, why);
        answer.authorities.push(self.soa(place));
        answer
    }

    /// Also tells how long it holds that there is no record.
    fn soa(&self, place: &Place<'_>) -> Record {
        let origin = place.origin();
        let server = servers::default_name(&origin).unwrap_or_default();
        let master = origin.prepend_label("hostmaster").unwrap_or_default();
        let ttl = self.options.ttl;
        let serial = self.zone.serial();
        let soa = SOA::new(server, master, serial, REFRESH, RETRY, EXPIRE, ttl);
        self.record(&origin, RData::SOA(soa))
    }

    fn record(&self, name: &Name, data: RData) -> Record {
        Record::from_rdata(name.clone(), self.options.ttl, data)
    }
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

/// The name of a Service, or of an endpoint of it; `None` when it is too long for DNS.
pub(super) fn below(
    origin: &Name,
    view: View,
    service: &NamespacedName,
    host: Option<&str>,
) -> Option<Name> {
    let branch = (view != View::External).then_some("svc");
    let own = host
        .into_iter()
        .chain([&*service.name, &*service.namespace]);
    let own = own.chain(branch).map(str::as_bytes);
    let mut name = Name::from_labels(own.chain(origin.iter())).ok()?;
    name.set_fqdn(true);
    Some(name)
}

#[cfg(test)]
mod tests;
