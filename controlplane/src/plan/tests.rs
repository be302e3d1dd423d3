use sluice_conf::ServiceName;
use sluice_conf::message::controlplane::plan::{Change, DraftFile, Fate, ObjectChange};
use sluice_conf::message::dataplane::{Count, Counts};

use super::connections::{Touched, note};
use super::*;
use crate::testing::{Gateway, lines, service, slice};

const KEEP: &str = "  annotations:\n    sluice.dev/backend-gone: keep\nspec:";

fn draft(files: &[(&str, &str)], delete: bool) -> Draft {
    let file = |(name, text): &(&str, &str)| DraftFile {
        name: (*name).to_owned(),
        bytes: text.as_bytes().to_vec(),
    };
    Draft {
        files: files.iter().map(file).collect(),
        delete,
    }
}

/// A gateway with Service `web`, of two backends, and Service `old`.
fn gateway() -> Gateway {
    let mut gateway = Gateway::default();
    gateway.write("web.yaml", &service("web", "10.0.0.1"));
    gateway.write("ep.yaml", &slice("web-1", "web", &["10.1.0.1", "10.1.0.2"]));
    gateway.write("old.yaml", &service("old", "10.0.0.9"));
    gateway.settle();
    gateway
}

fn made(gateway: &Gateway, files: &[(&str, &str)], delete: bool) -> Plan {
    let before = (gateway.table(), gateway.problems());
    let plan = make(gateway.rehearsal(), &draft(files, delete));
    assert_eq!((gateway.table(), gateway.problems()), before);
    plan
}

fn told(plan: &Plan) -> Vec<(Change, String)> {
    let services = plan.services.iter();
    services.map(|s| (s.change, s.name.name.clone())).collect()
}

#[test]
fn a_new_service_is_added_with_what_it_takes_and_nothing_happens() {
    let gateway = gateway();
    let plan = made(
        &gateway,
        &[("new.yaml", &service("new", "10.0.0.5"))],
        false,
    );
    assert_eq!(told(&plan), [(Change::Added, "new".to_owned())]);
    assert_eq!(plan.services[0].frontends.len(), 1);
    assert_eq!(plan.allocations.len(), 1);
    let taken = &plan.allocations[0];
    assert_eq!((taken.value.as_str(), taken.taken), ("10.0.0.5", true));
    assert!(plan.refused.is_empty(), "{:?}", plan.refused);
}

#[test]
fn what_stays_as_it_is_makes_an_empty_plan_wherever_its_file_stands() {
    let gateway = gateway();
    let web = service("web", "10.0.0.1");
    for name in ["web.yaml", "/tmp/elsewhere.yaml"] {
        let plan = made(&gateway, &[(name, &web)], false);
        assert!(plan == Plan::default(), "{name}: {plan:?}");
    }
}

#[test]
fn what_is_missing_goes_only_when_the_files_are_all_there_is_to_be() {
    let gateway = gateway();
    let (web, ep) = (
        service("web", "10.0.0.1"),
        slice("web-1", "web", &["10.1.0.1", "10.1.0.2"]),
    );
    let files = [("x/web.yaml", web.as_str()), ("x/ep.yaml", ep.as_str())];
    assert!(made(&gateway, &files, false).changes_nothing());
    let plan = made(&gateway, &files, true);
    assert_eq!(told(&plan), [(Change::Removed, "old".to_owned())]);
    assert_eq!(plan.services[0].frontends[0].fate, Some(Fate::End));
    assert!(!plan.allocations[0].taken, "{:?}", plan.allocations);
    // A file that cannot be read may hold anything.
    let broken = [files[0], files[1], ("x/old.yaml", "a: [")];
    let plan = made(&gateway, &broken, true);
    assert_eq!((told(&plan), plan.refused.len()), (vec![], 1), "{plan:?}");
}

#[test]
fn connections_of_a_backend_that_leaves_fare_as_the_policy_says() {
    let gateway = gateway();
    let less = slice("web-1", "web", &["10.1.0.1"]);
    let plan = made(&gateway, &[("ep.yaml", &less)], false);
    let backend = &plan.services[0].backends[0];
    assert_eq!(backend.address.to_string(), "10.1.0.2");
    assert_eq!(
        (backend.change, backend.fate),
        (Change::Removed, Some(Fate::End))
    );
    let keep = service("web", "10.0.0.1").replace("spec:", KEEP);
    let mut plan = made(&gateway, &[("ep.yaml", &less), ("web.yaml", &keep)], false);
    let change = &plan.services[0];
    assert_eq!(change.backends[0].fate, Some(Fate::Stay));
    assert_eq!(change.policies[0].what, "backend gone");
    assert_eq!(change.policies[0].after, "keep");
    let count = |backend: &str, connections| Count {
        service: change.name.clone(),
        frontend: "10.0.0.1:80".parse().unwrap(),
        backend: backend.parse().unwrap(),
        connections,
    };
    let counts = Counts {
        counts: vec![count("10.1.0.1:8080", 5), count("10.1.0.2:8080", 7)],
        truncated: false,
    };
    let touched = note(&mut plan, &counts);
    let expected = Touched {
        kept: 7,
        ..Touched::default()
    };
    assert_eq!(touched, expected);
    assert_eq!(plan.services[0].backends[0].connections, Some(7));
}

#[test]
fn a_connection_that_loses_both_its_ends_is_counted_once() {
    let gateway = gateway();
    let mut plan = made(&gateway, &[], true);
    let web = plan.services.iter().find(|s| s.name.name == "web").unwrap();
    let count = Count {
        service: web.name.clone(),
        frontend: "10.0.0.1:80".parse().unwrap(),
        backend: "10.1.0.1:8080".parse().unwrap(),
        connections: 4,
    };
    let counts = Counts {
        counts: vec![count],
        truncated: false,
    };
    assert_eq!(note(&mut plan, &counts).ended, 4);
}

#[test]
fn a_refused_object_is_told_with_its_field_and_changes_nothing() {
    let gateway = gateway();
    let wrong = service("web", "10.0.0.1").replace("port: 80", "port: 99999");
    for file in ["web.yaml", "/tmp/web.yaml"] {
        let plan = made(&gateway, &[(file, &wrong)], false);
        assert!(plan.changes_nothing(), "{plan:?}");
        let refused = lines(&plan.refused).join("\n");
        let place = format!("{file}:8 Service default/web spec.ports[0].port");
        assert!(refused.contains(&place), "{refused}");
    }
    let taken = made(&gateway, &[("b.yaml", &service("b", "10.0.0.1"))], false);
    assert!(!taken.refused.is_empty(), "{taken:?}");
}

#[test]
fn garbage_is_refused_and_never_panics() {
    let gateway = gateway();
    for garbage in ["\u{0}", "a: &a [*a]", "{{{{", "- - - -\n", "kind: Service"] {
        let plan = make(gateway.rehearsal(), &draft(&[("g.yaml", garbage)], false));
        assert_eq!(
            (told(&plan), plan.refused.len()),
            (vec![], 1),
            "{garbage:?}"
        );
    }
}

#[test]
fn an_object_that_makes_no_sense_elsewhere_leaves_its_good_version_in_use() {
    let gateway = gateway();
    let whole = slice("web-1", "web", &["10.1.0.1", "10.1.0.2"]);
    let wrong = whole.replace("10.1.0.2", "nowhere");
    assert_ne!(whole, wrong);
    for delete in [false, true] {
        let plan = made(&gateway, &[("/tmp/ep.yaml", &wrong)], delete);
        let slices = |o: &&ObjectChange| o.object == "EndpointSlice default/web-1";
        assert!(!plan.objects.iter().any(|o| slices(&o)), "{plan:?}");
        assert_eq!(plan.refused.len(), 1, "{plan:?}");
        assert_eq!(plan.services.is_empty(), !delete, "{plan:?}");
    }
}

#[test]
fn an_object_without_effect_on_the_table_is_told_all_the_same() {
    let gateway = gateway();
    let pool = "apiVersion: sluice.dev/v1alpha1\nkind: AddressPool\nmetadata:\n  name: public\n\
                spec:\n  addresses: [203.0.113.0/28]\n";
    let plan = made(&gateway, &[("pool.yaml", pool)], false);
    let expected = ObjectChange {
        object: "AddressPool public".into(),
        change: Change::Added,
    };
    assert_eq!((plan.objects, plan.services), (vec![expected], vec![]));
    let foreign = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\n";
    let plan = made(&gateway, &[("d.yaml", foreign)], false);
    assert!(plan.changes_nothing(), "{plan:?}");
    assert!(plan.skipped[0].contains("Deployment"), "{:?}", plan.skipped);
}

#[test]
fn what_was_wrong_before_is_no_news_wherever_its_file_stands() {
    let mut gateway = gateway();
    let lonely = service("lonely", "10.0.0.7");
    gateway.apply("lonely.yaml", &lonely);
    let problem = "has no EndpointSlice";
    assert!(gateway.problems().iter().any(|p| p.contains(problem)));
    let plan = made(&gateway, &[("/tmp/lonely.yaml", &lonely)], false);
    assert_eq!(plan, Plan::default());
}

fn connections(service: &ServiceName, frontend: &str, backend: &str, connections: u64) -> Count {
    Count {
        service: service.clone(),
        frontend: frontend.parse().unwrap(),
        backend: backend.parse().unwrap(),
        connections,
    }
}

#[test]
fn connections_go_on_when_a_port_is_given_a_name() {
    let gateway = gateway();
    let named = service("web", "10.0.0.1").replace("- port: 80", "- name: http\n    port: 80");
    let slice = slice("web-1", "web", &["10.1.0.1"]).replace("- port", "- name: http\n  port");
    let files = [("web.yaml", named.as_str()), ("ep.yaml", slice.as_str())];
    let mut plan = made(&gateway, &files, false);
    let [old, new] = &plan.services[..] else {
        panic!("{:?}", plan.services)
    };
    assert_eq!((old.change, new.change), (Change::Removed, Change::Added));
    let frontend = &old.frontends[0];
    assert_eq!(frontend.heir.as_ref(), Some(&new.name));
    assert_eq!(frontend.inherited, ["10.1.0.1:8080".parse().unwrap()]);
    let name = old.name.clone();
    let count = |backend, number| connections(&name, "10.0.0.1:80", backend, number);
    let counts = Counts {
        counts: vec![count("10.1.0.1:8080", 5), count("10.1.0.2:8080", 7)],
        truncated: false,
    };
    let touched = note(&mut plan, &counts);
    assert_eq!((touched.ended, touched.kept), (7, 0));
    let old = &plan.services[0];
    assert_eq!(old.frontends[0].connections, Some(7));
    assert_eq!(old.backends[0].connections, Some(0), "its frontend decides");
}

#[test]
fn connections_of_a_backend_that_begins_to_drain_stay_and_are_counted() {
    let gateway = gateway();
    let draining = slice("web-1", "web", &["10.1.0.1", "10.1.0.2"])
        + "  conditions: {ready: false, serving: true, terminating: true}\n";
    let mut plan = made(&gateway, &[("ep.yaml", &draining)], false);
    let service = &plan.services[0];
    let backend = &service.backends[0];
    assert_eq!(
        (backend.change, backend.fate),
        (Change::Altered, Some(Fate::Stay))
    );
    assert_eq!(backend.altered[0].after, "draining");
    let count = connections(&service.name, "10.0.0.1:80", "10.1.0.2:8080", 3);
    let counts = Counts {
        counts: vec![count],
        truncated: false,
    };
    assert_eq!(note(&mut plan, &counts).kept, 3);
    assert_eq!(plan.services[0].backends[0].connections, Some(3));
}

#[test]
fn connections_to_a_vip_that_goes_end_though_the_service_stays() {
    let mut gateway = gateway();
    let web = service("web", "10.0.0.1");
    let kind = "spec:\n  type: LoadBalancer\n  allocateLoadBalancerNodePorts: false";
    let status = "status:\n  loadBalancer:\n    ingress:\n    - ip: 203.0.113.9\n";
    gateway.apply("web.yaml", &(web.replace("spec:", kind) + status));
    let mut plan = made(&gateway, &[("web.yaml", &web)], false);
    let service = &plan.services[0];
    assert_eq!(
        (service.change, service.frontends.len()),
        (Change::Altered, 1)
    );
    let name = service.name.clone();
    let counts = Counts {
        counts: vec![
            connections(&name, "203.0.113.9:80", "10.1.0.1:8080", 3),
            connections(&name, "10.0.0.1:80", "10.1.0.1:8080", 4),
        ],
        truncated: false,
    };
    assert_eq!(note(&mut plan, &counts).ended, 3);
    assert_eq!(plan.services[0].frontends[0].connections, Some(3));
}
