//! Events (events.k8s.io/v1) about Services: what `kubectl describe` shows under them.
//!
//! Guarantees: the same sentence about the same Service is written once in half an hour, however often
//! it is told; what is remembered does not grow without bound.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::core::Request;

use crate::object::NamespacedName;
use crate::service::LOAD_BALANCER_CLASS;
use crate::source::kubernetes::client::{Api, ApiError, built};

/// How long a sentence is not repeated. An API server keeps events for an hour.
const AGAIN: Duration = Duration::from_secs(30 * 60);
/// Most sentences that are remembered.
const MAX_REMEMBERED: usize = 20_000;
/// Longest note, in bytes (events/v1 `note`).
const MAX_NOTE: usize = 1024;

/// Something that the owner of a Service should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notice {
    /// The Service.
    pub(super) service: NamespacedName,
    /// Its `metadata.uid`, by which the event is found.
    pub(super) uid: Option<String>,
    /// Whether something is wrong.
    pub(super) warning: bool,
    /// One word for machines, for example `AllocationFailed`.
    pub(super) reason: &'static str,
    /// The sentence.
    pub(super) message: String,
}

/// What was written.
#[derive(Debug, Default)]
pub(super) struct Written(BTreeMap<(NamespacedName, &'static str), (String, Duration)>);

impl Written {
    /// Whether the notice is to be written now; remembers it as written if so.
    pub(super) fn is_due(&mut self, notice: &Notice, now: Duration) -> bool {
        let key = (notice.service.clone(), notice.reason);
        let known = self.0.get(&key);
        if known.is_some_and(|(text, at)| *text == notice.message && now < *at + AGAIN) {
            return false;
        }
        if self.0.len() >= MAX_REMEMBERED {
            self.0.retain(|_, (_, at)| now < *at + AGAIN);
        }
        if self.0.len() >= MAX_REMEMBERED {
            return false;
        }
        self.0.insert(key, (notice.message.clone(), now));
        true
    }

    /// The notice could not be written: it is due when it is told again.
    pub(super) fn forget(&mut self, notice: &Notice) {
        self.0.remove(&(notice.service.clone(), notice.reason));
    }
}

pub(super) async fn write(
    api: &Api,
    notice: &Notice,
    instance: &str,
    limit: Duration,
) -> Result<(), ApiError> {
    let namespace = &notice.service.namespace;
    let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
    let event = event(notice, instance, Timestamp::now());
    let body =
        serde_json::to_vec(&event).map_err(|error| ApiError::Unaskable(error.to_string()))?;
    let request = built(Request::new(path).create(&PostParams::default(), body))?;
    api.json::<Event>(request, limit).await.map(drop)
}

fn event(notice: &Notice, instance: &str, time: Timestamp) -> Event {
    let NamespacedName { namespace, name } = &notice.service;
    let kind = if notice.warning { "Warning" } else { "Normal" };
    let mut note = notice.message.clone();
    note.truncate(note.floor_char_boundary(MAX_NOTE));
    Event {
        metadata: ObjectMeta {
            namespace: Some(namespace.clone()),
            name: Some(format!("{name}.{:x}", time.as_nanosecond())),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(time)),
        reporting_controller: Some(LOAD_BALANCER_CLASS.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        action: Some("Serving".to_owned()),
        reason: Some(notice.reason.to_owned()),
        note: Some(note),
        type_: Some(kind.to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Service".to_owned()),
            namespace: Some(namespace.clone()),
            name: Some(name.clone()),
            uid: notice.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(message: &str) -> Notice {
        Notice {
            service: NamespacedName::new("demo", "web"),
            uid: None,
            warning: true,
            reason: "AllocationFailed",
            message: message.into(),
        }
    }

    #[test]
    fn a_sentence_is_written_once_until_it_changes_or_is_old() {
        let mut written = Written::default();
        let minute = Duration::from_secs(60);
        assert!(written.is_due(&notice("no pool"), minute));
        assert!(!written.is_due(&notice("no pool"), 30 * minute));
        assert!(written.is_due(&notice("pool is full"), 30 * minute));
        assert!(!written.is_due(&notice("pool is full"), 59 * minute));
        assert!(written.is_due(&notice("pool is full"), 60 * minute));
        written.forget(&notice("pool is full"));
        assert!(written.is_due(&notice("pool is full"), 60 * minute));
    }

    #[test]
    fn an_event_is_about_its_service_and_its_note_is_cut_between_characters() {
        let time = Timestamp::from_second(1_700_000_000).unwrap();
        let event = event(&notice(&"ä".repeat(MAX_NOTE)), "gateway-1", time);
        assert_eq!(event.note.unwrap(), "ä".repeat(MAX_NOTE / 2));
        assert_eq!(event.regarding.unwrap().name.as_deref(), Some("web"));
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        assert_eq!(event.metadata.name.unwrap(), "web.17979cfe362a0000");
    }
}
