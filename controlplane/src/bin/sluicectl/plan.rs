//! `plan`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use sluice_conf::message::controlplane::plan::{Change, Draft, Plan};
use sluice_conf::message::{controlplane, dataplane};
use sluice_controlplane::client::ClientError;
use sluice_controlplane::object::describe;
use sluice_controlplane::plan::connections::{self, Touched};
use sluice_controlplane::plan::files;

use crate::output;
use crate::{Answer, Common, PARTLY};

mod changes;

/// Which manifests.
#[derive(Args)]
pub struct Manifests {
    /// A manifest, a folder of them, or - for standard input.
    #[arg(short, long, value_name = "FILE|DIR")]
    filename: PathBuf,
    /// They are all there is to be: what the manifest folder has beside them goes.
    #[arg(long)]
    delete: bool,
}

/// What would change, and whom it touches.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    plan: Plan,
    /// Absent when connections could not be counted.
    touched: Option<Touched>,
    /// Whether more frontends and backends have connections than were counted.
    more: bool,
}

pub fn run(common: &Common, manifests: &Manifests) -> anyhow::Result<Answer> {
    let files = files::read(&manifests.filename).map_err(anyhow::Error::msg)?;
    let delete = manifests.delete;
    if files.is_empty() && !delete {
        let folder = manifests.filename.display();
        anyhow::bail!("{folder}: holds no manifests; those end in .yaml, .yml or .json");
    }
    let request = controlplane::Request::Plan(Draft { files, delete });
    let controlplane::Reply::Plan(mut plan) = common.ask_controlplane(&request)? else {
        return Err(ClientError::Unexpected("control plane").into());
    };
    let counts = count(common, &plan);
    let (touched, more) = match &counts {
        Ok(counts) => (Some(connections::note(&mut plan, counts)), counts.truncated),
        Err(_) => (None, false),
    };
    let report = Report {
        plan,
        touched,
        more,
    };
    let text = match output::structured(common.output, &report)? {
        Some(text) => text,
        None => report.text(),
    };
    let code = match report.plan.refused.is_empty() {
        true => 0,
        false => PARTLY,
    };
    let remark = counts.err();
    let remark = remark.map(|error| format!("Connections are not counted: {error}"));
    Ok(Answer { text, remark, code })
}

/// Counts the connections of what changes.
fn count(common: &Common, plan: &Plan) -> Result<dataplane::Counts, ClientError> {
    let services = connections::concerned(plan);
    if services.is_empty() {
        return Ok(dataplane::Counts::default());
    }
    match common.ask_dataplane(&dataplane::Request::Count(services))? {
        dataplane::Reply::Counts(counts) => Ok(counts),
        _ => Err(ClientError::Unexpected("dataplane")),
    }
}

impl Report {
    fn text(&self) -> String {
        let mut text = String::new();
        let plan = &self.plan;
        if let Some(pinned) = plan.pinned {
            line(
                &mut text,
                &format!(
                    "Generation {pinned} is pinned: nothing of this happens before `sluicectl rollback \
                     --release`."
                ),
            );
        }
        section(&mut text, "OBJECTS", changes::objects(&plan.objects));
        section(
            &mut text,
            "SERVICE PORTS",
            changes::services(&plan.services),
        );
        let allocations = changes::allocations(&plan.allocations);
        section(&mut text, "ALLOCATIONS", allocations);
        section(&mut text, "SKIPPED", plan.skipped.clone());
        let told = |problems: &[_]| problems.iter().map(describe).collect();
        section(&mut text, "REFUSED", told(&plan.refused));
        section(&mut text, "WARNINGS", told(&plan.warnings));
        text + &self.summary()
    }

    fn summary(&self) -> String {
        let plan = &self.plan;
        if plan.changes_nothing() {
            return "Nothing would change.\n".to_owned();
        }
        let mut text = String::new();
        line(
            &mut text,
            &sums("Objects", plan.objects.iter().map(|o| o.change)),
        );
        line(
            &mut text,
            &sums("Service ports", plan.services.iter().map(|s| s.change)),
        );
        if let Some(touched) = self.touched {
            let least = if self.more { "at least " } else { "" };
            let Touched {
                ended,
                drained,
                kept,
            } = touched;
            line(
                &mut text,
                &format!(
                    "Connections: {least}{ended} will end, {drained} will drain, {kept} will stay with a \
                     backend that gets no new ones."
                ),
            );
        }
        text
    }
}

fn section(text: &mut String, heading: &str, lines: Vec<String>) {
    if !lines.is_empty() {
        line(text, heading);
    }
    for each in lines {
        line(text, &format!("  {each}"));
    }
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn sums(what: &str, changes: impl Iterator<Item = Change>) -> String {
    let (mut added, mut altered, mut removed) = (0, 0, 0);
    for change in changes {
        match change {
            Change::Added => added += 1,
            Change::Altered => altered += 1,
            Change::Removed => removed += 1,
        }
    }
    format!("{what}: {added} to add, {altered} to alter, {removed} to remove.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_conf::message::controlplane::plan::{
        Allocation, Alteration, BackendChange, Fate, FrontendChange, ObjectChange, ServiceChange,
    };
    use sluice_conf::{FrontendKind, Protocol, ServiceName};

    fn name(port: &str) -> ServiceName {
        ServiceName {
            namespace: "default".into(),
            name: "web".into(),
            port: port.into(),
            protocol: Protocol::Tcp,
        }
    }

    fn frontend(address: &str, heir: Option<ServiceName>, connections: u64) -> FrontendChange {
        FrontendChange {
            address: address.parse().unwrap(),
            port: 80,
            last_port: 80,
            kind: FrontendKind::LoadBalancer,
            change: Change::Removed,
            altered: Vec::new(),
            heir,
            inherited: Vec::new(),
            fate: Some(Fate::End),
            connections: Some(connections),
        }
    }

    fn backend(number: u8, change: Change, fate: Option<Fate>) -> BackendChange {
        let weight = Alteration {
            what: "weight".into(),
            before: "1".into(),
            after: "10".into(),
        };
        BackendChange {
            address: [10, 0, 2, number].into(),
            port: 8080,
            change,
            altered: match change {
                Change::Altered => vec![weight],
                Change::Added | Change::Removed => Vec::new(),
            },
            fate,
            connections: Some(3),
        }
    }

    fn report(backends: Vec<BackendChange>) -> Report {
        let heir = Some(name("http"));
        let service = ServiceChange {
            name: name(""),
            change: Change::Altered,
            frontends: vec![
                frontend("2001:db8::1", None, 1),
                frontend("203.0.113.10", heir, 0),
            ],
            backends,
            policies: Vec::new(),
        };
        let allocation = Allocation {
            service: "default/web".into(),
            field: "spec.clusterIPs".into(),
            value: "10.96.0.7".into(),
            taken: true,
        };
        Report {
            plan: Plan {
                objects: vec![ObjectChange {
                    object: "Service default/web".into(),
                    change: Change::Altered,
                }],
                services: vec![service],
                allocations: vec![allocation],
                ..Plan::default()
            },
            touched: Some(Touched {
                ended: 1,
                drained: 3,
                kept: 0,
            }),
            more: false,
        }
    }

    #[test]
    fn a_plan_is_told_like_a_difference() {
        let drained = Fate::Drain { seconds: 30 };
        let backends = vec![
            backend(11, Change::Altered, None),
            backend(12, Change::Removed, Some(drained)),
            backend(13, Change::Added, None),
        ];
        assert_eq!(
            report(backends).text(),
            "\
OBJECTS
  ~ Service default/web
SERVICE PORTS
  ~ default/web/TCP
    - frontend [2001:db8::1]:80, LoadBalancer address  (1 connection will end)
    - frontend 203.0.113.10:80, LoadBalancer address  taken over by default/web:http/TCP
    ~ backend 10.0.2.11:8080  weight: 1 -> 10  (3 connections)
    - backend 10.0.2.12:8080  (3 connections will drain for 30 s)
    + backend 10.0.2.13:8080
ALLOCATIONS
  + default/web spec.clusterIPs 10.96.0.7
Objects: 0 to add, 1 to alter, 0 to remove.
Service ports: 0 to add, 1 to alter, 0 to remove.
Connections: 1 will end, 3 will drain, 0 will stay with a backend that gets no new ones.
"
        );
    }

    #[test]
    fn many_backends_that_come_or_go_are_one_line() {
        let gone = (0..30).map(|number| backend(number, Change::Removed, Some(Fate::End)));
        let come = (30..60).map(|number| backend(number, Change::Added, None));
        let text = report(gone.chain(come).collect()).text();
        for line in [
            "\n    - 30 backends  (90 connections will end)\n",
            "\n    + 30 backends\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        assert!(!text.contains("backend 10.0.2.7:8080"), "{text}");
    }

    #[test]
    fn a_plan_of_nothing_says_so_and_a_pin_is_told_first() {
        let mut report = report(Vec::new());
        report.plan = Plan::default();
        assert_eq!(report.text(), "Nothing would change.\n");
        report.plan.pinned = Some(sluice_conf::Generation(4));
        let pinned = "Generation 4 is pinned: nothing of this happens";
        assert!(report.text().starts_with(pinned), "{}", report.text());
    }
}
