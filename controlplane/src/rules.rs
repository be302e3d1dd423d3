//! What the settings say about Services.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use sluice_conf::settings::Controlplane;
use sluice_conf::settings::controlplane::Defaults;
use sluice_conf::{FrontendKind, Networks};

use crate::endpoints::choice::Here;
use crate::service::Vip;

/// What the settings say about Services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Addresses of the gateway that serve node ports.
    pub node_addresses: Vec<IpAddr>,
    /// Networks of the cluster. Without pods of a family, its pods count as any other client.
    pub networks: Networks,
    /// Nodes that the gateway stands in front of; empty: every node.
    pub local_nodes: BTreeSet<String>,
    /// Zone that topology hints are compared with.
    pub zone: Option<String>,
    /// Whether `kubernetes` masquerades every client of a ClusterIP.
    pub masquerade_all: bool,
    /// What `spec.externalIPs` may claim.
    pub external_ips: Vec<IpNet>,
    /// For Services that say nothing else.
    pub defaults: Defaults,
}

impl From<&Controlplane> for Rules {
    fn from(settings: &Controlplane) -> Self {
        let cluster = &settings.cluster;
        Self {
            node_addresses: settings.node_ports.addresses.clone(),
            networks: Networks {
                pods: cluster.pod_networks.clone(),
                nodes: cluster.node_networks.clone(),
                services: cluster.service_networks.clone(),
            },
            local_nodes: cluster.local_nodes.iter().cloned().collect(),
            zone: cluster.zone.clone(),
            masquerade_all: cluster.masquerade_all,
            external_ips: cluster.external_ips.clone(),
            defaults: settings.defaults.clone(),
        }
    }
}

impl Rules {
    pub(crate) fn here(&self) -> Here<'_> {
        Here {
            nodes: &self.local_nodes,
            zone: self.zone.as_deref(),
        }
    }

    /// Whether a Service may have this address.
    pub(crate) fn allows(&self, vip: &Vip) -> bool {
        let mut allowed = self.external_ips.iter();
        vip.kind != FrontendKind::ExternalIp || allowed.any(|net| net.contains(&vip.address))
    }

    /// Whether pods of the family of `address` can be told from other clients (what kube-proxy
    /// calls a local detector).
    pub(crate) fn detects_pods(&self, address: IpAddr) -> bool {
        let mut pods = self.networks.pods.iter();
        pods.any(|net| net.addr().is_ipv4() == address.is_ipv4())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_about_services_reaches_the_rules() {
        let text = "[manifests]\nfolder = \"x\"\n[cluster]\npod_networks = [\"10.0.0.0/8\"]\nservice_networks = [\"10.96.0.0/12\"]\nnode_networks = [\"192.0.2.7\"]\nlocal_nodes = [\"a\", \"b\"]\nzone = \"z\"\nmasquerade_all = true\nexternal_ips = [\"198.51.100.0/24\"]\n[node_ports]\naddresses = [\"2001:db8::1\"]\n[defaults]\nmss_clamp = 1400\n";
        let settings = Controlplane::parse(text, "cp.toml").unwrap();
        let network = |text: &str| vec![text.parse().unwrap()];
        let wanted = Rules {
            node_addresses: vec!["2001:db8::1".parse().unwrap()],
            networks: Networks {
                pods: network("10.0.0.0/8"),
                nodes: network("192.0.2.7/32"),
                services: network("10.96.0.0/12"),
            },
            local_nodes: BTreeSet::from(["a".to_owned(), "b".to_owned()]),
            zone: Some("z".to_owned()),
            masquerade_all: true,
            external_ips: network("198.51.100.0/24"),
            defaults: Defaults {
                mss_clamp: Some(1400),
                ..Defaults::default()
            },
        };
        assert_eq!(Rules::from(&settings), wanted);
    }
}
