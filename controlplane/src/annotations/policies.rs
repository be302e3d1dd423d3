//! The annotations of a Service that choose how its connections are treated.

use std::fmt::Display;
use std::ops::RangeBounds;
use std::str::FromStr;

use serde::de::value::{Error, StrDeserializer};
use serde::de::{DeserializeOwned, IntoDeserializer};
use sluice_conf::settings::controlplane::SourceNatMode;
use sluice_conf::{BackendGone, Forwarding, Ping, Refusal, Service};

use super::{Annotations, field, parsed};
use crate::object::Report;

/// `masquerade`, `preserve` or `kubernetes`.
pub const SOURCE_NAT: &str = "sluice.dev/source-nat";
/// `keep`, `reset` or `drain=SECONDS`.
pub const BACKEND_GONE: &str = "sluice.dev/backend-gone";
/// `icmp`, `tcp-reset` or `drop`.
pub const REFUSAL: &str = "sluice.dev/refusal";
/// `never`, `ready` or `always`.
pub const PING: &str = "sluice.dev/ping";
/// Bytes, within [`Service::MSS_CLAMP`].
pub const MSS_CLAMP: &str = "sluice.dev/mss-clamp";
/// `nat` or `direct-return`.
pub const FORWARDING: &str = "sluice.dev/forwarding";
/// How many ready endpoints the first tiers need, or the next is used as well.
pub const TIER_MINIMUM: &str = "sluice.dev/tier-minimum";

/// All of them.
pub(crate) const NAMES: [&str; 7] = [
    SOURCE_NAT,
    BACKEND_GONE,
    REFUSAL,
    PING,
    MSS_CLAMP,
    FORWARDING,
    TIER_MINIMUM,
];

/// What a Service asks for; `None` leaves it to the settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policies {
    /// Source address translation.
    pub source_nat: Option<SourceNatMode>,
    /// What happens to connections of a backend that left.
    pub backend_gone: Option<BackendGone>,
    /// What clients get when nobody may serve them.
    pub refusal: Option<Refusal>,
    /// When pings are answered.
    pub ping: Option<Ping>,
    /// Largest TCP segment, in bytes.
    pub mss_clamp: Option<u16>,
    /// How packets get to the backend.
    pub forwarding: Option<Forwarding>,
    /// How many ready endpoints the first tiers need; 1 when the Service says nothing.
    pub tier_minimum: Option<u16>,
}

impl Policies {
    /// These, and where they say nothing, those.
    pub(crate) fn or(self, those: &Self) -> Self {
        Self {
            source_nat: self.source_nat.or(those.source_nat),
            backend_gone: self.backend_gone.or(those.backend_gone),
            refusal: self.refusal.or(those.refusal),
            ping: self.ping.or(those.ping),
            mss_clamp: self.mss_clamp.or(those.mss_clamp),
            forwarding: self.forwarding.or(those.forwarding),
            tier_minimum: self.tier_minimum.or(those.tier_minimum),
        }
    }

    pub(crate) fn read(annotations: &Annotations, report: &mut Report) -> Self {
        let policies = Self {
            source_nat: parsed(annotations, SOURCE_NAT, report, source_nat),
            backend_gone: parsed(annotations, BACKEND_GONE, report, str::parse),
            refusal: parsed(annotations, REFUSAL, report, refusal),
            ping: parsed(annotations, PING, report, ping),
            mss_clamp: parsed(annotations, MSS_CLAMP, report, |text| {
                number(text, Service::MSS_CLAMP, "536 to 65495 bytes")
            }),
            forwarding: parsed(annotations, FORWARDING, report, forwarding),
            tier_minimum: parsed(annotations, TIER_MINIMUM, report, |text| {
                number(text, 1.., "1 to 65535")
            }),
        };
        policies.warn_of_lost(report, &field(SOURCE_NAT));
        policies
    }

    /// Reports source address translation, written at `field`, where it has no effect.
    pub(crate) fn warn_of_lost(&self, report: &mut Report, field: &str) {
        let masquerades = self
            .source_nat
            .is_some_and(|mode| mode != SourceNatMode::Preserve);
        if masquerades && self.forwarding == Some(Forwarding::DirectReturn) {
            let message = "has no effect: direct return keeps the client's address";
            report.warn(field, message);
        }
    }
}

/// Whose source address is translated.
pub(crate) fn source_nat(text: &str) -> Result<SourceNatMode, String> {
    word(text, "masquerade, preserve or kubernetes")
}

/// What clients get when nobody may serve them.
pub(crate) fn refusal(text: &str) -> Result<Refusal, String> {
    word(text, "icmp, tcp-reset or drop")
}

/// When pings are answered.
pub(crate) fn ping(text: &str) -> Result<Ping, String> {
    word(text, "never, ready or always")
}

/// How packets get to the backend.
pub(crate) fn forwarding(text: &str) -> Result<Forwarding, String> {
    word(text, "nat or direct-return")
}

fn word<T: DeserializeOwned>(text: &str, words: &str) -> Result<T, String> {
    let deserializer: StrDeserializer<'_, Error> = text.into_deserializer();
    T::deserialize(deserializer).map_err(|_| impossible(text, words))
}

fn number<T: FromStr + PartialOrd>(
    text: &str,
    range: impl RangeBounds<T>,
    words: &str,
) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| impossible(text, words))
}

fn impossible(text: &str, words: impl Display) -> String {
    format!("{text:?} is not possible; use {words}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(name: &str, value: &str) -> (Policies, Vec<String>) {
        let annotations = Some(BTreeMap::from([(name.to_owned(), value.to_owned())]));
        let mut report = Report::default();
        let policies = Policies::read(&annotations, &mut report);
        let messages = report.issues.into_iter().map(|issue| issue.message);
        (policies, messages.collect())
    }

    #[test]
    fn each_policy_has_its_words() {
        let none = Policies::default;
        for (name, value, wanted) in [
            (
                SOURCE_NAT,
                "kubernetes",
                Policies {
                    source_nat: Some(SourceNatMode::Kubernetes),
                    ..none()
                },
            ),
            (
                BACKEND_GONE,
                "drain=30",
                Policies {
                    backend_gone: Some(BackendGone::Drain { seconds: 30 }),
                    ..none()
                },
            ),
            (
                REFUSAL,
                "tcp-reset",
                Policies {
                    refusal: Some(Refusal::TcpReset),
                    ..none()
                },
            ),
            (
                PING,
                " always ",
                Policies {
                    ping: Some(Ping::Always),
                    ..none()
                },
            ),
            (
                MSS_CLAMP,
                "1400",
                Policies {
                    mss_clamp: Some(1400),
                    ..none()
                },
            ),
            (
                FORWARDING,
                "direct-return",
                Policies {
                    forwarding: Some(Forwarding::DirectReturn),
                    ..none()
                },
            ),
            (
                TIER_MINIMUM,
                "3",
                Policies {
                    tier_minimum: Some(3),
                    ..none()
                },
            ),
        ] {
            assert_eq!(read(name, value), (wanted, vec![]), "{name}");
        }
    }

    #[test]
    fn other_words_are_refused_with_the_right_ones() {
        for (name, value, words) in [
            (SOURCE_NAT, "maybe", "masquerade, preserve or kubernetes"),
            (BACKEND_GONE, "drain", "keep, reset or drain=SECONDS"),
            (REFUSAL, "rst", "icmp, tcp-reset or drop"),
            (PING, "yes", "never, ready or always"),
            (MSS_CLAMP, "535", "536 to 65495 bytes"),
            (MSS_CLAMP, "65496", "536 to 65495 bytes"),
            (FORWARDING, "dsr", "nat or direct-return"),
            (TIER_MINIMUM, "0", "1 to 65535"),
        ] {
            let (policies, messages) = read(name, value);
            assert_eq!(policies, Policies::default());
            assert_eq!(
                messages,
                [format!("{value:?} is not possible; use {words}")]
            );
        }
    }
}
