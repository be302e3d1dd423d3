//! Datagrams to the DNS server. What is answered is a response to that datagram, and no longer than a
//! client takes that says nothing of its own.

use std::sync::OnceLock;

use sluice_conf::settings::controlplane as settings;
use sluice_controlplane::dns::options::Options;
use sluice_controlplane::dns::records::{Named, Published};
use sluice_controlplane::dns::respond;
use sluice_controlplane::dns::zone::Zone;
use sluice_controlplane::object::{Lines, NamespacedName, Object};
use sluice_controlplane::{endpoints, service, source};

/// What there is to ask for.
const OBJECTS: &str = "
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: db}, spec: {clusterIP: None, ports: [{name: sql, port: 5432}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: far}, spec: {type: ExternalName, externalName: www.example.com}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: db-a, labels: {kubernetes.io/service-name: db}}, addressType: IPv4,
 ports: [{name: sql, port: 5432}], endpoints: [{addresses: [10.0.0.1], hostname: db-0, zone: a}, {addresses: [10.0.0.2], zone: b}]}
";
/// What is sent by UDP at most.
const LARGEST: usize = 1232;

/// Takes the bytes for a datagram.
pub fn run(data: &[u8]) {
    static KNOWN: OnceLock<(Zone, Options)> = OnceLock::new();
    let (zone, options) = KNOWN.get_or_init(|| (zone(), options()));
    let Some(answer) = respond(data, zone, options) else {
        return;
    };
    assert!(answer.len() <= LARGEST, "{} bytes", answer.len());
    assert_eq!(answer.get(..2), data.get(..2), "another id");
    assert!(
        answer.get(2).is_some_and(|flags| flags & 0x80 != 0),
        "no response"
    );
}

fn options() -> Options {
    Options::from(&settings::Dns {
        pods: settings::PodNames::Insecure,
        zonal_names: true,
        addresses: vec![[192, 0, 2, 1].into()],
        ..settings::Dns::default()
    })
}

fn zone() -> Zone {
    let mut zone = Zone::default();
    let (mut specs, mut slices) = (Vec::new(), Vec::new());
    for found in source::manifest::read("f.yaml", OBJECTS.as_bytes()).objects {
        let (space, name) = (&found.id.namespace, &found.id.name);
        match found.object {
            Some(Object::Service(object)) => {
                specs.extend(service::check(space, name, &object, &Lines::default()).good);
            }
            Some(Object::EndpointSlice(object)) => {
                slices.extend(endpoints::check(space, name, &object).good);
            }
            _ => {}
        }
    }
    for spec in specs {
        let own = slices
            .iter()
            .filter(|slice| slice.service.as_ref() == Some(&spec.name));
        let published = Published {
            slices: &own.collect::<Vec<_>>(),
            left_out: &|_, _| None,
            zone: None,
        };
        let named = Named::of(&spec, &published, |_| true);
        let name = NamespacedName::new(&spec.namespace, &spec.name);
        zone.set(&name, Some(named));
    }
    zone.set_synced();
    zone
}
