//! The one place of this crate that reads a clock, and the one way to wait: poll until a deadline.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Pause between two looks at something that is waited for.
const PAUSE: Duration = Duration::from_millis(5);

static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on every wait of this process ends with an error as soon as `flag` is set; how a signal
/// reaches a program that is to remove what it made. Only the first flag of a process counts.
pub fn stop_on(flag: Arc<AtomicBool>) {
    STOP.get_or_init(|| flag);
}

/// Whether the flag of [`stop_on`] is set.
pub fn stopped() -> bool {
    STOP.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

fn go_on() -> Result<()> {
    if stopped() {
        bail!("interrupted");
    }
    Ok(())
}

/// Waits for `time`.
///
/// # Errors
/// The process was told to stop.
pub fn pause(time: Duration) -> Result<()> {
    let start = now();
    while start.elapsed() < time {
        go_on()?;
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// The time now.
#[expect(
    clippy::disallowed_methods,
    reason = "a harness around real processes has nobody to be given the time by"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// Calls `look` until it returns `Some`, at most for `limit`.
///
/// # Errors
/// The first error of `look`, or that `what` did not happen in time.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        go_on()?;
        if start.elapsed() > limit {
            bail!("{what}: did not happen within {limit:?}");
        }
        thread::sleep(PAUSE);
    }
}

/// Like [`wait_for`], but an error of `look` only means "not yet"; the last one is reported.
///
/// # Errors
/// That `what` did not happen in time, with the last error.
pub fn wait_until_ok<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<T>,
) -> Result<T> {
    let start = now();
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(error) if start.elapsed() > limit => {
                return Err(error.context(format!("{what}: did not happen within {limit:?}")));
            }
            Err(_) => {
                go_on()?;
                thread::sleep(PAUSE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_at_the_first_find_or_at_the_deadline() {
        let mut looks = 0;
        let found = wait_for("third look", Duration::from_secs(5), || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(found.unwrap(), 3);
        let never = wait_for("nothing", Duration::from_millis(20), || Ok(None::<()>));
        assert_eq!(
            never.unwrap_err().to_string(),
            "nothing: did not happen within 20ms"
        );
    }
}
