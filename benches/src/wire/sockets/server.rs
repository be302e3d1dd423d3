//! The server: sends on every connection as many bytes as its client asks for, and closes after it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{Result, bail};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::net::{SocketFlags, accept_with, listen};
use slab::Slab;

use super::super::rig::BACKEND_PORT;
use super::REQUEST;
use crate::cpu;
use crate::namespace::Namespace;

/// The key of the listening socket.
const LISTENER: u64 = u64::MAX;
const BACKLOG: i32 = 4096;
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

/// A server at work. Dropping it stops it.
pub(super) struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Server {
    /// Starts it in a namespace; clients can connect when this returns.
    pub(super) fn start(namespace: &Namespace, on: usize) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (namespace, stopped) = (namespace.clone(), Arc::clone(&stop));
        let (ready, wait) = mpsc::channel();
        let work = move || -> Result<()> {
            namespace.enter()?;
            cpu::claim(on)?;
            let mut loops = Loop::open()?;
            // Nobody waits any more when the caller has given up.
            let _ = ready.send(());
            while !stopped.load(Relaxed) {
                loops.turn()?;
            }
            Ok(())
        };
        let thread = thread::Builder::new().name("server".into()).spawn(work)?;
        // The sender is dropped when the thread ends with an error.
        if wait.recv().is_err() {
            match thread.join() {
                Ok(Err(error)) => return Err(error.context("the server")),
                _ => bail!("the server ended at once"),
            }
        }
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => eprintln!("the server: {error:#}"),
            Some(Err(_)) => eprintln!("the server's thread died"),
        }
    }
}

struct Loop {
    epoll: OwnedFd,
    listener: TcpListener,
    connections: Slab<Connection>,
    zeros: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    request: [u8; REQUEST],
    /// Bytes of the request that are here.
    seen: usize,
    /// Bytes that are still to be sent.
    left: u64,
}

impl Loop {
    fn open() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, BACKEND_PORT))?;
        // Longer than the standard library has it.
        listen(&listener, BACKLOG)?;
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(
            &epoll,
            &listener,
            EventData::new_u64(LISTENER),
            EventFlags::IN,
        )?;
        Ok(Self {
            epoll,
            listener,
            connections: Slab::new(),
            zeros: vec![0; 1 << 17],
        })
    }

    fn turn(&mut self) -> Result<()> {
        let mut events = Vec::with_capacity(256);
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&LOOK),
        ) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            other => other?,
        };
        for event in events {
            let data = event.data;
            match data.u64() {
                LISTENER => self.accept()?,
                key => self.serve(key as usize),
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        // Any error but a full table of files is the connection's: the next one may do better.
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        while let Ok(socket) = accept_with(&self.listener, flags) {
            let stream = TcpStream::from(socket);
            let entry = self.connections.vacant_entry();
            let data = EventData::new_u64(entry.key() as u64);
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
            epoll::add(&self.epoll, &stream, data, flags)?;
            entry.insert(Connection {
                stream,
                request: [0; REQUEST],
                seen: 0,
                left: 0,
            });
        }
        Ok(())
    }

    fn serve(&mut self, key: usize) {
        // One that has ended may have had another event waiting.
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if !connection.go_on(&self.zeros) {
            self.connections.remove(key);
        }
    }
}

impl Connection {
    /// Does what can be done now; whether there will be more.
    fn go_on(&mut self, zeros: &[u8]) -> bool {
        while self.seen < REQUEST {
            match self.stream.read(&mut self.request[self.seen..]) {
                Ok(0) => return false,
                Ok(count) => self.seen += count,
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
            if self.seen == REQUEST {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(&self.request[..8]);
                self.left = u64::from_be_bytes(bytes);
            }
        }
        while self.left > 0 {
            let most = usize::try_from(self.left).map_or(zeros.len(), |left| left.min(zeros.len()));
            match self.stream.write(&zeros[..most]) {
                Ok(count) => self.left -= count as u64,
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        // The client closes first, and says nothing more before.
        let more = self.stream.read(&mut self.request);
        more.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}
