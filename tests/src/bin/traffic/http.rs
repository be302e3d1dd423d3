//! HTTP requests, each on a connection of its own: what a load balancer spreads.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, bind, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use sluice_tests::clock;
use sluice_tests::traffic::Report;

/// What to request.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// `http://ADDRESS:PORT/PATH`; the port may be left out.
    #[arg(long)]
    url: String,
    /// How many requests.
    #[arg(long, default_value_t = 1)]
    count: u16,
    /// How many at a time.
    #[arg(long, default_value_t = 1)]
    concurrency: u16,
    /// How long one may take, in milliseconds.
    #[arg(long, default_value_t = 5000)]
    timeout_ms: i64,
    /// Source port of the first request, each other one the next; 0 lets the kernel choose.
    #[arg(long, default_value_t = 0)]
    first_port: u16,
    /// Goes on until the standard input ends, whatever the count.
    #[arg(long)]
    until_end_of_input: bool,
}

struct Job {
    to: SocketAddr,
    request: String,
    timeout_ms: i64,
    count: u16,
    first_port: u16,
    begun: AtomicU16,
    endless: bool,
    stop: AtomicBool,
}

/// Runs the requests and prints the report as one line of JSON.
pub fn run(arguments: Arguments) -> Result<()> {
    let job = Arc::new(job(&arguments)?);
    let loops: Vec<_> = (0..arguments.concurrency)
        .map(|_| {
            let job = Arc::clone(&job);
            thread::spawn(move || work(&job))
        })
        .collect();
    if arguments.until_end_of_input {
        io::copy(&mut io::stdin(), &mut io::sink())?;
        job.stop.store(true, Ordering::Relaxed);
    }
    let mut report = Report::default();
    for each in loops {
        report.add(
            each.join()
                .map_err(|_| anyhow::anyhow!("a loop panicked"))?,
        );
    }
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

fn job(arguments: &Arguments) -> Result<Job> {
    let rest = arguments
        .url
        .strip_prefix("http://")
        .context("an http:// address")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let to = host.parse().or_else(|_| format!("{host}:80").parse());
    Ok(Job {
        to: to.with_context(|| format!("{host} is not ADDRESS:PORT"))?,
        request: format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"),
        timeout_ms: arguments.timeout_ms,
        count: arguments.count,
        first_port: arguments.first_port,
        begun: AtomicU16::new(0),
        endless: arguments.until_end_of_input,
        stop: AtomicBool::new(false),
    })
}

fn work(job: &Job) -> Report {
    let mut report = Report::default();
    while !job.stop.load(Ordering::Relaxed) {
        let number = job.begun.fetch_add(1, Ordering::Relaxed);
        if !job.endless && number >= job.count {
            break;
        }
        let port = match job.first_port {
            0 => 0,
            first => first.wrapping_add(number),
        };
        let start = clock::now();
        match once(job, port) {
            Ok(body) => {
                let took = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
                report.slowest_ms = report.slowest_ms.max(took);
                report.ok += 1;
                *report.by_body.entry(body).or_default() += 1;
            }
            Err(error) => {
                report.failed += 1;
                *report.errors.entry(format!("{error:#}")).or_default() += 1;
            }
        }
    }
    report
}

fn once(job: &Job, port: u16) -> Result<String> {
    let mut stream = connect(job, port).context("connect")?;
    stream.write_all(job.request.as_bytes()).context("send")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("receive")?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("no end of the header")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    anyhow::ensure!(status == "200", "status {status}");
    Ok(body.trim_end().to_owned())
}

/// Connects from a chosen source port, which the standard library cannot.
fn connect(job: &Job, port: u16) -> Result<TcpStream> {
    let family = match job.to.ip() {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    // On Linux it bounds connect as well as send (socket(7)).
    setsockopt(
        &socket,
        sockopt::SendTimeout,
        &TimeVal::milliseconds(job.timeout_ms),
    )?;
    let descriptor = socket.as_raw_fd();
    let connected = match job.to {
        SocketAddr::V4(to) => {
            if port != 0 {
                bind(descriptor, &SockaddrIn::new(0, 0, 0, 0, port))?;
            }
            nix::sys::socket::connect(descriptor, &SockaddrIn::from(to))
        }
        SocketAddr::V6(to) => {
            if port != 0 {
                let any = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0);
                bind(descriptor, &SockaddrIn6::from(any))?;
            }
            nix::sys::socket::connect(descriptor, &SockaddrIn6::from(to))
        }
    };
    match connected {
        Err(Errno::EINPROGRESS) => anyhow::bail!("timed out"),
        other => other?,
    }
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_millis(job.timeout_ms.unsigned_abs())))?;
    Ok(stream)
}
