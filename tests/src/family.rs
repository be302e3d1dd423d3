//! Both versions of IP, so that a case is written once and runs with each.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::topology::{CLUSTER_IP, VIP};

/// LoadBalancer address of the tests, routed by the client's default route.
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x10);
/// ClusterIP of the tests, routed by the client's default route.
pub const CLUSTER_IP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x10);

/// A version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, IPv4 first.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// That of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// The LoadBalancer address of the tests.
    pub fn vip(self) -> IpAddr {
        match self {
            Family::V4 => VIP.into(),
            Family::V6 => VIP6.into(),
        }
    }

    /// The ClusterIP of the tests.
    pub fn cluster_ip(self) -> IpAddr {
        match self {
            Family::V4 => CLUSTER_IP.into(),
            Family::V6 => CLUSTER_IP6.into(),
        }
    }

    /// A port of the LoadBalancer address.
    pub fn frontend(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.vip(), port)
    }

    /// Host `host` of the tests' network `net`.
    pub fn address(self, net: u8, host: u8) -> IpAddr {
        match self {
            Family::V4 => [10, 0, net, host].into(),
            Family::V6 => ipv6(net, host).into(),
        }
    }

    /// Length of the prefix of the tests' networks.
    pub fn prefix(self) -> u8 {
        match self {
            Family::V4 => 24,
            Family::V6 => 64,
        }
    }

    /// Bytes of an IP and a TCP header without options.
    pub fn tcp_headers(self) -> u32 {
        match self {
            Family::V4 => 40,
            Family::V6 => 60,
        }
    }

    /// The option of `ip` and `traceroute`.
    pub fn flag(self) -> &'static str {
        match self {
            Family::V4 => "-4",
            Family::V6 => "-6",
        }
    }
}

/// Host `host` of the tests' IPv6 network `net`.
pub fn ipv6(net: u8, host: u8) -> Ipv6Addr {
    let (net, host) = (u16::from(net), u16::from(host));
    Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, host)
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}
