//! Settings of the control plane; `conf/examples/controlplane.toml` explains each key to the
//! operator.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::load::{self, Impossible, SettingsError};
use super::{Log, Metrics};
use crate::service::{BackendGone, SourceNat};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Controlplane {
    /// Where Services come from.
    pub manifests: Manifests,
    /// Node ports.
    #[serde(default)]
    pub node_ports: NodePorts,
    /// What a Service gets that says nothing else.
    #[serde(default)]
    pub defaults: Defaults,
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

/// `[node_ports]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodePorts {
    /// Addresses of the gateway on which node ports are served. Empty: node ports are not served.
    pub addresses: Vec<Ipv4Addr>,
}

/// `[defaults]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Defaults {
    /// Source address translation; a Service overrides it by annotation `sluice.dev/source-nat`.
    pub source_nat: SourceNat,
    /// What happens to connections whose backend left the table; a Service overrides it by
    /// annotation `sluice.dev/backend-gone`.
    pub backend_gone: BackendGone,
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
        for (index, address) in self.node_ports.addresses.iter().enumerate() {
            if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
                let message = format!("{address} cannot serve node ports; name a unicast address");
                return Err(Impossible::new(
                    format!("node_ports.addresses[{index}]"),
                    message,
                ));
            }
        }
        Ok(())
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
        assert_eq!(example.defaults, minimal.defaults);
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
            "cp.toml:5: node_ports.addresses[1]: 127.0.0.1 cannot serve node ports; name a unicast address"
        );
    }
}
