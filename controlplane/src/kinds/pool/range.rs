//! Ranges of addresses of one family.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::address;

/// Addresses from `first` to `last`, both included and of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

/// Blocks that no Service can use, by family: the unspecified address, loopback, link-local,
/// multicast and broadcast, and IPv4 addresses in IPv6 clothes.
const UNREACHABLE: [(IpAddr, IpAddr); 9] = [
    v4([0, 0, 0, 0], [0, 0, 0, 0]),
    v4([127, 0, 0, 0], [127, 255, 255, 255]),
    v4([169, 254, 0, 0], [169, 254, 255, 255]),
    v4([224, 0, 0, 0], [239, 255, 255, 255]),
    v4([255, 255, 255, 255], [255, 255, 255, 255]),
    v6(0, 1),
    v6(0xffff_0000_0000, 0xffff_ffff_ffff),
    v6(0xfe80 << 112, (0xfec0 << 112) - 1),
    v6(0xff00 << 112, u128::MAX),
];

const fn v4(first: [u8; 4], last: [u8; 4]) -> (IpAddr, IpAddr) {
    let [a, b, c, d] = first;
    let [e, f, g, h] = last;
    let (first, last) = (Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h));
    (IpAddr::V4(first), IpAddr::V4(last))
}

const fn v6(first: u128, last: u128) -> (IpAddr, IpAddr) {
    let (first, last) = (Ipv6Addr::from_bits(first), Ipv6Addr::from_bits(last));
    (IpAddr::V6(first), IpAddr::V6(last))
}

impl AddressRange {
    /// Reads `203.0.113.0/28`, `203.0.113.10-203.0.113.20` or one address. Bits behind a prefix are
    /// cleared.
    ///
    /// # Errors
    /// What is wrong and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (first, last) = ends(text).ok_or_else(|| {
            format!(
                "{text:?} is neither a prefix, a range nor an address; write 203.0.113.0/28, 203.0.113.1-203.0.113.9 or fd00::1"
            )
        })?;
        if first.is_ipv4() != last.is_ipv4() {
            return Err(format!("{first}-{last} mixes IPv4 and IPv6"));
        }
        if last < first {
            return Err(format!("{first}-{last} ends before it begins"));
        }
        Ok(Self { first, last })
    }

    /// First address.
    pub const fn first(&self) -> IpAddr {
        self.first
    }

    /// Last address, not below the first.
    pub const fn last(&self) -> IpAddr {
        self.last
    }

    /// Whether `address` is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        // The order of addresses puts all of IPv4 before all of IPv6.
        self.first <= address && address <= self.last
    }

    /// Whether some address is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// What is left without addresses that no Service can use, in order; at most a few pieces.
    pub(super) fn reachable(&self) -> Vec<Self> {
        let mut pieces = vec![*self];
        for (first, last) in UNREACHABLE {
            let block = Self { first, last };
            pieces = pieces.iter().flat_map(|p| p.without(&block)).collect();
        }
        pieces
    }

    fn without(&self, block: &Self) -> Vec<Self> {
        if !self.overlaps(block) {
            return vec![*self];
        }
        let before = previous(block.first).filter(|end| *end >= self.first);
        let after = next(block.last).filter(|start| *start <= self.last);
        let before = before.map(|last| Self { last, ..*self });
        let after = after.map(|first| Self { first, ..*self });
        before.into_iter().chain(after).collect()
    }
}

/// The address after this one in its family.
pub(crate) fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4
            .to_bits()
            .checked_add(1)
            .map(|b| Ipv4Addr::from(b).into()),
        IpAddr::V6(v6) => v6
            .to_bits()
            .checked_add(1)
            .map(|b| Ipv6Addr::from(b).into()),
    }
}

/// The address before this one in its family.
pub(crate) fn previous(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4
            .to_bits()
            .checked_sub(1)
            .map(|b| Ipv4Addr::from(b).into()),
        IpAddr::V6(v6) => v6
            .to_bits()
            .checked_sub(1)
            .map(|b| Ipv6Addr::from(b).into()),
    }
}

fn ends(text: &str) -> Option<(IpAddr, IpAddr)> {
    if text.contains('/') {
        let network = address::network(text)?;
        return Some((network.network(), network.broadcast()));
    }
    match text.split_once('-') {
        Some((first, last)) => Some((
            address::address(first.trim())?,
            address::address(last.trim())?,
        )),
        None => address::address(text).map(|address| (address, address)),
    }
}

impl fmt::Display for AddressRange {
    /// Always in the same way: `first-last`, or the one address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_conf::table::unusable;

    use super::*;

    #[test]
    fn what_is_left_out_is_what_the_table_refuses() {
        for (first, last) in UNREACHABLE {
            let inside = [first, last];
            let outside = [previous(first), next(last)].into_iter().flatten();
            for address in inside {
                let refused = unusable(address.to_canonical()).is_some();
                let dressed = address != address.to_canonical();
                assert!(refused || dressed, "{address}");
            }
            for address in outside.filter(|a| UNREACHABLE.iter().all(|(f, l)| a < f || a > l)) {
                assert_eq!(unusable(address), None, "{address}");
            }
        }
    }

    #[test]
    fn every_spelling_has_one_name() {
        for (text, name) in [
            ("203.0.113.9/28", "203.0.113.0-203.0.113.15"),
            ("203.0.113.1 - 203.0.113.1", "203.0.113.1"),
            ("203.0.113.7/32", "203.0.113.7"),
            ("FD00:0::/127", "fd00::-fd00::1"),
        ] {
            assert_eq!(AddressRange::parse(text).unwrap().to_string(), name);
        }
        for text in ["", "-", "/", "203.0.113.1-", "a/8", "203.0.113.1/", "1/1/1"] {
            assert!(AddressRange::parse(text).is_err(), "{text}");
        }
    }
}
