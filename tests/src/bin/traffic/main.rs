//! Clients, echo servers and a frame generator for inside the test namespaces.
#![forbid(unsafe_code)]

mod echo;
mod flood;
mod hold;
mod http;
mod udp;

use std::net::{Ipv4Addr, SocketAddrV4};

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
        to: SocketAddrV4,
        /// Lowest source port.
        #[arg(long)]
        first_port: u16,
        /// How many source ports.
        #[arg(long)]
        count: u16,
    },
    /// A TCP connection that sends a line for each line of the standard input.
    Hold {
        /// The frontend.
        #[arg(long)]
        to: SocketAddrV4,
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
        } => udp::run(to, first_port, count),
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
