//! Makes changes while a load is on, and takes the time until they are seen.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::change::Changer;
use super::rig::{BACKENDS, backend};
use crate::generator::sockets::monotonic;
use crate::sink::Sighting;

/// Between two looks for what a change did: as exact as its time is known.
const LOOK: Duration = Duration::from_micros(100);
/// New connections come so densely that an endpoint without one for so long has none any more ...
const GONE: Duration = Duration::from_millis(20);
/// ... and so much longer for each Service: whoever reads them keeps the generator from sending.
const GONE_SERVICE: Duration = Duration::from_micros(100);
/// A change that is not seen after so long never will be ...
const PATIENCE: Duration = Duration::from_secs(5);
/// ... and so much longer for each Service that it is about: the control plane reads them on the CPU
/// that the generator fills.
const PATIENCE_SERVICE: Duration = Duration::from_millis(1);

/// What was changed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// How often.
    pub made: f64,
    /// From telling the peer of a new endpoint to the first connection there, ms each.
    pub delays: Vec<f64>,
}

/// One endpoint comes or goes `rate` times a second for `time`, as far as the peer can be told so
/// often.
///
/// # Errors
/// The peer cannot be told.
pub fn flap(changer: &Changer<'_>, rate: f64, time: Duration) -> Result<Changes> {
    changer.enter()?;
    let start = monotonic();
    let passed = || Duration::from_nanos(monotonic() - start);
    let mut made = 0u32;
    while passed() < time {
        changer.set(u8::from(made.is_multiple_of(2)), 1)?;
        made += 1;
        thread::sleep(Duration::from_secs_f64(f64::from(made) / rate).saturating_sub(passed()));
    }
    Ok(Changes {
        made: f64::from(made),
        delays: Vec::new(),
    })
}

/// An endpoint comes and goes again for `time`, each time as soon as new connections show that it
/// is there or gone. `set` is told how many endpoints more each of `services` Services shall have.
///
/// # Errors
/// The peer cannot be told, or nothing comes of it.
pub fn one_by_one(
    sighting: &mut Sighting,
    time: Duration,
    services: u32,
    mut set: impl FnMut(u8) -> Result<()>,
) -> Result<Changes> {
    let spare = backend(BACKENDS).into();
    let end = monotonic() + time.as_nanos() as u64;
    let patience = PATIENCE + PATIENCE_SERVICE * services;
    let gone = GONE + GONE_SERVICE * services;
    let mut changes = Changes::default();
    while monotonic() < end {
        sighting.watch(spare)?;
        let told = monotonic();
        set(1)?;
        let Some(first) = wait(end, patience, || {
            Ok(sighting.seen()?.map(|(first, _)| first))
        })?
        else {
            break;
        };
        changes.delays.push(first.saturating_sub(told) as f64 / 1e6);
        set(0)?;
        wait(end, patience, || {
            let last = sighting.seen()?.map_or(0, |(_, last)| last);
            let quiet = monotonic().saturating_sub(last);
            Ok((quiet > gone.as_nanos() as u64).then_some(()))
        })?;
        changes.made += 2.0;
    }
    Ok(changes)
}

/// Looks until something is there; None when the load ends before.
fn wait<T>(
    end: u64,
    patience: Duration,
    look: impl Fn() -> Result<Option<T>>,
) -> Result<Option<T>> {
    let begun = monotonic();
    loop {
        let now = monotonic();
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        if now > end {
            return Ok(None);
        }
        let waited = Duration::from_nanos(now - begun);
        ensure!(
            waited < patience,
            "a change of endpoints was not seen within {waited:?}"
        );
        thread::sleep(LOOK);
    }
}
