mod incremental;

use super::*;
use crate::testutil::{RESERVED, table};
use sluice_conf::Pool;

const TERMS: Terms = Terms {
    workers: 1,
    reserved: RESERVED,
    limits: Limits {
        services: 100,
        frontends: 100,
        backends: 3,
    },
};

const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

fn target(end: &str, protocol: Protocol) -> Target {
    let end: std::net::SocketAddr = end.parse().unwrap();
    Target {
        address: end.ip(),
        port: end.port(),
        protocol,
    }
}

/// Address of the backend that a flow gets.
fn picked(
    service: &CompiledService,
    pool: Pool,
    hash: u64,
    remembered: Option<u32>,
) -> Option<String> {
    let hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    match service.choose(pool, V4, hash, remembered) {
        Choice::Row(_, backend, _) | Choice::Affinity(_, backend) => {
            Some(backend.entry.address.to_string())
        }
        Choice::NotByPolicy | Choice::Nobody => None,
    }
}

fn at(map: &ServiceMap, place: usize) -> &Arc<CompiledService> {
    map.services.get(place).unwrap()
}

fn map(text: &[&str], previous: &ServiceMap) -> ServiceMap {
    ServiceMap::build(table(text), previous, &TERMS).unwrap()
}

#[test]
fn a_frontend_leads_to_its_service_for_its_protocol_only() {
    let map = map(
        &["web tcp 203.0.113.10:80 -> 10.0.2.11:8080"],
        &ServiceMap::default(),
    );
    let web = target("203.0.113.10:80", Protocol::Tcp);
    let served = map.frontend(&web).unwrap();
    assert_eq!(served.service.entry.name.name, "web");
    assert!(
        map.frontend(&target("203.0.113.10:80", Protocol::Udp))
            .is_none()
    );
    assert!(map.vips().get(web.address).unwrap().answers_ping());
    assert_eq!(map.vips().get("10.0.2.11".parse().unwrap()), None);
}

#[test]
fn what_does_not_change_keeps_its_compiled_form() {
    let first = map(
        &[
            "a tcp 203.0.113.1:80 -> 10.0.2.11:80",
            "b tcp 203.0.113.2:80 -> 10.0.2.11:80",
        ],
        &ServiceMap::default(),
    );
    let second = map(
        &[
            "a tcp 203.0.113.1:80 -> 10.0.2.11:80",
            "b tcp 203.0.113.2:80 -> 10.0.2.11:80 10.0.2.12:80",
        ],
        &first,
    );
    assert!(Arc::ptr_eq(at(&first, 0), at(&second, 0)));
    assert!(!Arc::ptr_eq(at(&first, 1), at(&second, 1)));
    let counters = |map: &ServiceMap| Arc::clone(&at(map, 1).backends[0].counters);
    assert!(Arc::ptr_eq(&counters(&first), &counters(&second)));
    assert_ne!(first.version(), second.version());
}

#[test]
fn a_draining_backend_is_listed_and_never_picked() {
    let map = map(
        &["a tcp 203.0.113.1:80 -> 10.0.2.11:80 10.0.2.12:80/draining"],
        &ServiceMap::default(),
    );
    let service = map.service(0).unwrap();
    let drained: IpAddr = "10.0.2.12".parse().unwrap();
    assert!(service.place_of(drained, 80).is_some());
    for hash in 0..1000u64 {
        let chosen = picked(service, Pool::Cluster, hash, None);
        assert_eq!(chosen.unwrap(), "10.0.2.11");
    }
}

#[test]
fn a_service_without_active_backend_is_not_ready() {
    let map = map(&["a tcp 203.0.113.1:80 ->"], &ServiceMap::default());
    let vip = map.vips().get("203.0.113.1".parse().unwrap());
    assert!(!vip.unwrap().answers_ping());
    let service = map.service(0).unwrap();
    assert!(matches!(
        service.choose(Pool::Cluster, V4, 1, None),
        Choice::Nobody
    ));
}

#[test]
fn a_node_port_in_the_masquerade_range_is_refused() {
    let bad = table(&["a tcp node:10.0.1.1:20000 -> 10.0.2.11:80"]);
    let error = ServiceMap::build(bad, &ServiceMap::default(), &TERMS).unwrap_err();
    assert_eq!(
        error.to_string(),
        "service default/a/TCP: node port 20000 lies in source_nat.ports 16384-29999; move one of them"
    );
}

#[test]
fn a_table_beyond_a_limit_is_refused_with_its_name() {
    let many =
        table(&["a tcp 203.0.113.1:80 -> 10.0.2.11:80 10.0.2.12:80 10.0.2.13:80 10.0.2.14:80"]);
    let error = ServiceMap::build(many, &ServiceMap::default(), &TERMS).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the table has 4 backends, limits.backends of the settings is 3"
    );
}

#[test]
fn each_pool_has_its_own_backends_and_tells_why_it_has_none() {
    let map = map(
        &[
            "a tcp 203.0.113.1:80 -> 10.0.2.11:80 10.0.2.12:80/only-local",
            "b tcp 203.0.113.2:80 -> 10.0.2.13:80",
        ],
        &ServiceMap::default(),
    );
    let (a, b) = (map.service(0).unwrap(), map.service(1).unwrap());
    assert_eq!(picked(a, Pool::Cluster, 7, None).unwrap(), "10.0.2.11");
    assert_eq!(picked(a, Pool::Local, 7, None).unwrap(), "10.0.2.12");
    assert!(matches!(
        b.choose(Pool::Local, V4, 7, None),
        Choice::NotByPolicy
    ));
    let v6 = IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED);
    assert!(matches!(
        b.choose(Pool::Cluster, v6, 7, None),
        Choice::Nobody
    ));
}

#[test]
fn affinity_never_leads_to_a_backend_that_cannot_serve() {
    let lines = |state: &str| {
        format!("a tcp 203.0.113.1:80 -> 10.0.2.11:80{state} 10.0.2.12:80; affinity=60")
    };
    let before = map(&[&lines("")], &ServiceMap::default());
    let remembered = before.service(0).unwrap().backends[0].fingerprint();
    let after = map(&[&lines("/draining")], &before);
    for hash in 0..100 {
        let home = picked(
            before.service(0).unwrap(),
            Pool::Cluster,
            hash,
            Some(remembered),
        );
        assert_eq!(home.unwrap(), "10.0.2.11");
        let other = picked(
            after.service(0).unwrap(),
            Pool::Cluster,
            hash,
            Some(remembered),
        );
        assert_eq!(other.unwrap(), "10.0.2.12");
    }
}

#[test]
fn one_port_wins_over_a_range_that_holds_it() {
    let map = map(
        &[
            "a udp 203.0.113.1:5000-5009 -> 10.0.2.11:0",
            "b udp 203.0.113.1:5004 -> 10.0.2.12:9",
        ],
        &ServiceMap::default(),
    );
    let found = |port: u16| {
        let target = target(&format!("203.0.113.1:{port}"), Protocol::Udp);
        map.frontend(&target)
            .map(|served| served.service.entry.name.name.clone())
    };
    assert_eq!(found(5003).as_deref(), Some("a"));
    assert_eq!(found(5004).as_deref(), Some("b"));
    assert_eq!(found(5010), None);
}

/// As large as the largest clusters: the table is accepted, fits one message, and one changed
/// endpoint leaves everything else as it was compiled.
#[test]
fn ten_thousand_services_with_a_hundred_thousand_backends_are_accepted() {
    let lines = |changed: bool| -> Vec<String> {
        (0..10_000u32)
            .map(|n| {
                let vip = std::net::Ipv4Addr::from(0x0a60_0000 + n);
                let first = 0x0a80_0000 + n * 10 + u32::from(changed && n == 77);
                let backends: Vec<String> = (first..first + 10)
                    .map(|bits| format!("{}:8080", std::net::Ipv4Addr::from(bits)))
                    .collect();
                format!("s{n:05} tcp {vip}:80 -> {}", backends.join(" "))
            })
            .collect()
    };
    let compiled = |changed, previous: &ServiceMap| {
        let lines = lines(changed);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let terms = Terms {
            limits: Limits::default(),
            ..TERMS
        };
        let table = table(&lines);
        let message = sluice_conf::message::dataplane::Request::Push(table.clone());
        let bytes = sluice_conf::codec::encode(&message).unwrap().len();
        assert!(bytes < sluice_conf::codec::MAX_BODY, "{bytes} bytes");
        ServiceMap::build(table, previous, &terms).unwrap()
    };
    let first = compiled(false, &ServiceMap::default());
    let backends = |map: &ServiceMap| map.services().map(|s| s.backends.len()).sum::<usize>();
    assert_eq!(
        (first.services().len(), backends(&first)),
        (10_000, 100_000)
    );
    let second = compiled(true, &first);
    let pairs = first.services.iter().zip(second.services.iter());
    assert_eq!(pairs.filter(|(a, b)| !Arc::ptr_eq(a, b)).count(), 1);
}

#[test]
fn a_service_that_has_not_changed_is_found_at_its_new_place() {
    let (a, b) = (
        "a tcp 203.0.113.10:80 -> 10.0.2.11:8080",
        "b tcp 203.0.113.11:80 -> 10.0.2.12:8080",
    );
    let first = map(&[a, b], &ServiceMap::default());
    let second = map(&[b, "c tcp 203.0.113.12:80 ->"], &first);
    assert_eq!(second.carried(first.version(), 1), Some(0));
    assert_eq!(second.carried(first.version(), 0), None, "it has gone");
    assert_eq!(second.carried(first.version(), 7), None);
    assert_eq!(second.carried(second.version(), 1), None);
    let changed = "b tcp 203.0.113.11:80 -> 10.0.2.13:8080";
    let third = map(&[changed, a], &second);
    assert_eq!(
        third.carried(second.version(), 0),
        None,
        "its backend is another"
    );
    assert_eq!(
        third.carried(first.version(), 1),
        None,
        "one map is missing"
    );
}
