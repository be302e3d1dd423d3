//! What the host's kernel is told, so that it does not work against the gateway: blackhole routes
//! for Vips, reserved ports, groups to receive, and warnings about what is set in the way.
//!
//! Guarantees: what was set is taken back by [`Hygiene::end`] or when it is dropped; routes of a
//! process that was killed are removed at the next start. Nothing here is fatal: what fails is a
//! warning. All of it concerns the network namespace of the thread that calls [`Hygiene::new`]; two
//! dataplanes in one namespace would remove each other's routes.

mod findings;
#[expect(unsafe_code, reason = "a socket option that rustix does not have")]
mod groups;
mod ports;
mod routes;
pub(crate) mod sysctl;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use sluice_conf::settings::dataplane::Dataplane;

use findings::Facts;
use groups::AllGroups;
use ports::Reservation;
use routes::Routes;

/// Keeps the kernel out of the way.
pub struct Hygiene {
    routes: Option<Routes>,
    reservation: Option<Reservation>,
    groups: Option<AllGroups>,
    interfaces: Vec<String>,
    hands_back: bool,
    said: BTreeSet<String>,
}

impl Hygiene {
    /// Sets what does not hang on the service table.
    pub fn new(settings: &Dataplane) -> Self {
        let kernel = &settings.kernel;
        let interfaces: Vec<String> = settings
            .interfaces
            .iter()
            .map(|interface| interface.name.clone())
            .collect();
        Self {
            groups: receive_groups(&interfaces),
            routes: kernel.vip_routes.then(open_routes).flatten(),
            reservation: kernel.reserve_ports.then(|| reserve(settings)).flatten(),
            interfaces,
            hands_back: !kernel.tun.is_empty(),
            said: BTreeSet::new(),
        }
    }

    /// Makes the blackhole routes those of `vips` and `networks`, none of which is the host's.
    pub fn apply(&mut self, vips: &BTreeSet<IpAddr>, networks: &[IpNet]) {
        if let Some(routes) = &mut self.routes {
            let vips = vips.iter().copied().map(IpNet::from);
            let networks = networks.iter().map(IpNet::trunc);
            routes.set(&vips.chain(networks).collect());
        }
    }

    /// Warns of what is set in the gateway's way, of each thing once. `preserves`: some Service keeps
    /// clients' addresses.
    pub fn look(&mut self, preserves: bool) {
        let facts = Facts::read(&self.interfaces);
        for finding in facts.findings(preserves, self.hands_back) {
            if self.said.insert(finding.clone()) {
                tracing::warn!("{finding}");
            }
        }
    }

    /// Takes everything back.
    pub fn end(&mut self) {
        self.groups = None;
        if let Some(mut routes) = self.routes.take() {
            routes.set(&BTreeSet::new());
        }
        if let Some(Err(error)) = self.reservation.take().map(Reservation::remove) {
            tracing::warn!(%error, "the ports of source_nat.ports stay reserved");
        }
    }
}

impl Drop for Hygiene {
    fn drop(&mut self) {
        self.end();
    }
}

fn open_routes() -> Option<Routes> {
    let opened = Routes::open();
    if let Err(error) = &opened {
        tracing::warn!(%error, "no blackhole routes for Vips");
    }
    opened.ok()
}

fn reserve(settings: &Dataplane) -> Option<Reservation> {
    let reserved = Reservation::add(settings.source_nat.ports);
    if let Err(error) = &reserved {
        tracing::warn!(%error, "source_nat.ports are not reserved; keep them apart from net.ipv4.ip_local_port_range");
    }
    reserved.ok()
}

fn receive_groups(interfaces: &[String]) -> Option<AllGroups> {
    let opened = AllGroups::open().and_then(|groups| {
        interfaces.iter().try_for_each(|name| groups.add(name))?;
        Ok(groups)
    });
    if let Err(error) = &opened {
        tracing::warn!(%error, "neighbour solicitations for IPv6 Vips may not arrive; `ip link set dev NAME allmulticast on` lets them in");
    }
    opened.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::namespace::{Namespace, ip};

    fn settings(more: &str) -> Dataplane {
        let text = format!("[[interfaces]]\nname = \"eth1\"\n[kernel]\n{more}");
        Dataplane::parse(&text, "dp.toml").unwrap()
    }

    fn vips(addresses: &[&str]) -> BTreeSet<IpAddr> {
        addresses.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn routes() -> Vec<String> {
        let shown = [ip("-4 route show proto 83"), ip("-6 route show proto 83")].concat();
        let lines = shown.lines().map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert!(line.contains("metric 4294967295"), "{line}");
            words[..2].join(" ")
        });
        lines.collect()
    }

    #[test]
    fn routes_follow_the_vips_and_go_at_the_end() {
        Namespace::new().run(|| {
            ip("link set lo up");
            ip("link add eth1 type veth peer name far");
            ip("link set eth1 up");
            ip("link set far up");
            ip("route add blackhole 198.51.100.7 proto static");
            let network: IpNet = "10.96.0.0/12".parse().unwrap();
            let mut hygiene = Hygiene::new(&settings(""));
            hygiene.apply(&vips(&["192.0.2.1", "2001:db8::1"]), &[network]);
            let expected = [
                "blackhole 10.96.0.0/12",
                "blackhole 192.0.2.1",
                "blackhole 2001:db8::1",
            ];
            assert_eq!(routes(), expected);
            hygiene.apply(&vips(&["192.0.2.2"]), &[]);
            assert_eq!(routes(), ["blackhole 192.0.2.2"]);
            drop(hygiene);
            assert_eq!(routes(), Vec::<String>::new());
            assert!(ip("route show proto static").contains("blackhole 198.51.100.7"));
        });
    }

    #[test]
    fn leftovers_are_swept_and_a_real_route_of_the_same_prefix_wins() {
        Namespace::new().run(|| {
            ip("link set lo up");
            ip("link add eth1 type veth peer name far");
            ip("link set eth1 up");
            ip("link set far up");
            ip("addr add 10.0.0.1/24 dev eth1");
            ip("route add blackhole 192.0.2.9 proto 83 metric 4294967295");
            ip("-6 route add blackhole 2001:db8::9 proto 83 metric 4294967295");
            ip("route add 192.0.2.1 via 10.0.0.9");
            let mut hygiene = Hygiene::new(&settings(""));
            assert_eq!(routes(), Vec::<String>::new());
            hygiene.apply(&vips(&["192.0.2.1"]), &[]);
            assert_eq!(routes(), ["blackhole 192.0.2.1"]);
            assert!(ip("route get 192.0.2.1").contains("via 10.0.0.9"));
            hygiene.end();
            assert!(ip("route show").contains("192.0.2.1 via 10.0.0.9"));
        });
    }

    #[test]
    fn what_is_switched_off_is_left_alone() {
        Namespace::new().run(|| {
            let mut hygiene =
                Hygiene::new(&settings("vip_routes = false\nreserve_ports = false\n"));
            hygiene.apply(&vips(&["192.0.2.1"]), &[]);
            assert_eq!(routes(), Vec::<String>::new());
            assert_eq!(sysctl::read("ipv4/ip_local_reserved_ports").unwrap(), "");
        });
    }
}
