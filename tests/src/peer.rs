//! Servers that behave in one way each, most of them badly: what a health probe can meet.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Bytes of a request that are read at most.
const MAX_REQUEST: usize = 64 << 10;
/// Between two bytes of a slow server.
const SLOW: Duration = Duration::from_millis(20);

/// What a server does with each connection.
#[derive(Debug, Clone)]
pub enum Manner {
    /// Holds it and says nothing.
    Silent,
    /// Closes it at once.
    Closing,
    /// Reads a request and resets the connection.
    Resetting,
    /// Says this at once, whatever is asked, and closes.
    Saying(Vec<u8>),
    /// Reads a request, answers this and closes.
    Answering(String),
    /// Reads a request, answers this and then an `x` every 20 ms without end.
    Slow(String),
    /// Reads a request, answers this and then `x` as fast as they are taken, without end.
    Endless(String),
}

/// A server of this process; it ends with its runtime.
#[derive(Debug)]
pub struct Peer {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Peer {
    /// Listens on a free port of `address`.
    ///
    /// # Errors
    /// It cannot listen there.
    pub async fn start(address: &str, manner: Manner) -> Result<Self> {
        let listener = TcpListener::bind((address, 0))
            .await
            .with_context(|| format!("listening on {address}"))?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(accept(listener, manner, seen.clone()));
        Ok(Self { address, seen })
    }

    /// The heads of the requests that it has read so far.
    pub fn requests(&self) -> Vec<String> {
        let seen = self.seen.lock();
        seen.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn accept(listener: TcpListener, manner: Manner, seen: Arc<Mutex<Vec<String>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (manner, seen) = (manner.clone(), seen.clone());
        // A client that goes away ends its connection, not the server.
        tokio::spawn(async move { serve(stream, manner, &seen).await.unwrap_or_default() });
    }
}

async fn serve(
    mut stream: TcpStream,
    manner: Manner,
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    match manner {
        Manner::Silent => gone(&mut stream).await,
        Manner::Closing => Ok(()),
        Manner::Resetting => {
            read(&mut stream, seen).await?;
            stream.set_zero_linger()
        }
        Manner::Saying(words) => {
            stream.write_all(&words).await?;
            stream.shutdown().await?;
            gone(&mut stream).await
        }
        Manner::Answering(answer) => {
            read(&mut stream, seen).await?;
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await?;
            gone(&mut stream).await
        }
        Manner::Slow(answer) => {
            read(&mut stream, seen).await?;
            stream.write_all(answer.as_bytes()).await?;
            loop {
                tokio::time::sleep(SLOW).await;
                stream.write_all(b"x").await?;
            }
        }
        Manner::Endless(answer) => {
            read(&mut stream, seen).await?;
            stream.write_all(answer.as_bytes()).await?;
            loop {
                stream.write_all(&[b'x'; 4096]).await?;
            }
        }
    }
}

/// Waits until the client is gone.
async fn gone(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// Reads the head of a request.
async fn read(stream: &mut TcpStream, seen: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_REQUEST {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            break;
        }
        head.extend_from_slice(&buffer[..count]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    seen.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(text);
    Ok(())
}
