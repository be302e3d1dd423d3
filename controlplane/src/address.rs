//! Addresses and networks as Kubernetes objects spell them.
//!
//! Guarantees: every spelling of an address has one value. Old objects write IPv4 with leading
//! zeros, `172.30.0.041`; they are read as decimal, as kube-proxy does (k8s.io/utils net
//! ParseIPSloppy), never as octal. An IPv4 address in IPv6 clothes, `::ffff:192.0.2.1`, is IPv4.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

/// An address family, as `ipFamilies` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// `IPv4`.
    V4,
    /// `IPv6`.
    V6,
}

impl Family {
    /// Family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// Reads an entry of `ipFamilies`.
    pub fn parse(name: &str) -> Option<Self> {
        [Family::V4, Family::V6]
            .into_iter()
            .find(|family| family.name() == name)
    }

    /// As `ipFamilies` names it.
    pub const fn name(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Reads an address.
pub fn address(text: &str) -> Option<IpAddr> {
    let strict = text.parse::<IpAddr>().ok();
    strict
        .or_else(|| with_zeros(text).map(IpAddr::V4))
        .map(|address| address.to_canonical())
}

/// Reads a network; bits behind the prefix are cleared.
pub fn network(text: &str) -> Option<IpNet> {
    let (host, prefix) = text.split_once('/')?;
    let network = IpNet::new(address(host)?, decimal(prefix)?).ok()?;
    Some(network.trunc())
}

fn with_zeros(text: &str) -> Option<Ipv4Addr> {
    let mut parts = text.split('.').map(decimal);
    let mut next = || parts.next().flatten();
    let octets = [next()?, next()?, next()?, next()?];
    parts.next().is_none().then_some(octets.into())
}

fn decimal(text: &str) -> Option<u8> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = text.trim_start_matches('0');
    match digits.is_empty() {
        true => Some(0),
        false => digits.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_zeros_are_decimal_and_gone() {
        for (text, canonical) in [
            ("172.30.0.041", "172.30.0.41"),
            ("1.2.3.004", "1.2.3.4"),
            ("192.168.099.022", "192.168.99.22"),
            ("10.180.00.001", "10.180.0.1"),
            ("0000.0.0.0", "0.0.0.0"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:DB8::0001", "2001:db8::1"),
        ] {
            assert_eq!(address(text).unwrap().to_string(), canonical, "{text}");
        }
        for (text, canonical) in [
            ("203.0.113.000/025", "203.0.113.0/25"),
            ("203.0.113.9/24", "203.0.113.0/24"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(network(text).unwrap().to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_stays_none() {
        for text in [
            "",
            "10.0.0",
            "10.0.0.0.0",
            "10.0.0.256",
            "10.0.0.-1",
            "10.0.0.+1",
            "10.0.0.",
            "a.b.c.d",
            " 10.0.0.1",
            "10.0.0.1/24",
        ] {
            assert_eq!(address(text), None, "{text}");
        }
        for text in [
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/a",
            "::/129",
            "/8",
        ] {
            assert_eq!(network(text), None, "{text}");
        }
    }
}
