//! `[kubernetes]`: a live API to read from and to write status to.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Impossible;

/// Longest name of a namespace, in characters (RFC 1123 label).
const MAX_LABEL: usize = 63;
/// Longest name of a Lease, in characters (RFC 1123 subdomain).
const MAX_SUBDOMAIN: usize = 253;

/// `[kubernetes]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kubernetes {
    /// File with credentials; without it those of the environment are used.
    pub kubeconfig: Option<PathBuf>,
    /// Context of that file; without it the current one.
    pub context: Option<String>,
    /// Namespaces that are read. Empty: all.
    pub namespaces: Vec<String>,
    /// What `service.kubernetes.io/service-proxy-name` calls this gateway.
    pub proxy_name: Option<String>,
    /// How one of several gateways is elected to write; without it this one writes.
    pub election: Option<Election>,
}

/// `[kubernetes.election]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Election {
    /// Namespace of the Lease; without it that of the credentials.
    pub namespace: Option<String>,
    /// Name of the Lease.
    pub name: String,
    /// This gateway; without it the name of the host.
    pub identity: Option<String>,
}

impl Default for Election {
    fn default() -> Self {
        Self {
            namespace: None,
            name: "sluice-gateway".to_owned(),
            identity: None,
        }
    }
}

impl Kubernetes {
    pub(super) fn check(&self) -> Result<(), Impossible> {
        if self.context.is_some() && self.kubeconfig.is_none() {
            let message = "a context is one of a file; write kubernetes.kubeconfig, too";
            return Err(Impossible::new("kubernetes.context", message));
        }
        let mut known = BTreeSet::new();
        for (index, namespace) in self.namespaces.iter().enumerate() {
            let key = format!("kubernetes.namespaces[{index}]");
            label(&key, namespace)?;
            if !known.insert(namespace) {
                let message = format!("{namespace:?} is named twice; name it once");
                return Err(Impossible::new(key, message));
            }
        }
        if self.proxy_name.as_ref().is_some_and(String::is_empty) {
            let message = "no Service can carry an empty name; leave the key out instead";
            return Err(Impossible::new("kubernetes.proxy_name", message));
        }
        self.election.as_ref().map_or(Ok(()), Election::check)
    }
}

impl Election {
    fn check(&self) -> Result<(), Impossible> {
        if let Some(namespace) = &self.namespace {
            label("kubernetes.election.namespace", namespace)?;
        }
        let is_name = self.name.len() <= MAX_SUBDOMAIN && self.name.split('.').all(is_label);
        if !is_name {
            let name = &self.name;
            let message = format!("{name:?} is not a name of a Lease; use a-z, 0-9, - and .");
            return Err(Impossible::new("kubernetes.election.name", message));
        }
        if self.identity.as_ref().is_some_and(String::is_empty) {
            let message = "an empty identity holds no Lease; leave the key out instead";
            return Err(Impossible::new("kubernetes.election.identity", message));
        }
        Ok(())
    }
}

fn label(key: &str, text: &str) -> Result<(), Impossible> {
    if is_label(text) {
        return Ok(());
    }
    let message =
        format!("{text:?} is not a name of a namespace; use at most {MAX_LABEL} of a-z, 0-9 and -");
    Err(Impossible::new(key, message))
}

/// Whether it is a label of RFC 1123, as Kubernetes names namespaces.
fn is_label(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=MAX_LABEL).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::super::Controlplane;
    use super::*;

    fn parse(text: &str) -> Result<Controlplane, String> {
        Controlplane::parse(text, "cp.toml").map_err(|error| error.to_string())
    }

    #[test]
    fn the_header_alone_reads_with_what_the_environment_has() {
        let settings = parse("[kubernetes]\n").unwrap();
        assert_eq!(settings.manifests, None);
        assert_eq!(settings.kubernetes, Some(Kubernetes::default()));
        let both = parse("[manifests]\nfolder = \"x\"\n[kubernetes.election]\n").unwrap();
        assert!(both.manifests.is_some());
        assert_eq!(both.kubernetes.unwrap().election, Some(Election::default()));
    }

    #[test]
    fn the_commented_section_of_the_example_is_valid() {
        let example = include_str!("../../../examples/controlplane.toml");
        let mut lines = example.lines().skip_while(|line| *line != "# [kubernetes]");
        let section = lines.by_ref().take_while(|line| !line.is_empty());
        let keys: Vec<&str> = section
            .filter_map(|line| line.strip_prefix("# "))
            .filter(|line| line.starts_with('[') || line.contains(" = "))
            .collect();
        let kubernetes = parse(&keys.join("\n")).unwrap().kubernetes.unwrap();
        assert_eq!(kubernetes.namespaces, ["shop", "mail"]);
        let election = kubernetes.election.unwrap();
        assert_eq!(election.name, Election::default().name);
        assert!(kubernetes.context.is_some() && kubernetes.proxy_name.is_some());
        assert!(election.namespace.is_some() && election.identity.is_some());
    }

    #[test]
    fn what_cannot_be_is_named_with_its_key() {
        for (text, error) in [
            (
                "",
                "cp.toml:1: manifests: Services come from nowhere; write manifests.folder, the section [kubernetes], or both",
            ),
            (
                "[kubernetes]\ncontext = \"a\"\n",
                "cp.toml:2: kubernetes.context: a context is one of a file; write kubernetes.kubeconfig, too",
            ),
            (
                "[kubernetes]\nnamespaces = [\"a\",\n\"a/b\"]\n",
                "cp.toml:3: kubernetes.namespaces[1]: \"a/b\" is not a name of a namespace; use at most 63 of a-z, 0-9 and -",
            ),
            (
                "[kubernetes]\nnamespaces = [\"a\", \"a\"]\n",
                "cp.toml:2: kubernetes.namespaces[1]: \"a\" is named twice; name it once",
            ),
            (
                "[kubernetes]\nproxy_name = \"\"\n",
                "cp.toml:2: kubernetes.proxy_name: no Service can carry an empty name; leave the key out instead",
            ),
            (
                "[kubernetes.election]\nname = \"a..b\"\n",
                "cp.toml:2: kubernetes.election.name: \"a..b\" is not a name of a Lease; use a-z, 0-9, - and .",
            ),
            (
                "[kubernetes.election]\nidentity = \"\"\n",
                "cp.toml:2: kubernetes.election.identity: an empty identity holds no Lease; leave the key out instead",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), error);
        }
    }
}
