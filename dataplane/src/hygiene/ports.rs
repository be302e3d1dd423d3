//! Ports that the kernel gives to nobody by itself: `net.ipv4.ip_local_reserved_ports`, for both
//! families (Documentation/networking/ip-sysctl.rst).

use std::collections::BTreeSet;
use std::io;

use sluice_conf::settings::dataplane::PortRange;

use super::sysctl;

const KEY: &str = "ipv4/ip_local_reserved_ports";

/// The kernel reads no more of a list at once (a page, kernel/sysctl.c).
const LONGEST: usize = 4094;

/// Ports that were added to the list. What a killed process has added stays in the list and counts as
/// somebody else's.
#[derive(Debug)]
pub(super) struct Reservation {
    added: BTreeSet<u16>,
}

impl Reservation {
    /// Adds what is not in the list yet.
    pub(super) fn add(range: PortRange) -> io::Result<Self> {
        let present = listed()?;
        let added: BTreeSet<u16> = range
            .ports()
            .filter(|port| !present.contains(port))
            .collect();
        if !added.is_empty() {
            set(&(&present | &added))?;
        }
        Ok(Self { added })
    }

    /// Takes back what was added, and nothing else.
    pub(super) fn remove(self) -> io::Result<()> {
        if self.added.is_empty() {
            return Ok(());
        }
        set(&(&listed()? - &self.added))
    }
}

fn listed() -> io::Result<BTreeSet<u16>> {
    let text = sysctl::read(KEY)?;
    parse(&text).ok_or_else(|| {
        let message = format!("net/{KEY} holds {text:?}, not a list of ports");
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

fn set(ports: &BTreeSet<u16>) -> io::Result<()> {
    let text = list(ports);
    if text.len() > LONGEST {
        let message = format!("net/{KEY} would be longer than {LONGEST} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    sysctl::write(KEY, &text)
}

/// Reads `"80,1000-1999"`.
fn parse(text: &str) -> Option<BTreeSet<u16>> {
    let mut ports = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        ports.extend(first..=last);
    }
    Some(ports)
}

fn list(ports: &BTreeSet<u16>) -> String {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for &port in ports {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(port) => *last = port,
            _ => runs.push((port, port)),
        }
    }
    let parts: Vec<String> = runs
        .into_iter()
        .map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        })
        .collect();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::namespace::Namespace;

    #[test]
    fn a_list_is_read_as_the_kernel_writes_it() {
        assert_eq!(parse(""), Some(BTreeSet::new()));
        assert_eq!(
            parse("80,443,1000-1002"),
            Some([80, 443, 1000, 1001, 1002].into())
        );
        assert_eq!(parse("http"), None);
        assert_eq!(parse("70000"), None);
    }

    proptest! {
        #[test]
        fn a_written_list_reads_as_the_same_ports(ports: BTreeSet<u16>) {
            prop_assert_eq!(parse(&list(&ports)), Some(ports));
        }
    }

    #[test]
    fn ports_are_reserved_beside_those_of_others_and_given_back() {
        Namespace::new().run(|| {
            sysctl::write(KEY, "80,16390-16399").unwrap();
            let range = PortRange {
                first: 16384,
                last: 29_999,
            };
            let reservation = Reservation::add(range).unwrap();
            assert_eq!(sysctl::read(KEY).unwrap(), "80,16384-29999");
            sysctl::write(KEY, "80,443,16384-29999").unwrap();
            reservation.remove().unwrap();
            assert_eq!(sysctl::read(KEY).unwrap(), "80,443,16390-16399");

            sysctl::write(KEY, "").unwrap();
            Reservation::add(range).unwrap().remove().unwrap();
            assert_eq!(sysctl::read(KEY).unwrap(), "");
        });
    }
}
