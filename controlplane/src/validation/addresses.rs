//! Addresses and ranges as values of fields (apimachinery pkg/util/validation ip.go).

use std::fmt::Display;
use std::net::IpAddr;

use super::mistakes::{Mistakes, quoted};
use crate::address;

/// IP families, as the API names them.
pub(super) const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

/// The address at `field`, if it is one.
pub(super) fn any(mistakes: &mut Mistakes, field: impl Display, text: &str) -> Option<IpAddr> {
    let found = address::address(text);
    if found.is_none() {
        let advice = "such as 192.0.2.7 or 2001:db8::7";
        let message = format!("{} is not an IP address {advice}", quoted(text));
        mistakes.invalid(field, message);
    }
    found
}

/// Whether `text` is an address of the family.
pub(super) fn of_family(mistakes: &mut Mistakes, field: impl Display, text: &str, family: &str) {
    match address::address(text) {
        Some(found) if self::family(found) == family => special(mistakes, field, found),
        _ => {
            let message = format!("{} is not an {family} address", quoted(text));
            mistakes.invalid(field, message);
        }
    }
}

/// Whether traffic can be sent to an address (core validation `ValidateNonSpecialIP`).
pub(super) fn special(mistakes: &mut Mistakes, field: impl Display, found: IpAddr) {
    if let Some(kind) = speciality(found) {
        let message = format!("{found} is {kind}; use an address that others can reach");
        mistakes.invalid(field, message);
    }
}

fn speciality(address: IpAddr) -> Option<&'static str> {
    let (link_local, group) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets().starts_with(&[224, 0, 0])),
        // RFC 4291 section 2.7: scope 2 is the link, whatever the flags.
        IpAddr::V6(v6) => (
            v6.is_unicast_link_local(),
            v6.segments()[0] & 0xff0f == 0xff02,
        ),
    };
    let kinds = [
        (address.is_unspecified(), "the unspecified address"),
        (address.is_loopback(), "a loopback address"),
        (link_local, "a link-local address"),
        (group, "a link-local multicast address"),
    ];
    let kind = kinds.into_iter().find(|(is, _)| *is);
    kind.map(|(_, name)| name)
}

/// The family of an address, as the API names it.
pub(super) fn family(address: IpAddr) -> &'static str {
    FAMILIES[usize::from(address.is_ipv6())]
}

/// Whether `text` is a range of addresses.
pub(super) fn range(mistakes: &mut Mistakes, field: impl Display, text: &str) {
    if address::network(text).is_none() {
        let advice = "such as 192.0.2.0/24 or 2001:db8::/64";
        let message = format!("{} is not a range of addresses {advice}", quoted(text));
        mistakes.invalid(field, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_nobody_else_can_reach_are_named() {
        for (text, kind) in [
            ("0.0.0.0", Some("the unspecified address")),
            ("::", Some("the unspecified address")),
            ("127.9.9.9", Some("a loopback address")),
            ("::1", Some("a loopback address")),
            ("169.254.1.1", Some("a link-local address")),
            ("fe80::1", Some("a link-local address")),
            ("224.0.0.251", Some("a link-local multicast address")),
            ("ff02::1", Some("a link-local multicast address")),
            ("ff12::1", Some("a link-local multicast address")),
            ("224.0.1.1", None),
            ("ff05::2", None),
            ("10.0.0.1", None),
            ("fd00::1", None),
        ] {
            assert_eq!(speciality(text.parse().unwrap()), kind, "{text}");
        }
    }
}
