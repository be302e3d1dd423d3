//! Clients that mean no good, and those that stop in the middle.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::future::join_all;
use sluice_tests::inside;
use sluice_tests::names::{self, LIMIT, message, of_service};
use sluice_tests::{clock, process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{sleep, timeout};

use super::{SERVER, still_answers, with_pair};

/// More than it ever needs, less than ten thousand buffers of 64 KiB.
const MEMORY: u64 = 400 << 20;
/// Connections that nobody uses.
const IDLE: usize = 10_000;
/// Packets of noise.
const PACKETS: u32 = 20_000;

/// Numbers without a pattern, the same each time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        // xorshift64 (Marsaglia 2003).
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap_or_default()
    }
}

/// Lets this process hold all connections.
fn raise_the_limit_of_files() -> Result<()> {
    let mut command = Command::new("prlimit");
    let limit = format!("--nofile={0}:{0}", IDLE + 2000);
    command.args(["--pid", &std::process::id().to_string(), &limit]);
    process::run(&mut command, "", LIMIT)?.success().map(drop)
}

async fn connect_all() -> Vec<TcpStream> {
    let connect = |_| timeout(Duration::from_secs(5), TcpStream::connect(SERVER));
    let connected = join_all((0..IDLE).map(connect)).await;
    // Past its cap the server may refuse or close, or leave them to the kernel.
    let streams = connected.into_iter().filter_map(|stream| stream.ok()?.ok());
    streams.collect()
}

/// One question by TCP; the length goes before it (RFC 1035 section 4.2.2).
async fn ask_by_tcp() -> Result<message::Answer> {
    let mut stream = TcpStream::connect(SERVER).await?;
    let question = message::question(7, &of_service("web"), message::A);
    stream.write_u16(u16::try_from(question.len())?).await?;
    stream.write_all(&question).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    message::answer(&bytes).context("no answer of DNS")
}

#[test]
fn ten_thousand_idle_connections_take_bounded_memory_and_nobodys_answers() -> Result<()> {
    raise_the_limit_of_files()?;
    let more = "[dns.tcp]\nidle_seconds = 2\n";
    let mut alone = with_pair(more, &[("10.1.0.1", true)])?;
    let idle = inside::run(&alone.namespace, async {
        let streams = connect_all().await;
        // Beside them, by UDP.
        let answer = super::ask(&of_service("web")).await?;
        ensure!(answer.rcode == 0, "{answer:?}");
        Ok(streams.len())
    })?;
    ensure!(idle > 0, "not one was taken");
    still_answers(&mut alone)?;
    // The idle ones are closed after a time, and there is room again.
    clock::wait_until_ok("an answer by TCP", LIMIT, || {
        let asked = async { timeout(Duration::from_secs(1), ask_by_tcp()).await? };
        let answer = inside::run(&alone.namespace, asked)?;
        ensure!(answer.rcode == 0, "{answer:?}");
        Ok(())
    })?;
    let peak = alone.peak_memory()?;
    ensure!(peak < MEMORY, "{peak} bytes");
    still_answers(&mut alone)
}

/// Questions that were damaged, and what never was one.
async fn make_noise() -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let mut noise = Noise(0x5eed);
    let mut buffer = vec![0; 65_000];
    for number in 0..PACKETS {
        let mut bytes = message::question(7, &of_service("web"), message::A);
        match number % 4 {
            0 => {
                bytes = (0..noise.below(600))
                    .map(|_| noise.next().to_le_bytes()[0])
                    .collect()
            }
            1 => bytes.truncate(noise.below(bytes.len())),
            2 => bytes.extend((0..noise.below(1400)).map(|_| 0xc0)),
            _ => {
                for _ in 0..4 {
                    let place = noise.below(bytes.len());
                    bytes[place] = noise.next().to_le_bytes()[0];
                }
            }
        }
        if number % 1000 == 0 {
            // As large as a datagram can be.
            bytes.resize(65_000, 0);
        }
        // The kernel may say that an earlier one was refused, or its buffer is full.
        let _ = socket.send_to(&bytes, SERVER).await;
        let _ = socket.try_recv(&mut buffer);
    }
    Ok(())
}

#[test]
fn random_packets_are_answered_or_dropped_and_nothing_else() -> Result<()> {
    let mut alone = with_pair("", &[("10.1.0.1", true)])?;
    inside::run(&alone.namespace, make_noise())?;
    still_answers(&mut alone)?;
    let peak = alone.peak_memory()?;
    ensure!(peak < MEMORY, "{peak} bytes");
    let log = alone.process.log();
    ensure!(!log.contains("panicked"), "{log}");
    Ok(())
}

/// Sends a byte from time to time until the server has had enough.
async fn dawdle() -> Result<()> {
    let mut stream = TcpStream::connect(SERVER).await?;
    let question = message::question(7, &of_service("web"), message::A);
    let mut bytes = u16::try_from(question.len())?.to_be_bytes().to_vec();
    bytes.extend(question);
    let began = clock::now();
    for byte in &bytes[..bytes.len() - 1] {
        if stream.write_all(&[*byte]).await.is_err() {
            return Ok(());
        }
        sleep(Duration::from_millis(200)).await;
    }
    let mut rest = Vec::new();
    match timeout(LIMIT, stream.read_to_end(&mut rest)).await? {
        Ok(0) => Ok(()),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        other => bail!("{other:?} after {:?}", began.elapsed()),
    }
}

#[test]
fn a_client_that_never_ends_its_question_is_let_go_and_disturbs_nobody() -> Result<()> {
    let more = "[dns.tcp]\nidle_seconds = 2\n";
    let mut alone = with_pair(more, &[("10.1.0.1", true)])?;
    inside::run(&alone.namespace, async {
        let slow = tokio::spawn(dawdle());
        for _ in 0..10 {
            let answer = timeout(Duration::from_secs(2), ask_by_tcp()).await??;
            ensure!(
                answer.addresses == [Ipv4Addr::new(10, 96, 0, 10)],
                "{answer:?}"
            );
        }
        slow.await?
    })?;
    still_answers(&mut alone)
}

#[test]
fn zones_are_not_handed_out_and_other_classes_have_no_names() -> Result<()> {
    let alone = with_pair("", &[("10.1.0.1", true)])?;
    let namespace = Some(&alone.namespace);
    let words = [
        "dig",
        "@127.0.0.1",
        "-p",
        "5353",
        "+tries=1",
        names::ZONE,
        "AXFR",
    ];
    // dig may or may not call it a failure.
    let told = alone.namespace.try_run(&words, LIMIT)?.stdout;
    ensure!(told.contains("Transfer failed."), "{told}");
    let chaos = names::dig(namespace, SERVER, &["-c", "CH", &of_service("web"), "A"])?;
    ensure!(chaos.records.is_empty(), "{chaos:?}");
    Ok(())
}
