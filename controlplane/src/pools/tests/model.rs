//! Random histories against a model that tries every address of every pool in turn.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::annotations::ranges::PortRange;

/// A Service without an address of its own: what it may share, and in which pool.
#[derive(Debug, Clone)]
struct Wish {
    service: u8,
    key: Option<&'static str>,
    local: bool,
    port: u16,
    pool: Option<&'static str>,
}

impl Wish {
    fn claim(&self) -> Claim {
        let selector = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        Claim {
            sharing: Sharing {
                key: self.key.map(str::to_owned),
                local_selector: self.local.then_some(selector),
                ports: vec![PortRange {
                    first: self.port,
                    last: self.port,
                    protocol: sluice_conf::Protocol::Tcp,
                }],
            },
            pool: self.pool.map(str::to_owned),
            ..plain(&format!("s{}", self.service))
        }
    }

    fn shares_with(&self, other: &Self) -> bool {
        self.key.is_some()
            && self.key == other.key
            && self.local == other.local
            && self.port != other.port
    }
}

/// One step of a history.
#[derive(Debug, Clone)]
enum Step {
    Assign(Wish),
    Release(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let wish = (
        0u8..8,
        prop::sample::select(vec![None, Some("k"), Some("l")]),
        any::<bool>(),
        80u16..83,
        prop::sample::select(vec![None, None, Some("a"), Some("b")]),
    );
    let wish = wish.prop_map(|(service, key, local, port, pool)| Wish {
        service,
        key,
        local,
        port,
        pool,
    });
    prop_oneof![3 => wish.prop_map(Step::Assign), 1 => (0u8..8).prop_map(Step::Release)]
}

/// The addresses of the pools in the order of use; `b` has a priority.
const ADDRESSES: [(&str, [&str; 3]); 2] = [
    ("b", ["192.0.2.9", "192.0.2.10", "192.0.2.11"]),
    ("a", ["192.0.2.1", "192.0.2.2", "192.0.2.4"]),
];

/// Who has which address, and what it wished when it got it.
#[derive(Default)]
struct Model(BTreeMap<u8, (Wish, &'static str, &'static str)>);

impl Model {
    fn can_have(&self, wish: &Wish, address: &str) -> bool {
        let holders = self.0.values().filter(|(_, held, _)| *held == address);
        let mut others = holders.filter(|(other, ..)| other.service != wish.service);
        others.all(|(other, ..)| wish.shares_with(other))
    }

    fn assign(&mut self, wish: &Wish) -> Option<&'static str> {
        let own = self.0.remove(&wish.service);
        let own = own.filter(|(_, address, _)| self.can_have(wish, address));
        let fitting = own
            .as_ref()
            .filter(|(_, _, pool)| wish.pool.is_none_or(|wanted| wanted == *pool))
            .map(|(_, address, pool)| (*address, *pool));
        let search = || {
            let pools = ADDRESSES.iter();
            let pools = pools.filter(|(pool, _)| wish.pool.is_none_or(|wanted| wanted == *pool));
            pools
                .flat_map(|(pool, addresses)| addresses.iter().map(move |a| (*a, *pool)))
                .find(|(address, _)| self.can_have(wish, address))
        };
        let kept = own.map(|(_, address, pool)| (address, pool));
        let (address, pool) = fitting.or_else(search).or(kept)?;
        self.0.insert(wish.service, (wish.clone(), address, pool));
        Some(address)
    }
}

proptest! {
    #[test]
    fn pools_give_what_trying_every_address_gives(steps in prop::collection::vec(step(), 0..120)) {
        let mut pools = with(&[
            ("a", "addresses: [192.0.2.1-192.0.2.2, 192.0.2.4]"),
            ("b", "{addresses: [192.0.2.9-192.0.2.11], priority: 1}"),
        ]);
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Release(service) => {
                    pools.release(&plain(&format!("s{service}")).name);
                    model.0.remove(&service);
                }
                Step::Assign(wish) => {
                    let outcome = pools.assign(&wish.claim());
                    let given = outcome.addresses.first().map(ToString::to_string);
                    let expected = model.assign(&wish);
                    prop_assert_eq!(given.as_deref(), expected, "{:?}", wish);
                    prop_assert_eq!(&pools.assign(&wish.claim()), &outcome);
                }
            }
            for service in 0..8 {
                let held = pools.held(&plain(&format!("s{service}")).name);
                let held: Vec<String> = held.iter().map(ToString::to_string).collect();
                let expected = model.0.get(&service).map(|(_, address, _)| address.to_string());
                prop_assert_eq!(held, Vec::from_iter(expected));
            }
        }
    }
}
