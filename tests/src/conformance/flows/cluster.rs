//! The objects and settings of a case, and the table that the control plane makes of them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::Value;
use sluice_conf::settings::controlplane::{Defaults, SourceNatMode};
use sluice_conf::{Networks, Protocol, ServiceTable};
use sluice_controlplane::address;
use sluice_controlplane::compile::table_of;
use sluice_controlplane::rules::Rules;

use super::form::{Config, Scenario, Slice};
use super::{objects, strings};
use crate::conformance::Report;

/// Objects and settings.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Services.
    pub services: Vec<Service>,
    /// Slices.
    pub slices: Vec<EndpointSlice>,
    /// Settings.
    pub rules: Rules,
    /// Every address that the case names.
    pub taken: BTreeSet<IpAddr>,
}

/// What the control plane made of a [`Cluster`].
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The table.
    pub table: ServiceTable,
    /// What it could not serve, as a remark behind a failure.
    pub remark: String,
}

impl Cluster {
    /// The cluster of a scenario; unknown keys of its Services are noted.
    pub fn of_scenario(
        scenario: &Scenario,
        value: &Value,
        report: &mut Report,
        id: &str,
    ) -> Result<Self, String> {
        let mut services = Vec::new();
        for form in &scenario.services {
            let (service, unknown) = objects::service(form)?;
            for path in unknown {
                report.note(format!("{id}: unknown key {path} of a Service is not read"));
            }
            services.push(service);
        }
        Self::new(services, &scenario.endpoint_slices, &scenario.config, value)
    }

    /// The cluster of these objects; `value` is the whole case.
    pub fn new(
        services: Vec<Service>,
        slices: &[Slice],
        config: &Config,
        value: &Value,
    ) -> Result<Self, String> {
        let numbered = slices.iter().enumerate();
        let slices = numbered.map(|(number, slice)| objects::slice(slice, number));
        Ok(Self {
            services,
            slices: slices.collect::<Result<_, _>>()?,
            rules: rules(config)?,
            taken: strings(value).into_iter().flat_map(addresses).collect(),
        })
    }

    /// What the control plane makes of it.
    pub fn compile(&self) -> Compiled {
        let (table, problems) = table_of(self.services.clone(), self.slices.clone(), &self.rules);
        let told = problems.iter().map(|problem| problem.message.clone());
        let told = told.take(3).collect::<Vec<_>>().join("; ");
        let remark = match told.is_empty() {
            true => String::new(),
            false => format!(" (the control plane says: {told})"),
        };
        Compiled { table, remark }
    }

    /// So many addresses of a family that the case does not use, outside its networks if there is
    /// such a place.
    pub fn free(&self, ipv4: bool, count: usize) -> Vec<IpAddr> {
        let networks = &self.rules.networks;
        let all = [&networks.pods, &networks.nodes, &networks.services];
        let is_free = |address: &IpAddr| !self.taken.contains(address);
        let is_outside = |address: &IpAddr| {
            let mut networks = all.into_iter().flatten();
            !networks.any(|network| network.contains(address))
        };
        let outside = candidates(ipv4).filter(is_outside);
        let mut found: Vec<IpAddr> = outside.filter(is_free).take(count).collect();
        if found.len() < count {
            found = candidates(ipv4).filter(is_free).take(count).collect();
        }
        found
    }
}

impl Compiled {
    /// The Service at a front, if there is one.
    pub fn at(&self, front: SocketAddr, protocol: Protocol) -> Option<&sluice_conf::Service> {
        let mut services = self.table.services.iter().map(|service| &**service);
        services.find(|service| {
            let mut frontends = service.frontends.iter();
            service.name.protocol == protocol
                && frontends.any(|f| {
                    f.address == front.ip() && (f.port..=f.last_port).contains(&front.port())
                })
        })
    }
}

/// Networks for benchmarks (RFC 2544 appendix C.2.2, RFC 5180 section 8), which no cluster uses.
fn candidates(ipv4: bool) -> impl Iterator<Item = IpAddr> {
    let v4 = Ipv4Addr::new(198, 18, 0, 0).to_bits();
    let v6 = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0).to_bits();
    (1..0x1_0000_u32).map(move |number| match ipv4 {
        true => Ipv4Addr::from_bits(v4 + number).into(),
        false => Ipv6Addr::from_bits(v6 + u128::from(number)).into(),
    })
}

fn rules(config: &Config) -> Result<Rules, String> {
    let pods = match config.local_detector {
        true => config.pod_cidr.all().to_vec(),
        false => Vec::new(),
    };
    Ok(Rules {
        node_addresses: node_addresses(config)?,
        networks: Networks {
            pods,
            nodes: config.node_ips.iter().copied().map(IpNet::from).collect(),
            services: config.service_cidr.all().to_vec(),
        },
        local_nodes: BTreeSet::from([config.node_name.clone()]),
        zone: None,
        masquerade_all: config.masquerade_all,
        external_ips: [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Ipv6Addr::UNSPECIFIED.into(),
        ]
        .into_iter()
        .filter_map(|address| IpNet::new(address, 0).ok())
        .collect(),
        defaults: Defaults {
            source_nat: SourceNatMode::Kubernetes,
            ..Defaults::default()
        },
    })
}

fn node_addresses(config: &Config) -> Result<Vec<IpAddr>, String> {
    let written = config.node_port_addresses.all();
    if written.is_empty() || written.iter().any(|word| word == "all") {
        return Ok(config.node_ips.clone());
    }
    let networks = written.iter().map(|text| {
        let host = || text.parse().map(|host: IpAddr| IpNet::from(host));
        let network = text.parse::<IpNet>().or_else(|_| host());
        network.map_err(|_| format!("config.nodePortAddresses: {text:?} is not a network"))
    });
    let networks: Vec<IpNet> = networks.collect::<Result<_, _>>()?;
    let selected = |ip: &&IpAddr| networks.iter().any(|network| network.contains(*ip));
    Ok(config.node_ips.iter().filter(selected).copied().collect())
}

/// The address in a word like `10.0.0.1`, `10.0.0.1:80`, `10.0.0.0/8` or `10.0.0.1:80/TCP`.
fn addresses(word: &str) -> Option<IpAddr> {
    let word = word.trim();
    let front = word.split_once('/').map_or(word, |(front, _)| front);
    let end = || front.parse().ok().map(|end: SocketAddr| end.ip());
    address::address(front).or_else(end)
}
