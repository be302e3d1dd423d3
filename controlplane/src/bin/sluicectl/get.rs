//! `get services` and `get endpoints`.

use std::net::SocketAddr;

use sluice_conf::message::controlplane::{
    EndpointRow, EndpointsRow, PortRow, Reply, Request, ServiceRow,
};
use sluice_controlplane::client::ClientError;

use crate::output::{self, Format, age, table};
use crate::{Answer, Common};

/// Endpoints that kubectl lists before it only counts.
const LISTED: usize = 3;

pub fn services(common: &Common) -> anyhow::Result<Answer> {
    let namespace = common.listed_namespace();
    let request = Request::Services {
        namespace: namespace.clone(),
    };
    let Reply::Services(rows) = common.ask_controlplane(&request)? else {
        return Err(ClientError::Unexpected("control plane").into());
    };
    if let Some(text) = output::structured(common.output, &rows)? {
        return Ok(Answer::of(text));
    }
    if rows.is_empty() {
        return Ok(nothing(namespace));
    }
    let wide = common.output == Format::Wide;
    Ok(Answer::of(services_table(&rows, namespace.is_none(), wide)))
}

pub fn endpoints(common: &Common) -> anyhow::Result<Answer> {
    let namespace = common.listed_namespace();
    let request = Request::Endpoints {
        namespace: namespace.clone(),
    };
    let Reply::Endpoints(rows) = common.ask_controlplane(&request)? else {
        return Err(ClientError::Unexpected("control plane").into());
    };
    if let Some(text) = output::structured(common.output, &rows)? {
        return Ok(Answer::of(text));
    }
    if rows.is_empty() {
        return Ok(nothing(namespace));
    }
    let all = namespace.is_none();
    Ok(Answer::of(match common.output {
        Format::Wide => endpoints_wide(&rows, all),
        _ => endpoints_table(&rows, all),
    }))
}

fn nothing(namespace: Option<String>) -> Answer {
    Answer {
        text: String::new(),
        remark: Some(match namespace {
            Some(namespace) => format!("No resources found in {namespace} namespace."),
            None => "No resources found".to_owned(),
        }),
        code: 0,
    }
}

fn services_table(rows: &[ServiceRow], all_namespaces: bool, wide: bool) -> String {
    let mut heading = vec![
        "NAME",
        "TYPE",
        "CLUSTER-IP",
        "EXTERNAL-IP",
        "PORT(S)",
        "AGE",
    ];
    if wide {
        heading.push("FRONTENDS");
    }
    let cells = rows.iter().map(|row| {
        let mut cells = vec![
            row.name.clone(),
            row.kind.clone(),
            row.cluster_ips
                .first()
                .map_or_else(none, ToString::to_string),
            external_ips(row),
            or_none(join(row.ports.iter().map(port))),
            age(row.age_seconds),
        ];
        if wide {
            let frontends = row.frontends.iter().map(|frontend| {
                let address = SocketAddr::new(frontend.address, frontend.port);
                format!("{address}/{}", frontend.protocol)
            });
            cells.push(or_none(join(frontends)));
        }
        (row.namespace.clone(), cells)
    });
    with_namespace(heading, cells.collect(), all_namespaces)
}

fn external_ips(row: &ServiceRow) -> String {
    match row.kind.as_str() {
        "LoadBalancer" if row.external_ips.is_empty() => "<pending>".to_owned(),
        _ => or_none(join(row.external_ips.iter().map(ToString::to_string))),
    }
}

fn port(port: &PortRow) -> String {
    match port.node_port {
        Some(node_port) => format!("{}:{node_port}/{}", port.port, port.protocol),
        None => format!("{}/{}", port.port, port.protocol),
    }
}

fn endpoints_table(rows: &[EndpointsRow], all_namespaces: bool) -> String {
    let cells = rows.iter().map(|row| {
        let ready: Vec<_> = row.endpoints.iter().filter(|e| e.ready).collect();
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
        "NODE",
        "WEIGHT",
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
                endpoint.node.clone().unwrap_or_else(none),
                endpoint.weight.to_string(),
                age(row.age_seconds),
            ];
            cells.push((row.namespace.clone(), line));
        }
    }
    with_namespace(heading, cells, all_namespaces)
}

fn with_namespace(
    mut heading: Vec<&str>,
    rows: Vec<(String, Vec<String>)>,
    all_namespaces: bool,
) -> String {
    if all_namespaces {
        heading.insert(0, "NAMESPACE");
    }
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(namespace, mut cells)| {
            if all_namespaces {
                cells.insert(0, namespace);
            }
            cells
        })
        .collect();
    table(&heading, &rows)
}

fn address(endpoint: &EndpointRow) -> String {
    SocketAddr::new(endpoint.address, endpoint.port).to_string()
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(",")
}

fn none() -> String {
    "<none>".to_owned()
}

fn or_none(text: String) -> String {
    match text.is_empty() {
        true => none(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port_row(port: u16, node_port: Option<u16>, protocol: &str) -> PortRow {
        PortRow {
            name: String::new(),
            port,
            node_port,
            protocol: protocol.into(),
        }
    }

    fn service(name: &str, kind: &str) -> ServiceRow {
        ServiceRow {
            namespace: "default".into(),
            name: name.into(),
            kind: kind.into(),
            cluster_ips: vec!["10.96.0.10".parse().unwrap()],
            external_ips: vec![],
            ports: vec![port_row(80, Some(30080), "TCP"), port_row(443, None, "TCP")],
            age_seconds: 130,
            frontends: vec![],
        }
    }

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
            weight: 1,
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
    fn services_look_as_in_kubectl() {
        let mut web = service("web", "LoadBalancer");
        web.external_ips = vec!["203.0.113.10".parse().unwrap()];
        let mut headless = service("db", "ClusterIP");
        headless.cluster_ips.clear();
        headless.ports.truncate(1);
        headless.ports[0].node_port = None;
        let rows = [headless, service("new", "LoadBalancer"), web];
        assert_eq!(
            services_table(&rows, false, false),
            "\
NAME   TYPE           CLUSTER-IP   EXTERNAL-IP    PORT(S)                AGE
db     ClusterIP      <none>       <none>         80/TCP                 2m10s
new    LoadBalancer   10.96.0.10   <pending>      80:30080/TCP,443/TCP   2m10s
web    LoadBalancer   10.96.0.10   203.0.113.10   80:30080/TCP,443/TCP   2m10s
"
        );
    }

    #[test]
    fn all_namespaces_come_with_their_names() {
        let text = services_table(&[service("web", "NodePort")], true, false);
        assert_eq!(
            text,
            "\
NAMESPACE   NAME   TYPE       CLUSTER-IP   EXTERNAL-IP   PORT(S)                AGE
default     web    NodePort   10.96.0.10   <none>        80:30080/TCP,443/TCP   2m10s
"
        );
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
        assert_eq!(
            endpoints_wide(&[row], false),
            "\
NAME   ENDPOINT         PORT   READY   SERVING   TERMINATING   NODE     WEIGHT   AGE
web    10.0.2.11:8080   TCP    true    true      false         node-a   1        5d3h
web    10.0.2.12:8080   TCP    false   true      true          <none>   1        5d3h
"
        );
    }
}
