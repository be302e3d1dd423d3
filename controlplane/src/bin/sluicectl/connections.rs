//! `connections`.

use sluice_conf::message::dataplane::{Connection, ConnectionFilter, Reply, Request};
use sluice_controlplane::client::ClientError;

use crate::output::{self, age, table};
use crate::{Answer, Common, Filter};

pub fn run(common: &Common, filter: &Filter) -> anyhow::Result<Answer> {
    let (namespace, service) = names(common, filter.service.as_deref())?;
    let request = Request::Connections(ConnectionFilter {
        namespace,
        service,
        client: filter.client,
        limit: filter.limit,
    });
    let Reply::Connections(answer) = common.ask_dataplane(&request)? else {
        return Err(ClientError::Unexpected("dataplane").into());
    };
    if let Some(text) = output::structured(common.output, &answer)? {
        return Ok(Answer::of(text));
    }
    let remark = match (answer.connections.is_empty(), answer.truncated) {
        (true, _) => Some("No connections found".to_owned()),
        (_, true) => Some(format!(
            "More connections matched than the {} shown; narrow the filter or raise --limit",
            answer.connections.len()
        )),
        _ => None,
    };
    let text = match answer.connections.is_empty() {
        true => String::new(),
        false => connections_table(&answer.connections),
    };
    Ok(Answer {
        text,
        remark,
        code: 0,
    })
}

/// Namespace and name to ask for. Without a Service, all namespaces are meant.
fn names(
    common: &Common,
    service: Option<&str>,
) -> anyhow::Result<(Option<String>, Option<String>)> {
    let Some(service) = service else {
        return Ok((common.namespace.clone(), None));
    };
    let (namespace, name) = match service.split_once('/') {
        Some((namespace, name)) => (Some(namespace.to_owned()), name),
        None => (common.listed_namespace(), service),
    };
    if name.is_empty() || name.contains('/') || namespace.as_deref() == Some("") {
        anyhow::bail!("--service {service:?} is not [NAMESPACE/]NAME");
    }
    if let (Some(namespace), Some(only)) = (&namespace, &common.namespace)
        && namespace != only
    {
        anyhow::bail!("--service {service:?} is not in --namespace {only:?}");
    }
    Ok((namespace, Some(name.to_owned())))
}

fn connections_table(connections: &[Connection]) -> String {
    let heading = [
        "PROTO", "CLIENT", "FRONTEND", "SOURCE", "BACKEND", "STATE", "IDLE", "EXPIRES", "SERVICE",
    ];
    let rows: Vec<Vec<String>> = connections
        .iter()
        .map(|connection| {
            let service = connection.service.as_ref();
            vec![
                connection.protocol.to_string(),
                connection.client.to_string(),
                connection.frontend.to_string(),
                connection.source.to_string(),
                connection.backend.to_string(),
                connection.state.clone(),
                age(connection.idle_seconds.into()),
                age(connection.expires_seconds.into()),
                service.map_or_else(|| "<gone>".to_owned(), ToString::to_string),
            ]
        })
        .collect();
    table(&heading, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_conf::{Protocol, ServiceName};

    #[test]
    fn a_connection_is_one_line() {
        let connection = Connection {
            service: Some(ServiceName {
                namespace: "default".into(),
                name: "web".into(),
                port: String::new(),
                protocol: Protocol::Tcp,
            }),
            protocol: Protocol::Tcp,
            client: "198.51.100.7:40000".parse().unwrap(),
            frontend: "203.0.113.10:80".parse().unwrap(),
            source: "10.0.2.1:16384".parse().unwrap(),
            backend: "10.0.2.11:8080".parse().unwrap(),
            state: "ESTABLISHED".into(),
            idle_seconds: 3,
            expires_seconds: 431_997,
            worker: 0,
        };
        assert_eq!(
            connections_table(&[connection]),
            "\
PROTO   CLIENT               FRONTEND          SOURCE           BACKEND          STATE         IDLE   EXPIRES   SERVICE
TCP     198.51.100.7:40000   203.0.113.10:80   10.0.2.1:16384   10.0.2.11:8080   ESTABLISHED   3s     4d23h     default/web/TCP
"
        );
    }
}
