//! A fresh connection that leaves no TIME_WAIT.

use std::net::SocketAddr;

use tokio::net::{TcpSocket, TcpStream};

use crate::health::failure::Failure;

/// Connects to `address`. The source port is the kernel's choice, so that it is free towards this
/// address. Closed, the connection is reset (`SO_LINGER` with 0 seconds; with more, which the
/// kubelet asks for, closing a socket would block the thread).
pub(super) async fn dial(address: SocketAddr) -> Result<TcpStream, Failure> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_zero_linger()?;
    let stream = socket.connect(address).await?;
    // A port of this machine's range where nobody listens can be met by the very socket that is
    // looking for it (simultaneous open, RFC 9293 section 3.5).
    if stream.local_addr()? == address {
        return Err(Failure::Refused);
    }
    Ok(stream)
}
