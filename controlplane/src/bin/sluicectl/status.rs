//! `status`.

use std::fmt::Write;

use serde::Serialize;
use sluice_conf::Generation;
use sluice_conf::message::{controlplane, dataplane};
use sluice_controlplane::client::ClientError;
use sluice_controlplane::object::describe;
use sluice_controlplane::words;

use crate::output::{self, age, table};
use crate::{Answer, Common, MISTAKE, PARTLY};

/// Both daemons, or why one does not answer.
#[derive(Debug, Serialize)]
struct Report {
    controlplane: Side<controlplane::Status>,
    dataplane: Side<dataplane::Status>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Side<T> {
    Status(T),
    Error(String),
}

impl<T> Side<T> {
    fn of(result: Result<T, ClientError>) -> Self {
        match result {
            Ok(status) => Side::Status(status),
            Err(error) => Side::Error(error.to_string()),
        }
    }

    fn failed(&self) -> bool {
        matches!(self, Side::Error(_))
    }
}

pub fn run(common: &Common) -> anyhow::Result<Answer> {
    let controlplane = common
        .ask_controlplane(&controlplane::Request::Status)
        .and_then(|reply| match reply {
            controlplane::Reply::Status(status) => Ok(status),
            _ => Err(ClientError::Unexpected("control plane")),
        });
    let dataplane =
        common
            .ask_dataplane(&dataplane::Request::Status)
            .and_then(|reply| match reply {
                dataplane::Reply::Status(status) => Ok(status),
                _ => Err(ClientError::Unexpected("dataplane")),
            });
    let report = Report {
        controlplane: Side::of(controlplane),
        dataplane: Side::of(dataplane),
    };
    let text = match output::structured(common.output, &report)? {
        Some(text) => text,
        None => report.text(),
    };
    let code = match (report.controlplane.failed(), report.dataplane.failed()) {
        (false, false) => 0,
        (true, true) => MISTAKE,
        _ => PARTLY,
    };
    Ok(Answer {
        text,
        remark: None,
        code,
    })
}

impl Report {
    /// What the control plane made the dataplane use.
    fn pushed(&self) -> Option<Generation> {
        let Side::Status(status) = &self.controlplane else {
            return None;
        };
        match &status.dataplane {
            controlplane::DataplaneLink::Connected { applied, .. } => *applied,
            controlplane::DataplaneLink::Disconnected { .. } => None,
        }
    }

    fn text(&self) -> String {
        let mut text = String::from("CONTROL PLANE\n");
        match &self.controlplane {
            Side::Status(status) => controlplane_text(&mut text, status),
            Side::Error(error) => line(&mut text, "state", error),
        }
        text.push_str("\nDATAPLANE\n");
        match &self.dataplane {
            Side::Status(status) => dataplane_text(&mut text, status, self.pushed()),
            Side::Error(error) => line(&mut text, "state", error),
        }
        if let Side::Status(status) = &self.controlplane {
            problems_text(&mut text, &status.problems);
        }
        text
    }
}

fn line(text: &mut String, name: &str, value: &str) {
    // Writing into a String never fails.
    let _ = writeln!(text, "  {name:<12} {value}");
}

fn process(text: &mut String, release: &str, pid: u32, uptime: u64) {
    let value = format!("{release}, pid {pid}, up {}", age(uptime));
    line(text, "release", &value);
}

fn generation(generation: Option<Generation>) -> String {
    generation.map_or_else(|| "none".to_owned(), |g| g.to_string())
}

fn controlplane_text(text: &mut String, status: &controlplane::Status) {
    process(text, &status.release, status.pid, status.uptime_seconds);
    line(text, "source", &status.source);
    if let Some(link) = &status.kubernetes {
        line(text, "kubernetes", &kubernetes_text(link));
    }
    let objects = [
        words::count(status.services, "service"),
        words::count(status.endpoint_slices, "endpoint slice"),
    ];
    let objects = objects.join(", ");
    line(text, "objects", &objects);
    let compiled = status.generation;
    if let Some(pinned) = status.pinned {
        let pinned =
            format!("{pinned}: NO CHANGE has any effect before `sluicectl rollback --release`");
        line(text, "pinned", &pinned);
    }
    match &status.dataplane {
        controlplane::DataplaneLink::Connected { applied, rejected } => {
            let applied = generation(*applied);
            line(
                text,
                "generation",
                &format!("{compiled} compiled, {applied} applied"),
            );
            line(text, "link", "connected to the dataplane");
            if let Some(reason) = rejected {
                line(text, "rejected", reason);
            }
        }
        controlplane::DataplaneLink::Disconnected { socket, reason } => {
            line(text, "generation", &format!("{compiled} compiled"));
            let link = format!("no dataplane at {socket}, trying again: {reason}");
            line(text, "link", &link);
        }
    }
}

fn kubernetes_text(link: &controlplane::KubernetesLink) -> String {
    let since = age(link.seconds);
    if link.connected {
        let role = match link.leads {
            true => "writes status",
            false => "another gateway writes status",
        };
        return format!("connected to {} since {since}, {role}", link.server);
    }
    let reason = link.reason.as_deref().unwrap_or("still reading");
    let meanwhile = match link.synced {
        true => "what was read last serves on",
        false => "nothing is compiled before everything was read",
    };
    format!(
        "not connected to {} since {since}, {meanwhile}: {reason}",
        link.server
    )
}

fn dataplane_text(text: &mut String, status: &dataplane::Status, pushed: Option<Generation>) {
    process(text, &status.release, status.pid, status.uptime_seconds);
    let mut used = generation(status.generation);
    if pushed.is_some() && status.generation != pushed {
        let own = generation(pushed);
        used.push_str(&format!(
            ", not the {own} that this control plane pushed; does another one push, too?"
        ));
    }
    line(text, "generation", &used);
    let sizes = [
        words::count(status.services, "service port"),
        words::count(status.frontends, "frontend"),
        words::count(status.backends, "backend"),
    ];
    let sizes = sizes.join(", ");
    line(text, "table", &sizes);
    if let Some(reason) = &status.last_rejection {
        line(text, "rejected", reason);
    }
    let interfaces: Vec<Vec<String>> = status
        .interfaces
        .iter()
        .map(|interface| {
            let queues = interface.queues.to_string();
            let (xdp, frames) = (interface.xdp.clone(), interface.frames.clone());
            vec![interface.name.clone(), queues, xdp, frames]
        })
        .collect();
    indented(text, &["INTERFACE", "QUEUES", "XDP", "FRAMES"], &interfaces);
    let workers: Vec<Vec<String>> = status
        .workers
        .iter()
        .map(|worker| {
            vec![
                worker.id.to_string(),
                worker
                    .core
                    .map_or_else(|| "any".to_owned(), |core| core.to_string()),
                format!("{}/{}", worker.connections, worker.connections_capacity),
                worker.received.to_string(),
                worker.dropped.to_string(),
            ]
        })
        .collect();
    let heading = ["WORKER", "CORE", "CONNECTIONS", "RECEIVED", "DROPPED"];
    indented(text, &heading, &workers);
}

fn indented(text: &mut String, heading: &[&str], rows: &[Vec<String>]) {
    text.push('\n');
    for row in table(heading, rows).lines() {
        let _ = writeln!(text, "  {row}");
    }
}

fn problems_text(text: &mut String, problems: &[controlplane::Problem]) {
    if problems.is_empty() {
        text.push_str("\nPROBLEMS\n  none\n");
        return;
    }
    let _ = writeln!(text, "\nPROBLEMS ({})", problems.len());
    for problem in problems {
        let _ = writeln!(text, "  {}", describe(problem));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controlplane_status() -> controlplane::Status {
        controlplane::Status {
            release: "0.1.0".into(),
            pid: 41,
            uptime_seconds: 130,
            generation: Generation(7),
            pinned: None,
            services: 2,
            endpoint_slices: 3,
            source: "folder /etc/sluice/services".into(),
            kubernetes: None,
            dataplane: controlplane::DataplaneLink::Connected {
                applied: Some(Generation(6)),
                rejected: Some("generation 7: too big".into()),
            },
            problems: vec![controlplane::Problem {
                file: "/etc/sluice/services/web.yaml".into(),
                line: Some(9),
                object: Some("Service default/web".into()),
                field: Some("spec.ports[0].port".into()),
                message: "0 is not a port; use 1 to 65535".into(),
            }],
        }
    }

    fn dataplane_status() -> dataplane::Status {
        dataplane::Status {
            release: "0.1.0".into(),
            pid: 40,
            uptime_seconds: 3,
            generation: Some(Generation(6)),
            services: 2,
            frontends: 5,
            backends: 6,
            last_rejection: None,
            interfaces: vec![dataplane::Interface {
                name: "eth1".into(),
                queues: 2,
                xdp: "native".into(),
                frames: "zero-copy".into(),
            }],
            workers: vec![dataplane::Worker {
                id: 0,
                core: Some(1),
                connections: 12,
                connections_capacity: 262_144,
                received: 1000,
                dropped: 4,
            }],
        }
    }

    #[test]
    fn both_daemons_are_shown() {
        let report = Report {
            controlplane: Side::Status(controlplane_status()),
            dataplane: Side::Status(dataplane_status()),
        };
        assert_eq!(
            report.text(),
            "\
CONTROL PLANE
  release      0.1.0, pid 41, up 2m10s
  source       folder /etc/sluice/services
  objects      2 services, 3 endpoint slices
  generation   7 compiled, 6 applied
  link         connected to the dataplane
  rejected     generation 7: too big

DATAPLANE
  release      0.1.0, pid 40, up 3s
  generation   6
  table        2 service ports, 5 frontends, 6 backends

  INTERFACE   QUEUES   XDP      FRAMES
  eth1        2        native   zero-copy

  WORKER   CORE   CONNECTIONS   RECEIVED   DROPPED
  0        1      12/262144     1000       4

PROBLEMS (1)
  /etc/sluice/services/web.yaml:9 Service default/web spec.ports[0].port: 0 is not a port; use 1 to 65535
"
        );
    }

    #[test]
    fn a_kubernetes_api_is_shown_with_what_its_absence_means() {
        let mut link = controlplane::KubernetesLink {
            server: "production".into(),
            connected: true,
            synced: true,
            seconds: 61,
            reason: None,
            leads: true,
        };
        let text = kubernetes_text(&link);
        assert_eq!(text, "connected to production since 61s, writes status");
        link.leads = false;
        let text = kubernetes_text(&link);
        assert!(text.ends_with(", another gateway writes status"), "{text}");
        (link.connected, link.reason) = (false, Some("Services: cannot be reached".into()));
        assert_eq!(
            kubernetes_text(&link),
            "not connected to production since 61s, what was read last serves on: \
             Services: cannot be reached"
        );
        (link.synced, link.reason) = (false, None);
        assert_eq!(
            kubernetes_text(&link),
            "not connected to production since 61s, nothing is compiled before everything was \
             read: still reading"
        );
        let status = controlplane::Status {
            kubernetes: Some(link),
            ..controlplane_status()
        };
        let mut text = String::new();
        controlplane_text(&mut text, &status);
        assert!(text.contains("\n  kubernetes   not connected"), "{text}");
    }

    #[test]
    fn a_pinned_generation_cannot_be_overlooked() {
        let mut status = controlplane_status();
        status.pinned = Some(Generation(4));
        let mut text = String::new();
        controlplane_text(&mut text, &status);
        let line =
            "  pinned       4: NO CHANGE has any effect before `sluicectl rollback --release`\n";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn a_generation_of_another_control_plane_is_shown() {
        let mut dataplane = dataplane_status();
        dataplane.generation = Some(Generation(9));
        let report = Report {
            controlplane: Side::Status(controlplane_status()),
            dataplane: Side::Status(dataplane),
        };
        let line = "  generation   9, not the 6 that this control plane pushed; does another one push, too?\n";
        assert!(report.text().contains(line), "{}", report.text());
    }

    #[test]
    fn a_daemon_that_does_not_answer_is_named() {
        let report = Report {
            controlplane: Side::Error("the control plane is not reachable".into()),
            dataplane: Side::Status(dataplane_status()),
        };
        let text = report.text();
        assert!(
            text.starts_with("CONTROL PLANE\n  state        the control plane is not reachable\n"),
            "{text}"
        );
        assert!(text.contains("DATAPLANE\n  release      0.1.0, pid 40, up 3s\n"));
    }
}
