//! The control plane beside a live Kubernetes API: against a stand-in that can go away and forget, and,
//! where `SLUICE_TEST_KUBECONFIG` names one, against a real cluster.

mod faults;
mod serving;

use std::cell::Cell;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sluice_tests::clock::wait_for;
use sluice_tests::kubernetes::cluster::{Cluster, VARIABLE, unique};
use sluice_tests::kubernetes::follower::LIMIT;
use sluice_tests::kubernetes::gateway::crds;

const SERVICES: &str = "services";
const SLICES: &str = "endpointslices";
const POOLS: &str = "addresspools";

/// A cluster that knows the own kinds; what it did not have before goes away with the value.
struct Ground {
    cluster: Cluster,
    /// Objects without a namespace.
    made: Vec<(&'static str, String)>,
    /// ClusterIPs that were given where no API server gives them.
    given: Cell<u8>,
}

impl Ground {
    fn new(cluster: Cluster) -> Result<Self> {
        let made = cluster.define(crds())?;
        let made = made.into_iter();
        Ok(Self {
            cluster,
            made: made
                .map(|name| ("customresourcedefinitions", name))
                .collect(),
            given: Cell::new(0),
        })
    }

    fn stand_in() -> Result<Self> {
        Self::new(Cluster::stand_in()?)
    }

    /// Makes a pool for the Services of the namespace.
    fn pool(&mut self, addresses: &str) -> Result<()> {
        let name = unique("sluice-test");
        let spec = json!({ "addresses": [addresses], "namespaces": [self.cluster.namespace] });
        let pool = json!({ "metadata": { "name": name }, "spec": spec });
        self.cluster.create(POOLS, pool)?;
        self.made.push((POOLS, name));
        Ok(())
    }

    /// Makes a Service of type LoadBalancer for this gateway.
    fn balanced(&self, name: &str) -> Result<Value> {
        let mut spec = json!({
            "type": "LoadBalancer",
            "loadBalancerClass": "sluice.dev/gateway",
            "allocateLoadBalancerNodePorts": false,
            "ports": [{ "name": "http", "port": 80, "protocol": "TCP" }]
        });
        if !self.cluster.is_live() {
            self.given.set(self.given.get() + 1);
            let address = format!("10.96.0.{}", self.given.get());
            spec["clusterIPs"] = json!([address]);
            spec["clusterIP"] = json!(address);
            spec["ipFamilies"] = json!(["IPv4"]);
        }
        let service = json!({ "metadata": { "name": name }, "spec": spec });
        self.cluster.create(SERVICES, service)
    }

    /// Makes the slice `name` of `service`.
    fn slice(&self, name: &str, service: &str, addresses: &[&str]) -> Result<Value> {
        let slice = json!({
            "metadata": { "name": name, "labels": { "kubernetes.io/service-name": service } },
            "addressType": "IPv4",
            "endpoints": endpoints(addresses),
            "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }]
        });
        self.cluster.create(SLICES, slice)
    }

    /// Gives a slice other endpoints.
    fn move_slice(&self, name: &str, addresses: &[&str]) -> Result<()> {
        let patch = json!({ "endpoints": endpoints(addresses) });
        self.cluster.patch(SLICES, name, &patch).map(drop)
    }

    fn entries(&self, name: &str) -> Result<Value> {
        let service = self.cluster.get(SERVICES, name)?;
        Ok(service["status"]["loadBalancer"]["ingress"].clone())
    }

    /// Waits until the status of a Service names just `address`.
    fn wait_status(&self, name: &str, address: &str) -> Result<()> {
        let wanted = json!([{ "ip": address, "ipMode": "VIP" }]);
        wait_for(&format!("{address} in the status of {name}"), LIMIT, || {
            Ok((self.entries(name)? == wanted).then_some(()))
        })
        .with_context(|| format!("{:?}", self.entries(name)))
    }

    /// Notes of the Events of `reason`, sorted.
    fn notes(&self, reason: &str) -> Result<Vec<String>> {
        let events = self.cluster.list("events")?;
        let ours = events.iter().filter(|event| event["reason"] == reason);
        let notes = ours.filter_map(|event| event["note"].as_str());
        let mut notes: Vec<String> = notes.map(str::to_owned).collect();
        notes.sort();
        Ok(notes)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for (plural, name) in self.made.iter().rev() {
            if let Err(error) = self.cluster.delete(plural, name) {
                eprintln!("{plural} {name} stays behind: {error}");
            }
        }
    }
}

fn endpoints(addresses: &[&str]) -> Value {
    let endpoint =
        |address: &&str| json!({ "addresses": [address], "conditions": { "ready": true } });
    addresses.iter().map(endpoint).collect()
}

type Case = fn(&mut Ground) -> Result<()>;

/// Each is run on a ground of its own.
const CASES: [(&str, Case); 5] = [
    (
        "serving",
        serving::a_service_and_its_slices_become_a_table_and_a_status,
    ),
    (
        "pending",
        serving::a_service_that_no_pool_serves_is_told_why,
    ),
    ("restart", serving::a_restart_takes_the_addresses_over),
    ("files", serving::files_and_the_api_serve_side_by_side),
    ("two gateways", serving::only_the_leader_writes),
];

#[test]
fn a_stand_in_is_served() -> Result<()> {
    for (name, case) in CASES {
        case(&mut Ground::stand_in()?).context(name)?;
    }
    Ok(())
}

#[test]
fn a_live_cluster_is_served_where_one_is_named() -> Result<()> {
    for (name, case) in CASES {
        let Some(cluster) = Cluster::live()? else {
            println!("not asked for: {VARIABLE} names no kubeconfig");
            return Ok(());
        };
        let case = case(&mut Ground::new(cluster)?);
        case.with_context(|| format!("{name}, against a live cluster"))?;
    }
    Ok(())
}
