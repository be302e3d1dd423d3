//! `explain`.

use std::net::SocketAddr;

use clap::Args;
use sluice_conf::message::dataplane::explain::{
    Class, Explanation, Known, Outcome, Question, Rule, Sender, Source, Translation, Way,
};
use sluice_conf::message::dataplane::{Reply, Request};
use sluice_conf::{FrontendKind, Pool, SourceNat};
use sluice_controlplane::client::ClientError;

use crate::output::{self, age};
use crate::{Answer, Common, Proto};

#[derive(Args)]
pub struct Packet {
    /// Protocol.
    #[arg(value_enum, value_name = "PROTO")]
    proto: Proto,
    /// Who sends it.
    #[arg(value_name = "SOURCE:PORT")]
    source: SocketAddr,
    /// Whom it is for.
    #[arg(value_name = "DESTINATION:PORT")]
    destination: SocketAddr,
}

pub fn run(common: &Common, packet: &Packet) -> anyhow::Result<Answer> {
    let question = Question {
        protocol: packet.proto.into(),
        source: packet.source,
        destination: packet.destination,
    };
    let Reply::Explained(said) = common.ask_dataplane(&Request::Explain(question))? else {
        return Err(ClientError::Unexpected("dataplane").into());
    };
    let text = match output::structured(common.output, &said)? {
        Some(text) => text,
        None => lines(&said),
    };
    Ok(Answer::of(text))
}

/// One fact a line, in the order in which they are decided.
fn lines(said: &Explanation) -> String {
    let mut facts = vec![
        ("packet", packet(&said.packet)),
        ("steering", steering(said.steered)),
        (
            "generation",
            said.generation.map_or_else(
                || "none yet".to_owned(),
                |generation| generation.to_string(),
            ),
        ),
        ("worker", said.worker.to_string()),
    ];
    facts.push(("connection", connection(said.known.as_ref())));
    if let Some(rule) = &said.rule {
        facts.extend(rule_facts(rule));
    }
    if let Some(affinity) = &said.affinity {
        let text = match (affinity.backend, affinity.left) {
            (Some(backend), Some(left)) => format!("{backend}, {left} s left"),
            (_, Some(left)) => format!("its backend serves no longer; forgotten in {left} s"),
            _ => format!("not seen within {} s", affinity.seconds),
        };
        facts.push(("affinity", text));
    }
    if let Some(row) = said.row {
        facts.push(("maglev row", format!("{} of {}", row.row, row.rows)));
    }
    if let Some(translation) = &said.translation {
        facts.push(("leaves as", translated(translation)));
    }
    if let Some(way) = &said.way {
        facts.push(("next hop", next_hop(way)));
    }
    facts.push(("outcome", outcome(&said.outcome)));
    if let Outcome::Drop(reason) = &said.outcome {
        facts.push(("what to do", reason.remedy.clone()));
    }
    let line = |(name, text): &(&str, String)| format!("{:<13}{text}\n", format!("{name}:"));
    facts.iter().map(line).collect()
}

fn packet(question: &Question) -> String {
    let Question {
        protocol,
        source,
        destination,
    } = question;
    format!("{protocol} {source} > {destination}")
}

fn steering(steered: Option<bool>) -> String {
    match steered {
        Some(true) => "the XDP program gives it to a worker",
        Some(false) => "the XDP program leaves it to the kernel; what follows would not happen",
        None => "not known",
    }
    .to_owned()
}

fn connection(known: Option<&Known>) -> String {
    let Some(known) = known else {
        return "none; this packet would open one".to_owned();
    };
    let connection = &known.connection;
    let sender = match known.sender {
        Sender::Client => "the client",
        Sender::Backend => "the backend",
    };
    let end = match known.goes_on {
        true => "",
        false => ", ends with this packet",
    };
    format!(
        "{} of {} at {}, backend {}, source {}, idle {}, expires in {}; sent by {sender}{end}",
        connection.state,
        connection.client,
        connection.frontend,
        connection.backend,
        connection.source,
        age(connection.idle_seconds.into()),
        age(connection.expires_seconds.into()),
    )
}

/// What kind of frontend it is, in words.
pub const fn kind(kind: FrontendKind) -> &'static str {
    match kind {
        FrontendKind::ClusterIp => "ClusterIP",
        FrontendKind::LoadBalancer => "LoadBalancer address",
        FrontendKind::ExternalIp => "external IP",
        FrontendKind::NodePort => "node port",
    }
}

fn rule_facts(rule: &Rule) -> Vec<(&'static str, String)> {
    let frontend = &rule.frontend;
    let kind = kind(frontend.kind);
    let first = SocketAddr::new(frontend.address, frontend.port);
    let ports = match frontend.is_range() {
        true => format!("{first}-{}", frontend.last_port),
        false => first.to_string(),
    };
    let class = match rule.class {
        Class::Pod => "a pod",
        Class::Node => "a node",
        Class::Other => "neither pod nor node",
    };
    let pool = match rule.access.pool {
        Pool::Cluster => "all endpoints",
        Pool::Local => "local endpoints only",
    };
    let source_nat = match rule.access.source_nat {
        SourceNat::Masquerade => "masquerade",
        SourceNat::Preserve => "its address is kept",
    };
    let guard = match rule.admitted {
        None => "no source ranges",
        Some(true) => "let in by the source ranges",
        Some(false) => "kept out by the source ranges",
    };
    vec![
        ("service", rule.service.to_string()),
        ("frontend", format!("{ports}, {kind}")),
        ("client", format!("{class}: {pool}, {source_nat}, {guard}")),
    ]
}

fn translated(translation: &Translation) -> String {
    let to = translation.destination;
    match translation.source {
        Source::End(source) => format!("{source} > {to}"),
        Source::Masquerade {
            address,
            first,
            last,
        } => format!("{address}, a port of {first}-{last} > {to}"),
    }
}

fn next_hop(way: &Way) -> String {
    let mac = way.mac.as_deref().unwrap_or("unresolved");
    format!(
        "{} at {mac} by {}, MTU {}",
        way.address, way.interface, way.mtu
    )
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Forward => "forwarded".to_owned(),
        Outcome::Hold => "waits until the next hop is resolved, then forwarded".to_owned(),
        Outcome::Kernel => "no Service's; the kernel routes it on".to_owned(),
        Outcome::PortUnreachable => "answered with ICMP port unreachable".to_owned(),
        Outcome::Reset => "answered with a TCP reset".to_owned(),
        Outcome::Drop(reason) => format!("dropped, {}: {}", reason.name, reason.sentence),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_conf::Protocol;
    use sluice_conf::message::dataplane::explain::Reason;

    fn blank(outcome: Outcome) -> Explanation {
        Explanation {
            packet: Question {
                protocol: Protocol::Tcp,
                source: "198.51.100.7:40000".parse().unwrap(),
                destination: "203.0.113.10:80".parse().unwrap(),
            },
            steered: Some(true),
            generation: None,
            worker: 0,
            known: None,
            rule: None,
            affinity: None,
            row: None,
            translation: None,
            way: None,
            outcome,
        }
    }

    #[test]
    fn a_drop_says_why_and_what_to_do() {
        let said = blank(Outcome::Drop(Reason {
            name: "no_route".into(),
            sentence: "There is none.".into(),
            remedy: "Add one.".into(),
        }));
        assert_eq!(
            lines(&said),
            "\
packet:      TCP 198.51.100.7:40000 > 203.0.113.10:80
steering:    the XDP program gives it to a worker
generation:  none yet
worker:      0
connection:  none; this packet would open one
outcome:     dropped, no_route: There is none.
what to do:  Add one.
"
        );
    }

    #[test]
    fn a_masqueraded_packet_has_a_port_of_a_block() {
        let said = Explanation {
            translation: Some(Translation {
                source: Source::Masquerade {
                    address: "10.0.2.1".parse().unwrap(),
                    first: 16_384,
                    last: 20_000,
                },
                destination: "10.0.2.11:8080".parse().unwrap(),
            }),
            ..blank(Outcome::Forward)
        };
        let text = "leaves as:   10.0.2.1, a port of 16384-20000 > 10.0.2.11:8080\n";
        assert!(lines(&said).contains(text), "{}", lines(&said));
    }
}
