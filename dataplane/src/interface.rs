//! Facts about the host's interfaces, checked before anything is opened on them.
//!
//! Guarantees: what [`check`] accepts has the same number of receive queues on every interface and
//! frames that fit into a slot. Does not guarantee that the driver accepts XDP; attaching tells.
//!
//! Usable are the queues in `/sys/class/net/NAME/queues/rx-*`. Their number is set with
//! `ethtool -L NAME combined N` (for veth at creation: `ip link add ... numrxqueues N`).

mod watch;

use std::fs;
use std::io;
use std::path::Path;

use sluice_conf::settings::dataplane::{Frames, Interface};

pub use watch::Watch;

/// Bytes of a slot that the kernel keeps in front of a frame: `XDP_PACKET_HEADROOM`, linux/bpf.h.
pub const HEADROOM: u32 = 256;

/// Ethernet header without a VLAN tag; the MTU does not count it (IEEE 802.3).
const ETHERNET_HEADER: u32 = 14;

/// Why an interface cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// No such interface.
    #[error("interface {name}: does not exist on this host; `ip link` lists what does")]
    Missing {
        /// Its name in the settings.
        name: String,
    },
    /// Sysfs cannot be read or holds something else than expected.
    #[error("interface {name}: cannot read {path}: {source}")]
    Unreadable {
        /// Its name.
        name: String,
        /// File concerned.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// Frames can be longer than a slot has room for.
    #[error(
        "interface {name}: MTU {mtu} does not fit in frames.size {size} (at most {max}); \
         lower the MTU{alternative}"
    )]
    MtuTooLarge {
        /// Its name.
        name: String,
        /// Its MTU.
        mtu: u32,
        /// Bytes of a slot.
        size: u32,
        /// Largest MTU that fits.
        max: u32,
        /// What else than lowering the MTU would help.
        alternative: &'static str,
    },
    /// A worker owns one queue of every interface, so the numbers must be equal.
    #[error(
        "interface {name} has {queues} receive queues and {first} has {expected}; a worker serves \
         one queue of every interface, so set both to one number with `ethtool -L NAME combined N`"
    )]
    QueuesDiffer {
        /// The interface that differs.
        name: String,
        /// Its queues.
        queues: u32,
        /// The first interface.
        first: String,
        /// The first interface's queues.
        expected: u32,
    },
}

/// What the kernel says of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The kernel's number of it.
    pub ifindex: u32,
    /// Receive queues in use.
    pub rx_queues: u32,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
}

/// Reads the facts about one interface.
///
/// # Errors
/// It does not exist, or sysfs is not mounted or readable.
pub fn facts(name: &str) -> Result<Facts, InterfaceError> {
    let folder = Path::new("/sys/class/net").join(name);
    if !folder.exists() {
        return Err(InterfaceError::Missing { name: name.into() });
    }
    let queues = folder.join("queues");
    let entries = fs::read_dir(&queues).map_err(|error| unreadable(name, &queues, error))?;
    let is_rx = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with("rx-");
    Ok(Facts {
        ifindex: number(name, &folder.join("ifindex"))?,
        rx_queues: entries.flatten().filter(is_rx).count() as u32,
        mtu: number(name, &folder.join("mtu"))?,
    })
}

/// Reads the facts about every interface of the settings and checks that they fit the frames and
/// each other. The number of receive queues, the same for all, is the number of workers.
///
/// # Errors
/// The first interface that cannot be served.
pub fn check(interfaces: &[Interface], frames: &Frames) -> Result<Vec<Facts>, InterfaceError> {
    let all: Vec<Facts> = interfaces
        .iter()
        .map(|interface| facts(&interface.name))
        .collect::<Result<_, _>>()?;
    let tags = watch::tag_bytes(interfaces);
    for (interface, facts) in interfaces.iter().zip(&all) {
        check_mtu(&interface.name, facts.mtu, frames.size, tags)?;
    }
    let named: Vec<(&str, u32)> = interfaces
        .iter()
        .zip(&all)
        .map(|(i, facts)| (i.name.as_str(), facts.rx_queues))
        .collect();
    check_queues(&named)?;
    Ok(all)
}

fn check_mtu(name: &str, mtu: u32, size: u32, tags: u32) -> Result<(), InterfaceError> {
    let max = largest_mtu(size, tags);
    if mtu <= max {
        return Ok(());
    }
    let alternative = if size < 4096 && mtu <= largest_mtu(4096, tags) {
        " or set frames.size = 4096"
    } else {
        ""
    };
    Err(InterfaceError::MtuTooLarge {
        name: name.into(),
        mtu,
        size,
        max,
        alternative,
    })
}

/// Largest MTU that a slot of `size` bytes has room for, with so many bytes of VLAN tags.
pub const fn largest_mtu(size: u32, tags: u32) -> u32 {
    size.saturating_sub(HEADROOM + ETHERNET_HEADER + tags)
}

fn check_queues(named: &[(&str, u32)]) -> Result<(), InterfaceError> {
    let Some(&(first, expected)) = named.first() else {
        return Ok(());
    };
    match named.iter().find(|(_, queues)| *queues != expected) {
        Some(&(name, queues)) => Err(InterfaceError::QueuesDiffer {
            name: name.into(),
            queues,
            first: first.into(),
            expected,
        }),
        None => Ok(()),
    }
}

fn number(name: &str, path: &Path) -> Result<u32, InterfaceError> {
    let text = fs::read_to_string(path).map_err(|error| unreadable(name, path, error))?;
    text.trim().parse().map_err(|error| {
        unreadable(
            name,
            path,
            io::Error::new(io::ErrorKind::InvalidData, error),
        )
    })
}

fn unreadable(name: &str, path: &Path, source: io::Error) -> InterfaceError {
    InterfaceError::Unreadable {
        name: name.into(),
        path: path.display().to_string(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_does_not_exist_is_named() {
        assert_eq!(
            facts("no-such-if").unwrap_err().to_string(),
            "interface no-such-if: does not exist on this host; `ip link` lists what does"
        );
    }

    #[test]
    fn the_loopback_interface_has_facts() {
        let facts = facts("lo").unwrap();
        assert_eq!((facts.ifindex, facts.rx_queues), (1, 1));
    }

    #[test]
    fn an_mtu_that_does_not_fit_says_what_would() {
        assert!(check_mtu("eth1", 1778, 2048, 0).is_ok());
        assert_eq!(
            check_mtu("eth1", 3000, 2048, 0).unwrap_err().to_string(),
            "interface eth1: MTU 3000 does not fit in frames.size 2048 (at most 1778); lower the \
             MTU or set frames.size = 4096"
        );
        assert_eq!(
            check_mtu("eth1", 9000, 4096, 0).unwrap_err().to_string(),
            "interface eth1: MTU 9000 does not fit in frames.size 4096 (at most 3826); lower the \
             MTU"
        );
    }

    #[test]
    fn queue_counts_that_differ_are_refused() {
        assert!(check_queues(&[("eth1", 2), ("eth2", 2)]).is_ok());
        let error = check_queues(&[("eth1", 2), ("eth2", 4)])
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("interface eth2 has 4 receive queues and eth1 has 2;"));
    }
}
