//! Client, gateway and backends, each in a namespace of its own.
//!
//! ```text
//!  two arms:  client 10.0.1.10 --- c0 10.0.1.1 [gateway] 10.0.2.1 b0 --- bridge --- 10.0.2.11 ...
//!  one arm:   [gateway] 10.0.3.1 g0 --- bridge --- client 10.0.3.10, backends 10.0.3.11 ...
//! ```
//!
//! IPv6 has the same networks and hosts: 10.0.2.11 is also 2001:db8:2::b.
//!
//! Without Sluice the gateway is a plain router, and client and backends reach one another. Every
//! default route leads to the gateway, so Vips and replies to kept client addresses do too.
//! Transmit checksum, segmentation, receive and VLAN offloads are off on every interface: otherwise a
//! packet of a local socket would cross a veth with an unfinished checksum.

mod attached;

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use crate::family::{self, Family};
use crate::netns::{CONFIGURE, Netns};

/// LoadBalancer address of the tests, routed by the client's default route.
pub const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// ClusterIP of the tests, routed by the client's default route.
pub const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Frames that wait in front of a veth whose ring (256 frames) is full: with a queueing discipline
/// a sender is slowed down instead of losing frames (Linux 6.16 and later).
const QUEUE_FRAMES: u32 = 10_000;

/// What is switched off, for ethtool.
const OFFLOADS: &[&str] = &[
    "tx",
    "tso",
    "gso",
    "gro",
    "rxvlan",
    "txvlan",
    "rx-vlan-stag-hw-parse",
    "tx-vlan-stag-hw-insert",
];

/// With how many interfaces the gateway stands in the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arms {
    /// One: client and backends share its link.
    One,
    /// Two: one towards the client, one towards the backends.
    Two,
}

/// A backend's place.
#[derive(Debug)]
pub struct Host {
    /// `backend-1` and so on.
    pub name: String,
    /// Its only IPv4 address.
    pub address: Ipv4Addr,
    /// Its only IPv6 address that others can route.
    pub address6: Ipv6Addr,
    /// Where it lives; its interface is `eth0`.
    pub namespace: Netns,
}

impl Host {
    /// Its address of a family.
    pub fn at(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.address.into(),
            Family::V6 => self.address6.into(),
        }
    }
}

/// A namespace on a link of the gateway.
#[derive(Debug, Clone, Copy)]
pub struct Neighbour<'a> {
    /// Where it lives.
    pub namespace: &'a Netns,
    addresses: [IpAddr; 2],
}

impl Neighbour<'_> {
    fn at(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.addresses[0],
            Family::V6 => self.addresses[1],
        }
    }
}

impl<'a> From<&'a Host> for Neighbour<'a> {
    fn from(host: &'a Host) -> Self {
        Self {
            namespace: &host.namespace,
            addresses: Family::BOTH.map(|family| host.at(family)),
        }
    }
}

/// A host behind two routers.
#[derive(Debug)]
pub struct Beyond {
    /// The host.
    pub host: Host,
    _router: Netns,
}

/// The namespaces of one test, wired.
#[derive(Debug)]
pub struct Topology {
    /// Where clients live; the interface is `eth0`.
    pub client: Netns,
    /// Where Sluice lives; the interfaces are [`Topology::interfaces`].
    pub gateway: Netns,
    /// Where the bridge lives.
    pub switch: Netns,
    /// The backends.
    pub backends: Vec<Host>,
    arms: Arms,
    tags: Tags,
}

/// VLAN tags on the two links of a gateway with two arms, outermost first.
#[derive(Debug, Clone, Copy, Default)]
struct Tags {
    client: &'static [u16],
    backends: &'static [u16],
}

/// What a topology shall be like.
#[derive(Debug, Clone, Copy)]
pub struct Builder {
    queues: u32,
    backends: u8,
    arms: Arms,
    tags: Tags,
    backend_mtu: Option<u32>,
}

impl Builder {
    /// Queues of every interface. Default 1.
    pub fn queues(mut self, queues: u32) -> Self {
        self.queues = queues;
        self
    }

    /// Backends, at most 200. Default 3.
    pub fn backends(mut self, backends: u8) -> Self {
        self.backends = backends;
        self
    }

    /// Interfaces of the gateway. Default two.
    pub fn arms(mut self, arms: Arms) -> Self {
        self.arms = arms;
        self
    }

    /// VLAN tags between client and gateway, outermost first. Default none. For two arms.
    pub fn client_tags(mut self, tags: &'static [u16]) -> Self {
        self.tags.client = tags;
        self
    }

    /// VLAN tags between gateway and backends, outermost first. Default none. For two arms.
    pub fn backend_tags(mut self, tags: &'static [u16]) -> Self {
        self.tags.backends = tags;
        self
    }

    /// Largest packet between gateway and backends. The backends announce TCP segments as for 1,500
    /// bytes all the same, so that only ICMP errors can tell clients. For two arms.
    pub fn backend_mtu(mut self, mtu: u32) -> Self {
        self.backend_mtu = Some(mtu);
        self
    }

    /// Makes it.
    ///
    /// # Errors
    /// The machine refuses a part of it.
    pub fn build(self) -> Result<Topology> {
        let topology = Topology {
            client: Netns::create("client")?,
            gateway: Netns::create("gateway")?,
            switch: Netns::create("switch")?,
            backends: (1..=self.backends)
                .map(|number| self.host(number))
                .collect::<Result<_>>()?,
            arms: self.arms,
            tags: self.tags,
        };
        let Topology {
            client,
            gateway,
            switch,
            ..
        } = &topology;
        switch.ip_batch("link add br0 type bridge mcast_snooping 0\nlink set br0 up\n")?;
        route_on(gateway)?;
        gateway.write_sysctl("net/ipv4/conf/all/send_redirects", "0")?;
        gateway.write_sysctl("net/ipv4/conf/default/send_redirects", "0")?;
        match self.arms {
            Arms::Two => {
                self.link((gateway, "c0"), (client, "eth0"))?;
                self.link((gateway, "b0"), (switch, "gw"))?;
                let (c0, b0) = (self.tags.client, self.tags.backends);
                add_addresses(gateway, &tagged(gateway, "c0", c0)?, 1, 1)?;
                add_addresses(gateway, &tagged(gateway, "b0", b0)?, 2, 1)?;
            }
            Arms::One => {
                self.link((gateway, "g0"), (switch, "gw"))?;
                self.link((client, "eth0"), (switch, "cl"))?;
                switch.ip_batch("link set cl master br0\n")?;
                add_addresses(gateway, "g0", 3, 1)?;
            }
        }
        switch.ip_batch("link set gw master br0\n")?;
        let own = tagged(client, "eth0", self.tags.client)?;
        add_addresses(client, &own, topology.client_net(), 10)?;
        add_default_routes(client, topology.client_net(), 1)?;
        for (index, host) in topology.backends.iter().enumerate() {
            let port = format!("p{}", index + 1);
            self.link((&host.namespace, "eth0"), (switch, &port))?;
            switch.ip_batch(&format!("link set {port} master br0\n"))?;
            let own = tagged(&host.namespace, "eth0", self.tags.backends)?;
            add_addresses(&host.namespace, &own, self.backend_net(), 11 + index as u8)?;
            add_default_routes(&host.namespace, self.backend_net(), 1)?;
        }
        if let Some(mtu) = self.backend_mtu {
            topology.narrow_backends(mtu)?;
        }
        Ok(topology)
    }

    fn host(self, number: u8) -> Result<Host> {
        let name = format!("backend-{number}");
        Ok(Host {
            address: Ipv4Addr::new(10, 0, self.backend_net(), 10 + number),
            address6: family::ipv6(self.backend_net(), 10 + number),
            namespace: Netns::create(&name)?,
            name,
        })
    }

    fn backend_net(self) -> u8 {
        match self.arms {
            Arms::Two => 2,
            Arms::One => 3,
        }
    }

    fn link(self, a: (&Netns, &str), b: (&Netns, &str)) -> Result<()> {
        link(self.queues, a, b)
    }
}

/// A veth pair between two namespaces, up, with its offloads off.
fn link(queues: u32, (a, a_name): (&Netns, &str), (b, b_name): (&Netns, &str)) -> Result<()> {
    let queues = format!("numtxqueues {queues} numrxqueues {queues}");
    a.ip_batch(&format!(
        "link add {a_name} {queues} type veth peer name {b_name} {queues} netns {}\n",
        b.name()
    ))?;
    let limit = QUEUE_FRAMES.to_string();
    for (namespace, name) in [(a, a_name), (b, b_name)] {
        let mut offloads = vec!["ethtool", "-K", name];
        for feature in OFFLOADS {
            offloads.extend([*feature, "off"]);
        }
        namespace.run(&offloads, CONFIGURE)?;
        namespace.run(
            &[
                "tc", "qdisc", "add", "dev", name, "root", "pfifo", "limit", &limit,
            ],
            CONFIGURE,
        )?;
        namespace.ip_batch(&format!("link set {name} up\n"))?;
    }
    Ok(())
}

/// Makes a namespace a router of both families.
fn route_on(namespace: &Netns) -> Result<()> {
    namespace.write_sysctl("net/ipv4/ip_forward", "1")?;
    namespace.write_sysctl("net/ipv6/conf/all/forwarding", "1")
}

/// The device of `interface` whose frames carry `tags`, made when there are any.
fn tagged(namespace: &Netns, interface: &str, tags: &[u16]) -> Result<String> {
    let mut device = interface.to_owned();
    for (index, tag) in tags.iter().enumerate() {
        // The outer one of two is a service tag (IEEE 802.1ad).
        let outer = index + 1 < tags.len();
        let protocol = if outer { "802.1ad" } else { "802.1Q" };
        let name = format!("{device}.{tag}");
        namespace.ip_batch(&format!(
            "link add link {device} name {name} type vlan protocol {protocol} id {tag}\nlink set {name} up\n"
        ))?;
        device = name;
    }
    Ok(device)
}

/// Gives `device` the addresses of host `host` in network `net`.
fn add_addresses(namespace: &Netns, device: &str, net: u8, host: u8) -> Result<()> {
    let lines = Family::BOTH.map(|family| {
        let (address, prefix) = (family.address(net, host), family.prefix());
        format!("address add {address}/{prefix} dev {device}\n")
    });
    namespace.ip_batch(&lines.concat())
}

/// Makes host `router` of network `net` the way to everywhere.
fn add_default_routes(namespace: &Netns, net: u8, router: u8) -> Result<()> {
    let lines = Family::BOTH
        .map(|family| format!("route add default via {}\n", family.address(net, router)));
    namespace.ip_batch(&lines.concat())
}

impl Topology {
    /// One queue, three backends, two arms, unless told otherwise.
    pub fn builder() -> Builder {
        Builder {
            queues: 1,
            backends: 3,
            arms: Arms::Two,
            tags: Tags::default(),
            backend_mtu: None,
        }
    }

    /// The same with the tags of their frames.
    pub fn tagged_interfaces(&self) -> Vec<(&'static str, &'static [u16])> {
        match self.arms {
            Arms::Two => vec![("c0", self.tags.client), ("b0", self.tags.backends)],
            Arms::One => vec![("g0", &[])],
        }
    }

    fn narrow_backends(&self, mtu: u32) -> Result<()> {
        self.gateway.ip_batch(&format!("link set b0 mtu {mtu}\n"))?;
        self.switch.ip_batch(&format!("link set gw mtu {mtu}\n"))?;
        for host in &self.backends {
            let mut lines = format!("link set eth0 mtu {mtu}\n");
            for family in Family::BOTH {
                let (gateway, headers) = (self.masquerade_at(family), family.tcp_headers());
                let mss = 1500 - headers;
                let _ = writeln!(lines, "route add {gateway} dev eth0 advmss {mss}");
                let _ = writeln!(lines, "route replace default via {gateway} advmss {mss}");
            }
            host.namespace.ip_batch(&lines)?;
        }
        Ok(())
    }

    fn client_net(&self) -> u8 {
        match self.arms {
            Arms::Two => 1,
            Arms::One => 3,
        }
    }

    fn backend_net(&self) -> u8 {
        match self.arms {
            Arms::Two => 2,
            Arms::One => 3,
        }
    }

    /// The client's address of a family.
    pub fn client_at(&self, family: Family) -> IpAddr {
        family.address(self.client_net(), 10)
    }

    /// The gateway's address on the client's link; node ports are served on it.
    pub fn node_at(&self, family: Family) -> IpAddr {
        family.address(self.client_net(), 1)
    }

    /// The gateway's address on the backends' link; masqueraded connections come from it.
    pub fn masquerade_at(&self, family: Family) -> IpAddr {
        family.address(self.backend_net(), 1)
    }

    /// An unused address of the client's own link, for a Vip that clients find by ARP or NDP.
    pub fn on_link_vip_at(&self, family: Family) -> IpAddr {
        family.address(self.client_net(), 100)
    }

    /// Puts a host behind two routers, the first of which is on a link of the gateway; the second one
    /// is made, and `mtu` is that of the link between the two. This link has network `net`, where the
    /// routers are hosts 1 and 2; the host is number 10 of the next one.
    ///
    /// # Errors
    /// The machine refuses a part of it.
    pub fn behind(&self, first: Neighbour<'_>, net: u8, mtu: u32) -> Result<Beyond> {
        let name = format!("beyond-{net}");
        let (router, namespace) = (Netns::create("router")?, Netns::create(&name)?);
        let narrow = format!("far{net}");
        link(1, (first.namespace, &narrow), (&router, "near"))?;
        link(1, (&router, "far"), (&namespace, "eth0"))?;
        for (namespace, device) in [(first.namespace, narrow.as_str()), (&router, "near")] {
            route_on(namespace)?;
            namespace.ip_batch(&format!("link set {device} mtu {mtu}\n"))?;
        }
        add_addresses(first.namespace, &narrow, net, 1)?;
        add_addresses(&router, "near", net, 2)?;
        add_default_routes(&router, net, 1)?;
        add_addresses(&router, "far", net + 1, 1)?;
        add_addresses(&namespace, "eth0", net + 1, 10)?;
        add_default_routes(&namespace, net + 1, 1)?;
        for family in Family::BOTH {
            let prefix = family.prefix();
            let far = format!("route add {}/{prefix} via", family.address(net + 1, 0));
            let near = format!("route add {}/{prefix} via", family.address(net, 0));
            first
                .namespace
                .ip_batch(&format!("{far} {}\n", family.address(net, 2)))?;
            let via = first.at(family);
            self.gateway
                .ip_batch(&format!("{near} {via}\n{far} {via}\n"))?;
        }
        Ok(Beyond {
            host: Host {
                name,
                address: Ipv4Addr::new(10, 0, net + 1, 10),
                address6: family::ipv6(net + 1, 10),
                namespace,
            },
            _router: router,
        })
    }

    /// The client, as a router for [`Topology::behind`].
    pub fn client_as_router(&self) -> Neighbour<'_> {
        Neighbour {
            namespace: &self.client,
            addresses: Family::BOTH.map(|family| self.client_at(family)),
        }
    }

    /// Interfaces of the gateway that carry Service traffic.
    pub fn interfaces(&self) -> &'static [&'static str] {
        match self.arms {
            Arms::Two => &["c0", "b0"],
            Arms::One => &["g0"],
        }
    }

    /// The client's address.
    pub fn client_address(&self) -> Ipv4Addr {
        match self.arms {
            Arms::Two => Ipv4Addr::new(10, 0, 1, 10),
            Arms::One => Ipv4Addr::new(10, 0, 3, 10),
        }
    }

    /// The gateway's address on the client's link; node ports are served on it.
    pub fn gateway_towards_client(&self) -> Ipv4Addr {
        match self.arms {
            Arms::Two => Ipv4Addr::new(10, 0, 1, 1),
            Arms::One => Ipv4Addr::new(10, 0, 3, 1),
        }
    }

    /// The gateway's address on the backends' link; masqueraded connections come from it.
    pub fn gateway_towards_backends(&self) -> Ipv4Addr {
        match self.arms {
            Arms::Two => Ipv4Addr::new(10, 0, 2, 1),
            Arms::One => Ipv4Addr::new(10, 0, 3, 1),
        }
    }

    /// An unused address of the client's own link, for a Vip that clients find by ARP.
    pub fn on_link_vip(&self) -> Ipv4Addr {
        match self.arms {
            Arms::Two => Ipv4Addr::new(10, 0, 1, 100),
            Arms::One => Ipv4Addr::new(10, 0, 3, 100),
        }
    }
}
