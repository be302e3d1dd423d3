//! `get endpoints`.

use std::net::SocketAddr;

use sluice_conf::message::controlplane::{EndpointRow, EndpointsRow, Reply, Request, VerdictRow};
use sluice_controlplane::client::ClientError;

use super::inventory::drain_stage;
use super::{answer, join, keep, none, or_none, with_namespace};
use crate::output::{Format, age};
use crate::{Answer, Common};

/// Endpoints that kubectl lists before it only counts.
const LISTED: usize = 3;

pub fn endpoints(common: &Common, only: &[String]) -> anyhow::Result<Answer> {
    let namespace = common.listed_namespace();
    let request = Request::Endpoints {
        namespace: namespace.clone(),
    };
    let Reply::Endpoints(mut rows) = common.ask_controlplane(&request)? else {
        return Err(ClientError::Unexpected("control plane").into());
    };
    let missing = keep(&mut rows, only, |row| &row.service);
    let all = namespace.is_none();
    answer(
        common,
        &rows,
        namespace,
        "endpoints",
        &missing,
        |rows| match common.output {
            Format::Wide => endpoints_wide(rows, all),
            _ => endpoints_table(rows, all),
        },
    )
}

fn endpoints_table(rows: &[EndpointsRow], all_namespaces: bool) -> String {
    let cells = rows.iter().map(|row| {
        let ready: Vec<_> = row.endpoints.iter().filter(|e| is_used(e)).collect();
        let mut listed = join(ready.iter().take(LISTED).map(|endpoint| address(endpoint)));
        if ready.len() > LISTED {
            listed.push_str(&format!(" + {} more...", ready.len() - LISTED));
        }
        let cells = vec![row.service.clone(), or_none(listed), age(row.age_seconds)];
        (row.namespace.clone(), cells)
    });
    with_namespace(
        vec!["NAME", "ENDPOINTS", "AGE"],
        cells.collect(),
        all_namespaces,
    )
}

fn endpoints_wide(rows: &[EndpointsRow], all_namespaces: bool) -> String {
    let heading = vec![
        "NAME",
        "ENDPOINT",
        "PORT",
        "READY",
        "SERVING",
        "TERMINATING",
        "HEALTH",
        "DRAIN",
        "WEIGHT",
        "NODE",
        "ZONE",
        "POD",
        "AGE",
    ];
    let mut cells = Vec::new();
    for row in rows {
        for endpoint in &row.endpoints {
            let port = match endpoint.port_name.as_str() {
                "" => endpoint.protocol.clone(),
                name => format!("{name}/{}", endpoint.protocol),
            };
            let line = vec![
                row.service.clone(),
                address(endpoint),
                port,
                endpoint.ready.to_string(),
                endpoint.serving.to_string(),
                endpoint.terminating.to_string(),
                endpoint.verdict.as_ref().map_or_else(none, health),
                endpoint
                    .drain
                    .map_or_else(none, |stage| drain_stage(stage).to_owned()),
                endpoint.weight.to_string(),
                endpoint.node.clone().unwrap_or_else(none),
                endpoint.zone.clone().unwrap_or_else(none),
                endpoint.pod.clone().unwrap_or_else(none),
                age(row.age_seconds),
            ];
            cells.push((row.namespace.clone(), line));
        }
    }
    with_namespace(heading, cells, all_namespaces)
}

/// Whether it gets new connections.
const fn is_used(endpoint: &EndpointRow) -> bool {
    endpoint.ready && endpoint.weight > 0
}

fn health(verdict: &VerdictRow) -> String {
    let word = if verdict.healthy {
        "healthy"
    } else {
        "unhealthy"
    };
    format!("{word}: {}, {}", verdict.reason, age(verdict.since_seconds))
}

/// Address and port.
pub fn address(endpoint: &EndpointRow) -> String {
    SocketAddr::new(endpoint.address, endpoint.port).to_string()
}

#[cfg(test)]
mod tests {
    use sluice_conf::message::controlplane::DrainStage;

    use super::*;

    fn endpoint(last: u8, ready: bool) -> EndpointRow {
        EndpointRow {
            address: [10, 0, 2, last].into(),
            port: 8080,
            port_name: String::new(),
            protocol: "TCP".into(),
            ready,
            serving: true,
            terminating: !ready,
            node: (last == 11).then(|| "node-a".into()),
            zone: None,
            pod: Some(format!("web-{last}")),
            weight: u16::from(ready),
            verdict: None,
            drain: None,
        }
    }

    fn endpoints_of(count: u8) -> EndpointsRow {
        EndpointsRow {
            namespace: "default".into(),
            service: "web".into(),
            endpoints: (0..count).map(|n| endpoint(11 + n, true)).collect(),
            age_seconds: 5 * 86_400 + 3 * 3600,
        }
    }

    #[test]
    fn endpoints_look_as_in_kubectl() {
        let mut few = endpoints_of(2);
        few.endpoints.push(endpoint(19, false));
        let mut empty = endpoints_of(0);
        empty.service = "empty".into();
        assert_eq!(
            endpoints_table(&[empty, few, endpoints_of(5)], false),
            "\
NAME    ENDPOINTS                                                  AGE
empty   <none>                                                     5d3h
web     10.0.2.11:8080,10.0.2.12:8080                              5d3h
web     10.0.2.11:8080,10.0.2.12:8080,10.0.2.13:8080 + 2 more...   5d3h
"
        );
    }

    #[test]
    fn wide_endpoints_take_a_line_each() {
        let mut row = endpoints_of(1);
        row.endpoints.push(endpoint(12, false));
        row.endpoints[0].verdict = Some(VerdictRow {
            healthy: true,
            reason: "probe passed".into(),
            since_seconds: 130,
        });
        row.endpoints[1].drain = Some(DrainStage::Draining);
        assert_eq!(
            endpoints_wide(&[row], false),
            "\
NAME   ENDPOINT         PORT   READY   SERVING   TERMINATING   HEALTH                         DRAIN      WEIGHT   NODE     ZONE     POD      AGE
web    10.0.2.11:8080   TCP    true    true      false         healthy: probe passed, 2m10s   <none>     1        node-a   <none>   web-11   5d3h
web    10.0.2.12:8080   TCP    false   true      true          <none>                         draining   0        <none>   <none>   web-12   5d3h
"
        );
    }
}
