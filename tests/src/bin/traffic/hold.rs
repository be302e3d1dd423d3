//! A TCP connection that is held open: for each line of the standard input it sends one line and
//! prints what became of it; for the line `listen` it sends nothing and only reads.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Result;
use sluice_tests::traffic::Step;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Connects, prints `connected NAME`, then goes step by step.
pub fn run(to: SocketAddr) -> Result<()> {
    let stream = TcpStream::connect_timeout(&to, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut name = String::new();
    reader.read_line(&mut name)?;
    println!("connected {}", name.trim());
    for (number, line) in io::stdin().lines().enumerate() {
        let result = match line?.as_str() {
            "listen" => listen(&mut reader),
            _ => step(&stream, &mut reader, number),
        };
        let step = match result {
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

fn listen(reader: &mut BufReader<TcpStream>) -> io::Result<Step> {
    let mut line = String::new();
    match reader.read_line(&mut line)? {
        0 => Ok(Step::Closed),
        _ => Ok(Step::Failed(format!("{line:?} came unasked"))),
    }
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
