//! A network namespace that goes away with its guard.
//!
//! Names are `sl<pid>-<n>-<role>`: the process id tells a later run which ones a killed run left
//! behind. Only namespaces with such a name, of a process that no longer exists, are ever removed
//! besides a guard's own, together with the processes inside them.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::{self, Finished, Process};

/// How long a command that configures something may take.
pub const CONFIGURE: Duration = Duration::from_secs(20);

static COUNT: AtomicU32 = AtomicU32::new(0);
static SWEPT: OnceLock<()> = OnceLock::new();

/// A network namespace of this process.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace with its loopback up, where IPv6 addresses are used as soon as they are
    /// there and nobody advertises or asks for routers.
    ///
    /// # Errors
    /// The machine does not let this process make one.
    pub fn create(role: &str) -> Result<Self> {
        SWEPT.get_or_init(remove_leftovers);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sl{}-{count}-{role}", std::process::id());
        ip(&["netns", "add", &name]).context(
            "this machine does not let the test make a network namespace; \
             it needs root (CAP_NET_ADMIN, CAP_SYS_ADMIN) and a kernel with CONFIG_NET_NS",
        )?;
        let namespace = Self { name };
        for (setting, value) in [
            ("accept_dad", "0"),
            ("accept_ra", "0"),
            ("router_solicitations", "0"),
        ] {
            namespace.write_sysctl(&format!("net/ipv6/conf/all/{setting}"), value)?;
            namespace.write_sysctl(&format!("net/ipv6/conf/default/{setting}"), value)?;
        }
        // Apart from the ports that tests choose themselves.
        namespace.write_sysctl("net/ipv4/ip_local_port_range", "'45000 60999'")?;
        // Replies may come back another way in one-armed topologies; the host's default is not ours.
        namespace.write_sysctl("net/ipv4/conf/all/rp_filter", "0")?;
        namespace.write_sysctl("net/ipv4/conf/default/rp_filter", "0")?;
        namespace.ip_batch("link set lo up\n")?;
        Ok(namespace)
    }

    /// Its name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]);
        command.arg(program.as_ref());
        command
    }

    /// Runs a command line inside and returns how it ended, good or bad.
    ///
    /// # Errors
    /// It cannot be started or does not end within `limit`.
    pub fn try_run(&self, words: &[&str], limit: Duration) -> Result<Finished> {
        let Some((program, arguments)) = words.split_first() else {
            bail!("an empty command line");
        };
        process::run(self.command(program).args(arguments), "", limit)
    }

    /// Runs a command line inside that must succeed; returns what it printed.
    ///
    /// # Errors
    /// It cannot be started, fails, or does not end within `limit`.
    pub fn run(&self, words: &[&str], limit: Duration) -> Result<String> {
        Ok(self.try_run(words, limit)?.success()?.stdout)
    }

    /// Starts a command inside, in the background.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self, name: &str, words: &[&str], log: &Path) -> Result<Process> {
        let Some((program, arguments)) = words.split_first() else {
            bail!("an empty command line");
        };
        Process::start(name, self.command(program).args(arguments), log)
    }

    /// Runs lines of `ip` commands inside.
    ///
    /// # Errors
    /// One of them fails.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name, "-batch", "-"]);
        process::run(&mut command, lines, CONFIGURE)?
            .success()
            .map(drop)
            .with_context(|| format!("configuring {} with:\n{lines}", self.name))
    }

    /// Writes a value under `/proc/sys` as this namespace sees it.
    ///
    /// # Errors
    /// There is no such setting, or it refuses the value.
    pub fn write_sysctl(&self, path: &str, value: &str) -> Result<()> {
        let script = format!("[ ! -e /proc/sys/{path} ] || echo {value} > /proc/sys/{path}");
        self.run(&["sh", "-c", &script], CONFIGURE).map(drop)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // Not through a wait that a signal would end: this is what the signal is for.
        let deleted = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
        if !deleted.is_ok_and(|status| status.success()) {
            eprintln!("namespace {} stays behind", self.name);
        }
    }
}

fn ip(words: &[&str]) -> Result<String> {
    let mut command = Command::new("ip");
    command.args(words);
    Ok(process::run(&mut command, "", CONFIGURE)?.success()?.stdout)
}

/// The process id in a name of ours.
fn owner(name: &str) -> Option<u32> {
    let (pid, rest) = name.strip_prefix("sl")?.split_once('-')?;
    let (count, role) = rest.split_once('-')?;
    count.parse::<u32>().ok()?;
    (!role.is_empty()).then(|| pid.parse().ok())?
}

/// Removes the namespaces of runs that were killed. Best effort: another test process may be doing
/// the same at this moment, and a namespace that cannot be listed cannot be made either.
fn remove_leftovers() {
    let list = ip(&["netns", "list"]).unwrap_or_default();
    for name in list.lines().filter_map(|line| line.split(' ').next()) {
        let Some(pid) = owner(name) else { continue };
        if Path::new(&format!("/proc/{pid}")).exists() {
            continue;
        }
        let inside = ip(&["netns", "pids", name]).unwrap_or_default();
        for pid in inside.lines().filter_map(|line| line.trim().parse().ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = ip(&["netns", "del", name]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_harness_have_an_owner() {
        assert_eq!(owner("sl42-0-client"), Some(42));
        for other in [
            "sl42",
            "sl42-0",
            "slx-0-client",
            "sl42-x-client",
            "blue",
            "sl42-0-",
        ] {
            assert_eq!(owner(other), None, "{other}");
        }
    }

    #[test]
    fn a_namespace_goes_away_with_its_guard() {
        let namespace = Netns::create("guard").unwrap();
        let name = namespace.name().to_owned();
        assert!(
            namespace
                .run(&["ip", "link"], CONFIGURE)
                .unwrap()
                .contains("lo: <LOOPBACK,UP")
        );
        assert!(ip(&["netns", "list"]).unwrap().contains(&name));
        drop(namespace);
        assert!(!ip(&["netns", "list"]).unwrap().contains(&name));
    }

    #[test]
    fn what_a_killed_run_left_behind_is_removed() {
        // Above the largest process id that Linux gives (PID_MAX_LIMIT, 2^22).
        let name = "sl4194999-0-old";
        ip(&["netns", "add", name]).unwrap();
        remove_leftovers();
        assert!(!ip(&["netns", "list"]).unwrap().contains(name));
    }
}
