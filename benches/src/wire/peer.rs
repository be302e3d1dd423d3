//! The peers: each is started on the rig, forwards, and leaves the rig as it was.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use sluice_tests::daemon::{self, Paths};
use sluice_tests::manifests::Folder;
use sluice_tests::netns::{CONFIGURE, Netns};
use sluice_tests::process::{self, Process};
use tempfile::TempDir;

use super::forwarder::{Forwarder, Pass, Settings, pass};
use super::rig::{BACKEND_PORT, BACKENDS, GATEWAY, INTERFACES, PEER_CPU, PORT, Rig, backend, vip};
use crate::cpu;
use crate::generator::plan::Protocol;
use crate::sink::program::{Network, host};

/// States of TCP as the kernel names them and as Sluice does. All peers forget a connection in any
/// of them after [`FORGET_SECONDS`], or [`Rig::kept`], so that what one trial leaves half open, above all an overloaded
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
pub(super) const FORGET_SECONDS: u32 = 1;

/// After how long a connection in a state of Sluice's names is forgotten.
fn seconds(rig: &Rig, state: &str) -> u32 {
    match state {
        "syn_received" | "established" => rig.kept,
        _ => FORGET_SECONDS,
    }
}

/// Who forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    /// The bare AF_XDP forwarder.
    Bare,
    /// The same, running NAPI itself by preferred busy polling.
    BareBusy,
    /// Sluice.
    Sluice,
    /// The kernel with kube-proxy's rules of nftables mode, NAPI on the generator's CPU.
    Nftables,
    /// The same with NAPI in a thread on the peer's CPU.
    NftablesThreaded,
}

impl Peer {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Peer::Bare => "bare AF_XDP forwarder",
            Peer::BareBusy => "bare AF_XDP forwarder, busy polling",
            Peer::Sluice => "Sluice",
            Peer::Nftables => "nftables, as kube-proxy",
            Peer::NftablesThreaded => "nftables, as kube-proxy, threaded NAPI",
        }
    }

    /// Whether it translates addresses.
    pub fn translates(self) -> bool {
        !matches!(self, Peer::Bare | Peer::BareBusy)
    }

    /// Where frames must come from and go to behind it, and to which port.
    pub fn expectation(self) -> (Option<Network>, Option<Network>, Option<u16>) {
        if !self.translates() {
            return (None, Some(host(vip(0).into())), Some(PORT));
        }
        let backends = (backend(0).into(), 24);
        (
            Some(host(GATEWAY.into())),
            Some(backends),
            Some(BACKEND_PORT),
        )
    }

    /// Starts it with `services` Services of the plan's protocol; frames are forwarded when this returns.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(self, rig: &Rig, services: u32) -> Result<Running> {
        match self {
            Peer::Bare => bare(rig, None).map(Running::Bare),
            Peer::BareBusy => {
                defer_interrupts(&rig.gateway, true)?;
                bare(rig, Some(64)).map(Running::Bare)
            }
            Peer::Sluice => sluice(rig, services).map(|sluice| Running::Sluice(Box::new(sluice))),
            Peer::Nftables => kernel(rig, services, false).map(Running::Kernel),
            Peer::NftablesThreaded => kernel(rig, services, true).map(Running::Kernel),
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
        Ok(())
    }

    /// Takes back what it changed in the namespace; to be called before it ends.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn clean(self, rig: &Rig) -> Result<()> {
        let gateway = &rig.gateway;
        match self {
            Peer::Bare | Peer::Sluice => Ok(()),
            Peer::BareBusy => defer_interrupts(gateway, false),
            Peer::Nftables | Peer::NftablesThreaded => {
                threaded(gateway, false)?;
                gateway.write_sysctl("net/ipv4/ip_forward", "0")?;
                gateway
                    .run(&["nft", "flush", "ruleset"], CONFIGURE)
                    .map(drop)
            }
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
    Kernel([Pass; 2]),
}

impl Running {
    /// The process that forwards, if it is one of its own.
    pub fn process(&self) -> Option<u32> {
        match self {
            Running::Sluice(sluice) => Some(sluice.dataplane.pid()),
            Running::Bare(_) | Running::Kernel(_) => None,
        }
    }
}

/// Sluice's daemons and their folder, which go in this order.
pub struct Sluice {
    pub(super) controlplane: Process,
    pub(super) dataplane: Process,
    /// What the control plane reads.
    pub(super) folder: Folder,
    pub(super) paths: Paths,
    _dir: TempDir,
}

fn bare(rig: &Rig, busy_poll: Option<u32>) -> Result<Forwarder> {
    Forwarder::start(Settings {
        namespace: rig.inside(),
        interfaces: INTERFACES.map(str::to_owned),
        cpu: PEER_CPU,
        busy_poll,
    })
}

fn sluice(rig: &Rig, services: u32) -> Result<Sluice> {
    let dir = tempfile::tempdir().context("a folder for Sluice")?;
    let paths = Paths {
        dir: dir.path().to_owned(),
    };
    let folder = Folder::create(dir.path().join("services"))?;
    folder.write_text("services.yaml", &manifests(services, protocol(rig)))?;
    let timeouts = STATES.map(|(_, state)| format!("tcp_{state} = {}\n", seconds(rig, state)));
    // As many source ports as the kernel uses.
    let more = format!(
        "[workers]\ncores = [{PEER_CPU}]\n[connections]\ncapacity = 2097152\n\
         [source_nat]\nports = \"1024-65535\"\n[timeouts]\n{}",
        timeouts.concat()
    );
    let settings =
        daemon::dataplane_settings(&paths, &INTERFACES, &more).replace("\"debug\"", "\"warn\"");
    let mut dataplane = daemon::start("sluice-dataplane", &rig.gateway, &paths, &settings)?;
    daemon::dataplane_ready(&mut dataplane, &paths)?;
    cpu::prefer_process(dataplane.pid())?;
    let settings = daemon::controlplane_settings(&paths, folder.path(), &[], "")
        .replace("\"debug\"", "\"warn\"");
    let mut controlplane = daemon::start("sluice-controlplane", &rig.gateway, &paths, &settings)?;
    daemon::settled(&mut controlplane, &paths)?;
    Ok(Sluice {
        controlplane,
        dataplane,
        folder,
        paths,
        _dir: dir,
    })
}

fn manifests(services: u32, protocol: &str) -> String {
    let protocol = protocol.to_uppercase();
    let mut text = String::new();
    for service in 0..services {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{service}, namespace: default}}\n\
             spec:\n  type: LoadBalancer\n  loadBalancerIP: {}\n  ports: [{{name: p, protocol: {protocol}, port: {PORT}}}]\n\
             ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: s{service}-1, namespace: default, labels: {{kubernetes.io/service-name: s{service}}}}}\n\
             addressType: IPv4\nports: [{{name: p, protocol: {protocol}, port: {BACKEND_PORT}}}]\nendpoints:\n",
            vip(service)
        );
        for number in 0..BACKENDS {
            let _ = writeln!(text, "  - addresses: [\"{}\"]", backend(number));
        }
    }
    text
}

/// The protocol of the plan, as nftables writes it.
pub(super) fn protocol(rig: &Rig) -> &'static str {
    match rig.plan.protocol {
        Protocol::Tcp => "tcp",
        _ => "udp",
    }
}

fn kernel(rig: &Rig, services: u32, thread: bool) -> Result<[Pass; 2]> {
    let gateway = &rig.gateway;
    let mut command = gateway.command("nft");
    process::run(
        command.args(["-f", "-"]),
        &ruleset(services, protocol(rig)),
        CONFIGURE * 6,
    )?
    .success()?;
    gateway.write_sysctl("net/ipv4/ip_forward", "1")?;
    for (name, state) in STATES {
        let path = format!("net/netfilter/nf_conntrack_tcp_timeout_{name}");
        gateway.write_sysctl(&path, &seconds(rig, state).to_string())?;
    }
    let inside = rig.inside();
    let [a, b] = INTERFACES;
    let guards = [pass(&inside, a)?, pass(&inside, b)?];
    if thread {
        threaded(gateway, true)?;
        let names = INTERFACES.map(|interface| format!("napi/{interface}-"));
        cpu::claim_for(&names, PEER_CPU)?;
    }
    Ok(guards)
}

/// The rules that kube-proxy 1.35 programs in nftables mode for LoadBalancer Services:
/// verdict maps, a random number for the endpoint, everything masqueraded
/// (pkg/proxy/nftables/proxier.go).
fn ruleset(services: u32, protocol: &str) -> String {
    let mut chains = String::new();
    let mut elements = Vec::new();
    for service in 0..services {
        elements.push(format!(
            "{} . {protocol} . {PORT} : goto external-{service}",
            vip(service)
        ));
        let mut choices = Vec::new();
        for number in 0..BACKENDS {
            let (end, address) = (format!("endpoint-{service}-{number}"), backend(number));
            let _ = writeln!(
                chains,
                "chain {end} {{ ip saddr {address} jump mark-for-masquerade; meta l4proto {protocol} dnat to {address}:{BACKEND_PORT}; }}"
            );
            choices.push(format!("{number} : goto {end}"));
        }
        let _ = writeln!(
            chains,
            "chain service-{service} {{ numgen random mod {BACKENDS} vmap {{ {} }}; }}\n\
             chain external-{service} {{ jump mark-for-masquerade; goto service-{service}; }}",
            choices.join(", ")
        );
    }
    let elements = elements.join(", ");
    format!(
        "table ip kube-proxy {{
        chain mark-for-masquerade {{ meta mark set meta mark | 0x4000; }}
        {chains}
        set cluster-ips {{ type ipv4_addr; }}
        set nodeport-ips {{ type ipv4_addr; elements = {{ 192.0.2.1 }}; }}
        map no-endpoint-services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
        map no-endpoint-nodeports {{ type inet_proto . inet_service : verdict; }}
        map firewall-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
        map service-nodeports {{ type inet_proto . inet_service : verdict; }}
        map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; elements = {{ {elements} }}; }}
        chain nodeport-endpoints-check {{ ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }}
        chain service-endpoints-check {{ ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }}
        chain firewall-check {{ ip daddr . meta l4proto . th dport vmap @firewall-ips; }}
        chain cluster-ips-check {{ ip daddr @cluster-ips reject; ip daddr 10.96.0.0/16 drop; }}
        chain services {{
            ip daddr . meta l4proto . th dport vmap @service-ips
            ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
        }}
        chain masquerading {{
            meta mark & 0x4000 == 0 return
            meta mark set meta mark ^ 0x4000
            masquerade fully-random
        }}
        chain filter-prerouting-pre-dnat {{ type filter hook prerouting priority dstnat - 10; ct state new jump firewall-check; }}
        chain filter-forward {{
            type filter hook forward priority filter;
            ct state new jump service-endpoints-check
            ct state new jump cluster-ips-check
        }}
        chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
        chain nat-postrouting {{ type nat hook postrouting priority srcnat; jump masquerading; }}
        }}\n"
    )
}

/// Whether NAPI of the gateway's interfaces runs in kernel threads.
fn threaded(gateway: &Netns, on: bool) -> Result<()> {
    write_of_interfaces(gateway, "threaded", u32::from(on))
}

/// Leaves NAPI to who polls busily (Documentation/networking/napi.rst).
fn defer_interrupts(gateway: &Netns, on: bool) -> Result<()> {
    let (interrupts, timeout) = if on { (2, 200_000) } else { (0, 0) };
    write_of_interfaces(gateway, "napi_defer_hard_irqs", interrupts)?;
    write_of_interfaces(gateway, "gro_flush_timeout", timeout)
}

fn write_of_interfaces(gateway: &Netns, file: &str, value: u32) -> Result<()> {
    for interface in INTERFACES {
        let script = format!("echo {value} > /sys/class/net/{interface}/{file}");
        gateway.run(&["sh", "-c", &script], CONFIGURE)?;
    }
    Ok(())
}
