//! What one Service contributes to the zone.
//!
//! Guarantees: the same Service and slices make the same value, whatever their order; an endpoint
//! that is not in it is listed with the reason. Names that DNS cannot hold are left out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::Arc;

use hickory_proto::rr::Name;
use sluice_conf::{FrontendKind, Protocol};

use crate::endpoints::{Endpoint as Written, Slice};
use crate::object::{NamespacedName, is_label};
use crate::service::{ServiceSpec, ServiceType, Vip};

/// What a Service contributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its name.
    pub service: NamespacedName,
    /// What its own name stands for.
    pub kind: Kind,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Addresses outside the cluster.
    pub external: Vec<IpAddr>,
    /// Endpoints that are published, sorted by name and address.
    endpoints: Vec<Endpoint>,
    /// Addresses of those that whole answers hold, each once.
    v4: Vec<Ipv4Addr>,
    v6: Vec<Ipv6Addr>,
    /// Endpoints that are not published, sorted, and why.
    left_out: BTreeMap<(IpAddr, Arc<str>), LeftOut>,
}

/// What the name of a Service stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Its ClusterIPs.
    ClusterIp(Vec<IpAddr>),
    /// Its endpoints.
    Headless,
    /// Another name; none when what is written is none.
    ExternalName(Option<Name>),
    /// Nothing: there are only slices.
    Slices,
}

/// A port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Its name; empty when it has none.
    pub name: Box<str>,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub number: u16,
}

impl Port {
    /// Whether a name asks for this port. One without a name cannot be asked for.
    pub fn is(&self, name: &str, protocol: &str) -> bool {
        self.is_named() && self.name.eq_ignore_ascii_case(name) && self.speaks(protocol)
    }

    /// Whether it has a name: others have no SRV records.
    pub fn is_named(&self) -> bool {
        !self.name.is_empty()
    }

    /// Whether it is a port of this protocol.
    pub fn speaks(&self, protocol: &str) -> bool {
        let own = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        own.eq_ignore_ascii_case(protocol)
    }
}

/// A published endpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Its name: the host name, or the address with dashes.
    pub host: Arc<str>,
    /// Its address.
    pub address: IpAddr,
    /// Its ports.
    pub ports: Arc<[Port]>,
    /// Whether the name is a host name.
    pub has_hostname: bool,
    /// Its topology zone.
    pub zone: Option<Arc<str>>,
    /// Whether answers for the whole Service hold it.
    pub near: bool,
}

/// Why an endpoint is not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// Its slice says that it is not ready.
    NotReady,
    /// It is going away.
    Terminating,
    /// The gateway's probes, or its connections, say that it is not fit.
    Unhealthy,
    /// The operator has drained it.
    Drained,
}

impl LeftOut {
    /// The reason in words.
    pub const fn as_str(self) -> &'static str {
        match self {
            LeftOut::NotReady => "not ready, by its EndpointSlice",
            LeftOut::Terminating => "terminating, by its EndpointSlice",
            LeftOut::Unhealthy => "ready, but not fit by its health or its ServicePolicy",
            LeftOut::Drained => "drained (sluicectl get drains)",
        }
    }
}

/// Slices, and which of their endpoints are published.
pub struct Published<'a> {
    /// The slices as they were written.
    pub slices: &'a [&'a Slice],
    /// Why an endpoint is not published.
    pub left_out: &'a dyn Fn(&Slice, &Written) -> Option<LeftOut>,
    /// Zone whose endpoints alone answer for a headless Service when all are hinted for zones.
    pub zone: Option<&'a str>,
}

impl Named {
    /// What a Service and its slices contribute. `allows` says which of its addresses it may have.
    pub fn of(
        spec: &ServiceSpec,
        published: &Published<'_>,
        allows: impl Fn(&Vip) -> bool,
    ) -> Self {
        let vips = spec.vips.iter().filter(|vip| allows(vip));
        let (cluster, external): (Vec<&Vip>, Vec<&Vip>) =
            vips.partition(|vip| vip.kind == FrontendKind::ClusterIp);
        let addresses = |vips: Vec<&Vip>| vips.iter().map(|vip| vip.address).collect();
        let kind = match (spec.kind, spec.headless) {
            (ServiceType::ExternalName, _) => {
                Kind::ExternalName(spec.external_name.as_deref().and_then(target))
            }
            (_, true) => Kind::Headless,
            (_, false) => Kind::ClusterIp(addresses(cluster)),
        };
        let ports = spec.ports.iter().map(|port| Port {
            name: port.name.as_str().into(),
            protocol: port.protocol,
            number: port.port,
        });
        let mut named = Self::empty(NamespacedName::new(&spec.namespace, &spec.name), kind);
        named.ports = ports.collect();
        named.external = addresses(external);
        if spec.kind != ServiceType::ExternalName {
            named.publish(published);
        }
        named
    }

    /// What slices contribute whose Service is not there: the names of their addresses.
    pub fn of_slices(service: &NamespacedName, published: &Published<'_>) -> Self {
        let mut named = Self::empty(service.clone(), Kind::Slices);
        named.publish(published);
        named
    }

    fn empty(service: NamespacedName, kind: Kind) -> Self {
        Self {
            service,
            kind,
            ports: Vec::new(),
            external: Vec::new(),
            endpoints: Vec::new(),
            v4: Vec::new(),
            v6: Vec::new(),
            left_out: BTreeMap::new(),
        }
    }

    fn publish(&mut self, published: &Published<'_>) {
        let near = nearby(published);
        for slice in published.slices {
            let ports = slice.ports.iter().map(|port| Port {
                name: port.name.as_str().into(),
                protocol: port.protocol,
                number: port.port,
            });
            let ports: Arc<[Port]> = ports.collect();
            for endpoint in &slice.endpoints {
                let hostname = endpoint.hostname.as_deref().filter(|name| is_label(name));
                let host: Arc<str> = match hostname {
                    Some(name) => name.into(),
                    None => dashed(endpoint.address).into(),
                };
                if let Some(why) = (published.left_out)(slice, endpoint) {
                    self.left_out.insert((endpoint.address, host), why);
                    continue;
                }
                self.endpoints.push(Endpoint {
                    host,
                    address: endpoint.address,
                    ports: Arc::clone(&ports),
                    has_hostname: hostname.is_some(),
                    zone: endpoint.zone.as_deref().map(Arc::from),
                    near: near(endpoint),
                });
            }
        }
        self.finish();
    }

    /// Sorts, and finds out what follows from the endpoints.
    fn finish(&mut self) {
        self.endpoints.sort_unstable();
        self.endpoints.dedup();
        let near = || self.endpoints.iter().filter(|endpoint| endpoint.near);
        let mut v4: Vec<Ipv4Addr> = Vec::new();
        let mut v6: Vec<Ipv6Addr> = Vec::new();
        for endpoint in near() {
            match endpoint.address {
                IpAddr::V4(address) => v4.push(address),
                IpAddr::V6(address) => v6.push(address),
            }
        }
        v4.sort_unstable();
        v4.dedup();
        v6.sort_unstable();
        v6.dedup();
        (self.v4, self.v6) = (v4, v6);
        // Another slice may publish what one leaves out.
        let published = &self.endpoints;
        self.left_out.retain(|(address, host), _| {
            let same = |e: &Endpoint| (&*e.host, e.address).cmp(&(host, *address));
            published.binary_search_by(same).is_err()
        });
    }

    /// The published endpoints, sorted by name and address.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The published endpoints of a name.
    pub fn endpoints_called(&self, host: &str) -> &[Endpoint] {
        let endpoints = &self.endpoints;
        let range = Range {
            start: endpoints.partition_point(|e| &*e.host < host),
            end: endpoints.partition_point(|e| &*e.host <= host),
        };
        endpoints.get(range).unwrap_or_default()
    }

    /// IPv4 addresses of the endpoints that answer for the whole Service.
    pub fn v4(&self) -> &[Ipv4Addr] {
        &self.v4
    }

    /// IPv6 addresses of the endpoints that answer for the whole Service.
    pub fn v6(&self) -> &[Ipv6Addr] {
        &self.v6
    }

    /// Endpoints that are not published, and why.
    pub fn left_out(&self) -> impl Iterator<Item = (IpAddr, &str, LeftOut)> {
        let all = self.left_out.iter();
        all.map(|((address, host), why)| (*address, &**host, *why))
    }
}

/// Tells which endpoints are near: those hinted for `zone`, if all that are published have hints for
/// zones and one has that one; else all (KEP-2433, as the Vip does it).
fn nearby<'a>(published: &Published<'a>) -> impl Fn(&Written) -> bool + use<'a> {
    let slices = published.slices.iter();
    let endpoints = || {
        let each = slices.clone();
        let each = each.flat_map(|slice| slice.endpoints.iter().map(move |e| (*slice, e)));
        each.filter(|(slice, e)| (published.left_out)(slice, e).is_none())
    };
    let hinted = |e: &Written, zone: &str| e.hints.zones.iter().any(|hint| hint == zone);
    let zone = published.zone.filter(|zone| {
        endpoints().all(|(_, e)| !e.hints.zones.is_empty())
            && endpoints().any(|(_, e)| hinted(e, zone))
    });
    move |endpoint| zone.is_none_or(|zone| hinted(endpoint, zone))
}

/// An address as a label.
pub fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

/// The address that a label spells with dashes.
pub fn undashed(label: &str) -> Option<IpAddr> {
    let dashes = label.bytes().filter(|byte| *byte == b'-').count();
    let text = match dashes == 3 && !label.contains("--") {
        true => label.replace('-', "."),
        false => label.replace('-', ":"),
    };
    text.parse().ok()
}

/// What an ExternalName stands for. An address is no name (CoreDNS answers none either).
fn target(text: &str) -> Option<Name> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.is_empty() || text.parse::<IpAddr>().is_ok() {
        return None;
    }
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_service, check_slice};

    fn service(spec: &str) -> ServiceSpec {
        let text =
            format!("apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {spec}\n");
        check_service(&text).good.unwrap()
    }

    fn slice(name: &str, endpoints: &str) -> Slice {
        let text = format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}\n  labels: {{kubernetes.io/service-name: web}}\naddressType: IPv4\nports: [{{name: http, port: 80}}]\nendpoints: {endpoints}\n"
        );
        check_slice(&text).good.unwrap()
    }

    fn by_conditions(_: &Slice, endpoint: &Written) -> Option<LeftOut> {
        (!endpoint.conditions.ready).then_some(LeftOut::NotReady)
    }

    fn named(spec: &str, slices: &[&Slice], zone: Option<&str>) -> Named {
        let published = Published {
            slices,
            left_out: &by_conditions,
            zone,
        };
        Named::of(&service(spec), &published, |_| true)
    }

    #[test]
    fn what_is_not_published_is_listed_unless_another_slice_publishes_it() {
        let a = slice(
            "a",
            "[{addresses: [10.0.0.1], conditions: {ready: false}}, {addresses: [10.0.0.2], conditions: {ready: false}}]",
        );
        let b = slice(
            "b",
            "[{addresses: [10.0.0.1]}, {addresses: [10.0.0.3], hostname: x}]",
        );
        let named = named("{clusterIP: None}", &[&a, &b], None);
        let hosts: Vec<&str> = named.endpoints().iter().map(|e| &*e.host).collect();
        assert_eq!(hosts, ["10-0-0-1", "x"]);
        let left_out: Vec<_> = named.left_out().collect();
        let two = "10.0.0.2".parse().unwrap();
        assert_eq!(left_out, [(two, "10-0-0-2", LeftOut::NotReady)]);
        assert_eq!(named.endpoints_called("x").len(), 1);
        assert!(named.endpoints_called("y").is_empty());
    }

    #[test]
    fn hints_narrow_whole_answers_only_when_all_have_them() {
        let hinted = "[{addresses: [10.0.0.1], hints: {forZones: [{name: a}]}}, {addresses: [10.0.0.2], hints: {forZones: [{name: b}]}}]";
        let a = slice("a", hinted);
        let whole = |zone| named("{clusterIP: None}", &[&a], zone).v4().len();
        assert_eq!((whole(Some("a")), whole(Some("c")), whole(None)), (1, 2, 2));
        let b = slice("b", "[{addresses: [10.0.0.3]}]");
        let some = named("{clusterIP: None}", &[&a, &b], Some("a"));
        assert_eq!(some.v4().len(), 3);
    }

    #[test]
    fn an_external_name_that_is_an_address_stands_for_nothing() {
        for (written, stands) in [
            ("www.example.com", true),
            ("www.example.com.", true),
            ("192.0.2.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(target(written).is_some(), stands, "{written}");
        }
    }

    #[test]
    fn dashes_stand_for_dots_and_colons() {
        for text in ["1.2.3.4", "5678:abcd::1", "fd00::"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(undashed(&dashed(address)), Some(address));
        }
        for none in ["blah", "1-2-3", "1-2-3-256", "a--b--c"] {
            assert_eq!(undashed(none), None, "{none}");
        }
    }
}
