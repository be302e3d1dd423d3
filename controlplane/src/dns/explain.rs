//! Answers in words, for `sluicectl dns`.
//!
//! Guarantees: what is told is what a client would be answered at this moment, made by the same
//! functions; but nobody else is asked.

use std::str::FromStr;
use std::sync::Arc;

use hickory_proto::rr::{Name, Record, RecordType};
use sluice_conf::message::controlplane::dns::{DnsAnswer, DnsEndpoint, DnsRecord};

use super::answer::{Answer, Outcome, Question, answer};
use super::find::Why;
use super::metrics::code_name;
use super::options::{Options, is_below};
use super::records::{Kind, Named};
use super::zone::{Shared, Zone};
use crate::object::{Kind as ObjectKind, ObjectId};

/// Records of an answer that are told.
const MOST: usize = 1000;
/// Endpoints of a Service that are told.
const MOST_ENDPOINTS: usize = 1000;

/// Explains answers.
#[derive(Debug, Clone)]
pub struct Explainer {
    zone: Shared,
    options: Arc<Options>,
}

/// Why a question cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoQuestion {
    /// The name is none.
    #[error(
        "{0:?} is not a domain name; write for example web.default or web.default.svc.cluster.local."
    )]
    Name(String),
    /// The type is none.
    #[error("{0:?} is not a type of records; write for example A, AAAA, SRV, PTR, CNAME or TXT")]
    Type(String),
}

impl Explainer {
    /// Explains what is answered of `zone`.
    pub fn new(zone: Shared, options: Arc<Options>) -> Self {
        Self { zone, options }
    }

    /// Explains an answer. A name without its last dot is looked for as a Pod of `namespace` would.
    ///
    /// # Errors
    /// The name or the type is none.
    pub fn explain(
        &self,
        name: &str,
        record_type: &str,
        namespace: &str,
    ) -> Result<DnsAnswer, NoQuestion> {
        let kind = RecordType::from_str(&record_type.to_ascii_uppercase())
            .map_err(|_| NoQuestion::Type(record_type.to_owned()))?;
        let names = self.candidates(name, namespace);
        let zone = self.zone.read();
        let mut last = None;
        for name in names {
            let outcome = self.ask(&zone, &name, kind);
            let exists = match &outcome {
                Outcome::Ours(answer) => answer.code != hickory_proto::op::ResponseCode::NXDomain,
                Outcome::Elsewhere => false,
            };
            let is_first = last.is_none();
            if exists || is_first {
                last = Some(told(&zone, &name, kind, outcome));
            }
            if exists {
                break;
            }
        }
        last.ok_or_else(|| NoQuestion::Name(name.to_owned()))
    }

    fn ask<'z>(&self, zone: &'z Zone, name: &Name, kind: RecordType) -> Outcome<'z> {
        let question = Question {
            name,
            kind,
            turn: 0,
            most: MOST,
        };
        answer(zone, &self.options, question)
    }

    /// The names that a resolver would try, in its order (ndots:5).
    fn candidates(&self, text: &str, namespace: &str) -> Vec<Name> {
        let Ok(mut plain) = Name::from_ascii(text) else {
            return Vec::new();
        };
        let is_whole = text.ends_with('.');
        plain.set_fqdn(true);
        let primary = self.options.primary();
        let Some(zone) = primary.filter(|zone| !is_whole && !is_below(&plain, zone)) else {
            return vec![plain];
        };
        let (space, svc) = (namespace.as_bytes(), b"svc".as_slice());
        let searched = [vec![space, svc], vec![svc], vec![]];
        let names = searched.iter().filter_map(|search| {
            let labels = plain.iter().chain(search.iter().copied());
            Name::from_labels(labels.chain(zone.iter())).ok()
        });
        names.chain([plain.clone()]).collect()
    }
}

fn told(zone: &Zone, name: &Name, kind: RecordType, outcome: Outcome<'_>) -> DnsAnswer {
    let mut told = DnsAnswer {
        name: name.to_ascii(),
        record_type: kind.to_string(),
        code: "REFUSED".to_owned(),
        records: Vec::new(),
        truncated: false,
        object: None,
        reason: "it is in none of dns.zones and dns.external_zones: the upstreams are asked, without any it is refused".to_owned(),
        endpoints: Vec::new(),
    };
    let Outcome::Ours(answer) = outcome else {
        return told;
    };
    told.code = code_name(answer.code).to_owned();
    let sections = [
        ("answer", &answer.answers),
        ("authority", &answer.authorities),
        ("additional", &answer.additionals),
    ];
    for (section, records) in sections {
        told.records
            .extend(records.iter().map(|one| record(section, one)));
    }
    told.truncated = answer.truncated;
    if let Some(named) = answer.named {
        let kind = match named.kind {
            Kind::Slices => ObjectKind::EndpointSlice,
            _ => ObjectKind::Service,
        };
        told.object = Some(ObjectId::of(kind, &named.service).to_string());
        told.endpoints = endpoints(named);
    }
    told.reason = reason(&answer, zone);
    told
}

fn record(section: &str, record: &Record) -> DnsRecord {
    DnsRecord {
        section: section.to_owned(),
        name: record.name.to_ascii(),
        ttl: record.ttl,
        record_type: record.record_type().to_string(),
        data: record.data.to_string(),
    }
}

fn endpoints(named: &Named) -> Vec<DnsEndpoint> {
    let published = named.endpoints().iter().map(|endpoint| DnsEndpoint {
        host: endpoint.host.to_string(),
        address: endpoint.address,
        left_out: None,
    });
    let left_out = named.left_out().map(|(address, host, why)| DnsEndpoint {
        host: host.to_owned(),
        address,
        left_out: Some(why.as_str().to_owned()),
    });
    // Those that are missing first, so that they are told however many there are.
    let mut endpoints: Vec<DnsEndpoint> = left_out.chain(published).take(MOST_ENDPOINTS).collect();
    endpoints.sort_by(|a, b| (&a.host, a.address).cmp(&(&b.host, b.address)));
    endpoints.dedup();
    endpoints
}

/// Why an answer is as it is.
fn reason(answer: &Answer<'_>, zone: &Zone) -> String {
    if let Some(target) = &answer.follow {
        return format!(
            "it stands for {target}, which is in no zone here: the upstreams are asked"
        );
    }
    let text = match answer.why {
        Why::Answered => return answered(answer),
        Why::NoSuchType => "the name exists, but has no record of this type",
        Why::NotSynced => {
            "not all sources have told all yet; until then nothing is said not to exist"
        }
        Why::Transfer => "zones are not given away",
        Why::Circle => "ExternalNames lead to each other in a circle, or too far",
        Why::Above => "the name only has names below it",
        Why::Form => "no name of the specification has this form",
        Why::NotExposed => "the namespace is not in dns.namespaces",
        Why::NoNamespace => "there is no such namespace, and no Service in one of that name",
        Why::NoService => "there is no such Service in the namespace",
        Why::EmptyService => {
            "the Service has no ready endpoint, and dns.ignore_empty_service leaves such ones out"
        }
        Why::NoReadyEndpoint => "the Service is headless and has no ready endpoint",
        Why::NoEndpoint => "the Service has no ready endpoint of this name",
        Why::NoPort => "the Service has no port of this name and protocol",
        Why::NoName => "what spec.externalName says is no domain name",
        Why::BelowAlias => "a Service of type ExternalName has no names below it",
        Why::NoExternal => "the Service has no load-balancer address or external IP",
        Why::PodsDisabled => "names of Pods are off (dns.pods)",
        Why::NoPod => "no Pod of the namespace has this address",
        Why::NoAddress => {
            "no Service has this address, nor an endpoint that is headless or has a host name"
        }
    };
    match (answer.why, zone.size()) {
        (Why::NoNamespace | Why::NoService, (0, _)) => {
            format!("{text}; there is no Service at all")
        }
        _ => text.to_owned(),
    }
}

fn answered(answer: &Answer<'_>) -> String {
    let text = match answer.named.map(|named| &named.kind) {
        Some(Kind::ClusterIp(_)) => "from the Service's own addresses, or its endpoints by name",
        Some(Kind::Headless) => "from the ready endpoints of the headless Service",
        Some(Kind::ExternalName(_)) => "the Service stands for another name",
        Some(Kind::Slices) => "from an EndpointSlice whose Service is not there",
        None => "from the zone itself, or from a Pod's address",
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::options::zone as zone_name;

    fn explainer() -> Explainer {
        let options = Options::new(&[zone_name("cluster.local").unwrap()], &[]);
        let shared = Shared::default();
        shared.change(Zone::set_synced);
        Explainer::new(shared, Arc::new(options))
    }

    #[test]
    fn a_name_is_looked_for_as_a_resolver_does() {
        let explainer = explainer();
        let names = |text: &str| -> Vec<String> {
            let names = explainer.candidates(text, "shop");
            names.iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            names("web"),
            [
                "web.shop.svc.cluster.local.",
                "web.svc.cluster.local.",
                "web.cluster.local.",
                "web."
            ]
        );
        assert_eq!(names("web.x."), ["web.x."]);
        assert_eq!(names("a.Cluster.local"), ["a.Cluster.local."]);
        assert!(names("a..b").is_empty());
    }

    #[test]
    fn what_is_no_name_or_type_is_refused_and_what_is_not_there_is_told() {
        let explainer = explainer();
        assert!(matches!(
            explainer.explain("a..b", "A", "default"),
            Err(NoQuestion::Name(_))
        ));
        assert!(matches!(
            explainer.explain("a", "B", "default"),
            Err(NoQuestion::Type(_))
        ));
        let told = explainer.explain("web", "a", "default").unwrap();
        assert_eq!(told.code, "NXDOMAIN");
        assert_eq!(told.name, "web.default.svc.cluster.local.");
        assert!(
            told.reason.starts_with("there is no such namespace"),
            "{}",
            told.reason
        );
    }
}
