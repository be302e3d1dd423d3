//! Names of addresses.

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::{Name, RData, RecordType};

use super::{Answer, Answering, Place, below};
use crate::dns::find::Why;
use crate::dns::options::View;
use crate::dns::path::{self, Reverse};
use crate::dns::zone::Role;

impl<'z> Answering<'z, '_> {
    /// The answer at a name of a reverse zone.
    pub(super) fn reverse(&self, place: &Place<'_>) -> Answer<'z> {
        if place.own() == 0 {
            return self.apex(place);
        }
        match path::reverse(place.name) {
            None => self.negative(place, ResponseCode::NXDomain, Why::Form),
            Some(Reverse::Network) => self.negative(place, ResponseCode::NoError, Why::Above),
            Some(Reverse::Address(address)) => match self.pointers(place.name, address) {
                None => self.negative(place, ResponseCode::NXDomain, Why::NoAddress),
                Some(answer) if self.question.kind == RecordType::PTR => answer,
                Some(_) => self.negative(place, ResponseCode::NoError, Why::NoSuchType),
            },
        }
    }

    /// The name of an address that is in none of the reverse zones: those of Services are answered
    /// all the same.
    pub(super) fn reverse_elsewhere(&self, name: &Name) -> Option<Answer<'z>> {
        if self.question.kind != RecordType::PTR {
            return None;
        }
        let Some(Reverse::Address(address)) = path::reverse(name) else {
            return None;
        };
        match self.zone.is_synced() {
            true => self.pointers(name, address),
            false => Some(Answer::new(ResponseCode::ServFail, Why::NotSynced)),
        }
    }

    /// Names of an address: of the Services whose ClusterIP it is, else of endpoints, else of
    /// Services that have it outside the cluster.
    fn pointers(&self, name: &Name, address: IpAddr) -> Option<Answer<'z>> {
        let places = self.zone.places(address).iter();
        let places = places.filter(|place| self.options.exposes(&place.service.namespace));
        let cluster = self.options.primary();
        let external = self.options.external();
        let rank = |role: &Role| match role {
            Role::ClusterIp => Some(0),
            Role::Endpoint(Some(_)) => Some(1),
            Role::External => external.map(|_| 2),
            Role::Endpoint(None) => None,
        };
        let best = places.clone().filter_map(|place| rank(&place.role)).min()?;
        let best = places.filter(|place| rank(&place.role) == Some(best));
        let names = best.filter_map(|place| {
            let service = &place.service;
            match &place.role {
                Role::ClusterIp => below(cluster?, View::Cluster, service, None),
                Role::Endpoint(host) => below(cluster?, View::Cluster, service, host.as_deref()),
                Role::External => below(external?, View::External, service, None),
            }
        });
        let names = names.take(self.question.most);
        let records = names.map(|target| self.record(name, RData::PTR(PTR(target))));
        let mut answer = Answer::of(records.collect());
        let first = self.zone.places(address).first()?;
        answer.named = self.zone.named(&first.service).map(|named| &**named);
        Some(answer).filter(|answer| !answer.answers.is_empty())
    }
}
