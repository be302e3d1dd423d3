//! The peers: each is started on the rig, forwards, and leaves the rig as it was.

mod bare;
mod haproxy;
mod iptables;
mod kernel;
pub(super) mod nftables;
mod nginx;
mod program;
mod proxy;
mod sluice;
mod testpmd;

use std::net::Ipv4Addr;

use anyhow::Result;
use sluice_tests::netns::{CONFIGURE, Netns};

use super::forwarder::{Forwarder, Pass};
use super::rig::{BACKEND_PORT, GATEWAY, INTERFACES, PORT, Rig, backend, vip};
use crate::generator::plan::Protocol;
use crate::sink::program::{Network, host};

pub use program::Program;
pub use sluice::Sluice;

/// States of TCP as the kernel names them and as Sluice does. All peers forget a connection in any
/// of them after [`Origin::seconds`], so that what one trial leaves half open, above all an overloaded
/// one, does not use up the source ports of the next.
const STATES: [(&str, &str); 7] = [
    ("syn_sent", "syn_sent"),
    ("syn_recv", "syn_received"),
    ("established", "established"),
    ("fin_wait", "fin_wait"),
    ("close_wait", "close_wait"),
    ("last_ack", "last_ack"),
    ("time_wait", "time_wait"),
];
/// How long a peer remembers a connection of the generator of which it sees no more, in seconds,
/// unless [`Rig::kept`] says otherwise.
pub const FORGET_SECONDS: u32 = 1;

/// Where backends are, and with them whoever is no stranger to a cluster.
const POD_NETWORK: &str = "10.2.0.0/24";
/// Where ClusterIPs are.
const SERVICE_NETWORK: &str = "10.96.0.0/16";

/// A Service's ClusterIP: every Service has one beside its Vip, though nobody uses it here.
fn cluster_ip(service: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 10)) + service)
}

/// Who forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    /// The bare AF_XDP forwarder.
    Bare,
    /// The same, running NAPI itself by preferred busy polling.
    BareBusy,
    /// DPDK's testpmd on AF_XDP, forwarding unread as well.
    Testpmd,
    /// Sluice.
    Sluice,
    /// The same with workers that never sleep, as the bare forwarder never does.
    SluiceBusy,
    /// The kernel with kube-proxy's rules of nftables mode, NAPI on the generator's CPU.
    Nftables,
    /// The same with NAPI in a thread on the peer's CPU.
    NftablesThreaded,
    /// The kernel with kube-proxy's rules of iptables mode, NAPI on the generator's CPU.
    Iptables,
    /// The same with NAPI in a thread on the peer's CPU.
    IptablesThreaded,
    /// HAProxy in TCP mode, frames received on its CPU; for sockets only.
    Haproxy,
    /// nginx's stream module, likewise.
    Nginx,
}

/// Whose frames a peer is to forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The generator's, which have no skb at first.
    Generator,
    /// Those of sockets.
    Sockets,
}

impl Origin {
    /// How long a peer remembers a connection of which it sees no more, in seconds, in a state of
    /// Sluice's names. Sockets that wait for their turn on a busy machine must not be forgotten.
    fn seconds(self, rig: &Rig, state: &str) -> u32 {
        match (self, state) {
            (Origin::Sockets, _) => 5,
            (Origin::Generator, "syn_received" | "established") => rig.kept,
            (Origin::Generator, _) => FORGET_SECONDS,
        }
    }
}

impl Peer {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Peer::Bare => "bare AF_XDP forwarder",
            Peer::BareBusy => "bare AF_XDP forwarder, busy polling",
            Peer::Testpmd => "DPDK testpmd on AF_XDP",
            Peer::Sluice => "Sluice",
            Peer::SluiceBusy => "Sluice, never sleeping",
            Peer::Nftables => "nftables, as kube-proxy",
            Peer::NftablesThreaded => "nftables, as kube-proxy, threaded NAPI",
            Peer::Iptables => "iptables (legacy), as kube-proxy",
            Peer::IptablesThreaded => "iptables (legacy), as kube-proxy, threaded NAPI",
            Peer::Haproxy => "HAProxy, TCP mode",
            Peer::Nginx => "nginx stream",
        }
    }

    /// Whether it gets clients of a Vip to a backend.
    pub fn translates(self) -> bool {
        !matches!(self, Peer::Bare | Peer::BareBusy | Peer::Testpmd)
    }

    /// Whether it makes connections of its own, so that only sockets can talk through it.
    pub fn is_proxy(self) -> bool {
        matches!(self, Peer::Haproxy | Peer::Nginx)
    }

    /// Where frames must come from and go to behind it, and to which port.
    pub fn expectation(self) -> (Option<Network>, Option<Network>, Option<u16>) {
        if !self.translates() {
            return (None, Some((vip(0).into(), 15)), Some(PORT));
        }
        let backends = (backend(0).into(), 24);
        (
            Some(host(GATEWAY.into())),
            Some(backends),
            Some(BACKEND_PORT),
        )
    }

    /// Starts it with `services` Services of the plan's protocol; frames of the generator are
    /// forwarded when this returns.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(self, rig: &Rig, services: u32) -> Result<Running> {
        self.start_for(rig, services, Origin::Generator)
    }

    /// The same for frames of `origin`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_for(self, rig: &Rig, services: u32, origin: Origin) -> Result<Running> {
        self.begin(rig, services, origin).inspect_err(|_| {
            // What it did before it failed must not disturb the others.
            let _ = self.clean(rig);
        })
    }

    fn begin(self, rig: &Rig, services: u32, origin: Origin) -> Result<Running> {
        let threads = matches!(self, Peer::NftablesThreaded | Peer::IptablesThreaded);
        match self {
            Peer::Bare => bare::start(rig, None).map(Running::Bare),
            Peer::BareBusy => {
                bare::defer_interrupts(&rig.gateway, true)?;
                bare::start(rig, Some(64)).map(Running::Bare)
            }
            Peer::Testpmd => testpmd::start(rig).map(Running::Program),
            Peer::Sluice | Peer::SluiceBusy => {
                let polling = if self == Peer::Sluice {
                    "adaptive"
                } else {
                    "busy"
                };
                let sluice = sluice::start(rig, services, origin, polling)?;
                Ok(Running::Sluice(Box::new(sluice)))
            }
            Peer::Nftables | Peer::NftablesThreaded => {
                let rules = nftables::rules(services, protocol(rig));
                kernel::load(&rig.gateway, &["nft", "-f", "-"], &rules)?;
                kernel::forward(rig, threads, origin).map(Running::Kernel)
            }
            Peer::Iptables | Peer::IptablesThreaded => {
                let rules = iptables::rules(services, protocol(rig));
                kernel::load(&rig.gateway, &[iptables::RESTORE], &rules)?;
                kernel::forward(rig, threads, origin).map(Running::Kernel)
            }
            Peer::Haproxy => haproxy::start(rig, services).map(Running::Program),
            Peer::Nginx => nginx::start(rig, services).map(Running::Program),
        }
    }

    /// Ends it and leaves the rig as it was.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn stop(self, rig: &mut Rig, running: Running) -> Result<()> {
        // While it runs: some settings belong to NAPI, which goes with it.
        self.clean(rig)?;
        drop(running);
        match self {
            // The kernel keeps looking into tables of iptables that were used once, empty or not,
            // as long as the namespace lives.
            Peer::Iptables | Peer::IptablesThreaded => rig.renew(),
            _ => Ok(()),
        }
    }

    /// Takes back what it changed in the namespace; to be called before it ends.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn clean(self, rig: &Rig) -> Result<()> {
        let gateway = &rig.gateway;
        match self {
            Peer::Bare | Peer::Sluice | Peer::SluiceBusy => Ok(()),
            Peer::BareBusy => bare::defer_interrupts(gateway, false),
            Peer::Testpmd => testpmd::detach(gateway),
            Peer::Nftables | Peer::NftablesThreaded => {
                kernel::stop(gateway)?;
                let flush = gateway.run(&["nft", "flush", "ruleset"], CONFIGURE * 3);
                flush.map(drop)
            }
            Peer::Iptables | Peer::IptablesThreaded => {
                kernel::stop(gateway)?;
                kernel::load(gateway, &[iptables::RESTORE], iptables::NONE)
            }
            Peer::Haproxy | Peer::Nginx => proxy::stop(gateway),
        }
    }
}

/// A peer at work; it ends with its guard.
pub enum Running {
    /// A thread of this process.
    Bare(Forwarder),
    /// Two daemons.
    Sluice(Box<Sluice>),
    /// The kernel.
    Kernel(Vec<Pass>),
    /// Another program.
    Program(Program),
}

impl Running {
    /// The process that forwards, if it is one of its own.
    pub fn process(&self) -> Option<u32> {
        match self {
            Running::Sluice(sluice) => Some(sluice.dataplane.pid()),
            Running::Program(program) => Some(program.process.pid()),
            Running::Bare(_) | Running::Kernel(_) => None,
        }
    }
}

/// The protocol of the plan, as rules name it.
pub(super) fn protocol(rig: &Rig) -> &'static str {
    match rig.plan.protocol {
        Protocol::Tcp => "tcp",
        _ => "udp",
    }
}

fn write_of_interfaces(gateway: &Netns, file: &str, value: u32) -> Result<()> {
    for interface in INTERFACES {
        // Some settings cannot even be written as they are when there is no NAPI.
        let path = format!("/sys/class/net/{interface}/{file}");
        let script = format!("[ \"$(cat {path})\" = {value} ] || echo {value} > {path}");
        gateway.run(&["sh", "-c", &script], CONFIGURE)?;
    }
    Ok(())
}
