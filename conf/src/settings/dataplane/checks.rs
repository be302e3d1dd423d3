//! What no settings file may say, beyond what types can tell.

use std::net::IpAddr;

use super::{Dataplane, Fragments, Interface, Kernel, Limits, PortRange, SourceNat, Timeouts};
use crate::settings::load::Impossible;
use crate::table::unusable;

impl Dataplane {
    pub(super) fn check(&self) -> Result<(), Impossible> {
        self.check_interfaces()?;
        power_of_two("workers.handover", self.workers.handover as u64, 2, 65_536)?;
        within("workers.burst", self.workers.burst as u64, 2, 64)?;
        if self.frames.size != 2048 && self.frames.size != 4096 {
            let message = format!(
                "{} is not possible; use 2048 or 4096 bytes",
                self.frames.size
            );
            return Err(Impossible::new("frames.size", message));
        }
        power_of_two("frames.ring", self.frames.ring.into(), 64, 32_768)?;
        within(
            "connections.capacity",
            self.connections.capacity.into(),
            1024,
            1 << 26,
        )?;
        within(
            "answers.per_second",
            self.answers.per_second.into(),
            1,
            10_000_000,
        )?;
        within(
            "affinity.clients",
            self.affinity.clients.into(),
            1024,
            1 << 24,
        )?;
        self.fragments.check()?;
        self.limits.check()?;
        self.timeouts.check()?;
        self.kernel.check(&self.interfaces)?;
        self.source_nat.check()
    }

    fn check_interfaces(&self) -> Result<(), Impossible> {
        if self.interfaces.is_empty() {
            return Err(Impossible::new(
                "interfaces",
                "is empty; name at least one interface",
            ));
        }
        for (index, interface) in self.interfaces.iter().enumerate() {
            let key = format!("interfaces[{index}].name");
            // IFNAMSIZ of linux/if.h is 16 with the final zero byte.
            if interface.name.is_empty() || interface.name.len() > 15 {
                let message = format!("{:?} is not 1 to 15 bytes long", interface.name);
                return Err(Impossible::new(key, message));
            }
            let vlan = format!("interfaces[{index}].vlan");
            if interface.vlan.len() > 2 {
                let message = format!("{:?} has more than two tags", interface.vlan);
                return Err(Impossible::new(vlan, message));
            }
            for tag in &interface.vlan {
                // 0 and 4095 are reserved (IEEE 802.1Q section 9.6).
                within(&vlan, u64::from(*tag), 1, 4094)?;
            }
            if self.interfaces[..index]
                .iter()
                .any(|other| other.name == interface.name)
            {
                let message = format!("{:?} is listed twice", interface.name);
                return Err(Impossible::new(key, message));
            }
        }
        Ok(())
    }
}

impl Timeouts {
    fn check(&self) -> Result<(), Impossible> {
        for (key, seconds) in [
            ("tcp_syn_sent", self.tcp_syn_sent),
            ("tcp_syn_received", self.tcp_syn_received),
            ("tcp_established", self.tcp_established),
            ("tcp_fin_wait", self.tcp_fin_wait),
            ("tcp_close_wait", self.tcp_close_wait),
            ("tcp_last_ack", self.tcp_last_ack),
            ("tcp_time_wait", self.tcp_time_wait),
            ("tcp_close", self.tcp_close),
            ("udp", self.udp),
            ("udp_stream", self.udp_stream),
            ("sctp_opening", self.sctp_opening),
            ("sctp_established", self.sctp_established),
        ] {
            within(&format!("timeouts.{key}"), seconds.into(), 1, 31_536_000)?;
        }
        Ok(())
    }
}

impl Fragments {
    fn check(&self) -> Result<(), Impossible> {
        within("fragments.packets", self.packets.into(), 1, 65_536)?;
        within("fragments.timeout", self.timeout.into(), 1, 120)?;
        within("fragments.waiting", self.waiting.into(), 0, 4096)
    }
}

impl Limits {
    fn check(&self) -> Result<(), Impossible> {
        for (key, value) in [
            ("services", self.services),
            ("frontends", self.frontends),
            ("backends", self.backends),
        ] {
            within(&format!("limits.{key}"), value.into(), 1, 1 << 24)?;
        }
        Ok(())
    }
}

impl Kernel {
    fn check(&self, interfaces: &[Interface]) -> Result<(), Impossible> {
        let tun = self.tun.as_str();
        // dev_valid_name of the kernel's net/core/dev.c; `%` asks it for a number.
        let is_odd = |c: char| c == '/' || c == ':' || c == '%' || c.is_whitespace();
        if tun.len() > 15 || tun == "." || tun == ".." || tun.contains(is_odd) {
            let message = format!("{tun:?} cannot name a device; use 1 to 15 letters and digits");
            return Err(Impossible::new("kernel.tun", message));
        }
        if interfaces.iter().any(|interface| interface.name == tun) {
            let message = format!("{tun:?} is a served interface; use a name that is free");
            return Err(Impossible::new("kernel.tun", message));
        }
        Ok(())
    }
}

impl SourceNat {
    fn check(&self) -> Result<(), Impossible> {
        let PortRange { first, last } = self.ports;
        if first < 1024 || last < first {
            let message =
                format!("\"{first}-{last}\" is not possible; use 1024 to 65535, low-high");
            return Err(Impossible::new("source_nat.ports", message));
        }
        let v4 = self.address.map(IpAddr::V4);
        let v6 = self.address6.map(IpAddr::V6);
        for (key, address) in [("address", v4), ("address6", v6)] {
            if let Some(address) = address.filter(|address| unusable(*address).is_some()) {
                let message = format!("{address} cannot be a source address on a network");
                return Err(Impossible::new(format!("source_nat.{key}"), message));
            }
        }
        Ok(())
    }
}

fn within(key: &str, value: u64, low: u64, high: u64) -> Result<(), Impossible> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Impossible::new(
        key,
        format!("{value} is not possible; use {low} to {high}"),
    ))
}

fn power_of_two(key: &str, value: u64, low: u64, high: u64) -> Result<(), Impossible> {
    within(key, value, low, high)?;
    if value.is_power_of_two() {
        return Ok(());
    }
    let near = value.next_power_of_two();
    Err(Impossible::new(
        key,
        format!("{value} is not a power of two; {near} would be"),
    ))
}
