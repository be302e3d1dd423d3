//! An echo server: over TCP it says its name, then echoes lines; over UDP it answers its name and
//! the datagram.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use anyhow::Result;

/// Serves until it is killed.
pub fn run(port: u16, name: &str) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
    let greeting = name.to_owned();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let greeting = greeting.clone();
            // A connection that breaks is the client's to report.
            thread::spawn(move || serve(&stream, &greeting).ok());
        }
    });
    println!("listening");
    let mut buffer = [0; 2048];
    loop {
        // An error here belongs to an earlier answer (ICMP), not to the socket.
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let answer = [name.as_bytes(), b" ", &buffer[..length]].concat();
        let _ = socket.send_to(&answer, from);
    }
}

fn serve(mut stream: &TcpStream, greeting: &str) -> Result<()> {
    stream.set_nodelay(true)?;
    writeln!(stream, "{greeting}")?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        stream.write_all(&line)?;
        line.clear();
    }
    Ok(())
}
