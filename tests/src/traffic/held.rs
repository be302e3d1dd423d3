//! A connection that a test uses step by step while it changes the world around it.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout};

use anyhow::{Context, Result, bail};

use super::spawn;
use crate::netns::Netns;

/// How one step of a held connection went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The line came back.
    Echoed,
    /// `ECONNRESET`.
    Reset,
    /// The other side closed in order.
    Closed,
    /// Anything else, for example a timeout.
    Failed(String),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Echoed => f.write_str("echoed"),
            Step::Reset => f.write_str("reset"),
            Step::Closed => f.write_str("closed"),
            Step::Failed(why) => write!(f, "failed {why}"),
        }
    }
}

impl Step {
    /// The step that a line of the helper tells of.
    fn parse(line: &str) -> Self {
        match line.trim() {
            "echoed" => Step::Echoed,
            "reset" => Step::Reset,
            "closed" => Step::Closed,
            other => Step::Failed(other.to_owned()),
        }
    }
}

/// A TCP connection to an echo server that is held open and used step by step.
#[derive(Debug)]
pub struct Held {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    backend: String,
}

impl Held {
    /// Connects from `namespace`.
    ///
    /// # Errors
    /// The connection is not made, or the server does not say its name.
    pub fn connect(namespace: &Netns, to: impl Into<SocketAddr>) -> Result<Self> {
        let to = to.into();
        let mut child = spawn(namespace, &["hold", "--to", &to.to_string()])?;
        let stdin = child.stdin.take().context("input of the helper")?;
        let stdout = child.stdout.take().context("output of the helper")?;
        let mut held = Self {
            child,
            stdin,
            stdout: BufReader::new(stdout),
            backend: String::new(),
        };
        let line = held.line()?;
        match line.trim().strip_prefix("connected ") {
            Some(name) => held.backend = name.to_owned(),
            None => bail!("connection to {to}: {line}"),
        }
        Ok(held)
    }

    /// Name of the server at the other end.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// Sends a line and tells whether it came back.
    ///
    /// # Errors
    /// The helper itself failed.
    pub fn step(&mut self) -> Result<Step> {
        self.stdin.write_all(b"step\n")?;
        Ok(Step::parse(&self.line()?))
    }

    /// Sends nothing and tells what arrives: [`Step::Reset`] or [`Step::Closed`].
    ///
    /// # Errors
    /// The helper itself failed.
    pub fn listen(&mut self) -> Result<Step> {
        self.stdin.write_all(b"listen\n")?;
        Ok(Step::parse(&self.line()?))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
