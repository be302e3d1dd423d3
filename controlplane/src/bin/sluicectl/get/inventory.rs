//! `get pools`, `get policies`, `get nodes`, `get pods` and `get drains`.

use std::net::IpAddr;

use sluice_conf::message::controlplane::{
    DrainRow, DrainStage, NodeRow, PodRow, PolicyRow, PoolRow, Reply, Request,
};
use sluice_controlplane::client::ClientError;

use super::{answer, join, keep, none, or_none, with_namespace};
use crate::output::{Format, age, table};
use crate::{Answer, Common};

/// What the control plane answered, if it is what was asked for.
macro_rules! ask {
    ($common:expr, $request:expr, $kind:ident) => {
        match $common.ask_controlplane(&$request)? {
            Reply::$kind(rows) => rows,
            _ => return Err(ClientError::Unexpected("control plane").into()),
        }
    };
}

pub fn pools(common: &Common, only: &[String]) -> anyhow::Result<Answer> {
    let mut rows = ask!(common, Request::Pools, Pools);
    let missing = keep(&mut rows, only, |row| &row.name);
    answer(common, &rows, None, "address pool", &missing, pools_table)
}

pub fn policies(common: &Common, only: &[String]) -> anyhow::Result<Answer> {
    let namespace = common.listed_namespace();
    let request = Request::Policies {
        namespace: namespace.clone(),
    };
    let mut rows = ask!(common, request, Policies);
    let missing = keep(&mut rows, only, |row| &row.name);
    let all = namespace.is_none();
    answer(common, &rows, namespace, "policy", &missing, |rows| {
        policies_table(rows, all)
    })
}

pub fn nodes(common: &Common, only: &[String]) -> anyhow::Result<Answer> {
    let mut rows = ask!(common, Request::Nodes, Nodes);
    let missing = keep(&mut rows, only, |row| &row.name);
    answer(common, &rows, None, "node", &missing, nodes_table)
}

pub fn pods(common: &Common, only: &[String]) -> anyhow::Result<Answer> {
    let namespace = common.listed_namespace();
    let request = Request::Pods {
        namespace: namespace.clone(),
    };
    let mut rows = ask!(common, request, Pods);
    let missing = keep(&mut rows, only, |row| &row.name);
    let all = namespace.is_none();
    answer(common, &rows, namespace, "pod", &missing, |rows| {
        pods_table(rows, all, common.output == Format::Wide)
    })
}

pub fn drains(common: &Common) -> anyhow::Result<Answer> {
    let rows = ask!(common, Request::Drains, Drains);
    answer(common, &rows, None, "drain", &[], drains_table)
}

fn pools_table(rows: &[PoolRow]) -> String {
    let heading = [
        "NAME",
        "FAMILY",
        "TOTAL",
        "USED",
        "FREE",
        "AUTO-ASSIGN",
        "ADDRESSES",
    ];
    let cells = rows.iter().map(|row| {
        let free = row.total.saturating_sub(row.used.into());
        vec![
            row.name.clone(),
            row.family.clone(),
            row.total.to_string(),
            row.used.to_string(),
            free.to_string(),
            row.auto_assign.to_string(),
            row.ranges.join(","),
        ]
    });
    table(&heading, &cells.collect::<Vec<_>>())
}

fn policies_table(rows: &[PolicyRow], all_namespaces: bool) -> String {
    let heading = vec!["NAME", "TARGETS", "IN-FORCE", "PROBE", "FAIL-OPEN"];
    let cells = rows.iter().map(|row| {
        let percent = row.fail_open_percent.map(|percent| format!("{percent}%"));
        let cells = vec![
            row.name.clone(),
            row.targets.join(","),
            or_none(row.in_force.join(",")),
            row.probe.clone().unwrap_or_else(none),
            percent.unwrap_or_else(none),
        ];
        (row.namespace.clone(), cells)
    });
    with_namespace(heading, cells.collect(), all_namespaces)
}

fn nodes_table(rows: &[NodeRow]) -> String {
    let cells = rows.iter().map(|row| {
        let status = if row.ready { "Ready" } else { "NotReady" };
        vec![
            row.name.clone(),
            status.to_owned(),
            row.local.to_string(),
            row.zone.clone().unwrap_or_else(none),
            addresses(&row.addresses),
        ]
    });
    let heading = ["NAME", "STATUS", "LOCAL", "ZONE", "ADDRESSES"];
    table(&heading, &cells.collect::<Vec<_>>())
}

fn pods_table(rows: &[PodRow], all_namespaces: bool, wide: bool) -> String {
    let mut heading = vec!["NAME", "READY", "STATUS", "IP", "NODE"];
    if wide {
        heading.push("LABELS");
    }
    let cells = rows.iter().map(|row| {
        let status = match (row.finished, row.terminating) {
            (true, _) => "Completed",
            (false, true) => "Terminating",
            (false, false) => "Running",
        };
        let mut cells = vec![
            row.name.clone(),
            row.ready.to_string(),
            status.to_owned(),
            addresses(&row.addresses),
            row.node.clone().unwrap_or_else(none),
        ];
        if wide {
            cells.push(or_none(row.labels.join(",")));
        }
        (row.namespace.clone(), cells)
    });
    with_namespace(heading, cells.collect(), all_namespaces)
}

fn drains_table(rows: &[DrainRow]) -> String {
    let cells = rows.iter().map(|row| {
        let timeout = row.timeout_seconds.map(|seconds| age(seconds.into()));
        vec![
            row.target.clone(),
            row.endpoints.to_string(),
            drain_stage(row.stage).to_owned(),
            timeout.unwrap_or_else(none),
            age(row.age_seconds),
        ]
    });
    let heading = ["TARGET", "ENDPOINTS", "STAGE", "TIMEOUT", "AGE"];
    table(&heading, &cells.collect::<Vec<_>>())
}

/// A stage in one word.
pub const fn drain_stage(stage: DrainStage) -> &'static str {
    match stage {
        DrainStage::Noticed => "noticed",
        DrainStage::Draining => "draining",
        DrainStage::Gone => "gone",
    }
}

fn addresses(addresses: &[IpAddr]) -> String {
    or_none(join(addresses.iter().map(IpAddr::to_string)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_tell_what_is_left_of_each_family() {
        let row = |family: &str, total, used, range: &str| PoolRow {
            name: "public".into(),
            family: family.into(),
            total,
            used,
            auto_assign: true,
            ranges: vec![range.into()],
        };
        let rows = [
            row("IPv4", 16, 2, "203.0.113.0-203.0.113.15"),
            row("IPv6", 256, 0, "2001:db8::-2001:db8::ff"),
        ];
        assert_eq!(
            pools_table(&rows),
            "\
NAME     FAMILY   TOTAL   USED   FREE   AUTO-ASSIGN   ADDRESSES
public   IPv4     16      2      14     true          203.0.113.0-203.0.113.15
public   IPv6     256     0      256    true          2001:db8::-2001:db8::ff
"
        );
    }

    #[test]
    fn pods_and_drains_tell_what_is_on_its_way_out() {
        let pod = PodRow {
            namespace: "shop".into(),
            name: "web-0".into(),
            ready: true,
            terminating: true,
            finished: false,
            addresses: vec!["10.0.2.11".parse().unwrap()],
            node: None,
            labels: vec!["app=web".into()],
        };
        assert_eq!(
            pods_table(&[pod], true, true),
            "\
NAMESPACE   NAME    READY   STATUS        IP          NODE     LABELS
shop        web-0   true    Terminating   10.0.2.11   <none>   app=web
"
        );
        let drain = DrainRow {
            target: "node/n1".into(),
            endpoints: 3,
            stage: DrainStage::Noticed,
            timeout_seconds: Some(60),
            age_seconds: 2,
        };
        assert_eq!(
            drains_table(&[drain]),
            "\
TARGET    ENDPOINTS   STAGE     TIMEOUT   AGE
node/n1   3           noticed   60s       2s
"
        );
    }
}
