//! Settings of the DNS server.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::super::load::Impossible;

/// `[dns]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// Addresses of the server, by UDP and TCP. Empty: there is none.
    pub listen: Vec<SocketAddr>,
    /// Zones of the cluster; the first also holds what reverse names lead to. Those below `arpa`
    /// are reverse zones.
    pub zones: Vec<String>,
    /// Zones that hold addresses outside the cluster.
    pub external_zones: Vec<String>,
    /// Whether headless Services have names in external zones.
    pub external_headless: bool,
    /// Namespaces that are answered for. Empty: all.
    pub namespaces: Vec<String>,
    /// Whether Pods have names of their own.
    pub pods: PodNames,
    /// Whether a Service without ready endpoints has no name.
    pub ignore_empty_service: bool,
    /// How long answers hold, in seconds, within [`Dns::TTL`].
    pub ttl: u32,
    /// Addresses of this server as clients know it. Empty: those of `listen`.
    pub addresses: Vec<IpAddr>,
    /// Whether `ZONE.pin._zone.SERVICE` and `ZONE.prefer._zone.SERVICE` name the endpoints of a
    /// topology zone.
    pub zonal_names: bool,
    /// Whether a headless Service is answered with the endpoints that are hinted for the zone of
    /// `cluster.zone`, where all have hints.
    pub zonal_answers: bool,
    /// Answers that a network (/24, /56) gets in a second by UDP. Absent: any number.
    pub responses_per_second: Option<u32>,
    /// Whom to ask about what is in no zone.
    pub forward: Forward,
    /// Questions by TCP.
    pub tcp: Tcp,
}

impl Dns {
    /// What [`Dns::ttl`] can be.
    pub const TTL: RangeInclusive<u32> = 0..=3600;
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 5353))],
            zones: vec!["cluster.local.".to_owned()],
            external_zones: Vec::new(),
            external_headless: false,
            namespaces: Vec::new(),
            pods: PodNames::Disabled,
            ignore_empty_service: false,
            ttl: 5,
            addresses: Vec::new(),
            zonal_names: false,
            zonal_answers: false,
            responses_per_second: None,
            forward: Forward::default(),
            tcp: Tcp::default(),
        }
    }
}

/// Whether Pods have names of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PodNames {
    /// None has.
    Disabled,
    /// Every address has, whether there is such a Pod or not.
    Insecure,
    /// The addresses of known Pods have.
    Verified,
}

/// `[dns.forward]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Forward {
    /// Servers that are asked. Empty: what is in no zone is refused.
    pub upstreams: Vec<SocketAddr>,
    /// Answers of theirs that are kept, while they hold.
    pub cache: u32,
    /// How long they may take, in seconds, at least 1.
    pub timeout_seconds: u16,
    /// Questions that wait for them at a time, at least 1.
    pub pending: u16,
}

impl Default for Forward {
    fn default() -> Self {
        Self {
            upstreams: Vec::new(),
            cache: 8192,
            timeout_seconds: 2,
            pending: 1024,
        }
    }
}

/// `[dns.tcp]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tcp {
    /// Connections at a time, at least 1.
    pub connections: u16,
    /// How long a connection may be silent, in seconds, at least 1.
    pub idle_seconds: u16,
}

impl Default for Tcp {
    fn default() -> Self {
        Self {
            connections: 512,
            idle_seconds: 10,
        }
    }
}

impl Dns {
    pub(super) fn check(&self) -> Result<(), Impossible> {
        let refuse = |key: String, message: String| {
            let key = format!("dns.{key}");
            Err(Impossible::new(key, message))
        };
        for (key, zones) in [
            ("zones", &self.zones),
            ("external_zones", &self.external_zones),
        ] {
            let wrong = zones.iter().position(|zone| !is_zone(zone));
            if let Some((index, zone)) = wrong.and_then(|index| Some((index, zones.get(index)?))) {
                let message = format!("{zone:?} is not a zone; write for example cluster.local.");
                return refuse(format!("{key}[{index}]"), message);
            }
        }
        if !Self::TTL.contains(&self.ttl) {
            let most = Self::TTL.end();
            let message = format!("{} is too long; use 0 to {most}", self.ttl);
            return refuse("ttl".to_owned(), message);
        }
        let least = [
            ("forward.timeout_seconds", self.forward.timeout_seconds),
            ("forward.pending", self.forward.pending),
            ("tcp.connections", self.tcp.connections),
            ("tcp.idle_seconds", self.tcp.idle_seconds),
        ];
        if let Some((key, _)) = least.iter().find(|(_, value)| *value == 0) {
            let message = "0 leaves nothing; use 1 to 65535".to_owned();
            return refuse((*key).to_owned(), message);
        }
        if self.responses_per_second == Some(0) {
            let message = "0 answers nobody; use 1 or more, or no key".to_owned();
            return refuse("responses_per_second".to_owned(), message);
        }
        let own = |upstream: &SocketAddr| self.listen.contains(upstream);
        match self.forward.upstreams.iter().position(own) {
            Some(index) => refuse(
                format!("forward.upstreams[{index}]"),
                "is this server itself (dns.listen); it would ask itself for ever".to_owned(),
            ),
            None => Ok(()),
        }
    }
}

/// Whether `text` is a domain name that can be a zone (RFC 1035, section 2.3.1; underscores happen).
fn is_zone(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let of_label = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(of_label);
    text.len() <= 253 && text.split('.').all(is_label)
}
