//! Network namespaces of `ip netns`, and the interfaces in them.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use crate::generator::plan::Mac;

/// A network namespace: one of `ip netns`, or this process's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespace(pub Option<String>);

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Index.
    pub index: u32,
    /// Ethernet address.
    pub mac: Mac,
}

impl Namespace {
    /// One of `ip netns`.
    pub fn named(name: &str) -> Self {
        Self(Some(name.to_owned()))
    }

    /// Moves this thread into it, for good.
    ///
    /// # Errors
    /// There is no such namespace, or no permission.
    pub fn enter(&self) -> Result<()> {
        let Some(name) = &self.0 else { return Ok(()) };
        let path = Path::new("/run/netns").join(name);
        let file = File::open(&path).with_context(|| format!("network namespace {name}"))?;
        setns(file, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("entering network namespace {name}; it needs root"))
    }

    /// Does `work` inside, on a thread of its own.
    ///
    /// # Errors
    /// As [`Self::enter`], or those of `work`.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let inside = || {
            self.enter()?;
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .map_err(|_| anyhow!("a thread in a network namespace died"))?
    }

    /// Looks an interface up.
    ///
    /// # Errors
    /// There is no such interface, or `ip` is missing.
    pub fn interface(&self, name: &str) -> Result<Interface> {
        let mut command = Command::new("ip");
        if let Some(namespace) = &self.0 {
            command.args(["-n", namespace]);
        }
        let output = command
            .args(["-json", "link", "show", "dev", name])
            .output()?;
        let links: serde_json::Value =
            serde_json::from_slice(&output.stdout).with_context(|| {
                let complaint = String::from_utf8_lossy(&output.stderr);
                format!("interface {name}: {}", complaint.trim())
            })?;
        let link = &links[0];
        let index = link["ifindex"]
            .as_u64()
            .and_then(|index| u32::try_from(index).ok());
        let mac = link["address"].as_str().and_then(parse_mac);
        Ok(Interface {
            name: name.to_owned(),
            index: index.with_context(|| format!("interface {name} has no index"))?,
            mac: mac.with_context(|| format!("interface {name} has no Ethernet address"))?,
        })
    }
}

/// Reads `02:00:00:00:00:01`.
pub fn parse_mac(text: &str) -> Option<Mac> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ethernet_addresses_are_read() {
        assert_eq!(
            parse_mac("02:00:5e:10:00:ff"),
            Some([2, 0, 0x5e, 0x10, 0, 0xff])
        );
        for text in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:ff:00",
            "2:0:5e:10:0:ff",
            "zz:00:5e:10:00:ff",
        ] {
            assert_eq!(parse_mac(text), None, "{text}");
        }
    }

    #[test]
    fn the_loopback_is_found_and_nonsense_is_named() {
        let own = Namespace::default();
        assert_eq!(own.interface("lo").unwrap().index, 1);
        let error = format!("{:#}", own.interface("no-such-one").unwrap_err());
        assert!(error.contains("no-such-one"), "{error}");
    }
}
