//! What is written back, by whom.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sluice_controlplane::admission::{Classes, Wanted, told};
use sluice_controlplane::clock::Clock;
use sluice_controlplane::object::NamespacedName;
use sluice_controlplane::status::election::Election;
use sluice_controlplane::status::{self, StatusWriter, Wishes};
use sluice_tests::clock::wait_for;
use sluice_tests::kubernetes::cluster::{Cluster, unique};
use sluice_tests::kubernetes::faults::{Fault, Verb};
use sluice_tests::kubernetes::follower::LIMIT;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::{SERVICES, load_balancer};

struct Writing {
    wishes: watch::Sender<Arc<Wishes>>,
    leading: watch::Receiver<Option<Duration>>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Writing {
    fn start(cluster: &Cluster, election: Option<Election>) -> Result<Self> {
        let settings = status::Settings {
            classes: Classes { unset: false },
            election,
            pace: Duration::from_millis(1),
            first_pause: Duration::from_millis(10),
            longest_pause: Duration::from_millis(100),
            ..status::Settings::default()
        };
        let (wishes, receiver) = watch::channel(Arc::default());
        let (api, clock) = (cluster.connect()?, Clock::start());
        let writer = StatusWriter::new(api, settings, receiver, clock);
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            // A sender that is gone stops it too.
            let _ = stopped.await;
        };
        Ok(Self {
            stop: Some(stop),
            wishes,
            leading: writer.leading(),
            task: cluster.runtime.spawn(writer.run(stopped)),
        })
    }

    fn leads(&self) -> bool {
        self.leading.borrow().is_some()
    }

    /// Wishes that each Service had these addresses; the source has seen the status of just those
    /// that are to lose theirs.
    fn wish(&self, cluster: &Cluster, wishes: &[(&str, &[&str])]) -> Result<()> {
        let mut all = BTreeMap::new();
        for (name, addresses) in wishes {
            let parsed: Result<Vec<IpAddr>, _> = addresses.iter().map(|a| a.parse()).collect();
            let addresses = parsed?;
            let mut entries = Vec::new();
            if addresses.is_empty() {
                let service = serde_json::from_value(cluster.get(SERVICES, name)?)?;
                entries = told(&service).to_vec();
            }
            let name = NamespacedName::new(&cluster.namespace, *name);
            let wanted = Wanted {
                uid: None,
                addresses: Some(addresses),
                told: entries,
                pending: None,
            };
            all.insert(name, wanted);
        }
        self.wishes.send_replace(Arc::new(all));
        Ok(())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn entries(cluster: &Cluster, name: &str) -> Result<Value> {
    let service = cluster.get(SERVICES, name)?;
    Ok(service["status"]["loadBalancer"]["ingress"].clone())
}

fn wait_ingress(cluster: &Cluster, name: &str, wanted: &Value) -> Result<()> {
    wait_for(&format!("status of {name}"), LIMIT, || {
        Ok((entries(cluster, name)? == *wanted).then_some(()))
    })
}

pub fn status_is_written_once_and_only_to_our_class(cluster: &Cluster) -> Result<()> {
    cluster.create(SERVICES, load_balancer("web", "sluice.dev/gateway"))?;
    cluster.create(SERVICES, load_balancer("theirs", "example.com/other"))?;
    let writing = Writing::start(cluster, None)?;
    let addresses: &[&str] = &["192.0.2.10"];
    let wishes = [
        ("theirs", addresses),
        ("web", addresses),
        ("gone", addresses),
    ];
    writing.wish(cluster, &wishes)?;
    let wanted = json!([{ "ip": "192.0.2.10", "ipMode": "VIP" }]);
    wait_ingress(cluster, "web", &wanted)?;
    let version = |name| -> Result<Value> {
        Ok(cluster.get(SERVICES, name)?["metadata"]["resourceVersion"].clone())
    };
    let written = version("web")?;
    // The same wish again, and then another, which proves that the first was gone through.
    writing.wish(cluster, &wishes)?;
    cluster.create(SERVICES, load_balancer("web2", "sluice.dev/gateway"))?;
    writing.wish(cluster, &[&wishes[..], &[("web2", addresses)]].concat())?;
    wait_ingress(cluster, "web2", &wanted)?;
    ensure!(version("web")? == written, "written again without need");
    ensure!(
        entries(cluster, "theirs")?.is_null(),
        "another's status was written"
    );
    writing.wish(cluster, &[("web", &[])])?;
    wait_ingress(cluster, "web", &Value::Null)
}

pub fn an_event_tells_why_once(cluster: &Cluster) -> Result<()> {
    let made = cluster.create(SERVICES, load_balancer("web", "sluice.dev/gateway"))?;
    let writing = Writing::start(cluster, None)?;
    let tell = |message: &str| {
        let wanted = Wanted {
            uid: made["metadata"]["uid"].as_str().map(str::to_owned),
            addresses: None,
            told: Vec::new(),
            pending: Some(message.to_owned()),
        };
        let name = NamespacedName::new(&cluster.namespace, "web");
        let wishes = Wishes::from([(name, wanted)]);
        writing.wishes.send_replace(Arc::new(wishes));
    };
    let ours = || -> Result<Vec<Value>> {
        let mut events = cluster.list("events")?;
        events.retain(|event| event["reason"] == "AllocationFailed");
        Ok(events)
    };
    tell("no pool");
    wait_for("an event", LIMIT, || Ok((ours()?.len() == 1).then_some(())))?;
    tell("no pool");
    tell("every pool is full");
    let events = wait_for("two events", LIMIT, || {
        Ok(Some(ours()?).filter(|events| events.len() >= 2))
    })?;
    let notes: BTreeSet<&str> = events.iter().filter_map(|e| e["note"].as_str()).collect();
    ensure!(
        notes == BTreeSet::from(["no pool", "every pool is full"]),
        "{notes:?}"
    );
    ensure!(events.len() == 2, "{events:?}");
    for event in &events {
        ensure!(
            event["regarding"]["uid"] == made["metadata"]["uid"],
            "{event}"
        );
        ensure!(event["type"] == "Warning", "{event}");
    }
    Ok(())
}

/// An election whose Lease is short.
fn election(cluster: &Cluster, identity: &str) -> Election {
    Election {
        duration: Duration::from_secs(6),
        renew: Duration::from_secs(4),
        retry: Duration::from_millis(500),
        ..Election::new(&cluster.namespace, "gateways", identity)
    }
}

pub fn one_gateway_writes_and_another_takes_over(cluster: &Cluster) -> Result<()> {
    cluster.create(SERVICES, load_balancer("web", "sluice.dev/gateway"))?;
    let first = Writing::start(cluster, Some(election(cluster, "first")))?;
    wait_for("a leader", LIMIT, || Ok(first.leads().then_some(())))?;
    let second = Writing::start(cluster, Some(election(cluster, "second")))?;
    second.wish(cluster, &[("web", &["192.0.2.2"])])?;
    first.wish(cluster, &[("web", &["192.0.2.1"])])?;
    wait_ingress(
        cluster,
        "web",
        &json!([{ "ip": "192.0.2.1", "ipMode": "VIP" }]),
    )?;
    ensure!(first.leads() && !second.leads());
    drop(first);
    wait_for("another leader", LIMIT, || Ok(second.leads().then_some(())))?;
    wait_ingress(
        cluster,
        "web",
        &json!([{ "ip": "192.0.2.2", "ipMode": "VIP" }]),
    )?;
    let lease = cluster.get("leases", "gateways")?;
    ensure!(lease["spec"]["holderIdentity"] == "second", "{lease}");
    ensure!(lease["spec"]["leaseTransitions"] == 1, "{lease}");
    Ok(())
}

#[test]
fn a_status_that_somebody_changes_meanwhile_is_compared_again() -> Result<()> {
    let mut cluster = Cluster::stand_in()?;
    cluster.create(SERVICES, load_balancer("web", "sluice.dev/gateway"))?;
    for code in [409, 500, 429] {
        let fault = Fault::Refuse { code, after: None };
        cluster.server()?.fail(Verb::Write, SERVICES, fault);
    }
    let writing = Writing::start(&cluster, None)?;
    writing.wish(&cluster, &[("web", &["192.0.2.1"])])?;
    wait_ingress(
        &cluster,
        "web",
        &json!([{ "ip": "192.0.2.1", "ipMode": "VIP" }]),
    )?;
    let seen = cluster.server()?.seen();
    let patches = seen.iter().filter(|seen| seen.method == "PATCH").count();
    ensure!(patches == 4, "{patches} patches");
    Ok(())
}

#[test]
fn a_leader_that_loses_the_server_stops_before_its_lease_is_over() -> Result<()> {
    let mut cluster = Cluster::stand_in()?;
    let writing = Writing::start(&cluster, Some(election(&cluster, &unique("gateway"))))?;
    wait_for("a leader", LIMIT, || Ok(writing.leads().then_some(())))?;
    cluster.server()?.stop();
    wait_for("no leader", LIMIT, || Ok((!writing.leads()).then_some(())))?;
    cluster.server()?.resume()?;
    wait_for("a leader again", LIMIT, || {
        Ok(writing.leads().then_some(()))
    })
}

#[test]
fn a_gateway_that_stops_gives_its_lease_up() -> Result<()> {
    let cluster = Cluster::stand_in()?;
    let mut writing = Writing::start(&cluster, Some(election(&cluster, "first")))?;
    wait_for("a leader", LIMIT, || Ok(writing.leads().then_some(())))?;
    drop(writing.stop.take());
    let holder = || -> Result<Value> {
        Ok(cluster.get("leases", "gateways")?["spec"]["holderIdentity"].clone())
    };
    wait_for("a Lease that nobody holds", LIMIT, || {
        Ok((holder()? == "").then_some(()))
    })?;
    let second = Writing::start(&cluster, Some(election(&cluster, "second")))?;
    wait_for("another leader", LIMIT, || Ok(second.leads().then_some(())))?;
    ensure!(holder()? == "second");
    Ok(())
}
