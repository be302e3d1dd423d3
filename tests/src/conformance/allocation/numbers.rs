//! Sections `static_band` and `address_arithmetic`.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_controlplane::address::Family;
use sluice_controlplane::registry::networks;
use sluice_controlplane::registry::pool::{Pool, address_band, port_band};

/// What is allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    #[serde(rename = "clusterIP")]
    ClusterIp,
    NodePort,
}

#[derive(Debug, Deserialize)]
pub struct Band {
    resource: Kind,
    range: String,
    static_band_size: u64,
}

/// The band that the size of a range gives.
pub fn band(case: &Band) -> Result<(), String> {
    let seen = match case.resource {
        Kind::ClusterIp => {
            let network = network(&case.range)?;
            let (first, last) = (network.network(), network.broadcast());
            let values = networks::number(last) - networks::number(first);
            address_band(values.saturating_add(1))
        }
        Kind::NodePort => {
            let ports = ports(&case.range)?;
            port_band(ports.end() - ports.start() + 1)
        }
    };
    equal(&u128::from(case.static_band_size), &seen)
}

#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Arithmetic {
    UsableAddresses {
        range: String,
        expect: u64,
    },
    LastAddress {
        range: String,
        expect: IpAddr,
    },
    AddOffset {
        address: IpAddr,
        offset: u64,
        expect: IpAddr,
    },
    IterateFromOffset {
        first: IpAddr,
        last: IpAddr,
        offset: u64,
        expect: Vec<IpAddr>,
    },
    IterateCount {
        first: IpAddr,
        last: IpAddr,
        offset: u64,
        expect: usize,
    },
}

/// The arithmetic of the pools.
pub fn arithmetic(case: &Arithmetic) -> Result<(), String> {
    match case {
        Arithmetic::UsableAddresses { range, expect } => {
            equal(expect, &networks::pool(network(range)?).len())
        }
        Arithmetic::LastAddress { range, expect } => {
            let network = network(range)?;
            equal(expect, &network.broadcast())
        }
        Arithmetic::AddOffset {
            address,
            offset,
            expect,
        } => {
            let number = networks::number(*address) + u128::from(*offset);
            equal(
                &Some(*expect),
                &networks::address(Family::of(*address), number),
            )
        }
        Arithmetic::IterateFromOffset {
            first,
            last,
            offset,
            expect,
        } => equal(expect, &iterate(*first, *last, *offset)),
        Arithmetic::IterateCount {
            first,
            last,
            offset,
            expect,
        } => equal(expect, &iterate(*first, *last, *offset).len()),
    }
}

/// The order in which automatic allocation goes through a range without a band.
fn iterate(first: IpAddr, last: IpAddr, offset: u64) -> Vec<IpAddr> {
    let mut pool = Pool::new(networks::number(first)..=networks::number(last), 0);
    let numbers = std::iter::from_fn(|| pool.allocate_next(offset));
    let addresses = numbers.map(|number| networks::address(Family::of(first), number));
    addresses.map_while(|address| address).collect()
}

/// Reads a network.
pub fn network(text: &str) -> Result<IpNet, String> {
    text.parse().map_err(|_| format!("{text:?} is no network"))
}

/// Reads a range of ports.
pub fn ports(text: &str) -> Result<RangeInclusive<u128>, String> {
    let ends = text.split_once('-');
    let ends = ends.and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    let (first, last) = ends.ok_or_else(|| format!("{text:?} is no range of ports"))?;
    Ok(u16::into(first)..=u16::into(last))
}

/// Whether what was seen was expected.
pub fn equal<T: PartialEq + std::fmt::Debug>(expected: &T, seen: &T) -> Result<(), String> {
    match expected == seen {
        true => Ok(()),
        false => Err(format!("expected {expected:?}, seen {seen:?}")),
    }
}

/// Whether a value is one of those that mean "not set".
pub fn is_unset(value: &Value) -> bool {
    value.is_null() || [json!(""), json!(0), json!([])].contains(value)
}
