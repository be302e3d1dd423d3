//! The life history of a cluster: after each step, who is reached and who is refused.
//!
//! What a step does is told in prose, so it is not read: the objects of a step are those that make
//! exactly its `routes` and `rejected`, one Service for each address. One gateway lives through all
//! steps, so that what is tested is the change. A front that was there before, or that `services`
//! names, and is neither routed nor rejected now must reach nobody.
//!
//! Beside the new connections of each step, one established connection for each endpoint is kept:
//! it must go on while its front routes to its endpoint, and end when the endpoint goes: TCP with a
//! reset to the client.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;
use serde_json::{Value, json};
use sluice_conf::Protocol;

use super::cluster::Cluster;
use super::flow::list;
use super::form::{Config, Endpoint, Listed, Slice, SlicePort, nullable, protocol_of};
use super::gateway::{Fate, Gateway};
use super::objects;
use super::probe::{self, Conversation};
use super::wire::{Seen, Stage};

/// A life history.
#[derive(Debug, Deserialize)]
pub struct Life {
    /// Fronts by the Service that has them.
    #[serde(default, deserialize_with = "nullable")]
    services: BTreeMap<String, Listed<Front>>,
    /// The cluster.
    #[serde(default)]
    config: Config,
    /// What happens.
    #[serde(default, deserialize_with = "nullable")]
    steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Deserialize)]
struct Step {
    /// What is done, in prose.
    #[serde(rename = "do", default)]
    told: String,
    /// Who is reached.
    #[serde(default, deserialize_with = "nullable")]
    routes: BTreeMap<Front, BTreeSet<SocketAddr>>,
    /// Who refuses.
    #[serde(default, deserialize_with = "nullable")]
    rejected: BTreeSet<Front>,
}

/// What clients talk to, written `10.0.0.1:80/TCP`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
struct Front(SocketAddr, Protocol);

impl TryFrom<String> for Front {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a front; write ADDRESS:PORT/PROTOCOL");
        let (end, protocol) = text.rsplit_once('/').ok_or_else(wrong)?;
        Ok(Front(
            end.parse().map_err(|_| wrong())?,
            protocol_of(protocol)?,
        ))
    }
}

impl fmt::Display for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, self.1)
    }
}

/// Plays it through.
pub fn judge(life: &Life, value: &Value) -> Result<(), String> {
    let routes = || life.steps.iter().flat_map(|step| &step.routes);
    let endpoints: BTreeSet<IpAddr> = routes()
        .flat_map(|(_, ends)| ends)
        .map(SocketAddr::ip)
        .collect();
    let connections: usize = routes().map(|(_, ends)| probe::enough(ends.len())).sum();
    let place = Cluster::new(Vec::new(), &[], &life.config, value)?;
    let mut player = Player {
        gateway: Gateway::new(&place, endpoints, 2 * connections)?,
        // Two addresses are the gateway's.
        clients: [true, false].map(|ipv4| place.free(ipv4, life.steps.len() + 3).split_off(2)),
        known: life
            .services
            .values()
            .flat_map(|fronts| fronts.all().to_vec())
            .collect(),
        held: Vec::new(),
    };
    for (number, step) in life.steps.iter().enumerate() {
        let compiled = Cluster {
            taken: place.taken.clone(),
            ..step.cluster(&life.config, value)?
        };
        let compiled = compiled.compile();
        let result = player.gateway.apply(&compiled.table).and_then(|sent| {
            player.follow(step, &sent)?;
            player.step(step, number)
        });
        result.map_err(|error| {
            let remark = &compiled.remark;
            format!("step {} ({}): {error}{remark}", number + 1, step.told)
        })?;
    }
    Ok(())
}

impl Step {
    /// The objects that make this step's routes and refusals.
    fn cluster(&self, config: &Config, value: &Value) -> Result<Cluster, String> {
        let fronts: BTreeSet<Front> = self.routes.keys().chain(&self.rejected).copied().collect();
        if let Some(front) = self
            .rejected
            .iter()
            .find(|front| self.routes.contains_key(front))
        {
            return Err(format!("{front} is both routed and rejected"));
        }
        let mut by_address: BTreeMap<IpAddr, Vec<Front>> = BTreeMap::new();
        for front in fronts {
            by_address.entry(front.0.ip()).or_default().push(front);
        }
        let services = by_address.iter().map(|(address, fronts)| {
            let ports = fronts.iter().map(|front| {
                let (port, protocol) = (front.0.port(), front.1.to_string());
                json!({"name": port_name(*front), "port": port, "protocol": protocol})
            });
            let form = json!({
                "namespace": "default",
                "name": service_name(*address),
                "type": "ClusterIP",
                "clusterIP": address,
                "ports": ports.collect::<Vec<_>>(),
            });
            objects::service(&form).map(|(service, _)| service)
        });
        let slices: Vec<Slice> = self
            .routes
            .iter()
            .flat_map(|(f, ends)| slices(*f, ends))
            .collect();
        Cluster::new(services.collect::<Result<_, _>>()?, &slices, config, value)
    }
}

fn port_name(front: Front) -> String {
    format!("p{}-{}", front.0.port(), front.1).to_lowercase()
}

fn service_name(address: IpAddr) -> String {
    format!("front-{address}-vip").replace(['.', ':'], "-")
}

/// Slices of a front: one for each port that its endpoints have.
fn slices(front: Front, endpoints: &BTreeSet<SocketAddr>) -> Vec<Slice> {
    let mut by_port: BTreeMap<u16, Vec<Endpoint>> = BTreeMap::new();
    for end in endpoints {
        by_port.entry(end.port()).or_default().push(Endpoint {
            addresses: vec![end.ip().to_string()],
            ..Endpoint::default()
        });
    }
    let slice = |(port, endpoints): (u16, Vec<Endpoint>)| Slice {
        service: format!("default/{}", service_name(front.0.ip())),
        _number: None,
        address_type: None,
        ports: vec![SlicePort {
            name: Some(port_name(front)),
            port: Some(i32::from(port)),
            protocol: Some(front.1.to_string()),
        }],
        endpoints,
    };
    by_port.into_iter().map(slice).collect()
}

struct Player {
    gateway: Gateway,
    /// A client for each step, of IPv4 and of IPv6.
    clients: [Vec<IpAddr>; 2],
    /// Fronts that there were or will be.
    known: BTreeSet<Front>,
    /// Established connections.
    held: Vec<Conversation>,
}

impl Player {
    /// New connections of one step.
    fn step(&mut self, step: &Step, number: usize) -> Result<(), String> {
        for (front, endpoints) in &step.routes {
            self.routed(*front, endpoints, number)?;
        }
        for front in &step.rejected {
            let client = self.client(*front, number, probe::FIRST_PORT)?;
            probe::refused(&mut self.gateway, front.1, client, front.0)
                .map_err(|error| format!("{front}: {error}"))?;
        }
        self.known.extend(step.routes.keys().chain(&step.rejected));
        for front in self.known.clone() {
            if step.routes.contains_key(&front) || step.rejected.contains(&front) {
                continue;
            }
            let client = self.client(front, number, probe::FIRST_PORT)?;
            let fate = probe::fate(&mut self.gateway, front.1, client, front.0)?;
            if let Fate::Sent(frames) = &fate
                && frames
                    .iter()
                    .any(|seen| matches!(seen, Seen::Segment { .. }))
            {
                return Err(format!("expected {front} to reach nobody, seen: {fate}"));
            }
        }
        Ok(())
    }

    /// New connections to a front reach all its endpoints and nothing else.
    fn routed(
        &mut self,
        front: Front,
        endpoints: &BTreeSet<SocketAddr>,
        number: usize,
    ) -> Result<(), String> {
        let mut reached = BTreeSet::new();
        for port in probe::ports(probe::enough(endpoints.len())) {
            let client = self.client(front, number, port)?;
            let seen = probe::converse(&mut self.gateway, front.1, client, front.0)
                .map_err(|error| format!("{front}: {error}"))?;
            if reached.insert(seen.endpoint) {
                self.held.push(seen);
            }
        }
        match reached == *endpoints {
            true => Ok(()),
            false => Err(format!(
                "expected {front} to reach {}, seen {}",
                list(endpoints),
                list(&reached)
            )),
        }
    }

    fn client(&self, front: Front, number: usize, port: u16) -> Result<SocketAddr, String> {
        let [v4, v6] = &self.clients;
        let clients = if front.0.is_ipv4() { v4 } else { v6 };
        let client = clients
            .get(number)
            .ok_or("there is no address left for a client")?;
        Ok(SocketAddr::new(*client, port))
    }

    /// What becomes of established connections; `sent` left when the table changed.
    fn follow(&mut self, step: &Step, sent: &[Seen]) -> Result<(), String> {
        for held in std::mem::take(&mut self.held) {
            let front = Front(held.front, held.protocol);
            let routes = step.routes.get(&front);
            if routes.is_some_and(|endpoints| endpoints.contains(&held.endpoint)) {
                held.go_on(&mut self.gateway)
                    .map_err(|error| format!("an established connection to {front}: {error}"))?;
                self.held.push(held);
            } else {
                let is_there = routes.is_some() || step.rejected.contains(&front);
                self.ended(&held, is_there, sent)?;
            }
        }
        Ok(())
    }

    fn ended(&mut self, held: &Conversation, is_there: bool, sent: &[Seen]) -> Result<(), String> {
        let (front, gone) = (held.front, held.endpoint);
        let fate = self.gateway.send(&held.packet(Stage::Next))?;
        let frames = match &fate {
            Fate::Sent(frames) => frames.as_slice(),
            _ => &[],
        };
        let reaches =
            |seen: &Seen| matches!(seen, Seen::Segment { to, is_reset: false, .. } if *to == gone);
        if frames.iter().any(reaches) {
            return Err(format!(
                "a packet of {front} still reaches {gone}, which is gone"
            ));
        }
        let mut frames = frames.iter().chain(sent);
        let is_told = frames.any(|seen| seen.is_reset_of(front, held.client));
        match held.protocol == Protocol::Tcp && is_there && !is_told {
            true => Err(format!(
                "expected a connection of {front} to be reset when {gone} went, seen: {fate}"
            )),
            false => Ok(()),
        }
    }
}
