//! Tables one after the other, against every one of them compiled from nothing.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sluice_conf::codec;
use sluice_conf::{Backend, BackendState, FrontendKind, Ping, Service, SourceNat, TableChange};

use super::*;

/// Names, Vips and backends that there are.
const NAMES: u8 = 5;
const VIPS: u8 = 5;
const ENDS: u8 = 6;

/// A Service in few numbers.
#[derive(Debug, Clone)]
struct Spec {
    frontends: Vec<(u8, bool, bool)>,
    backends: BTreeMap<u8, (u16, bool, bool)>,
    preserve: bool,
    ping: u8,
    affinity: bool,
}

fn vip(number: u8) -> IpAddr {
    match number % 2 {
        0 => [203, 0, 113, number].into(),
        _ => [0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()].into(),
    }
}

fn end(number: u8) -> (IpAddr, u16) {
    let address = match number % 3 {
        0 => [0xfd00, 0, 0, 0, 0, 0, 0, number.into()].into(),
        _ => [10, 0, 2, number].into(),
    };
    (address, 8080)
}

impl Spec {
    fn service(&self, name: u8) -> Service {
        let access = Access {
            source_nat: match self.preserve {
                true => SourceNat::Preserve,
                false => SourceNat::Masquerade,
            },
            ..Access::default()
        };
        let frontend = |&(number, node, range): &(u8, bool, bool)| {
            let kind = match node {
                true => FrontendKind::NodePort,
                false => FrontendKind::LoadBalancer,
            };
            // Now and then two Services want the same.
            let port = 1000 + u16::from(name % 4);
            Frontend {
                last_port: port + u16::from(range) * 100,
                ..Frontend::new(vip(number), port, kind, access)
            }
        };
        let backend = |(number, &(weight, draining, local)): (&u8, &(u16, bool, bool))| Backend {
            address: end(*number).0,
            port: end(*number).1,
            weight,
            state: match draining {
                true => BackendState::Draining,
                false => BackendState::Active,
            },
            local,
        };
        Service {
            frontends: self.frontends.iter().map(frontend).collect(),
            backends: self.backends.iter().map(backend).collect(),
            ping: [Ping::Never, Ping::Ready, Ping::Always][usize::from(self.ping % 3)],
            affinity_seconds: self.affinity.then_some(60),
            ..Service::new(ServiceName {
                namespace: "default".into(),
                name: name.to_string(),
                port: String::new(),
                protocol: Protocol::Udp,
            })
        }
    }
}

fn spec() -> impl Strategy<Value = Spec> {
    // Weight 0 makes a table that is refused.
    let weight = prop_oneof![1 => Just(0u16), 60 => 1u16..4];
    let backend = (weight, any::<bool>(), any::<bool>());
    let frontend = (0..VIPS, any::<bool>(), prop::bool::weighted(0.2));
    (
        proptest::collection::vec(frontend, 0..3),
        proptest::collection::btree_map(0..ENDS, backend, 0..4),
        any::<bool>(),
        any::<u8>(),
        any::<bool>(),
    )
        .prop_map(|(frontends, backends, preserve, ping, affinity)| Spec {
            frontends,
            backends,
            preserve,
            ping,
            affinity,
        })
}

/// What happens to a Service from one table to the next.
#[derive(Debug, Clone)]
enum Edit {
    Put(Spec),
    Backends(BTreeMap<u8, (u16, bool, bool)>),
    Ping(u8),
    Remove,
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        2 => spec().prop_map(Edit::Put),
        3 => spec().prop_map(|spec| Edit::Backends(spec.backends)),
        1 => any::<u8>().prop_map(Edit::Ping),
        1 => Just(Edit::Remove),
    ]
}

fn apply(services: &mut BTreeMap<u8, Spec>, name: u8, edit: Edit) {
    match (edit, services.get_mut(&name)) {
        (Edit::Put(spec), _) => drop(services.insert(name, spec)),
        (Edit::Backends(backends), Some(spec)) => spec.backends = backends,
        (Edit::Ping(ping), Some(spec)) => spec.ping = ping,
        (Edit::Remove, _) => drop(services.remove(&name)),
        (_, None) => {}
    }
}

/// A map that follows tables by what changes, as the daemon does.
#[derive(Default)]
struct Following {
    map: ServiceMap,
    table: ServiceTable,
}

const LIMITED: Terms = Terms {
    limits: Limits {
        services: 100,
        frontends: 100,
        backends: 12,
    },
    ..TERMS
};

impl Following {
    fn follow(&mut self, table: &ServiceTable) -> Result<ServiceMap, MapError> {
        let sent = codec::encode(&table.since(&self.table)).unwrap();
        let change: TableChange = codec::decode(&sent[codec::HEADER_LEN..]).unwrap();
        let next = ServiceMap::compile(Draft::by(change, &self.map)?, &self.map, &LIMITED)?;
        self.table = table.clone();
        let again = Draft::of(table.clone(), &next);
        assert!(again.steps.is_empty(), "{again:?}");
        Ok(std::mem::replace(&mut self.map, next))
    }
}

fn ensure_equal(map: &ServiceMap, fresh: &ServiceMap) {
    assert_eq!(map.to_table(), fresh.to_table());
    assert_eq!(map.frontend_count(), fresh.frontend_count());
    assert_eq!(map.backend_count(), fresh.backend_count());
    for number in 0..VIPS {
        let address = vip(number);
        assert_eq!(map.vips().get(address), fresh.vips().get(address));
        assert_eq!(map.vips().is_used(address), fresh.vips().is_used(address));
        for port in 999..1110 {
            let target = Target {
                address,
                port,
                protocol: Protocol::Udp,
            };
            let found = |map: &ServiceMap| map.frontend(&target).map(|s| (s.place, *s.frontend));
            assert_eq!(found(map), found(fresh), "{target:?}");
        }
    }
    for (number, port) in (0..ENDS).flat_map(|number| [(number, 8080), (number, 1)]) {
        let target = Target {
            address: end(number).0,
            port,
            protocol: Protocol::Udp,
        };
        let answers = |map: &ServiceMap| map.is_preserving_backend(&target);
        assert_eq!(answers(map), answers(fresh), "{target:?}");
    }
    for (service, fresh) in map.services().zip(fresh.services()) {
        for (pool, family) in [Pool::Cluster, Pool::Local]
            .into_iter()
            .zip([vip(0), vip(1)])
        {
            assert_eq!(service.table(pool, family), fresh.table(pool, family));
            assert_eq!(service.is_ready(family), fresh.is_ready(family));
        }
        for number in 0..ENDS {
            let (address, port) = end(number);
            assert_eq!(
                service.place_of(address, port),
                fresh.place_of(address, port)
            );
        }
    }
}

/// What did not change is the very same; counters stay with their backend.
fn ensure_carried(before: &ServiceMap, after: &ServiceMap) {
    let is_sorted = |map: &ServiceMap| {
        map.services()
            .is_sorted_by_key(|service| &service.entry.name)
    };
    let sorted = is_sorted(before) && is_sorted(after);
    for (place, old) in (0..).zip(before.services()) {
        let mut all = (0..).zip(after.services());
        let now = all.find(|(_, new)| new.entry.name == old.entry.name);
        let same = now.filter(|(_, new)| new.entry == old.entry);
        let carried = after.carried(before.version(), place);
        // One that has passed another need not be carried.
        if sorted || carried.is_some() {
            assert_eq!(carried, same.map(|(place, _)| place));
        }
        if let Some((_, new)) = same {
            assert!(std::ptr::eq(old, new));
        }
        if let Some((_, new)) = now {
            let is_fresh = after.fresh().any(|fresh| std::ptr::eq(fresh, new));
            assert!(is_fresh == same.is_none() || !sorted);
        }
        let Some((_, new)) = now else { continue };
        for backend in &old.backends {
            let stays = new.place_of(backend.entry.address, backend.entry.port);
            if let Some(stays) = stays {
                let counters = &new.backends[usize::from(stays)].counters;
                assert!(Arc::ptr_eq(&backend.counters, counters));
            }
        }
    }
}

proptest! {
    #[test]
    fn a_table_compiled_beside_another_is_the_table_compiled_from_nothing(
        first in proptest::collection::btree_map(0..NAMES, spec(), 0..5),
        edits in proptest::collection::vec(
            proptest::collection::vec((0..NAMES, edit()), 0..3), 1..12
        ),
        reversed in any::<bool>(),
    ) {
        let mut services = first;
        let (mut following, mut beside) = (Following::default(), ServiceMap::default());
        for (generation, edits) in (1..).zip(edits) {
            for (name, edit) in edits {
                apply(&mut services, name, edit);
            }
            let entries = services.iter().map(|(name, spec)| spec.service(*name));
            let mut table = ServiceTable {
                generation: Generation(generation),
                services: entries.map(Arc::new).collect(),
                ..ServiceTable::default()
            };
            if reversed && generation % 3 == 0 {
                table.services.reverse();
            }
            let fresh = ServiceMap::build(table.clone(), &ServiceMap::default(), &LIMITED);
            let built = ServiceMap::build(table.clone(), &beside, &LIMITED);
            let followed = following.follow(&table);
            prop_assert_eq!(fresh.is_ok(), built.is_ok());
            prop_assert_eq!(fresh.is_ok(), followed.is_ok());
            if let (Ok(fresh), Ok(built), Ok(before)) = (fresh, built, followed) {
                ensure_equal(&following.map, &fresh);
                ensure_equal(&built, &fresh);
                ensure_carried(&before, &following.map);
                ensure_carried(&beside, &built);
                beside = built;
            }
        }
    }
}
