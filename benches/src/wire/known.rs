//! What peers can do at most, for scenarios that ask less or more of them.

use anyhow::{Context, Result};

use super::established::{self, Load};
use super::measure::{Case, Options, Round, highest, search};
use super::peer::Peer;
use super::rig::Rig;
use crate::generator::plan::Script;
use crate::rate::Rate;
use crate::statistics::Summary;

/// Highest rates of peers with one Service, as far as they were measured.
#[derive(Debug, Default)]
pub struct Known(Vec<(&'static str, Script, f64)>);

impl Known {
    /// The medians of all rounds with one Service.
    pub fn of(rounds: &[Round], peers: &[Peer]) -> Self {
        let mut known = Vec::new();
        for peer in peers {
            for script in [Script::Data, Script::Connection] {
                let case = Case {
                    script,
                    services: 1,
                };
                let own = rounds.iter();
                let own = own.filter(|round| round.peer == peer.name() && round.case == case);
                let rates: Vec<f64> = own.filter_map(|round| Some(round.throughput?.0)).collect();
                known.extend(Summary::of(&rates).map(|rates| (peer.name(), script, rates.median)));
            }
        }
        Self(known)
    }

    /// With a rate that is given, packets a second; it comes before one that was measured.
    #[must_use]
    pub fn with(mut self, peer: Peer, script: Script, rate: Rate) -> Self {
        self.0.push((peer.name(), script, rate.0));
        self
    }

    /// Highest rate of a peer that runs with one Service of TCP; measured now when it is not known.
    ///
    /// # Errors
    /// As [`try_rate`](super::measure::try_rate); or it loses at every rate.
    pub fn rate(
        &mut self,
        rig: &mut Rig,
        peer: Peer,
        script: Script,
        options: &Options,
    ) -> Result<Rate> {
        let own = |known: &&(&str, Script, f64)| known.0 == peer.name() && known.1 == script;
        if let Some((.., rate)) = self.0.iter().rev().find(own) {
            return Ok(Rate(*rate));
        }
        let (found, _) = if script == Script::Data {
            established::prepare(rig, options.flows, options.size);
            search(None, options, |rate| {
                let (time, new) = (options.trial, Rate(0.0));
                let load = Load {
                    data: rate,
                    new,
                    time,
                };
                established::run(rig, peer, load, options.kind, || {})
            })?
        } else {
            let services = 1;
            Case { script, services }.prepare(rig, u64::from(options.flows));
            highest(rig, peer, None, options)?
        };
        let found = found.with_context(|| format!("{} loses at every rate", peer.name()))?;
        self.0.push((peer.name(), script, found.0));
        Ok(found)
    }
}
