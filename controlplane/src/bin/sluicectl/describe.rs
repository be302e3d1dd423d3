//! `describe service`, as kubectl's (kubectl pkg/describe, `describeService`).

use std::collections::BTreeMap;
use std::fmt::Write;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_conf::message::controlplane::{EndpointRow, Reply, Request, ServiceDetail};
use sluice_controlplane::client::ClientError;
use sluice_controlplane::object;

use crate::drain::{kind, seen};
use crate::get::address;
use crate::output::{structured, table};
use crate::{Answer, Common, PARTLY};

/// Where values begin.
const COLUMN: usize = 26;
/// Endpoints of a port that kubectl lists before it only counts.
const LISTED: usize = 3;

pub fn service(common: &Common, name: &str) -> anyhow::Result<Answer> {
    let namespace = common.namespace.as_deref().unwrap_or("default");
    let request = Request::Service {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let Reply::Service(detail) = common.ask_controlplane(&request)? else {
        return Err(ClientError::Unexpected("control plane").into());
    };
    let Some(detail) = detail else {
        return Ok(Answer {
            text: String::new(),
            remark: Some(format!(
                "service {name:?} not found in {namespace} namespace"
            )),
            code: PARTLY,
        });
    };
    Ok(Answer::of(match structured(common.output, &detail)? {
        Some(text) => text,
        None => described(&detail)?,
    }))
}

fn described(detail: &ServiceDetail) -> anyhow::Result<String> {
    let service: Service = serde_json::from_str(&detail.manifest)?;
    let spec = service.spec.clone().unwrap_or_default();
    let mut page = Page::default();
    page.line("Name", service.metadata.name.as_deref());
    page.line("Namespace", service.metadata.namespace.as_deref());
    page.map("Labels", service.metadata.labels.as_ref());
    page.map("Annotations", service.metadata.annotations.as_ref());
    page.map("Selector", spec.selector.as_ref());
    page.line("Type", spec.type_.as_deref());
    page.line("IP Family Policy", spec.ip_family_policy.as_deref());
    page.list("IP Families", spec.ip_families.as_deref());
    page.line("IP", spec.cluster_ip.as_deref());
    page.list("IPs", spec.cluster_ips.as_deref());
    addresses(&mut page, &service, &spec, detail);
    for port in spec.ports.as_deref().unwrap_or_default() {
        port_lines(&mut page, port, &detail.endpoints);
    }
    page.line("Session Affinity", spec.session_affinity.as_deref());
    page.some(
        "External Traffic Policy",
        spec.external_traffic_policy.as_deref(),
    );
    page.some(
        "Internal Traffic Policy",
        spec.internal_traffic_policy.as_deref(),
    );
    let check = spec.health_check_node_port.map(|port| port.to_string());
    page.some("HealthCheck NodePort", check.as_deref());
    let mut text = page.0;
    text.push_str(&problems(detail));
    text.push_str(&events(detail));
    Ok(text)
}

fn addresses(page: &mut Page, service: &Service, spec: &ServiceSpec, detail: &ServiceDetail) {
    if let Some(external) = spec.external_ips.as_deref() {
        page.list("External IPs", Some(external));
    }
    page.some("External Name", spec.external_name.as_deref());
    let balancer = service
        .status
        .as_ref()
        .and_then(|s| s.load_balancer.as_ref());
    let ingress = balancer
        .and_then(|b| b.ingress.as_deref())
        .unwrap_or_default();
    let ingress = ingress.iter().filter_map(|entry| {
        let mode = entry.ip_mode.as_ref();
        let mode = mode.map(|mode| format!(" ({mode})")).unwrap_or_default();
        Some(format!("{}{mode}", entry.ip.as_ref()?))
    });
    let ingress: Vec<String> = ingress.collect();
    if spec.type_.as_deref() == Some("LoadBalancer") {
        match ingress.is_empty() {
            true => page.line("LoadBalancer Ingress", Some("<pending>")),
            false => page.list("LoadBalancer Ingress", Some(&ingress)),
        }
    }
    page.some("Pending", detail.pending.as_deref());
}

fn port_lines(page: &mut Page, port: &ServicePort, endpoints: &[EndpointRow]) {
    let name = port.name.as_deref().unwrap_or_default();
    let shown = if name.is_empty() { "<unset>" } else { name };
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    page.line("Port", Some(&format!("{shown}  {}/{protocol}", port.port)));
    let target = match &port.target_port {
        Some(IntOrString::Int(number)) => number.to_string(),
        Some(IntOrString::String(name)) => name.clone(),
        None => port.port.to_string(),
    };
    page.line("TargetPort", Some(&format!("{target}/{protocol}")));
    if let Some(node_port) = port.node_port {
        page.line(
            "NodePort",
            Some(&format!("{shown}  {node_port}/{protocol}")),
        );
    }
    let of_port = endpoints
        .iter()
        .filter(|endpoint| endpoint.port_name == name && endpoint.ready && endpoint.weight > 0);
    let mut of_port: Vec<String> = of_port.map(address).collect();
    let more = of_port.len().saturating_sub(LISTED);
    of_port.truncate(LISTED);
    let more = if more > 0 {
        format!(" + {more} more...")
    } else {
        String::new()
    };
    page.line("Endpoints", Some(&(of_port.join(",") + &more)));
}

fn problems(detail: &ServiceDetail) -> String {
    let lines = detail.problems.iter().map(object::describe);
    let lines: Vec<String> = lines.map(|line| format!("  {line}\n")).collect();
    match lines.is_empty() {
        true => String::new(),
        false => format!("Problems:\n{}", lines.concat()),
    }
}

fn events(detail: &ServiceDetail) -> String {
    if detail.events.is_empty() {
        return format!("{:COLUMN$}<none>\n", "Events:");
    }
    let cells = detail.events.iter().map(|row| {
        vec![
            kind(row).to_owned(),
            row.reason.clone(),
            seen(row),
            row.message.clone(),
        ]
    });
    let heading = ["TYPE", "REASON", "AGE", "MESSAGE"];
    let table = table(&heading, &cells.collect::<Vec<_>>());
    let lines = table.lines().map(|line| format!("  {line}\n"));
    format!("Events:\n{}", lines.collect::<String>())
}

/// Lines of a name and a value.
#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, name: &str, value: Option<&str>) {
        let value = value.filter(|value| !value.is_empty()).unwrap_or("<none>");
        // Writing into a String never fails.
        let _ = writeln!(self.0, "{:COLUMN$}{value}", format!("{name}:"));
    }

    /// Left out when there is no value.
    fn some(&mut self, name: &str, value: Option<&str>) {
        if value.is_some() {
            self.line(name, value);
        }
    }

    fn list(&mut self, name: &str, values: Option<&[String]>) {
        self.line(name, Some(&values.unwrap_or_default().join(",")));
    }

    /// A line for each pair.
    fn map(&mut self, name: &str, values: Option<&BTreeMap<String, String>>) {
        let pairs = values.into_iter().flatten();
        let pairs: Vec<String> = pairs.map(|(key, value)| format!("{key}={value}")).collect();
        let separator = format!("\n{:COLUMN$}", "");
        self.line(name, Some(&pairs.join(&separator)));
    }
}

#[cfg(test)]
mod tests {
    use sluice_conf::message::controlplane::{EventRow, Problem};

    use super::*;

    fn endpoint(last: u8, weight: u16) -> EndpointRow {
        EndpointRow {
            address: [10, 0, 2, last].into(),
            port: 8080,
            port_name: "http".into(),
            protocol: "TCP".into(),
            ready: true,
            serving: true,
            terminating: false,
            node: None,
            zone: None,
            pod: None,
            weight,
            verdict: None,
            drain: None,
        }
    }

    #[test]
    fn a_service_is_described_as_in_kubectl_with_what_is_wrong() {
        let manifest = r#"{"metadata": {"name": "web", "namespace": "shop",
            "labels": {"app": "web", "tier": "front"}},
            "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"],
            "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"], "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080, "nodePort": 30080}],
            "sessionAffinity": "None", "externalTrafficPolicy": "Cluster"}}"#;
        let detail = ServiceDetail {
            manifest: manifest.to_owned(),
            endpoints: vec![endpoint(11, 1), endpoint(12, 0)],
            pending: Some("no pool has a free address".into()),
            problems: vec![Problem {
                file: "web.yaml".into(),
                line: Some(3),
                object: Some("Service shop/web".into()),
                field: Some("spec.type".into()),
                message: "is odd".into(),
            }],
            events: vec![EventRow {
                age_seconds: 5,
                count: 1,
                warning: true,
                reason: "AllocationFailed".into(),
                object: "Service shop/web".into(),
                message: "no pool".into(),
            }],
        };
        let text = described(&detail).unwrap();
        let problem = object::describe(&detail.problems[0]);
        assert_eq!(
            text,
            format!(
                "\
Name:                     web
Namespace:                shop
Labels:                   app=web
                          tier=front
Annotations:              <none>
Selector:                 app=web
Type:                     LoadBalancer
IP Family Policy:         SingleStack
IP Families:              IPv4
IP:                       10.96.0.10
IPs:                      10.96.0.10
LoadBalancer Ingress:     <pending>
Pending:                  no pool has a free address
Port:                     http  80/TCP
TargetPort:               8080/TCP
NodePort:                 http  30080/TCP
Endpoints:                10.0.2.11:8080
Session Affinity:         None
External Traffic Policy:  Cluster
Problems:
  {problem}
Events:
  TYPE      REASON             AGE   MESSAGE
  Warning   AllocationFailed   5s    no pool
"
            )
        );
    }
}
