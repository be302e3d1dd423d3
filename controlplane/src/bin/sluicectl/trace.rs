//! `trace`.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::ops::ControlFlow;

use sluice_conf::message::dataplane::tap::{Fate, Headers, Side, TappedPacket};

use crate::follow::{Stream, Which};
use crate::output::{self, Format};
use crate::{Answer, Common};

pub fn run(common: &Common, which: &Which) -> anyhow::Result<Answer> {
    let mut stdout = std::io::stdout().lock();
    let tally = Stream::open(common, which, 0)?.follow(|packet| {
        let text = text(common.output, packet)?;
        match stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
        {
            // Whoever reads may stop early, as head does.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
            written => {
                written?;
                Ok(ControlFlow::Continue(true))
            }
        }
    })?;
    Ok(Answer {
        text: String::new(),
        remark: Some(tally.words("shown")),
        code: 0,
    })
}

fn text(format: Format, packet: &TappedPacket) -> anyhow::Result<String> {
    Ok(match format {
        // One line each, so that a program can follow.
        Format::Json => serde_json::to_string(packet)? + "\n",
        Format::Yaml => match output::structured(format, packet)? {
            Some(text) => format!("---\n{text}"),
            None => String::new(),
        },
        Format::Table | Format::Wide => line(packet) + "\n",
    })
}

/// Time, worker, as it came in, what became of it, and whose it is.
fn line(packet: &TappedPacket) -> String {
    let mut line = format!("{} w{}", time(packet.nanoseconds), packet.worker);
    if let Some(before) = &packet.before {
        let _ = write!(line, " {}", side(before));
    }
    let _ = write!(line, " {}", fate(&packet.fate));
    if let Some(after) = &packet.after {
        let _ = write!(line, " {}", side(after));
    }
    if let Some(service) = &packet.service {
        let _ = write!(line, " ({service}");
        if let Some(backend) = packet.backend {
            let _ = write!(line, " at {backend}");
        }
        line.push(')');
    }
    line
}

/// What became of a packet, in words.
pub fn fate(fate: &Fate) -> String {
    match fate {
        Fate::Forward => "forward".to_owned(),
        Fate::Reply => "answer".to_owned(),
        Fate::Sent => "sent by the gateway".to_owned(),
        Fate::HandOver(worker) => format!("to worker {worker}"),
        Fate::Hold => "waits for its next hop".to_owned(),
        Fate::Wait => "waits for its first fragment".to_owned(),
        Fate::Kernel => "to the kernel".to_owned(),
        Fate::Drop(reason) => format!("DROP {}: {}", reason.name, reason.sentence),
    }
}

fn side(side: &Side) -> String {
    let Side {
        interface,
        headers,
        len,
        ..
    } = side;
    match headers {
        Some(headers) => format!("{interface} {}", tuple(headers)),
        None => format!("{interface} no IP packet, {len} bytes"),
    }
}

fn tuple(headers: &Headers) -> String {
    let Headers {
        protocol,
        source,
        destination,
        ports,
        flags,
    } = *headers;
    let name = match protocol {
        1 | 58 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        132 => "SCTP".to_owned(),
        other => format!("protocol {other}"),
    };
    let ends = match ports {
        Some((from, to)) => {
            let (from, to) = (
                SocketAddr::new(source, from),
                SocketAddr::new(destination, to),
            );
            format!("{from} > {to}")
        }
        None => format!("{source} > {destination}"),
    };
    match flags {
        Some(flags) => format!("{name} {ends} [{}]", letters(flags)),
        None => format!("{name} {ends}"),
    }
}

/// TCP flags as tcpdump writes them.
fn letters(flags: u8) -> String {
    let known = [
        (0x02, 'S'),
        (0x01, 'F'),
        (0x04, 'R'),
        (0x08, 'P'),
        (0x10, '.'),
    ];
    let set = known.iter().filter(|(bit, _)| flags & bit != 0);
    set.map(|(_, letter)| *letter).collect()
}

/// The time of day, UTC.
fn time(nanoseconds: u64) -> String {
    let seconds = nanoseconds / 1_000_000_000;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let micros = nanoseconds / 1000 % 1_000_000;
    format!("{hour:02}:{minute:02}:{second:02}.{micros:06}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_conf::message::dataplane::explain::Reason;

    fn side_of(interface: &str, source: &str, destination: &str) -> Side {
        let (source, destination): (SocketAddr, SocketAddr) =
            (source.parse().unwrap(), destination.parse().unwrap());
        Side {
            interface: interface.into(),
            headers: Some(Headers {
                protocol: 6,
                source: source.ip(),
                destination: destination.ip(),
                ports: Some((source.port(), destination.port())),
                flags: Some(0x12),
            }),
            len: 60,
            bytes: Vec::new(),
        }
    }

    fn packet() -> TappedPacket {
        TappedPacket {
            nanoseconds: 1_700_000_000_123_456_789,
            worker: 1,
            service: None,
            backend: None,
            before: Some(side_of("eth0", "198.51.100.7:40000", "[2001:db8::1]:80")),
            after: None,
            fate: Fate::Forward,
        }
    }

    #[test]
    fn a_packet_is_one_line() {
        let mut forwarded = packet();
        forwarded.after = Some(side_of("eth1", "10.0.2.1:16384", "10.0.2.11:8080"));
        assert_eq!(
            line(&forwarded),
            "22:13:20.123456 w1 eth0 TCP 198.51.100.7:40000 > [2001:db8::1]:80 [S.] forward eth1 \
             TCP 10.0.2.1:16384 > 10.0.2.11:8080 [S.]"
        );
        let dropped = TappedPacket {
            fate: Fate::Drop(Reason {
                name: "no_route".into(),
                sentence: "There is none.".into(),
                remedy: "Add one.".into(),
            }),
            ..packet()
        };
        assert!(line(&dropped).ends_with("[S.] DROP no_route: There is none."));
    }
}
