//! Listening sockets of servers.

use std::{io, net::SocketAddr, os::fd::AsRawFd};

use nix::sys::socket::{Shutdown, shutdown};
use tokio::net::{TcpListener, TcpSocket};

use crate::lab::{LabError, Namespace, Result};

/// Connections that may wait to be accepted. The standard library's 128 overflow when a load begins, and who is
/// dropped then comes back a second later.
const BACKLOG: u32 = 4096;

/// Non-blocking sockets inside a namespace, and their addresses.
pub(crate) fn listeners(
    namespace: &Namespace,
    addresses: &[SocketAddr],
) -> Result<(Vec<std::net::TcpListener>, Vec<SocketAddr>)> {
    let one = |address| {
        let listener = listen(address)?.into_std()?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    let bound = namespace.block_on(async { addresses.iter().copied().map(one).collect::<io::Result<Vec<_>>>() })?;
    let bound = bound.map_err(LabError::io(format!("listen on {addresses:?} in {}", namespace.name())))?;
    Ok(bound.into_iter().unzip())
}

/// One socket in the calling thread's namespace, for its runtime. `SO_REUSEADDR` lets a server listen again while
/// connections of its former socket live.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The socket as a runtime's own.
pub(crate) fn watched(listener: std::net::TcpListener) -> TcpListener {
    TcpListener::from_std(listener).expect("a non-blocking socket, and a runtime with its drivers")
}

/// Lets a socket listen no longer, from this moment on. To drop it is not enough: a child that another thread is about to start has the descriptor as well until
/// it becomes another program, and for so long the kernel would go on completing handshakes.
pub(crate) fn close(listener: &TcpListener) -> io::Result<()> {
    shutdown(listener.as_raw_fd(), Shutdown::Read).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_is_closed_refuses_even_while_a_child_still_has_it() {
        let listener = listen(([127, 0, 0, 1], 0).into()).expect("it listens");
        let address = listener.local_addr().expect("bound");
        let as_a_child_has_it = listener.into_std().expect("a socket");
        let listener = watched(as_a_child_has_it.try_clone().expect("a second descriptor"));
        close(&listener).expect("closed");
        drop(listener);
        let error = std::net::TcpStream::connect(address).expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let again = listen(address).expect("it listens again");
        assert!(std::net::TcpStream::connect(again.local_addr().expect("bound")).is_ok());
        drop(as_a_child_has_it);
    }
}
