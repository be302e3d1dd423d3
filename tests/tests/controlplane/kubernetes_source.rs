//! A live Kubernetes API as source, and what is written back to it: against a stand-in that can go
//! wrong in every way, and, where `SLUICE_TEST_KUBECONFIG` names one, against a real cluster.

mod faults;
mod reading;
mod writing;

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sluice_controlplane::object::Object;
use sluice_tests::kubernetes::cluster::{Cluster, VARIABLE};
use sluice_tests::kubernetes::follower::Told;

const SERVICES: &str = "services";
const SLICES: &str = "endpointslices";

fn service(name: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": { "ports": [{ "name": "http", "port": 80, "protocol": "TCP" }] }
    })
}

fn load_balancer(name: &str, class: &str) -> Value {
    let mut service = service(name);
    service["spec"]["type"] = json!("LoadBalancer");
    service["spec"]["loadBalancerClass"] = json!(class);
    service
}

fn slice(name: &str, address: &str) -> Value {
    json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/service-name": "web" } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": [address], "conditions": { "ready": true } }],
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }]
    })
}

fn holds(names: &[&str]) -> impl Fn(&Told) -> bool {
    let wanted: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    move |told| {
        let last = told.states.last();
        last.is_some_and(|last| {
            let names: BTreeSet<String> = last.iter().map(|id| id.name.clone()).collect();
            names == wanted
        })
    }
}

fn address(told: &Told, name: &str) -> Option<String> {
    let (_, object) = told.objects.iter().find(|(id, _)| id.name == name)?;
    match object {
        Some(Object::EndpointSlice(slice)) => {
            let endpoint = slice.endpoints.as_ref()?.first()?;
            endpoint.addresses.first().cloned()
        }
        _ => None,
    }
}

/// A stand-in with three Services and two slices.
fn filled() -> Result<Cluster> {
    let cluster = Cluster::stand_in()?;
    for name in ["a", "b", "c"] {
        cluster.create(SERVICES, service(name))?;
    }
    for (name, address) in [("a-1", "10.1.0.1"), ("b-1", "10.1.0.2")] {
        cluster.create(SLICES, slice(name, address))?;
    }
    Ok(cluster)
}

const ALL: [&str; 5] = ["a", "b", "c", "a-1", "b-1"];

type Case = fn(&Cluster) -> Result<()>;

/// Each is run against a cluster of its own, or a namespace of its own in a live one.
const CASES: [(&str, Case); 5] = [
    ("reading", reading::what_is_there_and_what_changes_is_told),
    (
        "other proxies",
        reading::a_service_of_another_proxy_is_not_told,
    ),
    (
        "status",
        writing::status_is_written_once_and_only_to_our_class,
    ),
    ("events", writing::an_event_tells_why_once),
    (
        "election",
        writing::one_gateway_writes_and_another_takes_over,
    ),
];

#[test]
fn a_stand_in_is_read_and_written() -> Result<()> {
    for (name, case) in CASES {
        case(&Cluster::stand_in()?).context(name)?;
    }
    Ok(())
}

#[test]
fn a_live_cluster_is_read_and_written_where_one_is_named() -> Result<()> {
    for (name, case) in CASES {
        let Some(cluster) = Cluster::live()? else {
            println!("not asked for: {VARIABLE} names no kubeconfig");
            return Ok(());
        };
        case(&cluster).with_context(|| format!("{name}, against a live cluster"))?;
    }
    Ok(())
}
