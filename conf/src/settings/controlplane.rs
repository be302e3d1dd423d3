//! Settings of the control plane; `conf/examples/controlplane.toml` explains each key to the
//! operator.

mod dns;
mod environment;
mod health;
mod kubernetes;
mod words;

pub use dns::{Dns, Forward, PodNames, Tcp};
pub use environment::{Environment, EnvironmentFormat};
pub use kubernetes::{Election, Kubernetes};

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::load::{self, Impossible, SettingsError};
use super::{Log, Metrics};
use crate::service::{BackendGone, Forwarding, Ping, Refusal, Service};
use crate::table::unusable;

pub use health::{Draining, Health, Initial};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Controlplane {
    /// Files that Services come from.
    pub manifests: Option<Manifests>,
    /// API server that Services come from.
    pub kubernetes: Option<Kubernetes>,
    /// The cluster behind the gateway.
    #[serde(default)]
    pub cluster: Cluster,
    /// Where what outlives a restart is kept.
    #[serde(default)]
    pub store: Store,
    /// Past tables.
    #[serde(default)]
    pub history: History,
    /// Node ports.
    #[serde(default)]
    pub node_ports: NodePorts,
    /// Services of type LoadBalancer.
    #[serde(default)]
    pub load_balancers: LoadBalancers,
    /// Answers to load balancers in front.
    #[serde(default)]
    pub health_checks: HealthChecks,
    /// How health is found out.
    #[serde(default)]
    pub health: Health,
    /// How endpoints are taken out of use.
    #[serde(default)]
    pub draining: Draining,
    /// The DNS server.
    #[serde(default)]
    pub dns: Dns,
    /// What a Service gets that says nothing else.
    #[serde(default)]
    pub defaults: Defaults,
    /// Files that announce Services to workloads.
    #[serde(default)]
    pub environment: Environment,
    /// The dataplane to push to.
    #[serde(default)]
    pub dataplane: DataplaneSocket,
    /// Control socket.
    #[serde(default)]
    pub control: Control,
    /// Metrics.
    #[serde(default)]
    pub metrics: Metrics,
    /// Logging.
    #[serde(default)]
    pub log: Log,
}

/// `[manifests]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifests {
    /// Folder with Kubernetes manifests; watched.
    pub folder: PathBuf,
}

/// `[store]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// File that holds what Services were given, so that a restart takes nothing away.
    pub path: PathBuf,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            path: "/var/lib/sluice/controlplane.redb".into(),
        }
    }
}

/// `[history]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct History {
    /// Past tables that are kept, within [`History::KEEP`].
    pub keep: u16,
}

impl History {
    /// What [`History::keep`] can be.
    pub const KEEP: RangeInclusive<u16> = 1..=1000;
}

impl Default for History {
    fn default() -> Self {
        Self { keep: 10 }
    }
}

/// `[node_ports]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodePorts {
    /// Addresses of the gateway on which node ports are served. Empty: node ports are not served.
    pub addresses: Vec<IpAddr>,
    /// Node ports that there are, both ends included.
    #[serde(with = "words::ports")]
    pub range: RangeInclusive<u16>,
}

impl Default for NodePorts {
    /// The range is that of the API server (`--service-node-port-range`).
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            range: 30_000..=32_767,
        }
    }
}

/// `[health_checks]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthChecks {
    /// Addresses on which health check node ports are answered. Empty: all of this host.
    pub addresses: Vec<IpAddr>,
    /// Address that answers for the gateway itself. Absent: nobody does.
    pub listen: Option<SocketAddr>,
}

/// `[load_balancers]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoadBalancers {
    /// Whether a Service may write an address that no AddressPool holds although there are some.
    pub outside_pools: bool,
    /// Whether Services without `spec.loadBalancerClass` are served.
    pub unset_class: bool,
}

impl Default for LoadBalancers {
    fn default() -> Self {
        Self {
            outside_pools: false,
            unset_class: true,
        }
    }
}

/// `[cluster]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// Addresses of pods. Empty: pods cannot be told from other clients.
    #[serde(with = "words::networks")]
    pub pod_networks: Vec<IpNet>,
    /// Where ClusterIPs come from.
    #[serde(with = "words::networks")]
    pub service_networks: Vec<IpNet>,
    /// Addresses of the nodes.
    #[serde(with = "words::networks")]
    pub node_networks: Vec<IpNet>,
    /// Nodes that the gateway stands in front of. Empty: every node.
    pub local_nodes: Vec<String>,
    /// Zone that the gateway stands in, for topology hints.
    pub zone: Option<String>,
    /// Whether every client of a ClusterIP is masqueraded where `kubernetes` decides.
    pub masquerade_all: bool,
    /// What `spec.externalIPs` may claim. Empty: nothing.
    #[serde(with = "words::networks")]
    pub external_ips: Vec<IpNet>,
}

/// Whose source address is translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceNatMode {
    /// Everybody's.
    #[default]
    Masquerade,
    /// Nobody's.
    Preserve,
    /// Those that kube-proxy masquerades in nftables mode.
    Kubernetes,
}

/// `[defaults]`: each is overridden by the annotation `sluice.dev/` of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Defaults {
    /// Source address translation.
    pub source_nat: SourceNatMode,
    /// What happens to connections whose backend left the table.
    #[serde(with = "words::backend_gone")]
    pub backend_gone: BackendGone,
    /// What clients get when nobody may serve them.
    pub refusal: Refusal,
    /// When pings of a Vip are answered.
    pub ping: Ping,
    /// Largest TCP segment that either side may announce, in bytes, within
    /// [`Service::MSS_CLAMP`]; `None` leaves it to them.
    pub mss_clamp: Option<u16>,
    /// How packets get to the backend.
    pub forwarding: Forwarding,
}

/// `[dataplane]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataplaneSocket {
    /// Path of the dataplane's Unix socket.
    pub socket: PathBuf,
}

impl Default for DataplaneSocket {
    fn default() -> Self {
        Self {
            socket: "/run/sluice/dataplane.sock".into(),
        }
    }
}

/// `[control]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// Path of the Unix socket.
    pub socket: PathBuf,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            socket: "/run/sluice/controlplane.sock".into(),
        }
    }
}

impl Controlplane {
    /// Parses the text of a settings file; `file` is only used in errors.
    ///
    /// # Errors
    /// The first mistake, with its line and key.
    pub fn parse(text: &str, file: &str) -> Result<Self, SettingsError> {
        load::parse(text, file, Self::check)
    }

    fn check(&self) -> Result<(), Impossible> {
        match (&self.manifests, &self.kubernetes) {
            (None, None) => {
                let message = "Services come from nowhere; write manifests.folder, the section \
                               [kubernetes], or both";
                return Err(Impossible::new("manifests", message.to_owned()));
            }
            (_, Some(kubernetes)) => kubernetes.check()?,
            _ => {}
        }
        for (index, address) in self.node_ports.addresses.iter().enumerate() {
            if let Some(why) = unusable(*address) {
                let message = format!(
                    "{address} is {why} and cannot serve node ports; name a unicast address"
                );
                return Err(Impossible::new(
                    format!("node_ports.addresses[{index}]"),
                    message,
                ));
            }
        }
        self.health.check()?;
        self.dns.check()?;
        self.environment.check()?;
        let (keep, range) = (self.history.keep, History::KEEP);
        if !range.contains(&keep) {
            let message = format!(
                "{keep} is not possible; use {} to {}",
                range.start(),
                range.end()
            );
            return Err(Impossible::new("history.keep", message));
        }
        let range = Service::MSS_CLAMP;
        match self.defaults.mss_clamp {
            Some(bytes) if !range.contains(&bytes) => Err(Impossible::new(
                "defaults.mss_clamp",
                format!(
                    "{bytes} is not a segment size; use {} to {}",
                    range.start(),
                    range.end()
                ),
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_valid_and_holds_the_defaults() {
        let text = include_str!("../../examples/controlplane.toml");
        let example = Controlplane::parse(text, "controlplane.toml").unwrap();
        let minimal = "[manifests]\nfolder = \"/etc/sluice/services\"\n";
        let minimal = Controlplane::parse(minimal, "cp.toml").unwrap();
        assert_eq!(example.manifests, minimal.manifests);
        assert_eq!(example.kubernetes, minimal.kubernetes);
        assert_eq!(example.cluster, minimal.cluster);
        assert_eq!(example.store, minimal.store);
        assert_eq!(example.history, minimal.history);
        assert_eq!(example.node_ports, minimal.node_ports);
        assert_eq!(example.load_balancers, minimal.load_balancers);
        assert_eq!(example.health_checks, minimal.health_checks);
        assert_eq!(example.health, minimal.health);
        assert_eq!(example.draining, minimal.draining);
        assert_eq!(example.dns, minimal.dns);
        assert_eq!(example.defaults, minimal.defaults);
        assert_eq!(example.environment, minimal.environment);
        assert_eq!(example.dataplane, minimal.dataplane);
        assert_eq!(example.control, minimal.control);
        assert_eq!(example.log, minimal.log);
    }

    #[test]
    fn an_impossible_node_port_address_is_named() {
        let text = "[manifests]\nfolder = \"x\"\n[node_ports]\naddresses = [\"10.0.0.1\",\n \"127.0.0.1\"]\n";
        let error = Controlplane::parse(text, "cp.toml")
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "cp.toml:5: node_ports.addresses[1]: 127.0.0.1 is a loopback address and cannot serve node ports; name a unicast address"
        );
    }

    #[test]
    fn the_cluster_is_told_by_networks_and_addresses_of_both_families() {
        let text = "[manifests]\nfolder = \"x\"\n[cluster]\npod_networks = [\"10.0.0.0/8\", \"fd00::/64\"]\nnode_networks = [\"192.0.2.7\", \"2001:db8::7\", \"198.51.100.9/24\"]\n[defaults]\nsource_nat = \"kubernetes\"\nbackend_gone = \"drain=30\"\nrefusal = \"tcp-reset\"\n";
        let settings = Controlplane::parse(text, "cp.toml").unwrap();
        let written =
            |networks: &[IpNet]| networks.iter().map(IpNet::to_string).collect::<Vec<_>>();
        assert_eq!(
            written(&settings.cluster.pod_networks),
            ["10.0.0.0/8", "fd00::/64"]
        );
        assert_eq!(
            written(&settings.cluster.node_networks),
            ["192.0.2.7/32", "2001:db8::7/128", "198.51.100.0/24"]
        );
        assert_eq!(settings.defaults.source_nat, SourceNatMode::Kubernetes);
        assert_eq!(
            settings.defaults.backend_gone,
            BackendGone::Drain { seconds: 30 }
        );
        assert_eq!(settings.defaults.refusal, Refusal::TcpReset);
    }

    #[test]
    fn values_that_cannot_be_are_named_with_their_line_and_key() {
        for (rest, error) in [
            (
                "[cluster]\npod_networks = [\"10.0.0.0/8\", \"10.0.0/8\"]\n",
                "cp.toml:4: cluster.pod_networks[1]: \"10.0.0/8\" is not a network; write 10.0.0.0/8, fd00::/64 or an address",
            ),
            (
                "[defaults]\nbackend_gone = \"drain\"\n",
                "cp.toml:4: defaults.backend_gone: \"drain\" is not possible; use keep, reset or drain=SECONDS",
            ),
            (
                "[node_ports]\nrange = \"32767-30000\"\n",
                "cp.toml:4: node_ports.range: \"32767-30000\" is not a range of ports; write 30000-32767",
            ),
            (
                "[health]\nmax_in_flight = 0\n",
                "cp.toml:4: health.max_in_flight: 0 probes find out nothing; use 1 to 65535",
            ),
            (
                "[health]\nfail_open_percent = 101\n",
                "cp.toml:4: health.fail_open_percent: 101 is too much; use 0 to 100",
            ),
            (
                "[dns]\nttl = 3601\n",
                "cp.toml:4: dns.ttl: 3601 is too long; use 0 to 3600",
            ),
            (
                "[dns]\nzones = [\"cluster.local\",\n \"a..b\"]\n",
                "cp.toml:5: dns.zones[1]: \"a..b\" is not a zone; write for example cluster.local.",
            ),
            (
                "[dns]\nlisten = [\"127.0.0.1:53\"]\n[dns.forward]\nupstreams = [\"127.0.0.1:53\"]\n",
                "cp.toml:6: dns.forward.upstreams[0]: is this server itself (dns.listen); it would ask itself for ever",
            ),
            (
                "[dns.tcp]\nconnections = 0\n",
                "cp.toml:4: dns.tcp.connections: 0 leaves nothing; use 1 to 65535",
            ),
            (
                "[environment]\nformats = []\n",
                "cp.toml:4: environment.formats: is empty; name shell, docker, systemd or json",
            ),
            (
                "[environment]\nformats = [\"json\", \"json\"]\n",
                "cp.toml:4: environment.formats[1]: is there already; name each format once",
            ),
            (
                "[history]\nkeep = 0\n",
                "cp.toml:4: history.keep: 0 is not possible; use 1 to 1000",
            ),
            (
                "[defaults]\nmss_clamp = 535\n",
                "cp.toml:4: defaults.mss_clamp: 535 is not a segment size; use 536 to 65495",
            ),
        ] {
            let text = format!("[manifests]\nfolder = \"x\"\n{rest}");
            let found = Controlplane::parse(&text, "cp.toml").unwrap_err();
            assert_eq!(found.to_string(), error);
        }
    }
}
