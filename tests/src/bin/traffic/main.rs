//! Clients, echo servers and a frame generator for inside the test namespaces.
#![forbid(unsafe_code)]

mod echo;
mod flood;
mod hold;
mod http;
mod raw;
mod udp;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

/// Clients, echo servers and a frame generator for inside the test namespaces.
#[derive(Debug, Parser)]
enum Command {
    /// HTTP requests, each on a connection of its own.
    Http(http::Arguments),
    /// One datagram from each of many source ports to an echo server.
    Udp {
        /// The frontend.
        #[arg(long)]
        to: SocketAddr,
        /// Lowest source port.
        #[arg(long)]
        first_port: u16,
        /// How many source ports.
        #[arg(long)]
        count: u16,
        /// Bytes of a datagram at least.
        #[arg(long, default_value_t = 0)]
        size: usize,
    },
    /// A TCP connection that sends a line for each line of the standard input.
    Hold {
        /// The frontend.
        #[arg(long)]
        to: SocketAddr,
    },
    /// An echo server, TCP and UDP.
    Echo {
        /// Port to listen on.
        #[arg(long)]
        port: u16,
        /// What it calls itself.
        #[arg(long)]
        name: String,
    },
    /// One datagram from a connected socket; prints what the socket is told.
    Told {
        /// The frontend.
        #[arg(long)]
        to: SocketAddr,
    },
    /// Raw frames from a file.
    Frames {
        /// Where they leave.
        #[arg(long)]
        interface: String,
        /// Each behind its length in two bytes.
        #[arg(long)]
        file: PathBuf,
        /// How often all of them are sent.
        #[arg(long)]
        rounds: u32,
    },
    /// Raw frames, some of them garbage.
    Flood {
        /// Link-layer address that the frames go to.
        #[arg(long)]
        gateway: String,
        /// Source address of the datagrams.
        #[arg(long)]
        from: Ipv4Addr,
        /// Destination of the datagrams.
        #[arg(long)]
        to: SocketAddrV4,
        /// Frames.
        #[arg(long)]
        count: u32,
        /// How many of a hundred are garbage.
        #[arg(long)]
        garbage_per_cent: u32,
    },
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Http(arguments) => http::run(arguments),
        Command::Udp {
            to,
            first_port,
            count,
            size,
        } => udp::run(to, first_port, count, size),
        Command::Told { to } => udp::told(to),
        Command::Frames {
            interface,
            file,
            rounds,
        } => raw::run(&interface, &file, rounds),
        Command::Hold { to } => hold::run(to),
        Command::Echo { port, name } => echo::run(port, &name),
        Command::Flood {
            gateway,
            from,
            to,
            count,
            garbage_per_cent,
        } => flood::run(&gateway, from, to, count, garbage_per_cent),
    }
}
