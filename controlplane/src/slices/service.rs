//! What a Service asks of its slices (kubernetes/endpointslice utils.go).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_conf::Protocol;

use super::pod::Pod;
use super::slice::{AddressType, Port, SliceLabels};
use crate::address;
use crate::endpoints::SERVICE_LABEL;
use crate::object::NamespacedName;
use crate::service::protocol;

/// Label that says who writes a slice.
pub const MANAGER_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// Label of slices whose Service has no address of its own.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

const RESERVED: [&str; 3] = [SERVICE_LABEL, MANAGER_LABEL, HEADLESS_LABEL];
const HINTS_ANNOTATION: &str = "service.kubernetes.io/topology-aware-hints";
const MODE_ANNOTATION: &str = "service.kubernetes.io/topology-mode";

/// What Pods must be labelled with; none when the Service selects none: without a selector others
/// write its slices, and an ExternalName has no endpoints.
pub fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    let external = spec.type_.as_deref() == Some("ExternalName");
    let selector = spec.selector.as_ref()?;
    (!external && !selector.is_empty()).then_some(selector)
}

/// Whether the Service selects the Pod.
pub fn selects(service: &Service, pod: &Pod) -> bool {
    let here = NamespacedName::of(&service.metadata).namespace == *pod.namespace;
    let all = |selector: &BTreeMap<String, String>| {
        let mut pairs = selector.iter();
        pairs.all(|(key, value)| pod.label(key) == Some(value))
    };
    here && selector(service).is_some_and(all)
}

/// Kinds of slices that the Service has (getAddressTypesForService).
pub fn address_types(service: &Service) -> Vec<AddressType> {
    let spec = service.spec.as_ref();
    let families = spec.and_then(|spec| spec.ip_families.as_ref());
    let mut types: Vec<AddressType> = families
        .into_iter()
        .flatten()
        .map(|family| AddressType::of(family))
        .filter(|family| *family != AddressType::Other)
        .collect();
    if types.is_empty() {
        let address = cluster_ip(service).and_then(address::address);
        types = match address {
            Some(address) if address.is_ipv4() => vec![AddressType::Ipv4],
            Some(_) => vec![AddressType::Ipv6],
            None => vec![AddressType::Ipv4, AddressType::Ipv6],
        };
    }
    types.sort_unstable();
    types.dedup();
    types
}

/// The address of its own, when it has one (IsServiceIPSet).
fn cluster_ip(service: &Service) -> Option<&str> {
    let ip = service.spec.as_ref()?.cluster_ip.as_deref()?;
    (!ip.is_empty() && ip != "None").then_some(ip)
}

/// Labels of its slices: its own but for the reserved ones, which are set here
/// (setEndpointSliceLabels).
pub fn slice_labels(service: &Service, manager: &str) -> SliceLabels {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.retain(|key, _| !is_reserved(key));
    if cluster_ip(service).is_none() {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    }
    let name = service.metadata.name.clone().unwrap_or_default();
    labels.insert(SERVICE_LABEL.to_owned(), name);
    labels.insert(MANAGER_LABEL.to_owned(), manager.to_owned());
    labels
}

/// Whether labels other than the reserved ones differ: those of a slice are then written anew.
pub fn labels_differ(a: &SliceLabels, b: &SliceLabels) -> bool {
    fn own(labels: &SliceLabels) -> impl Iterator<Item = (&String, &String)> {
        labels.iter().filter(|(key, _)| !is_reserved(key))
    }
    !own(a).eq(own(b))
}

fn is_reserved(key: &str) -> bool {
    RESERVED.contains(&key)
}

/// The Service that a slice belongs to; only its label says so (ServiceControllerKey).
pub fn service_of(slice: &EndpointSlice) -> Option<NamespacedName> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_LABEL)?;
    let namespace = slice.metadata.namespace.as_deref();
    Some(NamespacedName::new(namespace.unwrap_or("default"), name))
}

/// Whether endpoints carry the Pod's host name: it is found under this Service
/// (ShouldSetHostname).
pub fn shows_hostname(service: &Service, pod: &Pod) -> bool {
    pod.hostname.is_some()
        && pod.subdomain.as_deref() == service.metadata.name.as_deref()
        && *pod.namespace == NamespacedName::of(&service.metadata).namespace
}

/// Port numbers of the Pod, one for each port of the Service; none where the Pod has no such port
/// (findPort). Without ports of its own a Service gives none.
pub fn numbers(service: &Service, pod: &Pod) -> Vec<Option<u16>> {
    let headless = is_headless(service);
    let numbers = ports(service).map(|port| number(port, headless, pod));
    numbers.collect()
}

fn is_headless(service: &Service) -> bool {
    let ip = service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref());
    ip == Some("None")
}

/// `targetPort` in a Pod. A number needs no match; a headless Service translates nothing, so that
/// its own port is meant (core/v1 ServicePort.targetPort).
fn number(port: &ServicePort, headless: bool, pod: &Pod) -> Option<u16> {
    let own = u16::try_from(port.port).ok().filter(|port| *port > 0);
    if headless && own.is_some() {
        return own;
    }
    match port.target_port.as_ref() {
        Some(IntOrString::String(name)) if !name.is_empty() => {
            pod.named_port(name, protocol(port.protocol.as_deref()).ok()?)
        }
        Some(IntOrString::Int(number)) if *number != 0 => {
            u16::try_from(*number).ok().filter(|number| *number > 0)
        }
        _ => own,
    }
}

/// The ports of a slice, sorted, given the numbers of a Pod (getEndpointPorts).
pub fn slice_ports(service: &Service, numbers: &[Option<u16>]) -> Vec<Port> {
    let found = ports(service).zip(numbers);
    let mut found: Vec<Port> = found
        .filter_map(|(port, number)| {
            Some(Port {
                name: port.name.clone().unwrap_or_default(),
                protocol: protocol_of(port)?,
                number: (*number)?,
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    found.sort();
    found
}

fn protocol_of(port: &ServicePort) -> Option<Protocol> {
    protocol(port.protocol.as_deref()).ok()
}

fn ports(service: &Service) -> impl Iterator<Item = &ServicePort> {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.ports.as_ref())
        .into_iter()
        .flatten()
}

/// Whom the endpoints of a Service are meant for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HintMode {
    /// Everybody.
    None,
    /// Zones in proportion to their CPUs (KEP-2433).
    Proportional,
    /// Clients of the same zone (KEP-4444).
    SameZone,
    /// Clients of the same node, then of the same zone (KEP-3015).
    SameNode,
}

/// The annotation wins over `trafficDistribution` when it says `Auto`.
pub fn hint_mode(service: &Service) -> HintMode {
    if asks_for_zone_hints(service) {
        return HintMode::Proportional;
    }
    let spec = service.spec.as_ref();
    match spec.and_then(|spec| spec.traffic_distribution.as_deref()) {
        Some("PreferClose" | "PreferSameZone") => HintMode::SameZone,
        Some("PreferSameNode") => HintMode::SameNode,
        _ => HintMode::None,
    }
}

/// Whether an annotation asks for hints in proportion to CPUs; the older one counts where both are
/// written (hintsEnabled).
pub fn asks_for_zone_hints(service: &Service) -> bool {
    let annotations = service.metadata.annotations.as_ref();
    let value =
        annotations.and_then(|a| a.get(HINTS_ANNOTATION).or_else(|| a.get(MODE_ANNOTATION)));
    value.is_some_and(|value| value == "Auto" || value == "auto")
}

/// Whether every address is published whatever its Pod says.
pub fn publishes_unready(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.publish_not_ready_addresses)
        .unwrap_or(false)
}
