//! What Services, Pods and Nodes make of each other.

mod deriving;
mod facts;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::node::Node;
use super::pod::Pod;

fn service(value: Value) -> Arc<Service> {
    Arc::new(serde_json::from_value(value).unwrap())
}

/// Service `default/NAME` that selects `app: NAME` and forwards to 8080.
fn web(name: &str) -> Arc<Service> {
    service(json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "selector": {"app": name},
            "ipFamilies": ["IPv4"],
            "clusterIP": "10.0.0.1",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}],
        },
    }))
}

fn pod(value: &Value) -> Pod {
    let pod = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(super::pod::check(&pod), [], "{value}");
    Pod::from(&pod)
}

/// Ready Pod `default/NAME` of `app` on node `n`.
fn member(name: &str, app: &str, address: &str) -> Pod {
    pod(&json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"app": app}},
        "spec": {"nodeName": "n", "containers": []},
        "status": {
            "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }))
}

fn node(name: &str, zone: &str) -> Node {
    let node = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}},
        "status": {
            "allocatable": {"cpu": "1500m"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }));
    Node::from(&node.unwrap())
}
