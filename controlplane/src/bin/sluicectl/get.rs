//! `get`: objects as kubectl lists them.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde::Serialize;
use sluice_conf::Pool;
use sluice_conf::message::controlplane::{FrontendRow, PortRow, Reply, Request, ServiceRow};
use sluice_controlplane::client::ClientError;

use crate::output::{self, Format, age, table};
use crate::{Answer, Common, PARTLY};

mod endpoints;
mod inventory;

pub use endpoints::{address, endpoints};
pub use inventory::{drains, nodes, pods, policies, pools};

pub fn services(common: &Common, only: &[String]) -> anyhow::Result<Answer> {
    let namespace = common.listed_namespace();
    let request = Request::Services {
        namespace: namespace.clone(),
    };
    let Reply::Services(mut rows) = common.ask_controlplane(&request)? else {
        return Err(ClientError::Unexpected("control plane").into());
    };
    let missing = keep(&mut rows, only, |row| &row.name);
    let all = namespace.is_none();
    answer(common, &rows, namespace, "service", &missing, |rows| {
        services_table(rows, all, common.output == Format::Wide)
    })
}

/// Keeps the rows of these names, or all when there are none; returns the names without a row.
fn keep<T>(rows: &mut Vec<T>, only: &[String], name: impl Fn(&T) -> &String) -> Vec<String> {
    if only.is_empty() {
        return Vec::new();
    }
    let there: BTreeSet<String> = rows.iter().map(|row| name(row).clone()).collect();
    rows.retain(|row| only.contains(name(row)));
    let missing = only.iter().filter(|name| !there.contains(*name));
    missing.cloned().collect()
}

fn answer<T: Serialize>(
    common: &Common,
    rows: &Vec<T>,
    namespace: Option<String>,
    what: &str,
    missing: &[String],
    text: impl Fn(&[T]) -> String,
) -> anyhow::Result<Answer> {
    let text = match output::structured(common.output, rows)? {
        Some(text) => text,
        None if rows.is_empty() => String::new(),
        None => text(rows),
    };
    let place = match &namespace {
        Some(namespace) => format!(" in {namespace} namespace"),
        None => String::new(),
    };
    let not_found = |name: &String| format!("{what} {name:?} not found{place}");
    let not_found: Vec<String> = missing.iter().map(not_found).collect();
    let (remark, code) = match (not_found.is_empty(), rows.is_empty()) {
        (false, _) => (Some(not_found.join("\n")), PARTLY),
        (true, true) if !common.output.is_structured() => {
            let end = if place.is_empty() { "" } else { "." };
            (Some(format!("No resources found{place}{end}")), 0)
        }
        (true, _) => (None, 0),
    };
    Ok(Answer { text, remark, code })
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
        heading.extend(["POLICIES", "FRONTENDS"]);
    }
    let cells = rows.iter().map(|row| {
        let mut cells = vec![
            row.name.clone(),
            row.kind.clone(),
            cluster_ips(row),
            external_ips(row),
            or_none(join(row.ports.iter().map(port))),
            age(row.age_seconds),
        ];
        if wide {
            cells.push(or_none(join(wishes(row))));
            cells.push(or_none(join(row.frontends.iter().map(frontend))));
        }
        (row.namespace.clone(), cells)
    });
    with_namespace(heading, cells.collect(), all_namespaces)
}

fn cluster_ips(row: &ServiceRow) -> String {
    match row.headless {
        true => "None".to_owned(),
        false => or_none(join(row.cluster_ips.iter().map(ToString::to_string))),
    }
}

/// What the Service asks for, in the words of its manifest; what is the API's default is left out.
fn wishes(row: &ServiceRow) -> impl Iterator<Item = String> {
    let local = |pool| pool == Pool::Local;
    let internal = local(row.internal_traffic_policy).then(|| "internal=Local".to_owned());
    let external = local(row.external_traffic_policy).then(|| "external=Local".to_owned());
    let affinity = row.affinity_seconds.map(|s| format!("affinity={s}s"));
    let ranges = row
        .source_ranges
        .iter()
        .map(|range| format!("from={range}"));
    let traffic = [internal, external, affinity].into_iter().flatten();
    traffic.chain(ranges)
}

/// Address, ports and protocol, and the pool of clients outside the cluster unless it is Cluster.
fn frontend(row: &FrontendRow) -> String {
    let mut text = SocketAddr::new(row.address, row.port).to_string();
    if row.last_port != row.port {
        text.push_str(&format!("-{}", row.last_port));
    }
    let pool = match row.pool {
        Pool::Cluster => "",
        Pool::Local => "(Local)",
    };
    format!("{text}/{}{pool}", row.protocol)
}

fn external_ips(row: &ServiceRow) -> String {
    if let Some(name) = &row.external_name {
        return name.clone();
    }
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
    use sluice_conf::{FrontendKind, Protocol};

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
            external_name: None,
            cluster_ips: vec!["10.96.0.10".parse().unwrap()],
            headless: false,
            external_ips: vec![],
            ports: vec![port_row(80, Some(30080), "TCP"), port_row(443, None, "TCP")],
            age_seconds: 130,
            affinity_seconds: None,
            source_ranges: vec![],
            internal_traffic_policy: Pool::Cluster,
            external_traffic_policy: Pool::Cluster,
            frontends: vec![],
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
        let mut missing = headless.clone();
        missing.name = "lost".into();
        headless.headless = true;
        let mut other = missing.clone();
        (other.name, other.kind) = ("api".into(), "ExternalName".into());
        other.external_name = Some("api.example.com".into());
        other.ports.clear();
        let rows = [
            other,
            headless,
            missing,
            service("new", "LoadBalancer"),
            web,
        ];
        assert_eq!(
            services_table(&rows, false, false),
            "\
NAME   TYPE           CLUSTER-IP   EXTERNAL-IP       PORT(S)                AGE
api    ExternalName   <none>       api.example.com   <none>                 2m10s
db     ClusterIP      None         <none>            80/TCP                 2m10s
lost   ClusterIP      <none>       <none>            80/TCP                 2m10s
new    LoadBalancer   10.96.0.10   <pending>         80:30080/TCP,443/TCP   2m10s
web    LoadBalancer   10.96.0.10   203.0.113.10      80:30080/TCP,443/TCP   2m10s
"
        );
    }

    #[test]
    fn wide_services_tell_policies_and_frontends_of_both_families() {
        let mut web = service("web", "LoadBalancer");
        web.cluster_ips.push("2001:db8::10".parse().unwrap());
        web.external_ips = vec!["2001:db8::20".parse().unwrap()];
        web.ports.truncate(1);
        web.affinity_seconds = Some(10_800);
        web.external_traffic_policy = Pool::Local;
        web.source_ranges = vec!["192.0.2.0/24".parse().unwrap()];
        let row = |address: &str, last_port, kind, pool| FrontendRow {
            address: address.parse().unwrap(),
            port: 80,
            last_port,
            protocol: Protocol::Tcp,
            kind,
            pool,
        };
        web.frontends = vec![
            row("10.96.0.10", 80, FrontendKind::ClusterIp, Pool::Cluster),
            row("2001:db8::20", 90, FrontendKind::LoadBalancer, Pool::Local),
        ];
        let text = services_table(&[web], false, true);
        let line = text.lines().nth(1).unwrap();
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>(),
            [
                "web",
                "LoadBalancer",
                "10.96.0.10,2001:db8::10",
                "2001:db8::20",
                "80:30080/TCP",
                "2m10s",
                "external=Local,affinity=10800s,from=192.0.2.0/24",
                "10.96.0.10:80/TCP,[2001:db8::20]:80-90/TCP(Local)",
            ]
        );
        let plain = services_table(&[service("db", "ClusterIP")], false, true);
        assert!(plain.contains("POLICIES"), "{plain}");
        assert!(plain.ends_with("<none>     <none>\n"), "{plain}");
    }

    #[test]
    fn a_name_that_is_not_there_is_told_and_the_others_are_kept() {
        let mut rows = vec![service("a", "ClusterIP"), service("b", "ClusterIP")];
        let only = ["b".to_owned(), "x".to_owned()];
        assert_eq!(keep(&mut rows, &only, |row| &row.name), ["x"]);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].name, "b");
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
}
