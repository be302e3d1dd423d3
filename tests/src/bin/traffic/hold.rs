//! A TCP connection that is held open: for each line of the standard input it sends one line and
//! prints what became of it.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use anyhow::Result;
use sluice_tests::traffic::Step;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Connects, prints `connected NAME`, then goes step by step.
pub fn run(to: SocketAddrV4) -> Result<()> {
    let stream = TcpStream::connect_timeout(&SocketAddr::V4(to), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut name = String::new();
    reader.read_line(&mut name)?;
    println!("connected {}", name.trim());
    for (number, line) in io::stdin().lines().enumerate() {
        line?;
        let step = match step(&stream, &mut reader, number) {
            Ok(step) => step,
            Err(error) => match error.kind() {
                ErrorKind::ConnectionReset => Step::Reset,
                _ => Step::Failed(error.to_string()),
            },
        };
        println!("{step}");
    }
    Ok(())
}

fn step(
    mut stream: &TcpStream,
    reader: &mut BufReader<TcpStream>,
    number: usize,
) -> io::Result<Step> {
    let sent = format!("line {number}\n");
    stream.write_all(sent.as_bytes())?;
    let mut back = String::new();
    if reader.read_line(&mut back)? == 0 {
        return Ok(Step::Closed);
    }
    if back == sent {
        return Ok(Step::Echoed);
    }
    Ok(Step::Failed(format!("{sent:?} came back as {back:?}")))
}
