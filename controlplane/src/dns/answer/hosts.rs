//! Records of Services and endpoints: addresses, and SRV records with the addresses beside.

use std::collections::HashSet;
use std::hash::Hash;
use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, SRV};
use hickory_proto::rr::{RData, RecordType};

use super::{Answer, Answering, Place, address_data, below};
use crate::dns::find::{Filter, Hosts, Ports, Why};
use crate::dns::records::Named;

/// Sum of the weights of SRV records (CoreDNS).
const WHOLE_WEIGHT: usize = 100;

impl<'z> Answering<'z, '_> {
    /// What is asked for of hosts.
    pub(super) fn hosts(
        &self,
        place: &Place<'_>,
        named: &Named,
        hosts: &Hosts<'_, '_>,
    ) -> Answer<'z> {
        let kind = self.question.kind;
        match (hosts, kind) {
            (_, RecordType::SRV) => self.services(place, named, hosts),
            (Hosts::Endpoints(_, Filter::Near(Ports::All)), RecordType::A) => {
                self.whole(place, named.v4(), |address| RData::A(A(address)))
            }
            (Hosts::Endpoints(_, Filter::Near(Ports::All)), RecordType::AAAA) => {
                self.whole(place, named.v6(), |address| RData::AAAA(AAAA(address)))
            }
            (Hosts::Own(addresses, _), RecordType::A | RecordType::AAAA) => {
                self.addresses(place, addresses.to_vec())
            }
            (Hosts::Endpoints(endpoints, filter), RecordType::A | RecordType::AAAA) => {
                let meant = endpoints.iter().filter(|e| filter.takes(e));
                self.addresses(place, meant.map(|e| e.address).collect())
            }
            _ => self.negative(place, ResponseCode::NoError, Why::NoSuchType),
        }
    }

    /// Those of the addresses that are of the type asked for, each once.
    pub(super) fn addresses(&self, place: &Place<'_>, mut addresses: Vec<IpAddr>) -> Answer<'z> {
        let kind = self.question.kind;
        addresses.retain(|address| kind == address_type(*address));
        let mut seen = HashSet::new();
        if addresses.len() > 1 {
            addresses.retain(|address| seen.insert(*address));
        }
        self.whole(place, &addresses, address_data)
    }

    /// A record for each value, the one whose turn it is first.
    fn whole<T: Copy>(
        &self,
        place: &Place<'_>,
        values: &[T],
        data: impl Fn(T) -> RData,
    ) -> Answer<'z> {
        let Some(start) = (self.question.turn as usize).checked_rem(values.len()) else {
            return self.negative(place, ResponseCode::NoError, Why::NoSuchType);
        };
        let (before, from) = values.split_at(start);
        let values = from.iter().chain(before).take(self.question.most);
        let records = values.map(|value| self.record(place.name, data(*value)));
        let mut answer = Answer::of(records.collect());
        let count = before.len() + from.len();
        answer.turns = count > 1;
        answer.truncated = count > self.question.most;
        answer
    }

    fn services(&self, place: &Place<'_>, named: &Named, hosts: &Hosts<'_, '_>) -> Answer<'z> {
        match hosts {
            Hosts::Own(addresses, ports) => {
                let meant = named.ports.iter().filter(|p| p.is_named() && ports.take(p));
                let targets = addresses.iter().flat_map(|address| {
                    let ports = meant.clone();
                    ports.map(|port| (None, *address, port.number))
                });
                self.srv(place, named, targets)
            }
            Hosts::Endpoints(endpoints, filter) => {
                let ports = filter.ports();
                let meant = endpoints.iter().filter(|e| filter.takes(e));
                let targets = meant.flat_map(move |endpoint| {
                    let own = endpoint.ports.iter();
                    let own = own.filter(move |p| p.is_named() && ports.take(p));
                    own.map(|port| (Some(&*endpoint.host), endpoint.address, port.number))
                });
                self.srv(place, named, targets)
            }
        }
    }

    fn srv<'t>(
        &self,
        place: &Place<'_>,
        named: &Named,
        targets: impl Iterator<Item = (Option<&'t str>, IpAddr, u16)> + Clone,
    ) -> Answer<'z> {
        let count = targets.clone().count();
        let Some(start) = (self.question.turn as usize).checked_rem(count) else {
            return self.negative(place, ResponseCode::NoError, Why::NoSuchType);
        };
        let weight = u16::try_from(WHOLE_WEIGHT / count)
            .unwrap_or_default()
            .max(1);
        let from = targets.clone().skip(start);
        let turned = from.chain(targets.take(start)).take(self.question.most);
        let origin = place.origin();
        let (mut ports, mut glue) = (Once::default(), Once::default());
        let mut answer = Answer::of(Vec::new());
        answer.turns = count > 1;
        answer.truncated = count > self.question.most;
        for (host, address, port) in turned {
            let Some(target) = below(&origin, place.view, &named.service, host) else {
                continue;
            };
            if ports.is_new((host, port)) {
                let srv = SRV::new(0, weight, port, target.clone());
                let record = self.record(place.name, RData::SRV(srv));
                answer.answers.push(record);
            }
            if glue.is_new((host, address)) {
                let record = self.record(&target, address_data(address));
                answer.additionals.push(record);
            }
        }
        answer
    }
}

/// Values that come more than once.
struct Once<T>(HashSet<T>);

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self(HashSet::new())
    }
}

impl<T: Eq + Hash> Once<T> {
    fn is_new(&mut self, value: T) -> bool {
        self.0.insert(value)
    }
}

const fn address_type(address: IpAddr) -> RecordType {
    match address {
        IpAddr::V4(_) => RecordType::A,
        IpAddr::V6(_) => RecordType::AAAA,
    }
}
