//! Which machine a report is of, as the kernel tells it.

use std::fmt;
use std::fs::read_to_string;
use std::process::Command;

use jiff::Timestamp;
use serde::Serialize;
use sluice_dataplane::clock::Clock;

/// The machine and the time of a run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Machine {
    /// Model of the processor.
    pub processor: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Release of the kernel.
    pub kernel: String,
    /// When memory is given in huge pages.
    pub huge_pages: String,
    /// Date and time, UTC (RFC 3339).
    pub time: String,
    /// Commit of the source, with `-dirty` behind it when files differ; empty when git does not tell.
    pub commit: String,
}

impl Machine {
    /// This one, now.
    pub fn here() -> Self {
        let line = |path| read_to_string(path).unwrap_or_default().trim().to_owned();
        let clock = Clock::start();
        let seconds = clock.since_1970(clock.now()) / 1_000_000_000;
        Self {
            processor: field(&line("/proc/cpuinfo"), "model name").unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: line("/proc/sys/kernel/osrelease"),
            huge_pages: chosen(&line("/sys/kernel/mm/transparent_hugepage/enabled")),
            time: Timestamp::from_second(seconds as i64)
                .map_or_else(|_| String::new(), |t| t.to_string()),
            commit: commit(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} cores of {}, Linux {}, huge pages: {}, commit {}",
            self.time, self.cores, self.processor, self.kernel, self.huge_pages, self.commit
        )
    }
}

fn commit() -> String {
    // Root may look into a folder of another user.
    let words = ["-c", "safe.directory=*", "-C", env!("CARGO_MANIFEST_DIR")];
    let describe = [
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
        "--exclude=*",
    ];
    let output = Command::new("git").args(words).args(describe).output();
    let told = output.ok().filter(|output| output.status.success());
    told.map_or_else(String::new, |output| {
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    })
}

/// The first value of a field, in the form of files under `/proc`.
pub fn field(text: &str, name: &str) -> Option<String> {
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(key, _)| key.trim() == name)?;
    Some(value.trim().to_owned())
}

/// The word in brackets.
fn chosen(text: &str) -> String {
    let inside = text
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'));
    inside.map_or_else(String::new, |(word, _)| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_choices_are_read() {
        let text = "processor\t: 0\nmodel name\t: Some: CPU\n";
        assert_eq!(field(text, "model name").as_deref(), Some("Some: CPU"));
        assert_eq!(field(text, "flags"), None);
        assert_eq!(chosen("always [madvise] never"), "madvise");
        assert_eq!(chosen(""), "");
    }
}
