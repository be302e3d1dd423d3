//! Short forms of the file as Kubernetes objects.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Map, Value, json};

use super::form::{Endpoint, Slice};
use crate::conformance::document;

/// A Service. Fields that the short form does not rename are those of `spec`; with it the paths of
/// keys that no Service has.
pub fn service(form: &Value) -> Result<(Service, Vec<String>), String> {
    let Value::Object(form) = form else {
        return Err("a Service is not a map".to_owned());
    };
    let mut spec = form.clone();
    let mut take = |key: &str| spec.remove(key).filter(|value| !value.is_null());
    let metadata = json!({
        "namespace": take("namespace"),
        "name": take("name"),
        "labels": take("labels"),
        "annotations": take("annotations"),
    });
    let ips = list(take("loadBalancerIPs"));
    let mut ingress = list(take("loadBalancerIngress"));
    ingress.extend(ips.into_iter().map(|ip| json!({ "ip": ip })));
    if let Some(seconds) = take("sessionAffinityTimeoutSeconds") {
        let config = json!({"clientIP": {"timeoutSeconds": seconds}});
        spec.insert("sessionAffinityConfig".to_owned(), config);
    }
    remove_what_no_api_server_keeps(&mut spec);
    let status = json!({"loadBalancer": {"ingress": ingress}});
    document::parse(&json!({"metadata": metadata, "spec": spec, "status": status}))
}

fn list(value: Option<Value>) -> Vec<Value> {
    match value {
        None => Vec::new(),
        Some(Value::Array(values)) => values,
        Some(one) => vec![one],
    }
}

/// Node ports of a Service that has none (pkg/registry/core/service of kubernetes/kubernetes).
fn remove_what_no_api_server_keeps(spec: &mut Map<String, Value>) {
    let kind = spec.get("type").and_then(Value::as_str);
    if matches!(kind, Some("NodePort" | "LoadBalancer")) {
        return;
    }
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
        port.remove("nodePort");
    }
}

/// The slice of this number.
pub fn slice(form: &Slice, number: usize) -> Result<EndpointSlice, String> {
    let Some((namespace, name)) = form.service.split_once('/') else {
        return Err(format!(
            "{:?} is not the namespace/name of a Service",
            form.service
        ));
    };
    let first = form.endpoints.iter().flat_map(|e| &e.addresses).next();
    let is_v6 = first.is_some_and(|address| address.contains(':'));
    let family = form.address_type.as_deref();
    let value = json!({
        "metadata": {
            "namespace": namespace,
            "name": format!("slice-{number}"),
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": family.unwrap_or(if is_v6 { "IPv6" } else { "IPv4" }),
        "ports": form.ports.iter().map(|port| json!({
            "name": port.name,
            "port": port.port,
            "protocol": port.protocol,
        })).collect::<Vec<_>>(),
        "endpoints": form.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    });
    document::parse(&value).map(|(slice, _)| slice)
}

fn endpoint(form: &Endpoint) -> Value {
    let named = |names: &[String]| -> Vec<Value> {
        names.iter().map(|name| json!({ "name": name })).collect()
    };
    json!({
        "addresses": form.addresses,
        "nodeName": form.node_name,
        "conditions": {
            "ready": form.ready,
            "serving": form.serving,
            "terminating": form.terminating,
        },
        "hints": {
            "forZones": named(&form.zone_hints),
            "forNodes": named(&form.node_hints),
        },
    })
}
