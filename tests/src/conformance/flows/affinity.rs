//! Session affinity: who stays with which endpoint, and how long.
//!
//! The Service gets more endpoints and a second port than the case gives it, so that there is
//! something to choose. Many clients connect through every front, again and again, while endpoints
//! come and go and time passes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1 as discovery;
use serde::Deserialize;
use serde_json::Value;
use sluice_conf::{Protocol, ServiceTable};

use super::cluster::{Cluster, Compiled};
use super::form::{Config, Scenario, Slice, nullable};
use super::gateway::Gateway;
use super::{flow, objects, probe};
use crate::conformance::document::{self, Case};

/// What is expected of a Service.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Affinity {
    /// `NAMESPACE/NAME of scenario ID`, or a Service in short form.
    service: Value,
    #[serde(default)]
    config: Config,
    #[serde(default, deserialize_with = "nullable")]
    endpoint_slices: Vec<Slice>,
    expect: Expect,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Expect {
    sticky_key: Option<String>,
    scope: Option<String>,
    timeout_seconds: u32,
    stored_per: Option<String>,
    refreshed_on: Option<String>,
}

/// Name and number of the second port.
const SECOND: (&str, i32) = ("conformance-second", 9);

/// Clients; that all of them choose the same of several endpoints again by chance is impossible.
const CLIENTS: usize = 64;
/// Fewer than this may choose alike by chance.
const MANY: usize = 32;

/// Endpoints that come first and later.
const EXTRA: [usize; 2] = [4, 8];

/// Judges a Service, for each family that it has.
pub fn judge(fact: &Affinity, value: &Value, scenarios: &[Case<'_>]) -> Result<(), String> {
    fact.expect.is_understood()?;
    let (cluster, name) = cluster(fact, value, scenarios)?;
    let mut judged = false;
    for ipv4 in [true, false] {
        let Some(trial) = Trial::new(&cluster, &name, ipv4)? else {
            continue;
        };
        trial.judge(fact.expect.timeout_seconds)?;
        judged = true;
    }
    match judged {
        true => Ok(()),
        false => Err(format!(
            "Service {} has no front or no slice",
            name.join("/")
        )),
    }
}

impl Expect {
    fn is_understood(&self) -> Result<(), String> {
        let known = [
            ("stickyKey", &self.sticky_key, "client source address"),
            ("scope", &self.scope, "service port"),
            ("storedPer", &self.stored_per, "endpoint"),
            ("refreshedOn", &self.refreshed_on, "every new connection"),
        ];
        for (key, written, wanted) in known {
            if let Some(written) = written
                && written != wanted
            {
                return Err(format!("{key} {written:?} is unknown; known is {wanted:?}"));
            }
        }
        Ok(())
    }
}

fn cluster(
    fact: &Affinity,
    value: &Value,
    scenarios: &[Case<'_>],
) -> Result<(Cluster, [String; 2]), String> {
    let Value::String(reference) = &fact.service else {
        let (service, _) = objects::service(&fact.service)?;
        let name = name_of(&service);
        let cluster = Cluster::new(vec![service], &fact.endpoint_slices, &fact.config, value)?;
        return Ok((cluster, name));
    };
    let wrong = || format!("service {reference:?}: write NAMESPACE/NAME of scenario ID");
    let (name, id) = reference.split_once(" of scenario ").ok_or_else(wrong)?;
    let (namespace, name) = name.split_once('/').ok_or_else(wrong)?;
    let case = scenarios.iter().find(|case| case.id == id);
    let case = case.ok_or_else(|| format!("there is no scenario {id:?}"))?;
    let (scenario, _) = document::parse::<Scenario>(case.value())?;
    let forms = scenario.services.iter().map(objects::service);
    let services = forms.map(|form| form.map(|(service, _)| service));
    let cluster = Cluster::new(
        services.collect::<Result<_, _>>()?,
        &scenario.endpoint_slices,
        &scenario.config,
        case.value(),
    )?;
    Ok((cluster, [namespace.to_owned(), name.to_owned()]))
}

fn name_of(service: &Service) -> [String; 2] {
    let metadata = &service.metadata;
    [&metadata.namespace, &metadata.name].map(|name| name.clone().unwrap_or_default())
}

/// One Service, one family.
struct Trial {
    cluster: Cluster,
    name: [String; 2],
    ipv4: bool,
    protocol: Protocol,
    fronts: Vec<SocketAddr>,
    second: Vec<SocketAddr>,
    clients: Vec<IpAddr>,
    extra: Vec<IpAddr>,
}

impl Trial {
    fn new(cluster: &Cluster, name: &[String; 2], ipv4: bool) -> Result<Option<Self>, String> {
        let mut cluster = cluster.clone();
        let mut services = cluster.services.iter_mut();
        let service = services.find(|service| name_of(service) == *name);
        let service = service.ok_or_else(|| format!("there is no Service {}", name.join("/")))?;
        let ports = service.spec.as_mut().and_then(|spec| spec.ports.as_mut());
        let ports = ports.ok_or("the Service has no port")?;
        add_port(ports);
        let compiled = cluster.compile();
        let [first, second] = [false, true].map(|second| {
            let mut services = compiled.table.services.iter();
            services.find(|service| {
                let is_second = service.name.port == SECOND.0;
                [&service.name.namespace, &service.name.name] == [&name[0], &name[1]]
                    && is_second == second
            })
        });
        let first = first.ok_or_else(|| format!("it is not served{}", compiled.remark))?;
        let of_family = |service: &sluice_conf::Service| -> Vec<SocketAddr> {
            let frontends = service
                .frontends
                .iter()
                .filter(|f| f.address.is_ipv4() == ipv4);
            frontends
                .map(|f| SocketAddr::new(f.address, f.port))
                .collect()
        };
        let fronts = of_family(first);
        let slices = cluster.slices.iter();
        let has_slice = slices
            .filter(|slice| belongs(slice, name))
            .any(|s| is_of(s, ipv4));
        if fronts.is_empty() || !has_slice {
            return Ok(None);
        }
        // Two addresses are the gateway's.
        let free = cluster.free(ipv4, 2 + EXTRA[0] + EXTRA[1] + 1).split_off(2);
        let (extra, base) = free.split_at(free.len().saturating_sub(1));
        let clients = clients(&cluster, &compiled, first, base, ipv4);
        Ok(Some(Self {
            protocol: first.name.protocol,
            second: second.map(|second| of_family(second)).unwrap_or_default(),
            extra: extra.to_vec(),
            name: name.clone(),
            cluster,
            ipv4,
            fronts,
            clients,
        }))
    }

    /// The table with so many more endpoints, without those that are gone.
    fn table(&self, extra: usize, gone: &BTreeSet<IpAddr>) -> Compiled {
        let mut cluster = self.cluster.clone();
        let local = cluster.rules.local_nodes.first().cloned();
        let slices = cluster.slices.iter_mut();
        let slices = slices.filter(|slice| belongs(slice, &self.name) && is_of(slice, self.ipv4));
        for (number, slice) in slices.enumerate() {
            add_slice_port(slice, self.protocol);
            let endpoints = slice.endpoints.get_or_insert_default();
            let fresh = self.extra.iter().take(if number == 0 { extra } else { 0 });
            endpoints.extend(fresh.map(|address| discovery::Endpoint {
                addresses: vec![address.to_string()],
                node_name: local.clone(),
                ..discovery::Endpoint::default()
            }));
            endpoints.retain(|endpoint| {
                let first = endpoint
                    .addresses
                    .first()
                    .and_then(|text| text.parse().ok());
                first.is_none_or(|address: IpAddr| !gone.contains(&address))
            });
        }
        cluster.compile()
    }

    fn judge(&self, seconds: u32) -> Result<(), String> {
        let nobody = BTreeSet::new();
        let all = EXTRA[0] + EXTRA[1];
        let (few, many) = (self.table(EXTRA[0], &nobody), self.table(all, &nobody));
        let backends = many
            .table
            .services
            .iter()
            .flat_map(|service| &service.backends);
        let endpoints = backends.map(|backend| backend.address).collect();
        let connections = 16 * self.clients.len() * (self.fronts.len() + self.second.len());
        let mut run = Run {
            gateway: Gateway::new(&self.cluster, endpoints, connections)?,
            trial: self,
            port: probe::FIRST_PORT,
        };
        self.has_timeout(&few.table, seconds)?;
        run.gateway.apply(&few.table)?;
        let homes = run.homes()?;
        run.stay(&homes, "through every front and port")?;
        run.gateway.apply(&many.table)?;
        run.stay(&homes, "when endpoints were added")?;
        run.second_port_is_apart(&homes)?;
        // Twice, so that the second time it counts that the first was a new connection.
        for _ in 0..2 {
            run.gateway.pass(u64::from(seconds).saturating_sub(1));
            run.stay(&homes, "within the timeout since the last new connection")?;
        }
        run.gateway.pass(u64::from(seconds) + 1);
        let moved = run.homes()?;
        if self.clients.len() >= MANY && moved == homes {
            return Err(format!(
                "expected some client to move after {seconds} s, seen none"
            ));
        }
        run.endpoint_goes(&moved)
    }

    fn has_timeout(&self, table: &ServiceTable, seconds: u32) -> Result<(), String> {
        let mut services = table.services.iter();
        let service = services.find(|service| service.name.name == self.name[1]);
        match service.and_then(|service| service.affinity_seconds) {
            Some(found) if found == seconds => Ok(()),
            found => Err(format!("expected a timeout of {seconds} s, seen {found:?}")),
        }
    }
}

/// A trial that is being played.
struct Run<'a> {
    gateway: Gateway,
    trial: &'a Trial,
    port: u16,
}

type Homes = BTreeMap<IpAddr, SocketAddr>;

impl Run<'_> {
    fn connect(&mut self, client: IpAddr, front: SocketAddr) -> Result<SocketAddr, String> {
        let client = SocketAddr::new(client, self.port);
        probe::open(&mut self.gateway, self.trial.protocol, client, front).map(|seen| seen.endpoint)
    }

    /// Where each client is given now, by the first front.
    fn homes(&mut self) -> Result<Homes, String> {
        self.port += 1;
        let front = *self.trial.fronts.first().ok_or("there is no front")?;
        let clients = self.trial.clients.iter();
        clients
            .map(|client| Ok((*client, self.connect(*client, front)?)))
            .collect()
    }

    /// Every client is given the same endpoint by every front.
    fn stay(&mut self, homes: &Homes, when: &str) -> Result<(), String> {
        for front in &self.trial.fronts {
            self.port += 1;
            for (client, home) in homes {
                let found = self.connect(*client, *front)?;
                if found != *home {
                    return Err(format!(
                        "expected {client} to stay at {home} {when}, seen {found} by {front}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Another port of the Service remembers for itself.
    fn second_port_is_apart(&mut self, homes: &Homes) -> Result<(), String> {
        self.port += 1;
        let Some(front) = self.trial.second.first().copied() else {
            return Ok(());
        };
        let mut apart = false;
        for (client, home) in homes {
            apart |= self.connect(*client, front)?.ip() != home.ip();
        }
        match apart || homes.len() < MANY {
            true => Ok(()),
            false => Err("expected another port of the Service to choose for itself".to_owned()),
        }
    }

    /// The endpoint of some clients goes: they move, the others stay.
    fn endpoint_goes(&mut self, homes: &Homes) -> Result<(), String> {
        let gone = *homes.values().next().ok_or("there is no client")?;
        let compiled = self
            .trial
            .table(EXTRA[0] + EXTRA[1], &BTreeSet::from([gone.ip()]));
        self.gateway.apply(&compiled.table)?;
        for (client, found) in self.homes()? {
            let home = homes.get(&client).copied();
            if found == gone {
                return Err(format!("{client} still reaches {gone}, which is gone"));
            }
            if home != Some(gone) && home != Some(found) {
                return Err(format!(
                    "{client} moved to {found} though its endpoint stayed"
                ));
            }
        }
        Ok(())
    }
}

/// Clients that may use every front.
fn clients(
    cluster: &Cluster,
    compiled: &Compiled,
    service: &sluice_conf::Service,
    base: &[IpAddr],
    ipv4: bool,
) -> Vec<IpAddr> {
    let is_guarded = service.frontends.iter().any(|frontend| frontend.guarded);
    let ranges = service.source_ranges.iter();
    let ranges = ranges.filter(|range| range.addr().is_ipv4() == ipv4);
    let widest = ranges.min_by_key(|range| range.prefix_len());
    let is_free = |address: &IpAddr| !cluster.taken.contains(address);
    let admitted = widest.and_then(|range| range.hosts().take(1 << 16).find(is_free));
    let first = match is_guarded {
        true => admitted,
        false => base.first().copied(),
    };
    let networks = flow::networks(cluster, compiled);
    let like = first.map(|first| {
        let taken = |address: &IpAddr| cluster.taken.contains(address);
        probe::clients_like(first, &networks, taken)
            .take(CLIENTS)
            .collect()
    });
    like.unwrap_or_default()
}

/// A second port; with two, both need names.
fn add_port(ports: &mut Vec<ServicePort>) {
    let (name, number) = SECOND;
    let protocol = ports.first().and_then(|port| port.protocol.clone());
    for port in ports.iter_mut() {
        port.name.get_or_insert_default();
        if port.name.as_deref() == Some("") {
            port.name = Some(ONLY.to_owned());
        }
    }
    ports.push(ServicePort {
        name: Some(name.to_owned()),
        port: number,
        protocol,
        ..ServicePort::default()
    });
}

/// What a port without a name is called instead.
const ONLY: &str = "conformance-only";

fn add_slice_port(slice: &mut discovery::EndpointSlice, protocol: Protocol) {
    let ports = slice.ports.get_or_insert_default();
    for port in ports.iter_mut() {
        if port.name.as_deref().unwrap_or_default().is_empty() {
            port.name = Some(ONLY.to_owned());
        }
    }
    ports.push(discovery::EndpointPort {
        name: Some(SECOND.0.to_owned()),
        port: Some(SECOND.1),
        protocol: Some(protocol.to_string()),
        ..discovery::EndpointPort::default()
    });
}

fn belongs(slice: &discovery::EndpointSlice, name: &[String; 2]) -> bool {
    let labels = slice.metadata.labels.as_ref();
    let of = labels.and_then(|labels| labels.get("kubernetes.io/service-name"));
    slice.metadata.namespace.as_ref() == Some(&name[0]) && of == Some(&name[1])
}

fn is_of(slice: &discovery::EndpointSlice, ipv4: bool) -> bool {
    slice.address_type == if ipv4 { "IPv4" } else { "IPv6" }
}
