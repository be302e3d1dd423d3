//! The clients: as many connections at a time as they are told, each from another address and port.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use serde::{Deserialize, Serialize};
use slab::Slab;

use super::REQUEST;
use crate::cpu;
use crate::generator::flow;
use crate::generator::plan::Plan;
use crate::generator::sockets::monotonic;

/// A connection on which nothing has come for so long has failed.
const PATIENCE: u64 = 2_000_000_000;
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

/// What clients do.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Connections at a time.
    pub connections: usize,
    /// Bytes that each asks for.
    pub bytes: u64,
    /// For how long.
    pub time: Duration,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Connections that were opened, answered in full and closed by both sides.
    pub done: u64,
    /// Connections that were refused, broken, answered in part or forgotten.
    pub failed: u64,
    /// Bytes of answers.
    pub bytes: u64,
    /// Seconds that it took.
    pub seconds: f64,
}

impl Tally {
    /// Connections a second.
    pub fn rate(&self) -> f64 {
        self.done as f64 / self.seconds.max(1e-9)
    }

    /// Bits of answers a second.
    pub fn bits(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.seconds.max(1e-9)
    }
}

/// Loads the first target of `plan` from this thread's namespace, on a CPU.
pub(super) fn run(plan: &Plan, load: Load, on: usize) -> Result<Tally> {
    cpu::claim(on)?;
    let mut clients = Clients::new(plan, load)?;
    let begin = monotonic();
    let end = begin + load.time.as_nanos() as u64;
    let mut now = begin;
    while now < end {
        clients.fill(now)?;
        clients.turn(now)?;
        now = monotonic();
    }
    clients.tally.seconds = (now - begin) as f64 / 1e9;
    Ok(clients.tally)
}

struct Clients<'a> {
    plan: &'a Plan,
    load: Load,
    target: SocketAddr,
    key: flow::Key,
    opened: u32,
    epoll: OwnedFd,
    connections: Slab<Connection>,
    /// When it was last looked for connections on which nothing comes.
    looked: u64,
    room: Vec<u8>,
    tally: Tally,
}

struct Connection {
    stream: TcpStream,
    asked: bool,
    left: u64,
    /// When something happened last.
    alive: u64,
}

/// How a connection stands.
enum Standing {
    Open,
    Done,
    Failed,
}

impl<'a> Clients<'a> {
    fn new(plan: &'a Plan, load: Load) -> Result<Self> {
        Ok(Self {
            plan,
            load,
            target: *plan.targets.first().context("no destination")?,
            // Other clients than those of the last trial.
            key: flow::key(monotonic()),
            opened: 0,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            connections: Slab::new(),
            looked: 0,
            room: vec![0; 1 << 17],
            tally: Tally::default(),
        })
    }

    /// Opens connections until there are enough, and gives up what has come to a halt.
    fn fill(&mut self, now: u64) -> Result<()> {
        if now - self.looked > PATIENCE / 10 {
            self.looked = now;
            let before = self.connections.len();
            self.connections
                .retain(|_, connection| now.saturating_sub(connection.alive) < PATIENCE);
            self.tally.failed += (before - self.connections.len()) as u64;
        }
        // At most one round of them, so that a peer that refuses is not asked for ever.
        for _ in self.connections.len()..self.load.connections {
            match self.open(now) {
                Ok(()) => {}
                Err(error) if is_the_peers(&error) => self.tally.failed += 1,
                Err(error) => return Err(error).context("a client's socket"),
            }
        }
        Ok(())
    }

    fn open(&mut self, now: u64) -> Result<(), Errno> {
        let (client, port) = self.plan.clients.of(self.opened, &self.key);
        self.opened = self.opened.wrapping_add(1);
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        bind(&socket, &SocketAddr::new(client, port))?;
        match connect(&socket, &self.target) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let entry = self.connections.vacant_entry();
        let data = EventData::new_u64(entry.key() as u64);
        let wanted = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        epoll::add(&self.epoll, &socket, data, wanted)?;
        entry.insert(Connection {
            stream: TcpStream::from(socket),
            asked: false,
            left: self.load.bytes,
            alive: now,
        });
        Ok(())
    }

    fn turn(&mut self, now: u64) -> Result<()> {
        let mut events = Vec::with_capacity(256);
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&LOOK),
        ) {
            Err(Errno::INTR) => return Ok(()),
            other => other?,
        };
        for event in events {
            let data = event.data;
            let key = data.u64() as usize;
            // One that has ended may have had another event waiting.
            let Some(connection) = self.connections.get_mut(key) else {
                continue;
            };
            connection.alive = now;
            let before = connection.left;
            let standing = connection.go_on(&mut self.room, self.load.bytes);
            self.tally.bytes += before - connection.left;
            match standing {
                Standing::Open => continue,
                Standing::Done => self.tally.done += 1,
                Standing::Failed => self.tally.failed += 1,
            }
            self.connections.remove(key);
        }
        Ok(())
    }
}

/// Whether opening failed for a reason that may lie with the peer.
fn is_the_peers(error: &Errno) -> bool {
    matches!(
        *error,
        Errno::CONNREFUSED | Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::ADDRINUSE
    )
}

impl Connection {
    /// Does what can be done now.
    fn go_on(&mut self, room: &mut [u8], bytes: u64) -> Standing {
        if !self.asked {
            let mut request = [0; REQUEST];
            request[..8].copy_from_slice(&bytes.to_be_bytes());
            match self.stream.write(&request) {
                Ok(REQUEST) => self.asked = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Standing::Open,
                _ => return Standing::Failed,
            }
        }
        loop {
            match self.stream.read(room) {
                Ok(0) if self.left == 0 => return Standing::Done,
                Ok(0) => return Standing::Failed,
                Ok(count) => {
                    let Some(left) = self.left.checked_sub(count as u64) else {
                        return Standing::Failed;
                    };
                    self.left = left;
                    if left == 0 && self.stream.shutdown(Shutdown::Write).is_err() {
                        return Standing::Failed;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Standing::Open,
                Err(_) => return Standing::Failed,
            }
        }
    }
}
