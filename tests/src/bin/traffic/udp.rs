//! One datagram from each of many source ports: which backend does each five-tuple get?

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sluice_tests::traffic::Picks;

/// Sockets waiting for an answer at the same time.
const AT_A_TIME: u16 = 8;
/// Datagrams may be lost; the same source port asks again, which must not change the answer.
const ATTEMPTS: usize = 4;
const TIMEOUT: Duration = Duration::from_millis(500);

/// Sends from every port and prints who answered, as one line of JSON.
pub fn run(to: SocketAddr, first: u16, count: u16, size: usize) -> Result<()> {
    let threads: Vec<_> = (0..AT_A_TIME)
        .map(|part| {
            let ports = (first..first.saturating_add(count)).skip(part.into());
            let ports: Vec<u16> = ports.step_by(AT_A_TIME.into()).collect();
            thread::spawn(move || ask_all(to, &ports, size))
        })
        .collect();
    let mut picks = Picks::new();
    for each in threads {
        let part = each
            .join()
            .map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        picks.append(&mut part?);
    }
    println!("{}", serde_json::to_string(&picks)?);
    Ok(())
}

fn ask_all(to: SocketAddr, ports: &[u16], size: usize) -> Result<Picks> {
    let mut picks = Picks::new();
    for &port in ports {
        if let Some(name) = ask(to, port, size).with_context(|| format!("source port {port}"))? {
            picks.insert(port, name);
        }
    }
    Ok(picks)
}

fn ask(to: SocketAddr, port: u16, size: usize) -> Result<Option<String>> {
    // Not connected: an answer from a wrong address must be seen, not filtered out by the kernel.
    let socket = UdpSocket::bind((any(to), port))?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    let question = format!("{:<size$}", format!("port {port}"));
    for _ in 0..ATTEMPTS {
        socket.send_to(question.as_bytes(), to)?;
        let mut buffer = vec![0; 1 << 16];
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        if from != to {
            bail!("the answer came from {from}, not from {to}");
        }
        let answer = String::from_utf8_lossy(&buffer[..length]);
        let Some((name, echoed)) = answer.split_once(' ') else {
            bail!("the answer is {answer:?}");
        };
        if echoed != question {
            bail!("{question:?} was answered by {answer:?}");
        }
        return Ok(Some(name.to_owned()));
    }
    Ok(None)
}

/// Sends one datagram from a connected socket and prints what the socket is told.
pub fn told(to: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind((any(to), 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(TIMEOUT * 6))?;
    socket.send(b"anybody there?")?;
    match socket.recv(&mut [0; 64]) {
        Ok(_) => println!("answered"),
        Err(error) => println!("{:?}", error.kind()),
    }
    Ok(())
}

/// Every address of the family of `to`.
fn any(to: SocketAddr) -> IpAddr {
    match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
