use super::*;
use crate::dns::testing::{many, name, options, slice, zone};

/// Answer section, response code and name of the authority, in words.
fn ask(
    zone: &Zone,
    options: &Options,
    text: &str,
    kind: RecordType,
) -> (String, ResponseCode, bool) {
    let name = name(text);
    let question = Question {
        name: &name,
        kind,
        turn: 0,
        most: 100,
    };
    match answer(zone, options, question) {
        Outcome::Elsewhere => ("elsewhere".into(), ResponseCode::Refused, false),
        Outcome::Ours(answer) => {
            let records = answer.answers.iter();
            let records: Vec<String> = records
                .map(|r| format!("{} {}", r.record_type(), r.data))
                .collect();
            (
                records.join(", "),
                answer.code,
                !answer.authorities.is_empty(),
            )
        }
    }
}

fn shop() -> Zone {
    let service = |name: &str, spec: &str| {
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n")
    };
    let mut text = service(
        "web",
        "{clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}",
    );
    text += &service("same", "{clusterIP: 10.96.0.1, ports: [{port: 80}]}");
    text += &service("db", "{clusterIP: None, ports: [{name: sql, port: 5432}]}");
    text += &service("idle", "{clusterIP: None, ports: [{port: 80}]}");
    text += &service(
        "to-web",
        "{type: ExternalName, externalName: web.default.svc.cluster.local}",
    );
    text += &service(
        "to-none",
        "{type: ExternalName, externalName: none.default.svc.cluster.local}",
    );
    text += &service("far", "{type: ExternalName, externalName: www.example.com}");
    text += &service(
        "a",
        "{type: ExternalName, externalName: b.default.svc.cluster.local}",
    );
    text += &service(
        "b",
        "{type: ExternalName, externalName: a.default.svc.cluster.local}",
    );
    text += &service(
        "lb",
        "{type: LoadBalancer, clusterIP: 10.96.0.9, loadBalancerIP: 192.0.2.9, ports: [{name: http, port: 80}]}",
    );
    text += &slice(
        "db",
        "- addresses: [10.0.0.1]\n  hostname: db-0\n- addresses: [10.0.0.2]\n  conditions: {ready: false}\n",
    );
    zone(&text)
}

#[test]
fn names_with_names_below_them_exist() {
    let (zone, options) = (shop(), options());
    for above in [
        "cluster.local",
        "svc.cluster.local",
        "default.svc.cluster.local",
        "dns.cluster.local",
        "_tcp.web.default.svc.cluster.local",
        "_tcp.db.default.svc.cluster.local",
    ] {
        let told = ask(&zone, &options, above, RecordType::A);
        assert_eq!(
            told,
            (String::new(), ResponseCode::NoError, true),
            "{above}"
        );
    }
    for nothing in [
        "x.cluster.local",
        "x.svc.cluster.local",
        "_udp.web.default.svc.cluster.local",
        "idle.default.svc.cluster.local",
        "10-0-0-2.db.default.svc.cluster.local",
        "http.web.default.svc.cluster.local",
        "*.default.svc.cluster.local",
    ] {
        let told = ask(&zone, &options, nothing, RecordType::A);
        assert_eq!(
            told,
            (String::new(), ResponseCode::NXDomain, true),
            "{nothing}"
        );
    }
}

#[test]
fn an_external_name_is_followed_as_far_as_the_zone_goes() {
    let (zone, options) = (shop(), options());
    let told = |text: &str, kind| ask(&zone, &options, text, kind);
    let code = ResponseCode::NoError;
    assert_eq!(
        told("to-web.default.svc.cluster.local", RecordType::A),
        (
            "CNAME web.default.svc.cluster.local., A 10.96.0.1".into(),
            code,
            false
        )
    );
    assert_eq!(
        told("to-web.default.svc.cluster.local", RecordType::AAAA),
        ("CNAME web.default.svc.cluster.local.".into(), code, true)
    );
    assert_eq!(
        told("to-none.default.svc.cluster.local", RecordType::A),
        (
            "CNAME none.default.svc.cluster.local.".into(),
            ResponseCode::NXDomain,
            true
        )
    );
    assert_eq!(
        told("far.default.svc.cluster.local", RecordType::A),
        ("CNAME www.example.com.".into(), code, false)
    );
    let (_, circle, _) = told("a.default.svc.cluster.local", RecordType::A);
    assert_eq!(circle, ResponseCode::ServFail);
}

#[test]
fn addresses_have_names_and_a_shared_one_has_both() {
    let (zone, options) = (shop(), options());
    let told = |text: &str, kind| ask(&zone, &options, text, kind).0;
    assert_eq!(
        told("1.0.96.10.in-addr.arpa", RecordType::PTR),
        "PTR same.default.svc.cluster.local., PTR web.default.svc.cluster.local."
    );
    assert_eq!(
        told("1.0.0.10.in-addr.arpa", RecordType::PTR),
        "PTR db-0.db.default.svc.cluster.local."
    );
    assert_eq!(
        told("9.2.0.192.in-addr.arpa", RecordType::PTR),
        "PTR lb.default.example.org."
    );
    assert_eq!(told("2.0.0.10.in-addr.arpa", RecordType::PTR), "elsewhere");
}

#[test]
fn outside_the_cluster_a_service_has_its_balancer_addresses() {
    let (zone, mut options) = (shop(), options());
    let told = |options: &Options, text: &str| ask(&zone, options, text, RecordType::A);
    assert_eq!(told(&options, "lb.default.example.org").0, "A 192.0.2.9");
    assert_eq!(
        told(&options, "_http._tcp.lb.default.example.org").0,
        "A 192.0.2.9"
    );
    let nothing = told(&options, "db.default.example.org");
    assert_eq!(nothing.1, ResponseCode::NXDomain);
    options.external_headless = true;
    assert_eq!(told(&options, "db.default.example.org").0, "A 10.0.0.1");
    assert_eq!(
        told(&options, "web.default.example.org").1,
        ResponseCode::NXDomain
    );
}

#[test]
fn nothing_is_said_not_to_exist_before_all_is_known_and_zones_are_not_given_away() {
    let (mut zone, options) = (Zone::default(), options());
    for text in ["web.default.svc.cluster.local", "1.0.96.10.in-addr.arpa"] {
        let (_, code, _) = ask(&zone, &options, text, RecordType::PTR);
        assert_eq!(code, ResponseCode::ServFail);
    }
    zone.set_synced();
    for kind in [RecordType::AXFR, RecordType::IXFR] {
        let (_, code, _) = ask(&zone, &options, "cluster.local", kind);
        assert_eq!(code, ResponseCode::Refused);
    }
}

#[test]
fn of_many_records_those_next_in_turn_are_given() {
    let (zone, options) = (many(5), options());
    let name = name("many.default.svc.cluster.local");
    let given = |kind, turn, most| {
        let question = Question {
            name: &name,
            kind,
            turn,
            most,
        };
        let Outcome::Ours(answer) = answer(&zone, &options, question) else {
            panic!("it is in the zone");
        };
        let data = answer.answers.iter().map(|r| r.data.to_string());
        (data.collect::<Vec<_>>().join(" "), answer.truncated)
    };
    assert_eq!(
        given(RecordType::A, 0, 2),
        ("10.0.0.1 10.0.0.2".into(), true)
    );
    assert_eq!(
        given(RecordType::A, 4, 2),
        ("10.0.0.5 10.0.0.1".into(), true)
    );
    let (all, truncated) = given(RecordType::A, 7, 5);
    assert!(all.starts_with("10.0.0.3") && !truncated);
    let (all, truncated) = given(RecordType::SRV, 1, 1);
    assert!(
        all.starts_with("0 20 8080 10-0-0-2.many") && truncated,
        "{all}"
    );
}
