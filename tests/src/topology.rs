//! Client, gateway and backends, each in a namespace of its own.
//!
//! ```text
//!  two arms:  client 10.0.1.10 --- c0 10.0.1.1 [gateway] 10.0.2.1 b0 --- bridge --- 10.0.2.11 ...
//!  one arm:   [gateway] 10.0.3.1 g0 --- bridge --- client 10.0.3.10, backends 10.0.3.11 ...
//! ```
//!
//! Without Sluice the gateway is a plain router, and client and backends reach one another. Every
//! default route leads to the gateway, so Vips and replies to kept client addresses do too.
//! Transmit checksum, segmentation and receive offloads are off on every interface: otherwise a
//! packet of a local socket would cross a veth with an unfinished checksum.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::netns::{CONFIGURE, Netns};

/// LoadBalancer address of the tests, routed by the client's default route.
pub const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// ClusterIP of the tests, routed by the client's default route.
pub const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Frames that wait in front of a veth whose ring (256 frames) is full: with a queueing discipline
/// a sender is slowed down instead of losing frames (Linux 6.16 and later).
const QUEUE_FRAMES: u32 = 10_000;

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
    /// Its only address.
    pub address: Ipv4Addr,
    /// Where it lives; its interface is `eth0`.
    pub namespace: Netns,
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
}

/// What a topology shall be like.
#[derive(Debug, Clone, Copy)]
pub struct Builder {
    queues: u32,
    backends: u8,
    arms: Arms,
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
        };
        let Topology {
            client,
            gateway,
            switch,
            ..
        } = &topology;
        switch.ip_batch("link add br0 type bridge mcast_snooping 0\nlink set br0 up\n")?;
        gateway.write_sysctl("net/ipv4/ip_forward", "1")?;
        gateway.write_sysctl("net/ipv4/conf/all/send_redirects", "0")?;
        gateway.write_sysctl("net/ipv4/conf/default/send_redirects", "0")?;
        match self.arms {
            Arms::Two => {
                self.link((gateway, "c0"), (client, "eth0"))?;
                self.link((gateway, "b0"), (switch, "gw"))?;
                gateway.ip_batch("address add 10.0.1.1/24 dev c0\n")?;
                gateway.ip_batch("address add 10.0.2.1/24 dev b0\n")?;
            }
            Arms::One => {
                self.link((gateway, "g0"), (switch, "gw"))?;
                self.link((client, "eth0"), (switch, "cl"))?;
                switch.ip_batch("link set cl master br0\n")?;
                gateway.ip_batch("address add 10.0.3.1/24 dev g0\n")?;
            }
        }
        let router = topology.gateway_towards_backends();
        switch.ip_batch("link set gw master br0\n")?;
        address(
            client,
            topology.client_address(),
            topology.gateway_towards_client(),
        )?;
        for (index, host) in topology.backends.iter().enumerate() {
            let port = format!("p{}", index + 1);
            self.link((&host.namespace, "eth0"), (switch, &port))?;
            switch.ip_batch(&format!("link set {port} master br0\n"))?;
            address(&host.namespace, host.address, router)?;
        }
        Ok(topology)
    }

    fn host(self, number: u8) -> Result<Host> {
        let name = format!("backend-{number}");
        Ok(Host {
            address: Ipv4Addr::new(10, 0, self.backend_net(), 10 + number),
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

    /// A veth pair between two namespaces, up, with its offloads off.
    fn link(self, (a, a_name): (&Netns, &str), (b, b_name): (&Netns, &str)) -> Result<()> {
        let queues = format!("numtxqueues {0} numrxqueues {0}", self.queues);
        a.ip_batch(&format!(
            "link add {a_name} {queues} type veth peer name {b_name} {queues} netns {}\n",
            b.name()
        ))?;
        let limit = QUEUE_FRAMES.to_string();
        for (namespace, name) in [(a, a_name), (b, b_name)] {
            namespace.run(
                &[
                    "ethtool", "-K", name, "tx", "off", "tso", "off", "gso", "off", "gro", "off",
                ],
                CONFIGURE,
            )?;
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
}

fn address(host: &Netns, address: Ipv4Addr, router: Ipv4Addr) -> Result<()> {
    host.ip_batch(&format!(
        "address add {address}/24 dev eth0\nroute add default via {router}\n"
    ))
}

impl Topology {
    /// One queue, three backends, two arms, unless told otherwise.
    pub fn builder() -> Builder {
        Builder {
            queues: 1,
            backends: 3,
            arms: Arms::Two,
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
