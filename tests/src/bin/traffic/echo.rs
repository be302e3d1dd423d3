//! An echo server: over TCP it says its name, then echoes lines; over UDP it answers its name and
//! the datagram. It serves both families and prints how each connection ended.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use anyhow::Result;

/// Serves until it is killed.
pub fn run(port: u16, name: &str) -> Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?;
    let greeting = name.to_owned();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let greeting = greeting.clone();
            thread::spawn(move || match serve(&stream, &greeting) {
                Ok(()) => println!("closed"),
                Err(error) => println!("{:?}", error.kind()),
            });
        }
    });
    println!("listening");
    let mut buffer = vec![0; 1 << 16];
    loop {
        // An error here belongs to an earlier answer (ICMP), not to the socket.
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let answer = [name.as_bytes(), b" ", &buffer[..length]].concat();
        let _ = socket.send_to(&answer, from);
    }
}

fn serve(mut stream: &TcpStream, greeting: &str) -> io::Result<()> {
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
