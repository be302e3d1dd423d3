//! What a name asks for, by its form alone.
//!
//! ```text
//!   cluster zone    [PART.]SERVICE.NAMESPACE.svc     ADDRESS.NAMESPACE.pod     dns-version     ns.dns
//!   external zone   [PART.]SERVICE.NAMESPACE
//!   PART            ENDPOINT, _PORT._PROTOCOL or TOPOLOGY-ZONE.(pin|prefer)._zone
//!   reverse zone    d.c.b.a.in-addr.arpa, the 32 nibbles of ip6.arpa
//! ```
//!
//! Labels come in lower case, the leftmost first, without those of the zone. Whether there is what a
//! name asks for is for [`super::find`]. The forms are those of CoreDNS's kubernetes plugin.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::Name;

/// What a name asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path<'a> {
    /// The zone itself.
    Apex,
    /// `svc` or `pod`.
    Branch,
    /// The version of the specification.
    Version,
    /// The name server.
    NameServer,
    /// What only has names below it.
    Above,
    /// A namespace.
    Namespace {
        /// Its name.
        namespace: &'a str,
        /// Whether it is asked for its Pods.
        of_pods: bool,
    },
    /// A Service, or a part of it.
    Service {
        /// Its namespace.
        namespace: &'a str,
        /// Its name.
        service: &'a str,
        /// Which part.
        part: Part<'a>,
    },
    /// A Pod.
    Pod {
        /// Its namespace.
        namespace: &'a str,
        /// Its address, with dashes.
        pod: &'a str,
        /// Which part; a Pod has none.
        part: Part<'a>,
    },
}

/// Which part of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part<'a> {
    /// All of it.
    Whole,
    /// The endpoint of this name.
    Endpoint(&'a str),
    /// What has this port.
    Port {
        /// Its name, without the underscore.
        port: &'a str,
        /// Its protocol, without the underscore.
        protocol: &'a str,
    },
    /// Endpoints of a topology zone.
    Zone {
        /// The zone.
        zone: String,
        /// Whether all are meant when the zone has none.
        prefer: bool,
    },
}

/// The label below which zones are named.
pub(super) const ZONE_LABEL: &str = "_zone";
const PIN: &str = "pin";
const PREFER: &str = "prefer";

/// Reads a name of a cluster zone; `None` when there is no such form.
pub fn cluster<'a>(labels: &[&'a str], zonal_names: bool) -> Option<Path<'a>> {
    let (rest, branch) = match labels {
        [] => return Some(Path::Apex),
        ["svc" | "pod"] => return Some(Path::Branch),
        ["dns-version"] => return Some(Path::Version),
        ["ns", "dns"] => return Some(Path::NameServer),
        ["dns"] => return Some(Path::Above),
        [rest @ .., branch @ ("svc" | "pod")] => (rest, *branch),
        _ => return None,
    };
    let of_pods = branch == "pod";
    let (namespace, rest) = rest.split_last()?;
    let Some((name, rest)) = rest.split_last() else {
        return Some(Path::Namespace { namespace, of_pods });
    };
    let part = part(rest, zonal_names && !of_pods)?;
    Some(match of_pods {
        true => Path::Pod {
            namespace,
            pod: name,
            part,
        },
        false => Path::Service {
            namespace,
            service: name,
            part,
        },
    })
}

/// Reads a name of an external zone; `None` when there is no such form.
pub fn external<'a>(labels: &[&'a str]) -> Option<Path<'a>> {
    let (namespace, rest) = match labels {
        [] => return Some(Path::Apex),
        ["ns", "dns"] => return Some(Path::NameServer),
        // A namespace may be called so.
        [rest @ .., namespace] => (*namespace, rest),
    };
    let Some((service, rest)) = rest.split_last() else {
        return Some(Path::Namespace {
            namespace,
            of_pods: false,
        });
    };
    Some(Path::Service {
        namespace,
        service,
        part: part(rest, false)?,
    })
}

fn part<'a>(labels: &[&'a str], zonal_names: bool) -> Option<Part<'a>> {
    Some(match labels {
        [] => Part::Whole,
        [endpoint] => Part::Endpoint(endpoint),
        [port, protocol] => Part::Port {
            port: port.strip_prefix('_').unwrap_or(port),
            protocol: protocol.strip_prefix('_').unwrap_or(protocol),
        },
        [zone @ .., directive @ (PIN | PREFER), ZONE_LABEL] if zonal_names => Part::Zone {
            // The value of a label of a Node: it may hold dots.
            zone: zone.join("."),
            prefer: *directive == PREFER,
        },
        _ => return None,
    })
}

/// What a name below `arpa` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reverse {
    /// An address.
    Address(IpAddr),
    /// A network of addresses.
    Network,
}

/// Reads a reverse name; `None` when it is none.
pub fn reverse(name: &Name) -> Option<Reverse> {
    let mut labels = name.iter().rev();
    let is = |label: Option<&[u8]>, text: &str| {
        label.is_some_and(|label| label.eq_ignore_ascii_case(text.as_bytes()))
    };
    if !is(labels.next(), "arpa") {
        return None;
    }
    let family = labels.next();
    if is(family, "in-addr") {
        return octets(labels);
    }
    is(family, "ip6").then(|| nibbles(labels)).flatten()
}

fn octets<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Option<Reverse> {
    let mut octets = [0; 4];
    let mut count = 0;
    for label in labels {
        let text = std::str::from_utf8(label).ok()?;
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        // One spelling for each address.
        if !digits || (text.len() > 1 && text.starts_with('0')) {
            return None;
        }
        *octets.get_mut(count)? = text.parse().ok()?;
        count += 1;
    }
    Some(match count {
        4 => Reverse::Address(Ipv4Addr::from(octets).into()),
        _ => Reverse::Network,
    })
}

fn nibbles<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Option<Reverse> {
    let (mut bits, mut count) = (0u128, 0);
    for label in labels {
        let [digit] = label else { return None };
        let nibble = char::from(*digit).to_digit(16)?;
        count += 1;
        if count > 32 {
            return None;
        }
        bits = bits << 4 | u128::from(nibble);
    }
    Some(match count {
        32 => Reverse::Address(Ipv6Addr::from(bits).into()),
        _ => Reverse::Network,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<&str> {
        text.split('.').collect()
    }

    #[test]
    fn the_forms_of_a_cluster_zone_are_told_apart() {
        let part = |text: &'static str| match cluster(&read(text), true) {
            Some(Path::Service { part, .. }) => Some(part),
            _ => None,
        };
        assert_eq!(cluster(&[], false), Some(Path::Apex));
        assert_eq!(cluster(&["svc"], false), Some(Path::Branch));
        assert_eq!(cluster(&["dns-version"], false), Some(Path::Version));
        assert_eq!(part("web.shop.svc"), Some(Part::Whole));
        assert_eq!(
            part("1-2-3-4.web.shop.svc"),
            Some(Part::Endpoint("1-2-3-4"))
        );
        let http = Part::Port {
            port: "http",
            protocol: "tcp",
        };
        assert_eq!(part("_http._tcp.web.shop.svc"), Some(http));
        let zone = Part::Zone {
            zone: "corp.example".into(),
            prefer: true,
        };
        assert_eq!(part("corp.example.prefer._zone.web.shop.svc"), Some(zone));
        for none in [
            "web.shop.pood",
            "a.b.c.web.shop.svc",
            "a.pin._zone.web.shop.pod",
            "a.florp._zone.web.shop.svc",
        ] {
            assert_eq!(cluster(&read(none), true), None, "{none}");
        }
        assert_eq!(cluster(&read("a.pin._zone.web.shop.svc"), false), None);
    }

    #[test]
    fn a_reverse_name_has_one_spelling() {
        let of = |text: &str| {
            let labels = text.split_terminator('.').map(str::as_bytes);
            reverse(&Name::from_labels(labels).unwrap())
        };
        let address = |text: &str| Some(Reverse::Address(text.parse().unwrap()));
        assert_eq!(of("4.3.2.1.In-Addr.Arpa."), address("1.2.3.4"));
        assert_eq!(
            of("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.IP6.arpa."),
            address("2001:db8::1")
        );
        assert_eq!(of("2.1.in-addr.arpa."), Some(Reverse::Network));
        for none in [
            "04.3.2.1.in-addr.arpa.",
            "+4.3.2.1.in-addr.arpa.",
            "256.3.2.1.in-addr.arpa.",
            "5.4.3.2.1.in-addr.arpa.",
            "10.ip6.arpa.",
            "g.ip6.arpa.",
            "example.",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
