//! Settings of probing and draining.

use serde::{Deserialize, Serialize};

use super::super::load::Impossible;

/// `[health]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Health {
    /// Probes in flight at most, 1 to 65535.
    pub max_in_flight: u16,
    /// How far a period may be off, 0 to 50 percent of it.
    pub jitter_percent: u8,
    /// What an endpoint is before the first verdict on it.
    pub initial: Initial,
    /// Below so many percent of healthy endpoints health is ignored, 0 to 100; 0: never.
    pub fail_open_percent: u8,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            max_in_flight: 256,
            jitter_percent: 10,
            initial: Initial::Healthy,
            fail_open_percent: 0,
        }
    }
}

/// What an endpoint is before the first verdict on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Initial {
    /// It is used.
    Healthy,
    /// It is not used.
    Unhealthy,
}

impl Health {
    pub(super) fn check(&self) -> Result<(), Impossible> {
        let refuse = |key: &str, message: String| {
            let key = format!("health.{key}");
            Err(Impossible::new(key, message))
        };
        if self.max_in_flight == 0 {
            return refuse(
                "max_in_flight",
                "0 probes find out nothing; use 1 to 65535".into(),
            );
        }
        for (key, percent, most) in [
            ("jitter_percent", self.jitter_percent, 50),
            ("fail_open_percent", self.fail_open_percent, 100),
        ] {
            if percent > most {
                return refuse(key, format!("{percent} is too much; use 0 to {most}"));
            }
        }
        Ok(())
    }
}

/// `[draining]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Draining {
    /// How long DNS answers may be in use after an endpoint has left them, in seconds.
    pub notice_seconds: u16,
}

impl Default for Draining {
    /// The TTL of CoreDNS.
    fn default() -> Self {
        Self { notice_seconds: 5 }
    }
}
