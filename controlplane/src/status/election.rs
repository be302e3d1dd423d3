//! Elects one of several gateways by a Lease (coordination.k8s.io/v1), as client-go's
//! tools/leaderelection does.
//!
//! Guarantees: a leader that cannot renew its Lease stops leading before the Lease is over, and a
//! Lease that changes is not taken; so two never lead at once as long as their clocks run at the same
//! speed. What the clocks show does not matter: a Lease is over when it was not seen to change for
//! as long as it says.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{GetParams, PostParams};
use kube::core::Request;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::clock::Clock;
use crate::source::kubernetes::client::{Api, ApiError, built};

/// Who takes part in which election.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Election {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// This gateway; no other may have the same.
    pub identity: String,
    /// How long a Lease is good for, in whole seconds (client-go: 15 s).
    pub duration: Duration,
    /// How long a leader goes on without having renewed it; less than `duration` (client-go: 10 s).
    pub renew: Duration,
    /// Pause between attempts (client-go: 2 s).
    pub retry: Duration,
}

impl Election {
    /// The election of `identity` for the Lease `namespace/name`, with client-go's times.
    pub fn new(
        namespace: impl Into<String>,
        name: impl Into<String>,
        identity: impl Into<String>,
    ) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            duration: Duration::from_secs(15),
            renew: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// Until when this gateway leads, as time of the clock; `None` when it does not.
pub type Leading = Option<Duration>;

/// What to do with the Lease.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    /// There is none.
    Create(Lease),
    /// It is ours, or over.
    Replace(Lease),
    /// It is another's.
    Wait,
}

/// The Lease as it was seen last.
#[derive(Debug, Default)]
struct Observer {
    spec: Option<LeaseSpec>,
    /// Since when it is what it is.
    since: Duration,
}

impl Observer {
    /// Decides what to do with `lease` as it is `now`.
    fn step(
        &mut self,
        election: &Election,
        lease: Option<Lease>,
        now: Duration,
        time: Timestamp,
    ) -> Step {
        let Some(mut lease) = lease else {
            return Step::Create(Lease {
                metadata: ObjectMeta {
                    namespace: Some(election.namespace.clone()),
                    name: Some(election.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(election.spec(None, time)),
            });
        };
        if self.spec != lease.spec {
            self.spec.clone_from(&lease.spec);
            self.since = now;
        }
        let before = lease.spec.take().unwrap_or_default();
        let holder = before.holder_identity.as_deref().unwrap_or_default();
        let seconds = before.lease_duration_seconds.unwrap_or_default();
        let lasts = Duration::from_secs(seconds.max(1).unsigned_abs().into());
        let over = now >= self.since + lasts;
        if !holder.is_empty() && holder != election.identity && !over {
            return Step::Wait;
        }
        lease.spec = Some(election.spec(Some(&before), time));
        Step::Replace(lease)
    }
}

impl Election {
    fn spec(&self, before: Option<&LeaseSpec>, time: Timestamp) -> LeaseSpec {
        let holder = before.and_then(|spec| spec.holder_identity.as_ref());
        let ours = holder == Some(&self.identity);
        let acquired = before
            .filter(|_| ours)
            .and_then(|spec| spec.acquire_time.clone());
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        let changed = before.is_some() && !ours;
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
            acquire_time: acquired.or(Some(MicroTime(time))),
            renew_time: Some(MicroTime(time)),
            lease_transitions: Some(transitions.saturating_add(i32::from(changed))),
            ..before.cloned().unwrap_or_default()
        }
    }

    fn path(&self) -> String {
        let namespace = &self.namespace;
        format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases")
    }

    /// Tries once; returns whether the Lease is ours now.
    async fn attempt(
        &self,
        api: &Api,
        observer: &mut Observer,
        now: Duration,
    ) -> Result<bool, ApiError> {
        let leases = Request::new(self.path());
        let limit = self.renew / 2;
        let get = built(leases.get(&self.name, &GetParams::default()))?;
        let lease = match api.json::<Lease>(get, limit).await {
            Ok(lease) => Some(lease),
            Err(error) if error.code() == Some(404) => None,
            Err(error) => return Err(error),
        };
        let params = PostParams::default();
        let write = match observer.step(self, lease, now, Timestamp::now()) {
            Step::Wait => return Ok(false),
            Step::Create(lease) => built(leases.create(&params, body(&lease)?))?,
            Step::Replace(lease) => built(leases.replace(&self.name, &params, body(&lease)?))?,
        };
        match api.json::<Lease>(write, limit).await {
            Ok(_) => Ok(true),
            // Another was faster.
            Err(error) if error.code() == Some(409) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives the Lease up, so that another need not wait until it is over.
    pub(super) async fn release(&self, api: &Api) -> Result<(), ApiError> {
        let leases = Request::new(self.path());
        let limit = self.renew / 2;
        let get = built(leases.get(&self.name, &GetParams::default()))?;
        let mut lease: Lease = api.json(get, limit).await?;
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_ref() != Some(&self.identity) {
            return Ok(());
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        let put = built(leases.replace(&self.name, &PostParams::default(), body(&lease)?))?;
        api.json::<Lease>(put, limit).await.map(drop)
    }

    /// Takes part for ever and makes known in `leading` how it stands.
    pub(super) async fn run(&self, api: &Api, leading: &watch::Sender<Leading>, clock: Clock) {
        let mut observer = Observer::default();
        let mut failing = false;
        loop {
            let start = clock.now();
            match self.attempt(api, &mut observer, start).await {
                Ok(ours) => {
                    failing = false;
                    self.publish(ours.then(|| start + self.renew), leading);
                }
                Err(error) => {
                    let Election {
                        namespace, name, ..
                    } = self;
                    if !std::mem::replace(&mut failing, true) {
                        warn!("Lease {namespace}/{name}: {error}");
                    }
                    let over = leading.borrow().is_some_and(|until| clock.now() >= until);
                    if over {
                        self.publish(None, leading);
                    }
                }
            }
            sleep(self.retry).await;
        }
    }

    fn publish(&self, now: Leading, leading: &watch::Sender<Leading>) {
        let before = leading.send_replace(now);
        let Election {
            namespace, name, ..
        } = self;
        match (before, now) {
            (None, Some(_)) => info!("leads by Lease {namespace}/{name}: writes status"),
            (Some(_), None) => info!("leads no more by Lease {namespace}/{name}"),
            _ => debug!("Lease {namespace}/{name}: leading until {now:?}"),
        }
    }
}

fn body(lease: &Lease) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(lease).map_err(|error| ApiError::Unaskable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn election(identity: &str) -> Election {
        Election::new("kube-system", "sluice", identity)
    }

    fn replaced(step: Step) -> Lease {
        match step {
            Step::Create(lease) | Step::Replace(lease) => lease,
            Step::Wait => panic!("waits"),
        }
    }

    #[test]
    fn who_comes_first_creates_the_lease_and_renews_it() {
        let (a, mut observer) = (election("a"), Observer::default());
        let lease = replaced(observer.step(&a, None, SECOND, time(0)));
        let first = lease.spec.clone().unwrap();
        assert_eq!(first.holder_identity.as_deref(), Some("a"));
        assert_eq!(first.lease_duration_seconds, Some(15));
        assert_eq!(first.lease_transitions, Some(0));
        let lease = replaced(observer.step(&a, Some(lease), 3 * SECOND, time(2)));
        let second = lease.spec.unwrap();
        assert_eq!(second.acquire_time, first.acquire_time);
        assert_eq!(second.renew_time, Some(MicroTime(time(2))));
        assert_eq!(second.lease_transitions, Some(0));
    }

    #[test]
    fn another_takes_the_lease_only_when_it_did_not_change_for_its_duration() {
        let (a, b) = (election("a"), election("b"));
        let mut at_a = Observer::default();
        let mut at_b = Observer::default();
        let lease = replaced(at_a.step(&a, None, SECOND, time(0)));
        // The clock of b is years off; only how long it watches counts.
        let years = time(100_000_000);
        for second in [100, 107, 114] {
            let step = at_b.step(&b, Some(lease.clone()), second * SECOND, years);
            assert_eq!(step, Step::Wait, "{second}");
        }
        let renewed = replaced(at_a.step(&a, Some(lease), 10 * SECOND, time(9)));
        for second in [114, 128] {
            let step = at_b.step(&b, Some(renewed.clone()), second * SECOND, years);
            assert_eq!(step, Step::Wait, "{second}");
        }
        let taken = replaced(at_b.step(&b, Some(renewed), 129 * SECOND, years));
        let spec = taken.spec.clone().unwrap();
        assert_eq!(spec.holder_identity.as_deref(), Some("b"));
        assert_eq!(spec.lease_transitions, Some(1));
        assert_eq!(
            at_a.step(&a, Some(taken), 30 * SECOND, time(29)),
            Step::Wait
        );
    }

    #[test]
    fn a_lease_that_was_given_up_is_taken_at_once() {
        let b = election("b");
        let given_up = Lease {
            spec: Some(LeaseSpec {
                holder_identity: Some(String::new()),
                lease_duration_seconds: Some(1),
                lease_transitions: Some(4),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        };
        let lease = replaced(Observer::default().step(&b, Some(given_up), SECOND, time(0)));
        assert_eq!(lease.spec.unwrap().lease_transitions, Some(5));
    }
}
