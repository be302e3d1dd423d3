use std::net::IpAddr;

use sluice_conf::settings::controlplane::SourceNatMode;
use sluice_conf::{BackendGone, Forwarding, Ping, Refusal};

use super::probe::{Header, ProbePort, Question};
use super::*;

fn checked(spec: &str) -> Checked<PolicySpec> {
    let spec: ServicePolicySpec = serde_saphyr::from_str(spec).unwrap();
    check(&ServicePolicy::new("policy", spec))
}

fn issues(spec: &str) -> Vec<String> {
    let issues = checked(spec).issues.into_iter();
    issues
        .map(|i| format!("{}: {}", i.field, i.message))
        .collect()
}

#[test]
fn a_policy_that_says_only_its_targets_changes_nothing() {
    let policy = checked("targets: [web]");
    assert_eq!(policy.issues, []);
    let wanted = PolicySpec {
        targets: vec!["web".into()],
        policies: Policies::default(),
        port_ranges: Vec::new(),
        weights: None,
        slow_start: None,
        tiers: Vec::new(),
        probe: None,
        fail_open_percent: None,
        passive: None,
    };
    assert_eq!(policy.good, Some(wanted));
}

#[test]
fn everything_that_a_policy_can_say_is_read() {
    let policy = checked(
        r#"
targets: [web, api]
sourceNat: kubernetes
backendGone: drain=30
refusal: tcp-reset
ping: always
mssClamp: 1400
forwarding: nat
portRanges: [5060-5090/udp, all/tcp]
weights: {default: 2, endpoints: {10.0.0.1: 0, web-0: 1000}}
slowStart: {seconds: 60}
tiers:
  - {tier: 0, zones: [a]}
  - {tier: 2, podSelector: {matchLabels: {spare: "yes"}}}
tierMinimum: 3
probe: {tcp: {}}
failOpenPercent: 50
passive: {enabled: true}
"#,
    );
    assert_eq!(policy.issues, []);
    let policy = policy.good.unwrap();
    let wanted = Policies {
        source_nat: Some(SourceNatMode::Kubernetes),
        backend_gone: Some(BackendGone::Drain { seconds: 30 }),
        refusal: Some(Refusal::TcpReset),
        ping: Some(Ping::Always),
        mss_clamp: Some(1400),
        forwarding: Some(Forwarding::Nat),
        tier_minimum: Some(3),
    };
    assert_eq!(policy.policies, wanted);
    let ranges: Vec<_> = policy.port_ranges.iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["5060-5090/udp", "all/tcp"]);
    let ramp = SlowStart {
        seconds: 60,
        from_percent: 10,
    };
    assert_eq!(policy.slow_start, Some(ramp));
    assert_eq!(policy.fail_open_percent, Some(50));
    let passive = policy.passive.unwrap();
    assert_eq!((passive.failures, passive.seconds), (5, 30));

    let weights = policy.weights.unwrap();
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    assert_eq!(weights.of(address("10.0.0.1"), Some("web-0")), 0);
    assert_eq!(weights.of(address("10.0.0.2"), Some("web-0")), 1000);
    assert_eq!(weights.of(address("10.0.0.2"), Some("web-1")), 2);
    assert_eq!(weights.of(address("10.0.0.2"), None), 2);

    let [first, spare] = &policy.tiers[..] else {
        panic!("{:?}", policy.tiers);
    };
    let labels = BTreeMap::from([("spare".to_owned(), "yes".to_owned())]);
    assert!(first.fits(Some("a"), None, None));
    assert!(!first.fits(Some("b"), None, Some(&labels)));
    assert!(!first.fits(None, None, Some(&labels)));
    assert_eq!(spare.tier, 2);
    assert!(spare.fits(None, None, Some(&labels)));
    assert!(!spare.fits(Some("a"), Some("n"), None));
}

#[test]
fn a_probe_has_the_times_of_the_kubelet_unless_it_says_otherwise() {
    let probe = |spec: &str| {
        let policy = checked(&format!("{{targets: [web], probe: {spec}}}"));
        assert_eq!(policy.issues, [], "{spec}");
        policy.good.unwrap().probe.unwrap()
    };
    let tcp = Probe {
        question: Question::Tcp,
        port: ProbePort::Served,
        period_seconds: 10,
        timeout_seconds: 1,
        success_threshold: 1,
        failure_threshold: 3,
        jitter_percent: None,
        initially_healthy: true,
    };
    assert_eq!(probe("{tcp: {}}"), tcp);
    let steady = probe("{tcp: {}, jitterPercent: 0}");
    assert_eq!(steady.jitter_percent, Some(0));
    let https = probe(
        "{https: {port: metrics, path: '/up?now', host: example.com, headers: [{name: X-A, value: b}], statuses: ['204', 300 - 302]}, periodSeconds: 5, timeoutSeconds: 5, initialState: unhealthy}",
    );
    let question = Question::Http {
        tls: true,
        path: "/up?now".into(),
        host: Some("example.com".into()),
        headers: vec![Header {
            name: "X-A".into(),
            value: "b".into(),
        }],
        statuses: vec![204..=204, 300..=302],
    };
    let wanted = Probe {
        question,
        port: ProbePort::Name("metrics".into()),
        period_seconds: 5,
        timeout_seconds: 5,
        initially_healthy: false,
        ..tcp
    };
    assert_eq!(https, wanted);
    let grpc = probe("{grpc: {port: 9000, service: a.B}}");
    assert_eq!(grpc.port, ProbePort::Number(9000));
    let service = "a.B".to_owned();
    assert_eq!(grpc.question, Question::Grpc { service });
}

#[test]
fn mistakes_are_told_at_their_fields() {
    for (spec, issue) in [
        (
            "sourceNat: maybe",
            "sourceNat: \"maybe\" is not possible; use masquerade, preserve or kubernetes",
        ),
        (
            "backendGone: drain",
            "backendGone: \"drain\" is not possible; use keep, reset or drain=SECONDS",
        ),
        (
            "refusal: rst",
            "refusal: \"rst\" is not possible; use icmp, tcp-reset or drop",
        ),
        (
            "ping: sometimes",
            "ping: \"sometimes\" is not possible; use never, ready or always",
        ),
        (
            "mssClamp: 535",
            "mssClamp: 535 is not possible; use 536 to 65495",
        ),
        (
            "forwarding: dsr",
            "forwarding: \"dsr\" is not possible; use nat or direct-return",
        ),
        (
            "portRanges: [5/tcp, 1-9/tcp]",
            "portRanges[1]: 1-9/tcp overlaps 5/tcp",
        ),
        (
            "weights: {endpoints: {10.0.0.1: 1001}}",
            "weights.endpoints.10.0.0.1: 1001 is not possible; use 0 to 1000",
        ),
        (
            "weights: {endpoints: {10.0.0.1: 1, 10.0.0.01: 2}}",
            "weights.endpoints.10.0.0.1: 10.0.0.1 is there in another spelling",
        ),
        (
            "weights: {endpoints: {Web: 1}}",
            "weights.endpoints.Web: \"Web\" is neither an address nor the name of a pod",
        ),
        (
            "slowStart: {seconds: 0}",
            "slowStart.seconds: 0 is not possible; use 1 to 3600",
        ),
        (
            "tiers: [{tier: 1}]",
            "tiers[0]: fits every endpoint; write zones, nodes or podSelector",
        ),
        (
            "tierMinimum: 0",
            "tierMinimum: 0 is not possible; use 1 to 65535",
        ),
        (
            "failOpenPercent: 101",
            "failOpenPercent: 101 is not possible; use 0 to 100",
        ),
        (
            "passive: {enabled: true, failures: 0}",
            "passive.failures: 0 is not possible; use 1 to 1000",
        ),
        (
            "probe: {}",
            "probe: needs exactly one of tcp, http, https, grpc",
        ),
        (
            "probe: {tcp: {}, http: {}}",
            "probe: needs exactly one of tcp, http, https, grpc",
        ),
        (
            "probe: {tcp: {port: 0}}",
            "probe.tcp.port: is not a port; use 1 to 65535 or the name of a port of the endpoints",
        ),
        (
            "probe: {http: {path: up}}",
            "probe.http.path: \"up\" is not a path; it begins with / and holds no spaces",
        ),
        (
            "probe: {http: {host: \"a\\r\\nX: b\"}}",
            "probe.http.host: holds characters that cannot be sent; use printable ASCII",
        ),
        (
            "probe: {http: {headers: [{name: 'A B', value: c}]}}",
            "probe.http.headers[0].name: \"A B\" is not the name of a header",
        ),
        (
            "probe: {http: {statuses: [399-200]}}",
            "probe.http.statuses[0]: \"399-200\" is not a range of status codes; write 204 or 200-399",
        ),
        (
            "probe: {tcp: {}, timeoutSeconds: 11}",
            "probe.timeoutSeconds: 11 is not possible; use 1 to 10",
        ),
        (
            "probe: {tcp: {}, initialState: up}",
            "probe.initialState: \"up\" is not possible; use healthy or unhealthy",
        ),
    ] {
        let written = format!("targets: [web]\n{spec}\n");
        assert_eq!(checked(&written).good, None, "{spec}");
        let first = issues(&written).into_iter().next();
        assert_eq!(first, Some(format!("spec.{issue}")));
    }
}

#[test]
fn a_policy_needs_targets_and_names_each_once() {
    assert_eq!(
        issues("targets: []"),
        ["spec.targets: is empty; name the Services that the policy is for"]
    );
    assert_eq!(
        issues("targets: [Web]"),
        ["spec.targets[0]: \"Web\" is not the name of a Service"]
    );
    let twice = checked("targets: [web, web]");
    assert_eq!(twice.issues[0].message, "web is there twice");
    assert_eq!(twice.good.unwrap().targets, ["web"]);
}

#[test]
fn of_two_policies_for_one_service_the_first_by_name_holds() {
    let name = |name: &str| NamespacedName::new("default", name);
    let policy = |targets: &str| checked(&format!("targets: [{targets}]")).good.unwrap();
    let (a, b) = (name("a"), name("b"));
    let elsewhere = NamespacedName::new("other", "a");
    let (ab, web, same) = (policy("api, web"), policy("web"), policy("web"));
    let (attached, beaten) = attach([(&b, &web), (&a, &ab), (&elsewhere, &same)]);
    let wanted = BTreeMap::from([
        (name("api"), &a),
        (name("web"), &a),
        (NamespacedName::new("other", "web"), &elsewhere),
    ]);
    assert_eq!(attached, wanted);
    let wanted = Beaten {
        policy: b.clone(),
        field: "spec.targets[0]".into(),
        message: "has no effect on Service web: ServicePolicy a comes first by name".into(),
    };
    assert_eq!(beaten, [wanted]);
}
