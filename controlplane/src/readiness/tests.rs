use std::fmt::Write as _;

use sluice_conf::message::dataplane::Attempts;
use sluice_conf::{BackendState, ServiceName};

use super::*;
use crate::health::Settings;
use crate::rules::Rules;
use crate::testing::Gateway;

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  \
    clusterIP: 10.96.0.1\n  selector: {app: web}\n  ports: [{port: 80, targetPort: 8080}]\n";
const PROBED: &str = "readinessProbe: {httpGet: {path: /ready, port: 8080}}";

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: sluice.dev/v1alpha1\nkind: ServicePolicy\nmetadata: {{name: web}}\n\
         spec: {{targets: [web], {spec}}}\n"
    )
}

/// Pods 10.1.0.1 and so on, each with labels, a container and a status.
fn pods(each: &[(&str, &str, &str)]) -> String {
    let mut text = String::new();
    for (number, (labels, container, conditions)) in (1..).zip(each) {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p{number}, labels: {{app: web{labels}}}}}\n\
             spec: {{containers: [{{name: c, {container}}}]}}\n\
             status: {{podIP: 10.1.0.{number}, conditions: [{conditions}]}}\n"
        );
    }
    text
}

const READY: &str = "{type: Ready, status: \"True\"}";
const UNREADY: &str = "{type: Ready, status: \"False\"}";

struct Scene {
    gateway: Gateway,
    health: Health,
}

impl Scene {
    fn new(files: &[(&str, &str)]) -> Self {
        let health = Health::new(Settings::default(), Clock::start());
        let readiness = Readiness::new(health.clone(), Drains::default());
        let mut gateway = Gateway::judging(Rules::default(), readiness);
        for (file, text) in files {
            gateway.write(file, text);
        }
        gateway.settle();
        Self { gateway, health }
    }

    /// What is judged for the Service, and by what.
    fn judged(&self) -> Vec<String> {
        let judged = self
            .health
            .of_service(&NamespacedName::new("default", "web"));
        let told = judged.iter().map(|judged| {
            let by = match &judged.target.by {
                By::Probe(probe) => probe.action.kind().to_owned(),
                By::Connections(passive) => format!("{passive:?}"),
            };
            format!("{} {by}", judged.target.address)
        });
        told.collect()
    }

    /// Endpoints that new connections go to.
    fn active(&self) -> Vec<String> {
        let table = self.gateway.table();
        let backends = table.services.iter().flat_map(|service| &service.backends);
        let active = backends.filter(|backend| backend.state == BackendState::Active);
        active.map(|backend| backend.address.to_string()).collect()
    }

    /// Tells what the dataplane saw of 10.1.0.1, by hand: the engine's task does not run here.
    fn refuse(&self, target: &Target, times: u64) {
        let mut readiness = Readiness::new(self.health.clone(), Drains::default());
        let service = NamespacedName::new("default", "web");
        let watched = Watched {
            targets: vec![target.clone()],
            ..Watched::default()
        };
        readiness.watched.insert(service, watched);
        readiness.evidence(&[News {
            service: ServiceName {
                namespace: "default".to_owned(),
                name: "web".to_owned(),
                port: String::new(),
                protocol: Protocol::Tcp,
            },
            backend: "10.1.0.1:8080".parse().unwrap(),
            attempts: Attempts {
                refused: times,
                ..Attempts::default()
            },
        }]);
    }
}

#[test]
fn pods_that_no_kubelet_judges_are_judged_by_all_their_probes() {
    let sidecar = "readinessProbe: {tcpSocket: {port: 9000}}}, {name: d, \
                   readinessProbe: {grpc: {port: 9001}}";
    let command = "readinessProbe: {exec: {command: [\"true\"]}}";
    let pods = pods(&[
        ("", PROBED, ""),
        ("", sidecar, ""),
        ("", PROBED, READY),
        ("", PROBED, UNREADY),
        ("", "ports: []", ""),
        ("", command, ""),
    ]);
    let scene = Scene::new(&[("web.yaml", SERVICE), ("pods.yaml", &pods)]);
    // Until its probes say otherwise such a Pod is ready: a restart takes nobody out of use.
    assert_eq!(scene.active(), ["10.1.0.1", "10.1.0.2", "10.1.0.3"]);
    assert_eq!(
        scene.judged(),
        [
            "10.1.0.1:8080 http",
            "10.1.0.2:9000 tcp",
            "10.1.0.2:9001 grpc"
        ]
    );
    assert_eq!(
        scene.gateway.problems(),
        [
            "pods.yaml:35 Pod default/p6 spec.containers[0].readinessProbe.exec: commands cannot be \
             run from outside the Pod; write the condition Ready into its status, or another probe"
        ]
    );
}

#[test]
fn the_probe_of_a_policy_takes_the_place_of_those_of_pods() {
    let pods = pods(&[("", PROBED, ""), ("", "ports: []", READY)]);
    let mut scene = Scene::new(&[("web.yaml", SERVICE), ("pods.yaml", &pods)]);
    assert_eq!(scene.judged(), ["10.1.0.1:8080 http"]);
    let policy = policy("probe: {tcp: {port: 7}}");
    scene.gateway.apply("policy.yaml", &policy);
    assert_eq!(scene.judged(), ["10.1.0.1:7 tcp", "10.1.0.2:7 tcp"]);
}

#[test]
fn pods_that_are_published_unready_are_not_probed() {
    let pods = pods(&[("", PROBED, "")]);
    let service = format!("{SERVICE}  publishNotReadyAddresses: true\n");
    let scene = Scene::new(&[("web.yaml", &service), ("pods.yaml", &pods)]);
    assert_eq!(scene.active(), ["10.1.0.1"]);
    assert_eq!(scene.judged(), [""; 0]);
}

#[test]
fn tiers_follow_the_labels_of_pods_although_the_slices_stay_the_same() {
    let spare = ", spare: \"yes\"";
    let policy = policy("tiers: [{tier: 1, podSelector: {matchLabels: {spare: \"yes\"}}}]");
    let with = |first, second| pods(&[(first, "ports: []", READY), (second, "ports: []", READY)]);
    let files = [("web.yaml", SERVICE), ("policy.yaml", &*policy)];
    let mut scene = Scene::new(&files);
    for (first, second, expected) in [
        ("", spare, &["10.1.0.1"][..]),
        (spare, "", &["10.1.0.2"]),
        ("", "", &["10.1.0.1", "10.1.0.2"]),
        (spare, spare, &["10.1.0.1", "10.1.0.2"]),
    ] {
        scene.gateway.apply("pods.yaml", &with(first, second));
        assert_eq!(scene.active(), expected, "{first}|{second}");
    }
}

#[test]
fn each_policy_says_how_many_failures_take_a_backend_out_and_for_how_long() {
    let policy = policy("passive: {enabled: true, failures: 3, seconds: 7}");
    let pods = pods(&[("", "ports: []", READY)]);
    let files = [
        ("web.yaml", SERVICE),
        ("policy.yaml", &*policy),
        ("pods.yaml", &*pods),
    ];
    let scene = Scene::new(&files);
    let judged = scene
        .health
        .of_service(&NamespacedName::new("default", "web"));
    let [judged] = &judged[..] else {
        panic!("{judged:?}");
    };
    scene.refuse(&judged.target, 2);
    assert!(scene.health.verdict(&judged.target).unwrap().healthy);
    scene.refuse(&judged.target, 1);
    let verdict = scene.health.verdict(&judged.target).unwrap();
    assert_eq!(
        (verdict.healthy, verdict.reason.to_string()),
        (
            false,
            "3 connections in a row failed, out of use for 7 s".to_owned()
        )
    );
}

#[test]
fn failures_at_one_port_are_no_evidence_about_another() {
    let other = Target {
        address: "10.1.0.1:9090".parse().unwrap(),
        by: By::Connections(crate::health::passive::Passive {
            failures: 1,
            ..Default::default()
        }),
    };
    let scene = Scene::new(&[]);
    let service = NamespacedName::new("default", "web");
    scene.health.set(&service, vec![other.clone()]);
    scene.refuse(&other, 9);
    assert!(scene.health.verdict(&other).unwrap().healthy);
}
