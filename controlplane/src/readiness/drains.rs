//! Endpoints that the operator takes out of use, step by step.
//!
//! ```text
//!   drain --------> notice ----------> new connections stop --------> timeout
//!      in no answer of DNS any more       existing ones go on            existing ones end, too
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::address;
use crate::endpoints::Endpoint;
use crate::object::{NamespacedName, is_label, is_subdomain};

/// What is drained.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Endpoints with this address.
    Address(IpAddr),
    /// The endpoint of this Pod.
    Pod(NamespacedName),
    /// Endpoints on this node.
    Node(String),
}

impl Target {
    /// Whether an endpoint in `namespace` is meant.
    pub fn is(&self, namespace: &str, endpoint: &Endpoint) -> bool {
        match self {
            Target::Address(address) => endpoint.address == *address,
            Target::Node(node) => endpoint.node.as_deref() == Some(node),
            Target::Pod(pod) => {
                pod.namespace == namespace && endpoint.pod.as_deref() == Some(&pod.name)
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Address(address) => write!(f, "address/{address}"),
            Target::Pod(pod) => write!(f, "pod/{pod}"),
            Target::Node(node) => write!(f, "node/{node}"),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    /// Reads what [`fmt::Display`] writes; a bare address is one, a bare name is a node's.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = |name: &str| is_subdomain(name).then(|| name.to_owned());
        let target = match text.split_once('/') {
            Some(("address", text)) => address::address(text).map(Target::Address),
            Some(("node", text)) => name(text).map(Target::Node),
            Some(("pod", text)) => match text.split_once('/') {
                Some((space, pod)) if is_label(space) => name(pod).map(|p| (space.to_owned(), p)),
                Some(_) => None,
                None => name(text).map(|pod| ("default".to_owned(), pod)),
            }
            .map(|(space, pod)| Target::Pod(NamespacedName::new(space, pod))),
            Some(_) => None,
            None => address::address(text)
                .map(Target::Address)
                .or_else(|| name(text).map(Target::Node)),
        };
        target.ok_or_else(|| {
            format!(
                "{text:?} cannot be drained; use node/NAME, pod/NAMESPACE/NAME or an IP address"
            )
        })
    }
}

/// A drain, in seconds since 1970 so that it outlives the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// When it began.
    pub since: u64,
    /// How long existing connections may go on after new ones stopped; without, until they end.
    pub timeout_seconds: Option<u32>,
}

/// How far an endpoint is drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// In no answer of DNS any more, otherwise in use.
    Noticed,
    /// New connections go elsewhere.
    Draining,
    /// Out of use.
    Gone,
}

/// All drains.
#[derive(Debug, Clone, Default)]
pub struct Drains {
    drains: BTreeMap<Target, Drain>,
    /// How long DNS answers may still be in use.
    notice: Duration,
}

impl Drains {
    /// These drains; new connections stop `notice` after each began.
    pub fn new(drains: BTreeMap<Target, Drain>, notice: Duration) -> Self {
        Self { drains, notice }
    }

    /// Begins a drain, or alters the timeout of one.
    pub fn begin(&mut self, target: Target, timeout_seconds: Option<u32>, now: u64) -> Drain {
        let drain = self.drains.entry(target).or_insert(Drain {
            since: now,
            timeout_seconds,
        });
        drain.timeout_seconds = timeout_seconds;
        *drain
    }

    /// Ends a drain. Returns whether there was one.
    pub fn end(&mut self, target: &Target) -> bool {
        self.drains.remove(target).is_some()
    }

    /// All of them, sorted by target.
    pub fn iter(&self) -> impl Iterator<Item = (&Target, &Drain)> {
        self.drains.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.drains.is_empty()
    }

    /// How far an endpoint is drained at `now`, by the drain that is furthest.
    pub fn stage(&self, namespace: &str, endpoint: &Endpoint, now: u64) -> Option<Stage> {
        let drains = self.drains.iter();
        let meant = drains.filter(|(target, _)| target.is(namespace, endpoint));
        meant.map(|(_, drain)| self.stage_of(drain, now)).max()
    }

    /// How far a drain is at `now`.
    pub fn stage_of(&self, drain: &Drain, now: u64) -> Stage {
        match self.steps(drain) {
            (_, Some(end)) if now >= end => Stage::Gone,
            (stop, _) if now >= stop => Stage::Draining,
            _ => Stage::Noticed,
        }
    }

    /// When the next drain goes a step further.
    pub fn next_step(&self, now: u64) -> Option<u64> {
        let steps = self.drains.values().flat_map(|drain| {
            let (stop, end) = self.steps(drain);
            [Some(stop), end]
        });
        steps.flatten().filter(|step| *step > now).min()
    }

    /// When new connections stop, and when existing ones end.
    fn steps(&self, drain: &Drain) -> (u64, Option<u64>) {
        let stop = drain.since.saturating_add(self.notice.as_secs());
        let end = drain.timeout_seconds.map(|s| stop.saturating_add(s.into()));
        (stop, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoints::{Conditions, Hints};

    fn endpoint() -> Endpoint {
        Endpoint {
            address: "10.0.2.1".parse().unwrap(),
            conditions: Conditions {
                ready: true,
                serving: true,
                terminating: false,
            },
            node: Some("n1".to_owned()),
            zone: None,
            pod: Some("web-0".to_owned()),
            hostname: None,
            tier: 0,
            weight: 1,
            hints: Hints::default(),
        }
    }

    fn drains() -> Drains {
        Drains::new(BTreeMap::new(), Duration::from_secs(5))
    }

    #[test]
    fn what_is_drained_is_told_by_its_kind() {
        for (text, written) in [
            ("node/n1", "node/n1"),
            ("n1", "node/n1"),
            ("10.0.2.1", "address/10.0.2.1"),
            ("2001:db8::1", "address/2001:db8::1"),
            ("pod/shop/web-0", "pod/shop/web-0"),
            ("pod/web-0", "pod/default/web-0"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), written);
        }
        for bad in [
            "",
            "service/web",
            "pod/a/b/c",
            "Node!",
            "address/x",
            "node/",
        ] {
            let error = bad.parse::<Target>().unwrap_err();
            assert!(
                error.contains("cannot be drained; use node/NAME"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_drain_goes_step_by_step() {
        let mut drains = drains();
        drains.begin("n1".parse().unwrap(), Some(30), 100);
        let stages = [100, 104, 105, 134, 135].map(|now| {
            let stage = drains.stage("default", &endpoint(), now);
            (stage.unwrap(), drains.next_step(now))
        });
        use Stage::{Draining, Gone, Noticed};
        assert_eq!(
            stages,
            [
                (Noticed, Some(105)),
                (Noticed, Some(105)),
                (Draining, Some(135)),
                (Draining, Some(135)),
                (Gone, None),
            ]
        );
    }

    #[test]
    fn without_a_timeout_connections_go_on_until_they_end() {
        let mut drains = drains();
        drains.begin("pod/web-0".parse().unwrap(), None, 100);
        let now = 1_000_000;
        assert_eq!(
            drains.stage("default", &endpoint(), now),
            Some(Stage::Draining)
        );
        assert_eq!(drains.stage("shop", &endpoint(), now), None, "another Pod");
        assert_eq!(drains.next_step(now), None);
    }

    #[test]
    fn of_several_drains_the_furthest_counts_and_an_ended_one_does_not() {
        let mut drains = drains();
        drains.begin("10.0.2.1".parse().unwrap(), Some(1), 100);
        drains.begin("n1".parse().unwrap(), None, 110);
        assert_eq!(drains.stage("default", &endpoint(), 112), Some(Stage::Gone));
        assert!(drains.end(&"10.0.2.1".parse().unwrap()));
        assert!(!drains.end(&"10.0.2.1".parse().unwrap()));
        assert_eq!(
            drains.stage("default", &endpoint(), 112),
            Some(Stage::Noticed)
        );
    }

    #[test]
    fn a_drain_that_is_asked_for_again_keeps_its_beginning() {
        let mut drains = drains();
        let target: Target = "n1".parse().unwrap();
        drains.begin(target.clone(), None, 100);
        let drain = drains.begin(target, Some(60), 200);
        assert_eq!((drain.since, drain.timeout_seconds), (100, Some(60)));
    }
}
