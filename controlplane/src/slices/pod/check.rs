//! Mistakes in a Pod that somebody wrote by hand, as far as the gateway reads it.

use k8s_openapi::api::core::v1 as api;

use crate::address;
use crate::field::{FieldError, Reason};
use crate::health::readiness;
use crate::object::{is_label, is_subdomain};
use crate::service::protocol;

/// Mistakes of `pod` at their fields; facts of a Pod with mistakes leave out what is wrong.
pub fn check(pod: &api::Pod) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let meta = &pod.metadata;
    let mut invalid = |field: String, message: String| {
        errors.push(FieldError::new(field, Reason::Invalid, message));
    };
    let name = meta.name.as_deref().unwrap_or_default();
    if !is_subdomain(name) {
        let message = format!("{name:?} is not a name; use a-z, 0-9, - and . (RFC 1123)");
        invalid("metadata.name".into(), message);
    }
    let namespace = meta.namespace.as_deref().unwrap_or("default");
    if !is_label(namespace) {
        let message = format!("{namespace:?} is not a name; use up to 63 of a-z, 0-9 and -");
        invalid("metadata.namespace".into(), message);
    }
    for (key, value) in meta.labels.iter().flatten() {
        if !is_label_key(key) || !is_label_value(value) {
            let message =
                format!("{key:?}: {value:?} is not a label; use letters, digits, -, _ and .");
            invalid("metadata.labels".into(), message);
        }
    }
    let spec = pod.spec.as_ref();
    let names = spec.map(|spec| [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)]);
    for (field, name) in names.into_iter().flatten() {
        let name = name.as_deref().unwrap_or_default();
        if !name.is_empty() && !is_label(name) {
            let message = format!("{name:?} is not a name; use up to 63 of a-z, 0-9 and -");
            invalid(format!("spec.{field}"), message);
        }
    }
    addresses(pod, &mut invalid);
    let lists = spec.map(|spec| {
        [
            ("containers", Some(&spec.containers)),
            ("initContainers", spec.init_containers.as_ref()),
        ]
    });
    for (list, containers) in lists.into_iter().flatten() {
        for (index, container) in containers.into_iter().flatten().enumerate() {
            ports(&format!("spec.{list}[{index}]"), container, &mut invalid);
        }
    }
    errors
}

/// Probes that the gateway cannot carry out, of a Pod of which nobody else says whether it is ready.
pub fn probes(pod: &api::Pod) -> Vec<FieldError> {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    if conditions.into_iter().flatten().any(|c| c.type_ == "Ready") {
        return Vec::new();
    }
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mistakes = containers.enumerate().filter_map(|(index, container)| {
        let field = format!("spec.containers[{index}].readinessProbe");
        readiness::of_probe(container.readiness_probe.as_ref()?, container, &field).err()
    });
    mistakes.collect()
}

fn addresses(pod: &api::Pod, invalid: &mut impl FnMut(String, String)) {
    let status = pod.status.as_ref();
    let listed = status.and_then(|status| status.pod_ips.as_ref());
    let mut families = [false; 2];
    for (index, text) in listed.into_iter().flatten().map(|ip| &ip.ip).enumerate() {
        let field = format!("status.podIPs[{index}].ip");
        let Some(address) = address::address(text) else {
            invalid(field, format!("{text:?} is not an address"));
            continue;
        };
        let seen = &mut families[usize::from(address.is_ipv6())];
        if std::mem::replace(seen, true) {
            let message = format!("{text} is the second address of its family; list one of each");
            invalid(field, message);
        }
    }
    let single = status.and_then(|status| status.pod_ip.as_deref());
    if let Some(text) = single.filter(|text| !text.is_empty() && address::address(text).is_none()) {
        invalid("status.podIP".into(), format!("{text:?} is not an address"));
    }
}

fn ports(field: &str, container: &api::Container, invalid: &mut impl FnMut(String, String)) {
    for (index, port) in container.ports.iter().flatten().enumerate() {
        let field = format!("{field}.ports[{index}]");
        let number = port.container_port;
        if !(1..=65535).contains(&number) {
            let message = format!("{number} is not a port; use 1 to 65535");
            invalid(format!("{field}.containerPort"), message);
        }
        if let Err(message) = protocol(port.protocol.as_deref()) {
            invalid(format!("{field}.protocol"), message);
        }
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() && !is_port_name(name) {
            let message = format!(
                "{name:?} is not a port name; use up to 15 of a-z, 0-9 and -, one letter at least"
            );
            invalid(format!("{field}.name"), message);
        }
    }
}

/// Whether `name` is a service name (RFC 6335, section 5.1).
fn is_port_name(name: &str) -> bool {
    is_label(name)
        && name.len() <= 15
        && !name.contains("--")
        && name.bytes().any(|byte| byte.is_ascii_lowercase())
}

/// Whether `key` is a label key (apimachinery pkg/util/validation, IsQualifiedName).
pub(in crate::slices) fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').unwrap_or(("", key));
    let prefixed = key.contains('/');
    (!prefixed || is_subdomain(prefix)) && !name.is_empty() && is_label_value(name)
}

/// Whether `value` is a label value (apimachinery pkg/util/validation, IsValidLabelValue).
pub(in crate::slices) fn is_label_value(value: &str) -> bool {
    let outer = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let bytes = value.as_bytes();
    bytes.len() <= 63 && outer(bytes.first()) && outer(bytes.last()) && value.bytes().all(inner)
}
