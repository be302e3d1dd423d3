//! A fresh connection that leaves no TIME_WAIT.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::net::sockopt::set_tcp_quickack;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

use crate::health::failure::Failure;

/// A connection that is never shut down, only closed: whose FIN is the first has the TIME_WAIT
/// (RFC 9293 section 3.6.1), and the libraries of HTTP shut down what they are done with.
pub(super) struct Stream(TcpStream);

/// Connects to `address`. The source port is the kernel's choice, so that it is free towards this
/// address. Closed, the connection is reset (`SO_LINGER` with 0 seconds; with more, which the
/// kubelet asks for, closing a socket would block the thread).
pub(super) async fn dial(address: SocketAddr) -> Result<Stream, Failure> {
    connect(socket(address)?, address).await
}

/// As [`dial`], by who has something to say at once: the end of the handshake travels with it
/// (tcp(7), `TCP_QUICKACK`), which is one packet less of some seven.
pub(super) async fn dial_to_speak(address: SocketAddr) -> Result<Stream, Failure> {
    let socket = socket(address)?;
    set_tcp_quickack(&socket, false).map_err(io::Error::from)?;
    connect(socket, address).await
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_zero_linger()?;
    Ok(socket)
}

async fn connect(socket: TcpSocket, address: SocketAddr) -> Result<Stream, Failure> {
    let stream = socket.connect(address).await?;
    // A port of this machine's range where nobody listens can be met by the very socket that is
    // looking for it (simultaneous open, RFC 9293 section 3.5).
    if stream.local_addr()? == address {
        return Err(Failure::Refused);
    }
    Ok(Stream(stream))
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
