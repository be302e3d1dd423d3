//! What is answered, as the settings say it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hickory_proto::rr::Name;
use sluice_conf::settings::controlplane as settings;

/// What the names of a zone stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// What the Kubernetes DNS specification defines.
    Cluster,
    /// Addresses of Services outside the cluster.
    External,
    /// Names of addresses.
    Reverse,
}

/// A zone that is answered for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Its name, with the root.
    pub name: Name,
    /// What its names stand for.
    pub view: View,
}

/// Whether Pods have names of their own (`1-2-3-4.NAMESPACE.pod.ZONE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pods {
    /// None has.
    #[default]
    Disabled,
    /// Every address has, whether there is such a Pod or not.
    Insecure,
    /// Those that are known have.
    Verified,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The zones.
    pub origins: Vec<Origin>,
    /// Whether headless Services have names in external zones.
    pub external_headless: bool,
    /// Namespaces that are answered for; empty: all.
    pub namespaces: BTreeSet<String>,
    /// Names of Pods.
    pub pods: Pods,
    /// Whether a Service without endpoints has no name.
    pub ignore_empty_service: bool,
    /// How long answers hold, in seconds.
    pub ttl: u32,
    /// Addresses of this server.
    pub addresses: Vec<IpAddr>,
    /// Whether `ZONE.pin._zone.SERVICE` names the endpoints of a topology zone.
    pub zonal_names: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self::new(
            &[Name::from_labels([&b"cluster"[..], b"local"]).unwrap_or_default()],
            &[],
        )
    }
}

impl From<&settings::Dns> for Options {
    fn from(settings: &settings::Dns) -> Self {
        // Listened at, unless that stands for any address.
        let listening = settings.listen.iter().map(|listen| listen.ip());
        let listening = listening.filter(|address| !address.is_unspecified());
        let addresses = match settings.addresses.is_empty() {
            true => listening.collect(),
            false => settings.addresses.clone(),
        };
        let names = |names: &[String]| -> Vec<Name> {
            let names = names.iter().filter_map(|name| zone(name));
            names.collect()
        };
        Self {
            external_headless: settings.external_headless,
            namespaces: settings.namespaces.iter().cloned().collect(),
            pods: match settings.pods {
                settings::PodNames::Disabled => Pods::Disabled,
                settings::PodNames::Insecure => Pods::Insecure,
                settings::PodNames::Verified => Pods::Verified,
            },
            ignore_empty_service: settings.ignore_empty_service,
            ttl: settings.ttl,
            addresses,
            zonal_names: settings.zonal_names,
            ..Self::new(&names(&settings.zones), &names(&settings.external_zones))
        }
    }
}

impl Options {
    /// Answers for these zones as CoreDNS does by default; those below `arpa` are reverse zones.
    pub fn new(zones: &[Name], external: &[Name]) -> Self {
        let cluster = zones.iter().map(|name| Origin {
            name: name.clone(),
            view: match is_reverse(name) {
                true => View::Reverse,
                false => View::Cluster,
            },
        });
        let external = external.iter().map(|name| Origin {
            name: name.clone(),
            view: View::External,
        });
        Self {
            origins: cluster.chain(external).collect(),
            external_headless: false,
            namespaces: BTreeSet::new(),
            pods: Pods::Disabled,
            ignore_empty_service: false,
            ttl: 5,
            addresses: Vec::new(),
            zonal_names: false,
        }
    }

    /// The zone that a name is in: of several the innermost.
    pub fn origin(&self, name: &Name) -> Option<&Origin> {
        let holding = self.origins.iter().filter(|o| is_below(name, &o.name));
        holding.max_by_key(|origin| origin.name.iter().count())
    }

    /// The zone that reverse names lead to.
    pub fn primary(&self) -> Option<&Name> {
        self.first(View::Cluster)
    }

    /// The first zone of external addresses.
    pub fn external(&self) -> Option<&Name> {
        self.first(View::External)
    }

    fn first(&self, view: View) -> Option<&Name> {
        let mut origins = self.origins.iter();
        origins.find(|o| o.view == view).map(|origin| &origin.name)
    }

    /// Whether a namespace is answered for.
    pub fn exposes(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.contains(namespace)
    }
}

/// A zone's name as it is written, with or without its last dot.
pub fn zone(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name).filter(|name| !name.is_root())
}

/// Whether a name is `origin` or below it; the case of letters does not count.
pub fn is_below(name: &Name, origin: &Name) -> bool {
    let mut labels = name.iter().rev();
    origin.iter().rev().all(|label| {
        let of_name = labels.next();
        of_name.is_some_and(|of_name| of_name.eq_ignore_ascii_case(label))
    })
}

fn is_reverse(name: &Name) -> bool {
    let last = name.iter().next_back();
    last.is_some_and(|label| label.eq_ignore_ascii_case(b"arpa"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        zone(text).unwrap()
    }

    #[test]
    fn the_innermost_zone_holds_a_name_whatever_its_case() {
        let options = Options::new(
            &[name("cluster.local."), name("10.in-addr.arpa")],
            &[name("local"), name("x.cluster.local")],
        );
        let view = |text: &str| options.origin(&name(text)).map(|origin| origin.view);
        assert_eq!(view("a.CLUSTER.Local"), Some(View::Cluster));
        assert_eq!(view("cluster.local"), Some(View::Cluster));
        assert_eq!(view("a.x.cluster.local"), Some(View::External));
        assert_eq!(view("printer.local"), Some(View::External));
        assert_eq!(view("1.0.0.10.IN-addr.arpa"), Some(View::Reverse));
        assert_eq!(view("1.0.0.11.in-addr.arpa"), None);
        assert_eq!(view("xcluster.example"), None);
        assert_eq!(options.primary(), Some(&name("cluster.local")));
    }
}
