//! `sluice.dev/port-ranges`: many ports of a Service at once, `5060-5090/udp,all/tcp`.

use std::fmt;

use sluice_conf::Protocol;

use super::{Annotations, field, get};
use crate::object::Report;

/// Name of the annotation.
pub const PORT_RANGES: &str = "sluice.dev/port-ranges";
/// Most ranges of one Service; each is an entry of the table with all endpoints.
const MAX_RANGES: usize = 64;

/// Ports `first` to `last` of one protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// First port, 1 or more.
    pub first: u16,
    /// Last port, not below the first.
    pub last: u16,
    /// Protocol.
    pub protocol: Protocol,
}

impl PortRange {
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.protocol == other.protocol && self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for PortRange {
    /// As the annotation would spell it, always in the same way: names the range in the table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.last) {
            (1, u16::MAX) => f.write_str("all")?,
            (first, last) if first == last => write!(f, "{first}")?,
            (first, last) => write!(f, "{first}-{last}")?,
        }
        f.write_str(match self.protocol {
            Protocol::Tcp => "/tcp",
            Protocol::Udp => "/udp",
            Protocol::Sctp => "/sctp",
        })
    }
}

/// The ranges of a Service, none of which overlaps another.
pub(crate) fn port_ranges(annotations: &Annotations, report: &mut Report) -> Vec<PortRange> {
    let text = get(annotations, PORT_RANGES).unwrap_or_default();
    let entries = text.split(',').map(str::trim).filter(|e| !e.is_empty());
    read(entries.map(|entry| (field(PORT_RANGES), entry)), report)
}

/// Ranges that stand at these fields, none of which overlaps another.
pub(crate) fn read<'a>(
    entries: impl Iterator<Item = (String, &'a str)>,
    report: &mut Report,
) -> Vec<PortRange> {
    let mut ranges: Vec<PortRange> = Vec::new();
    for (field, entry) in entries {
        let Some(range) = range(entry) else {
            let message = format!(
                "{entry:?} is not a range of ports; write 5060-5090/udp, 5060/tcp or all/tcp"
            );
            report.refuse(field, message);
            continue;
        };
        if let Some(other) = ranges.iter().find(|other| other.overlaps(&range)) {
            report.refuse(field, format!("{range} overlaps {other}"));
        } else if ranges.len() == MAX_RANGES {
            let message = format!("has more than {MAX_RANGES} ranges");
            report.refuse(field, message);
            break;
        } else {
            ranges.push(range);
        }
    }
    ranges
}

fn range(entry: &str) -> Option<PortRange> {
    let (ports, protocol) = entry.split_once('/')?;
    let protocol = match protocol.trim().to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return None,
    };
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let (first, last) = match (ports.trim(), ports.split_once('-')) {
        ("all", _) => (1, u16::MAX),
        (_, Some((first, last))) => (port(first)?, port(last)?),
        (one, None) => (port(one)?, port(one)?),
    };
    let range = PortRange {
        first,
        last,
        protocol,
    };
    (first <= last).then_some(range)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(text: &str) -> (Vec<String>, Vec<String>) {
        let annotations = Some(BTreeMap::from([(PORT_RANGES.to_owned(), text.to_owned())]));
        let mut report = Report::default();
        let ranges = port_ranges(&annotations, &mut report);
        (
            ranges.iter().map(ToString::to_string).collect(),
            report.issues.into_iter().map(|i| i.message).collect(),
        )
    }

    #[test]
    fn ranges_are_read_and_named_in_one_way() {
        let (ranges, issues) = read("5060-5090/udp, 05060 - 05090 /TCP,7/sctp,");
        assert_eq!(issues, [""; 0]);
        assert_eq!(ranges, ["5060-5090/udp", "5060-5090/tcp", "7/sctp"]);
        assert_eq!(read("all/tcp").0, ["all/tcp"]);
        assert_eq!(read("1-65535/tcp").0, ["all/tcp"]);
    }

    #[test]
    fn what_is_no_range_is_named() {
        for text in [
            "5060",
            "a/udp",
            "0-5/udp",
            "9-5/udp",
            "5-70000/udp",
            "5/icmp",
            "-/tcp",
        ] {
            let message = format!(
                "{text:?} is not a range of ports; write 5060-5090/udp, 5060/tcp or all/tcp"
            );
            assert_eq!(read(text), (vec![], vec![message]));
        }
        assert_eq!(
            read("5-9/udp,9-12/udp,5-9/tcp").1,
            ["9-12/udp overlaps 5-9/udp"]
        );
    }

    #[test]
    fn ranges_are_bounded() {
        let many: Vec<String> = (1..=MAX_RANGES + 9).map(|n| format!("{n}/tcp")).collect();
        let (ranges, issues) = read(&many.join(","));
        assert_eq!(ranges.len(), MAX_RANGES);
        assert_eq!(issues, ["has more than 64 ranges"]);
    }
}
