//! Whether the gateway itself is well.

use std::time::Duration;

use hyper::Response;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use super::answer;

/// Key of the taint by which the cluster autoscaler announces that it removes a node (KEP-3836).
pub const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// What is known of the gateway's health. Time is what the caller's clock says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyHealth {
    timeout: Duration,
    applied: Option<Duration>,
    waiting: Option<Duration>,
    eligible: bool,
}

impl ProxyHealth {
    /// A gateway that has just started: healthy until a table waits for longer than `timeout`.
    /// kube-proxy's is two sync periods.
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            applied: None,
            waiting: None,
            eligible: true,
        }
    }

    /// There is a table that the dataplane does not have yet. Only the first of several counts, so
    /// that a stream of changes cannot hide that none of them arrives.
    pub fn queued(&mut self, now: Duration) {
        self.waiting.get_or_insert(now);
    }

    /// The dataplane has applied the newest table.
    pub fn applied(&mut self, now: Duration) {
        self.applied = Some(now);
        self.waiting = None;
    }

    /// The nodes that the gateway stands in front of, as far as they are known. One that stays is
    /// enough to go on; without any node there is nothing that could go.
    pub fn nodes<'a>(&mut self, nodes: impl IntoIterator<Item = &'a Node>) {
        let mut nodes = nodes.into_iter().peekable();
        self.eligible(nodes.peek().is_none() || nodes.any(is_eligible));
    }

    /// Whether one of the nodes that the gateway stands in front of is to stay, or none is known.
    pub fn eligible(&mut self, eligible: bool) {
        self.eligible = eligible;
    }

    /// Whether tables reach the dataplane in time. Nodes do not matter: what is on its way out
    /// still serves.
    pub fn is_healthy(&self, now: Duration) -> bool {
        let is_late = |since: Duration| now.saturating_sub(since) >= self.timeout;
        !self.waiting.is_some_and(is_late)
    }

    /// The answer at `/healthz`: whether new connections should come here. `time` is `now` as time
    /// of day.
    pub fn healthz(&self, now: Duration, time: Timestamp) -> Response<String> {
        let is_well = self.is_healthy(now) && self.eligible;
        let times = self.times(is_well, now, time);
        let body = format!("{{{times}, \"nodeEligible\": {}}}", self.eligible);
        answer::json(is_well, body)
    }

    /// The answer at `/livez`: whether a restart would help; a node that goes is no reason.
    pub fn livez(&self, now: Duration, time: Timestamp) -> Response<String> {
        let is_well = self.is_healthy(now);
        let times = self.times(is_well, now, time);
        answer::json(is_well, format!("{{{times}}}"))
    }

    /// Whoever is well is up to date now, whenever the last change was (as in kube-proxy).
    fn times(&self, is_well: bool, now: Duration, time: Timestamp) -> String {
        let updated = match (is_well, self.applied) {
            (true, _) => Some(time),
            (false, None) => None,
            (false, Some(applied)) => time.checked_sub(now.saturating_sub(applied)).ok(),
        };
        let text = |time: Option<Timestamp>| json!(time.map(|time| time.to_string()));
        format!(
            "\"lastUpdated\": {},\"currentTime\": {}",
            text(updated),
            text(Some(time))
        )
    }
}

/// Whether a node is to stay (KEP-3836).
pub fn is_eligible(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref());
    let mut taints = taints.unwrap_or_default().iter();
    node.metadata.deletion_timestamp.is_none() && !taints.any(|taint| taint.key == TO_BE_DELETED)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn time(seconds: u64) -> Timestamp {
        "2026-11-22T03:00:00Z".parse::<Timestamp>().unwrap() + at(seconds)
    }

    /// Status at `/healthz` and `/livez`.
    fn statuses(health: &ProxyHealth, seconds: u64) -> (u16, u16) {
        let (now, time) = (at(seconds), time(seconds));
        let (healthz, livez) = (health.healthz(now, time), health.livez(now, time));
        (healthz.status().as_u16(), livez.status().as_u16())
    }

    fn node(taint: Option<&str>, goes: bool) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n", "deletionTimestamp": goes.then_some("2026-11-22T03:00:00Z")},
            "spec": {"taints": taint.map(|key| vec![json!({"key": key, "effect": "NoSchedule"})])},
        }))
        .unwrap()
    }

    #[test]
    fn only_a_table_that_waits_too_long_makes_it_unhealthy() {
        let mut health = ProxyHealth::new(TIMEOUT);
        assert_eq!(statuses(&health, 0), (200, 200), "just started");
        health.applied(at(1));
        assert_eq!(statuses(&health, 1000), (200, 200), "nothing to do");
        health.queued(at(1000));
        assert_eq!(statuses(&health, 1009), (200, 200));
        health.queued(at(1009));
        assert_eq!(statuses(&health, 1010), (503, 503), "the first one waits");
        assert!(!health.is_healthy(at(1010)));
        health.applied(at(1011));
        assert_eq!(statuses(&health, 1011), (200, 200));
    }

    #[test]
    fn a_first_table_that_never_arrives_makes_it_unhealthy() {
        let mut health = ProxyHealth::new(TIMEOUT);
        health.queued(at(2));
        assert_eq!(statuses(&health, 11), (200, 200));
        assert_eq!(statuses(&health, 12), (503, 503));
        assert_eq!(
            health.livez(at(12), time(12)).body(),
            r#"{"lastUpdated": null,"currentTime": "2026-11-22T03:00:12Z"}"#
        );
    }

    #[test]
    fn a_node_that_goes_ends_readiness_and_not_life() {
        let mut health = ProxyHealth::new(TIMEOUT);
        let stays = node(Some("other"), false);
        for goes in [node(Some(TO_BE_DELETED), false), node(None, true)] {
            assert!(!is_eligible(&goes));
            health.nodes([&goes]);
            assert_eq!(statuses(&health, 0), (503, 200));
            assert!(health.is_healthy(at(0)));
            health.nodes([&goes, &stays]);
            assert_eq!(statuses(&health, 0), (200, 200), "one node stays");
        }
        health.nodes([&node(None, true)]);
        health.nodes([]);
        assert_eq!(statuses(&health, 0), (200, 200), "no node is known");
    }

    #[test]
    fn answers_tell_the_times_and_whether_the_node_stays() {
        let mut health = ProxyHealth::new(TIMEOUT);
        health.applied(at(5));
        let answer = health.healthz(at(7), time(7));
        assert_eq!(
            answer.body(),
            r#"{"lastUpdated": "2026-11-22T03:00:07Z","currentTime": "2026-11-22T03:00:07Z", "nodeEligible": true}"#
        );
        assert_eq!(answer.headers()["content-type"], "application/json");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers().len(), 2);
        health.nodes([&node(None, true)]);
        assert_eq!(
            health.healthz(at(7), time(7)).body(),
            r#"{"lastUpdated": "2026-11-22T03:00:05Z","currentTime": "2026-11-22T03:00:07Z", "nodeEligible": false}"#
        );
        assert_eq!(
            health.livez(at(7), time(7)).body(),
            r#"{"lastUpdated": "2026-11-22T03:00:07Z","currentTime": "2026-11-22T03:00:07Z"}"#
        );
    }
}
