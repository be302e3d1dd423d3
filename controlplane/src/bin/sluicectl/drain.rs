//! `drain`, `undrain` and `events`.

use sluice_conf::message::controlplane::{DrainRow, EventRow, Reply, Request};
use sluice_controlplane::client::ClientError;
use sluice_controlplane::words;

use crate::output::{age, structured, table};
use crate::{Answer, Common, PARTLY};

pub fn drain(
    common: &Common,
    target: &str,
    timeout_seconds: Option<u32>,
) -> anyhow::Result<Answer> {
    let request = Request::Drain {
        target: common.drain_target(target),
        timeout_seconds,
    };
    let Reply::Draining(drain) = common.ask_controlplane(&request)? else {
        return Err(ClientError::Unexpected("control plane").into());
    };
    let text = structured(common.output, &drain)?;
    Ok(Answer {
        text: text.unwrap_or_else(|| drained(&drain)),
        remark: (drain.endpoints == 0).then(|| {
            format!(
                "{} has no endpoint now; one that comes is drained as well",
                drain.target
            )
        }),
        code: 0,
    })
}

fn drained(drain: &DrainRow) -> String {
    let endpoints = words::count(drain.endpoints, "endpoint");
    let limit = match drain.timeout_seconds {
        Some(seconds) => format!("existing connections may go on for {seconds} s"),
        None => "existing connections may go on until they end".to_owned(),
    };
    format!("{} is drained: {endpoints}; {limit}\n", drain.target)
}

pub fn undrain(common: &Common, target: &str) -> anyhow::Result<Answer> {
    let request = Request::Undrain {
        target: common.drain_target(target),
    };
    match common.ask_controlplane(&request)? {
        Reply::Undrained {
            target,
            was_drained: true,
        } => Ok(Answer::of(format!("{target} is in use again\n"))),
        Reply::Undrained { target, .. } => Ok(Answer {
            text: String::new(),
            remark: Some(format!(
                "{target} was not drained; sluicectl get drains lists what is"
            )),
            code: PARTLY,
        }),
        _ => Err(ClientError::Unexpected("control plane").into()),
    }
}

pub fn events(common: &Common) -> anyhow::Result<Answer> {
    let namespace = common.listed_namespace();
    let request = Request::Events { namespace };
    let Reply::Events(rows) = common.ask_controlplane(&request)? else {
        return Err(ClientError::Unexpected("control plane").into());
    };
    let text = match structured(common.output, &rows)? {
        Some(text) => text,
        None if rows.is_empty() => String::new(),
        None => events_table(&rows),
    };
    let remark = rows.is_empty().then(|| "No events found.".to_owned());
    Ok(Answer {
        remark: remark.filter(|_| !common.output.is_structured()),
        ..Answer::of(text)
    })
}

/// Events as `kubectl get events` prints them.
pub fn events_table(rows: &[EventRow]) -> String {
    let heading = ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"];
    let cells = rows.iter().map(|row| {
        vec![
            seen(row),
            kind(row).to_owned(),
            row.reason.clone(),
            row.object.clone(),
            row.message.clone(),
        ]
    });
    table(&heading, &cells.collect::<Vec<_>>())
}

/// When, and how often if more than once.
pub fn seen(row: &EventRow) -> String {
    match row.count {
        1 => age(row.age_seconds),
        count => format!("{} (x{count})", age(row.age_seconds)),
    }
}

/// `Normal` or `Warning`.
pub const fn kind(row: &EventRow) -> &'static str {
    if row.warning { "Warning" } else { "Normal" }
}

impl Common {
    /// A Pod without a namespace is one of the namespace asked for.
    fn drain_target(&self, target: &str) -> String {
        let namespace = self.namespace.as_deref().unwrap_or("default");
        match target.strip_prefix("pod/") {
            Some(name) if !name.contains('/') => format!("pod/{namespace}/{name}"),
            _ => target.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_conf::message::controlplane::DrainStage;

    use super::*;

    #[test]
    fn a_drain_tells_how_many_endpoints_are_meant_and_for_how_long() {
        let mut drain = DrainRow {
            target: "node/n1".into(),
            endpoints: 1,
            stage: DrainStage::Noticed,
            timeout_seconds: Some(60),
            age_seconds: 0,
        };
        assert_eq!(
            drained(&drain),
            "node/n1 is drained: 1 endpoint; existing connections may go on for 60 s\n"
        );
        (drain.endpoints, drain.timeout_seconds) = (2, None);
        assert_eq!(
            drained(&drain),
            "node/n1 is drained: 2 endpoints; existing connections may go on until they end\n"
        );
    }

    #[test]
    fn events_look_as_in_kubectl() {
        let row = EventRow {
            age_seconds: 130,
            count: 3,
            warning: true,
            reason: "Unhealthy".into(),
            object: "Service default/web".into(),
            message: "10.0.2.11:8080: connection refused".into(),
        };
        assert_eq!(
            events_table(&[row]),
            "\
LAST SEEN    TYPE      REASON      OBJECT                MESSAGE
2m10s (x3)   Warning   Unhealthy   Service default/web   10.0.2.11:8080: connection refused
"
        );
    }
}
