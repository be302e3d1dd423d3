//! Zones for the tests of this module, from manifests as an operator would write them.

use hickory_proto::rr::Name;

use super::options::{Options, zone as zone_name};
use super::records::{LeftOut, Named, Published};
use super::zone::Zone;
use crate::endpoints::Slice;
use crate::object::{Lines, NamespacedName, Object};
use crate::service::ServiceSpec;
use crate::source::manifest;

/// A whole zone of what `text` holds.
pub(super) fn zone(text: &str) -> Zone {
    let mut zone = Zone::default();
    let manifest = manifest::read("f.yaml", text.as_bytes());
    assert_eq!(manifest.problems, [], "{text}");
    let (mut services, mut slices): (Vec<ServiceSpec>, Vec<Slice>) = Default::default();
    for found in manifest.objects {
        let (space, name) = (&found.id.namespace, &found.id.name);
        match found.object {
            Some(Object::Service(service)) => {
                let checked = crate::service::check(space, name, &service, &Lines::default());
                services.push(checked.good.unwrap());
            }
            Some(Object::EndpointSlice(slice)) => {
                slices.push(crate::endpoints::check(space, name, &slice).good.unwrap());
            }
            Some(Object::Namespace(_)) => zone.set_namespace(name, true),
            _ => panic!("{text}"),
        }
    }
    for spec in services {
        let own = slices.iter().filter(|slice| {
            slice.namespace == spec.namespace && slice.service.as_deref() == Some(&*spec.name)
        });
        let own: Vec<&Slice> = own.collect();
        let published = Published {
            slices: &own,
            left_out: &|_, e| (!e.conditions.ready).then_some(LeftOut::NotReady),
            zone: None,
        };
        let service = NamespacedName::new(&spec.namespace, &spec.name);
        zone.set(&service, Some(Named::of(&spec, &published, |_| true)));
    }
    zone.set_synced();
    zone
}

/// A headless Service `many` with so many ready endpoints.
pub(super) fn many(count: u32) -> Zone {
    let addresses = (0..count).map(|n| {
        let address = std::net::Ipv4Addr::from(0x0a00_0001 + n);
        format!("- addresses: [{address}]\n")
    });
    zone(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: many}}\nspec: {{clusterIP: None, ports: [{{name: http, port: 80}}]}}\n---\n{}",
        slice("many", &addresses.collect::<String>())
    ))
}

/// A slice of a Service.
pub(super) fn slice(service: &str, endpoints: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {service}-a\n  labels: {{kubernetes.io/service-name: {service}}}\naddressType: IPv4\nports: [{{name: http, port: 8080}}]\nendpoints:\n{endpoints}"
    )
}

/// Rules for `cluster.local`.
pub(super) fn options() -> Options {
    Options::new(&[name("cluster.local")], &[name("example.org")])
}

/// A name with the root.
pub(super) fn name(text: &str) -> Name {
    zone_name(text).unwrap()
}
