//! `dns`: what the DNS server answers, and why.

use std::fmt::Write;

use clap::Args;
use sluice_conf::message::controlplane::dns::{DnsAnswer, DnsEndpoint};
use sluice_conf::message::controlplane::{Reply, Request};
use sluice_controlplane::client::ClientError;

use crate::output::{structured, table};
use crate::{Answer, Common, PARTLY};

/// A question.
#[derive(Args)]
pub struct Question {
    /// The name; without its last dot it is looked for as a Pod of the namespace would.
    name: String,
    /// The type of records.
    #[arg(value_name = "TYPE", default_value = "A")]
    record_type: String,
}

pub fn run(common: &Common, question: &Question) -> anyhow::Result<Answer> {
    let request = Request::Dns {
        name: question.name.clone(),
        record_type: question.record_type.clone(),
        namespace: common.namespace.clone().unwrap_or_else(|| "default".into()),
    };
    let Reply::Dns(answer) = common.ask_controlplane(&request)? else {
        return Err(ClientError::Unexpected("control plane").into());
    };
    let text = structured(common.output, &*answer)?;
    Ok(Answer {
        text: text.unwrap_or_else(|| told(&answer)),
        remark: None,
        code: match answer.code.as_str() {
            "NOERROR" => 0,
            _ => PARTLY,
        },
    })
}

fn told(answer: &DnsAnswer) -> String {
    let mut text = format!("{} {}: {}\n", answer.name, answer.record_type, answer.code);
    // Writing into a String never fails.
    let _ = match &answer.object {
        Some(object) => writeln!(text, "{object}: {}", answer.reason),
        None => writeln!(text, "{}", answer.reason),
    };
    if !answer.records.is_empty() {
        let cells = answer.records.iter().map(|record| {
            vec![
                record.section.clone(),
                record.name.clone(),
                record.ttl.to_string(),
                record.record_type.clone(),
                record.data.clone(),
            ]
        });
        let heading = ["SECTION", "NAME", "TTL", "TYPE", "DATA"];
        let _ = write!(text, "\n{}", table(&heading, &cells.collect::<Vec<_>>()));
    }
    if answer.truncated {
        text.push_str("There are more records.\n");
    }
    if !answer.endpoints.is_empty() {
        let cells: Vec<Vec<String>> = answer.endpoints.iter().map(cells).collect();
        let heading = ["ENDPOINT", "ADDRESS", "IN DNS"];
        let _ = write!(text, "\n{}", table(&heading, &cells));
    }
    text
}

fn cells(endpoint: &DnsEndpoint) -> Vec<String> {
    let is_in = match &endpoint.left_out {
        None => "yes".to_owned(),
        Some(why) => format!("no: {why}"),
    };
    vec![endpoint.host.clone(), endpoint.address.to_string(), is_in]
}

#[cfg(test)]
mod tests {
    use sluice_conf::message::controlplane::dns::DnsRecord;

    use super::*;

    #[test]
    fn an_answer_names_its_object_and_every_endpoint_that_is_missing() {
        let endpoint = |address: &str, left_out: Option<&str>| DnsEndpoint {
            host: address.replace('.', "-"),
            address: address.parse().unwrap(),
            left_out: left_out.map(str::to_owned),
        };
        let answer = DnsAnswer {
            name: "web.default.svc.cluster.local.".into(),
            record_type: "A".into(),
            code: "NOERROR".into(),
            records: vec![DnsRecord {
                section: "answer".into(),
                name: "web.default.svc.cluster.local.".into(),
                ttl: 5,
                record_type: "A".into(),
                data: "10.0.0.1".into(),
            }],
            truncated: false,
            object: Some("Service default/web".into()),
            reason: "from the ready endpoints of the headless Service".into(),
            endpoints: vec![
                endpoint("10.0.0.1", None),
                endpoint("10.0.0.2", Some("drained")),
            ],
        };
        assert_eq!(
            told(&answer),
            "\
web.default.svc.cluster.local. A: NOERROR
Service default/web: from the ready endpoints of the headless Service

SECTION   NAME                             TTL   TYPE   DATA
answer    web.default.svc.cluster.local.   5     A      10.0.0.1

ENDPOINT   ADDRESS    IN DNS
10-0-0-1   10.0.0.1   yes
10-0-0-2   10.0.0.2   no: drained
"
        );
    }
}
