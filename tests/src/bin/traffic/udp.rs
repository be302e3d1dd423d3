//! One datagram from each of many source ports: which backend does each five-tuple get?

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
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
pub fn run(to: SocketAddrV4, first: u16, count: u16) -> Result<()> {
    let threads: Vec<_> = (0..AT_A_TIME)
        .map(|part| {
            let ports = (first..first.saturating_add(count)).skip(part.into());
            let ports: Vec<u16> = ports.step_by(AT_A_TIME.into()).collect();
            thread::spawn(move || ask_all(to, &ports))
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

fn ask_all(to: SocketAddrV4, ports: &[u16]) -> Result<Picks> {
    let mut picks = Picks::new();
    for &port in ports {
        if let Some(name) = ask(to, port).with_context(|| format!("source port {port}"))? {
            picks.insert(port, name);
        }
    }
    Ok(picks)
}

fn ask(to: SocketAddrV4, port: u16) -> Result<Option<String>> {
    // Not connected: an answer from a wrong address must be seen, not filtered out by the kernel.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    let question = format!("port {port}");
    for _ in 0..ATTEMPTS {
        socket.send_to(question.as_bytes(), to)?;
        let mut buffer = [0; 512];
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        if from != SocketAddr::V4(to) {
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
