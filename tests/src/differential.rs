//! A gateway that is nothing but a Linux kernel: nftables translates for one Service as kube-proxy
//! would, and packets are put on its wires and taken off again as bytes.
//!
//! ```text
//!   client 10.0.1.10 ---- c0 10.0.1.1 [kernel] 10.0.2.1 b0 ---- backend 10.0.2.11
//!   2001:db8:1::10        2001:db8:1::1        2001:db8:2::1      2001:db8:2::11
//! ```
//!
//! Client and backend are only the ends of wires in one more namespace: they have no addresses of
//! their own, so nobody but the test speaks for them.
//!
//! Nothing is judged by time. Behind each packet follows a mark in both directions that the kernel
//! only routes; what has not come out before the marks does not come. The test stays on one
//! processor, where the kernel keeps the order of packets from wire to wire.

mod wires;

use anyhow::Result;

use crate::netns::{CONFIGURE, Netns};
use wires::Wires;

/// Side of the gateway that a packet enters or leaves by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Towards clients.
    Clients,
    /// Towards backends.
    Backends,
}

/// Translation as kube-proxy's nftables mode does it (`pkg/proxy/nftables/proxier.go`).
const RULES: &str = "
table inet service {
  chain prerouting {
    type nat hook prerouting priority dstnat
    ip daddr 203.0.113.10 tcp dport 80 dnat ip to 10.0.2.11:8080
    ip daddr 203.0.113.10 udp dport 53 dnat ip to 10.0.2.11:5353
    ip6 daddr 2001:db8:9::10 tcp dport 80 dnat ip6 to [2001:db8:2::11]:8080
    ip6 daddr 2001:db8:9::10 udp dport 53 dnat ip6 to [2001:db8:2::11]:5353
  }
  chain postrouting {
    type nat hook postrouting priority srcnat
    oifname b0 ct status dnat masquerade fully-random
  }
  chain input {
    type filter hook input priority filter
    ct state invalid drop
  }
  chain forward {
    type filter hook forward priority filter
    ct state invalid drop
  }
}
";

/// Addresses as in the dataplane's in-memory rig, which the other gateway of the test is. The Vips
/// have a route, as by default routes elsewhere: what is not translated meets the filter, not a
/// complaint about routes.
const LINKS: &str = "
link set c0 address 02:00:00:00:00:01 addrgenmode none
link set b0 address 02:00:00:00:00:02 addrgenmode none
link set c0 up
link set b0 up
address add 10.0.1.1/24 dev c0
address add 10.0.2.1/24 dev b0
address add 2001:db8:1::1/64 dev c0 nodad
address add 2001:db8:2::1/64 dev b0 nodad
route add 203.0.113.0/24 dev b0
route add 2001:db8:9::/64 dev b0
neighbour add 10.0.1.10 lladdr 02:00:00:00:00:0c dev c0 nud permanent
neighbour add 10.0.2.11 lladdr 02:00:00:00:02:0b dev b0 nud permanent
neighbour add 2001:db8:1::10 lladdr 02:00:00:00:00:0c dev c0 nud permanent
neighbour add 2001:db8:2::11 lladdr 02:00:00:00:02:0b dev b0 nud permanent
";

const SETTINGS: [(&str, &str); 11] = [
    ("net/ipv6/conf/all/disable_ipv6", "0"),
    ("net/ipv6/conf/default/disable_ipv6", "0"),
    ("net/ipv6/conf/c0/disable_ipv6", "0"),
    ("net/ipv6/conf/b0/disable_ipv6", "0"),
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    // No limit of ICMP errors.
    ("net/ipv4/icmp_ratelimit", "0"),
    ("net/ipv6/icmp/ratelimit", "0"),
    // Data is not judged by its sequence numbers, only resets are: Sluice's rule.
    ("net/netfilter/nf_conntrack_tcp_be_liberal", "1"),
    // As Sluice with masquerade: a connection begins with a SYN.
    ("net/netfilter/nf_conntrack_tcp_loose", "0"),
];

/// The gateway and its wires.
#[derive(Debug)]
pub struct Kernel {
    wires: Wires,
    _gateway: Netns,
    _peers: Netns,
}

impl Kernel {
    /// Makes it.
    ///
    /// # Errors
    /// The machine refuses a part of it; nftables is not installed.
    pub fn create() -> Result<Self> {
        let (gateway, peers) = (Netns::create("kernel")?, Netns::create("peers")?);
        for (ours, theirs) in [("c0", "client"), ("b0", "backend")] {
            let name = peers.name();
            gateway.ip_batch(&format!(
                "link add {ours} type veth peer name {theirs} netns {name}\n"
            ))?;
            for (namespace, link) in [(&gateway, ours), (&peers, theirs)] {
                let words = ["ethtool", "-K", link, "tx", "off", "gro", "off"];
                namespace.run(&words, CONFIGURE)?;
            }
            peers.ip_batch(&format!("link set {theirs} arp off up\n"))?;
        }
        // Loads conntrack, whose settings exist only then.
        gateway.run(&["nft", RULES], CONFIGURE)?;
        for (path, value) in SETTINGS {
            gateway.write_sysctl(path, value)?;
        }
        gateway.ip_batch(LINKS)?;
        let wires = Wires::open(&peers)?;
        Ok(Self {
            wires,
            _gateway: gateway,
            _peers: peers,
        })
    }

    /// A frame enters; the frames that leave because of it, in order on each side.
    ///
    /// # Errors
    /// A socket fails, or a mark does not come out.
    pub fn send(&mut self, side: Side, frame: &[u8]) -> Result<Vec<(Side, Vec<u8>)>> {
        self.wires.exchange(side, frame)
    }
}
