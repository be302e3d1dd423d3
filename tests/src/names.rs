//! Clients of the control plane's DNS server: dig, and programs whose libc asks it.
//!
//! A libc reads `/etc/resolv.conf` and `/etc/nsswitch.conf`. A [`Resolver`] puts files of its own in
//! their place, in a mount namespace of the one program that it runs: the host's are never touched.

pub mod message;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::netns::Netns;
use crate::process::{self, Finished};

/// The zone of the cluster.
pub const ZONE: &str = "cluster.local";
/// How long a program that asks may take.
pub const LIMIT: Duration = Duration::from_secs(20);

/// The section of the control plane's settings that has it answer at these addresses; more keys of
/// it may follow.
pub fn listening(addresses: &[SocketAddr]) -> String {
    let addresses: Vec<String> = addresses.iter().map(|a| format!("\"{a}\"")).collect();
    format!("[dns]\nlisten = [{}]\n", addresses.join(", "))
}

/// The full name of a Service.
pub fn of_service(name: &str) -> String {
    format!("{name}.default.svc.{ZONE}")
}

/// What dig was answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// `NOERROR`, `NXDOMAIN` and so on.
    pub status: String,
    /// `qr`, `aa` and so on.
    pub flags: Vec<String>,
    /// The answer section.
    pub records: Vec<Record>,
}

/// A record as dig prints it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// Owner.
    pub name: String,
    /// Seconds that it holds.
    pub ttl: u32,
    /// Type.
    pub kind: String,
    /// What it says.
    pub data: String,
}

impl Reply {
    /// What the records of a type say, sorted.
    pub fn data(&self, kind: &str) -> Vec<&str> {
        let of_kind = self.records.iter().filter(|record| record.kind == kind);
        let mut data: Vec<&str> = of_kind.map(|record| record.data.as_str()).collect();
        data.sort_unstable();
        data
    }

    fn parse(text: &str) -> Result<Self> {
        let status = text
            .split_once("status: ")
            .and_then(|(_, rest)| rest.split_once(','));
        let (status, _) = status.with_context(|| format!("dig was not answered: {text}"))?;
        let flags = text
            .split_once(";; flags: ")
            .and_then(|(_, rest)| rest.split_once(';'));
        let (flags, _) = flags.unwrap_or_default();
        let lines = text.lines().filter(|line| !line.starts_with(';'));
        Ok(Self {
            status: status.to_owned(),
            flags: flags.split_whitespace().map(str::to_owned).collect(),
            records: lines.filter_map(record).collect(),
        })
    }
}

fn record(line: &str) -> Option<Record> {
    let mut words = line.split_whitespace();
    let (name, ttl) = (words.next()?, words.next()?);
    let (_class, kind) = (words.next()?, words.next()?);
    Some(Record {
        name: name.to_owned(),
        ttl: ttl.parse().ok()?,
        kind: kind.to_owned(),
        data: words.collect::<Vec<_>>().join(" "),
    })
}

/// Asks `server` once by dig, from a namespace or from this one.
///
/// # Errors
/// There is no answer.
pub fn dig(namespace: Option<&Netns>, server: SocketAddr, words: &[&str]) -> Result<Reply> {
    let mut command = match namespace {
        Some(namespace) => namespace.command("dig"),
        None => Command::new("dig"),
    };
    command.arg(format!("@{}", server.ip()));
    command.args(["-p", &server.port().to_string()]);
    command.args(["+tries=1", "+time=3", "+noall", "+comments", "+answer"]);
    command.args(words);
    Reply::parse(&process::run(&mut command, "", LIMIT)?.success()?.stdout)
}

/// The addresses that a name has by dig, sorted.
///
/// # Errors
/// There is no answer, or it has another status.
pub fn addresses(namespace: &Netns, server: SocketAddr, name: &str) -> Result<Vec<String>> {
    let reply = dig(Some(namespace), server, &[name, "A"])?;
    if reply.status != "NOERROR" {
        bail!("{name}: {}", reply.status);
    }
    Ok(reply.data("A").into_iter().map(str::to_owned).collect())
}

/// A namespace whose programs resolve names by servers of their own.
#[derive(Debug)]
pub struct Resolver<'a> {
    namespace: &'a Netns,
    folder: PathBuf,
}

impl<'a> Resolver<'a> {
    /// Has programs in `namespace` ask `servers`, which answer at port 53, and search as Pods of the
    /// namespace `default` do. `folder` is for its files.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn new(namespace: &'a Netns, folder: &Path, servers: &[IpAddr]) -> Result<Self> {
        let folder = folder.join(format!("resolver-{}", namespace.name()));
        fs::create_dir_all(&folder).context("the resolver's folder")?;
        let servers: Vec<String> = servers
            .iter()
            .map(|s| format!("nameserver {s}\n"))
            .collect();
        let text = format!(
            "search default.svc.{ZONE} svc.{ZONE} {ZONE}\noptions ndots:5 timeout:2 attempts:2\n{}",
            servers.concat()
        );
        fs::write(folder.join("resolv.conf"), text)?;
        fs::write(folder.join("nsswitch.conf"), "hosts: dns\n")?;
        Ok(Self { namespace, folder })
    }

    /// Runs a command line inside and returns how it ended, good or bad.
    ///
    /// # Errors
    /// It cannot be started, or does not end in time.
    pub fn try_run(&self, words: &[&str]) -> Result<Finished> {
        let script = "mount --bind \"$0/resolv.conf\" /etc/resolv.conf && \
                      mount --bind \"$0/nsswitch.conf\" /etc/nsswitch.conf && exec \"$@\"";
        let mut command = self.namespace.command("unshare");
        command.args(["--mount", "sh", "-c", script]);
        command.arg(&self.folder).args(words);
        process::run(&mut command, "", LIMIT)
    }

    /// Runs a command line inside that must succeed; returns what it printed.
    ///
    /// # Errors
    /// It cannot be started, fails, or does not end in time.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        Ok(self.try_run(words)?.success()?.stdout)
    }

    /// The addresses of a family (`ahostsv4`, `ahostsv6`) that the libc finds for a name.
    ///
    /// # Errors
    /// It finds none.
    pub fn hosts(&self, database: &str, name: &str) -> Result<Vec<String>> {
        let printed = self.run(&["getent", database, name])?;
        let streams = printed.lines().filter(|line| line.contains("STREAM"));
        let addresses = streams.filter_map(|line| line.split_whitespace().next());
        Ok(addresses.map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dig_prints_is_read() {
        let text = ";; Got answer:\n;; ->>HEADER<<- opcode: QUERY, status: NOERROR, id: 8\n\
                    ;; flags: qr aa rd; QUERY: 1, ANSWER: 2\n\n;; ANSWER SECTION:\n\
                    web.default.svc.cluster.local. 5 IN A 10.96.0.11\n\
                    web.default.svc.cluster.local. 5 IN A 10.96.0.10\n\n";
        let reply = Reply::parse(text).unwrap();
        assert_eq!(reply.status, "NOERROR");
        assert_eq!(reply.flags, ["qr", "aa", "rd"]);
        assert_eq!(reply.data("A"), ["10.96.0.10", "10.96.0.11"]);
        assert_eq!(reply.records[0].ttl, 5);
        assert!(Reply::parse(";; communications error: timed out\n").is_err());
    }
}
