//! Listening sockets: bound here, or inherited from the process before.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use socket2::{Domain, Protocol, SockAddr, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::downstream::socket::Socket;
use crate::listen::ListenAddress;

/// Connections that the kernel may hold for us between two accepts, as nginx has it on Linux
/// at most; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A listening socket.
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Binds and listens. The file of a Unix socket that nobody listens on any more is replaced.
    pub fn bind(address: &ListenAddress) -> io::Result<OwnedFd> {
        let (domain, sockaddr) = match address {
            ListenAddress::Tcp(tcp) => (Domain::for_address(*tcp), SockAddr::from(*tcp)),
            ListenAddress::Unix(path) => {
                remove_stale(path)?;
                (Domain::UNIX, SockAddr::unix(path)?)
            }
        };
        let protocol = matches!(address, ListenAddress::Tcp(_)).then_some(Protocol::TCP);
        let socket = socket2::Socket::new(domain, Type::STREAM, protocol)?;
        if let ListenAddress::Tcp(tcp) = address {
            socket.set_reuse_address(true)?;
            if tcp.is_ipv6() {
                // `[::]` and `0.0.0.0` are two addresses; who wants both writes both.
                socket.set_only_v6(true)?;
            }
        }
        socket.bind(&sockaddr)?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    }

    /// Takes a socket that listens already, from [`Listener::bind`] or from the process before.
    /// Must be called in a Tokio runtime.
    pub fn from_fd(address: &ListenAddress, fd: OwnedFd) -> io::Result<Self> {
        socket2::SockRef::from(&fd).set_nonblocking(true)?;
        Ok(match address {
            ListenAddress::Tcp(_) => Self::Tcp(TcpListener::from_std(fd.into())?),
            ListenAddress::Unix(_) => Self::Unix(UnixListener::from_std(fd.into())?),
        })
    }

    /// Waits for the next connection.
    pub async fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Heads and small bodies are written whole; waiting for more only adds latency.
                stream.set_nodelay(true)?;
                Ok((stream.into(), Some(peer)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((stream.into(), None))
            }
        }
    }
}

/// Takes over descriptor `fd`, which the process before left open for this one.
///
/// # Safety
/// `fd` must be open and owned by nobody else in this process.
pub unsafe fn inherit(fd: RawFd) -> OwnedFd {
    // SAFETY: the caller's promise.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Removes the file of a Unix socket whose listener is gone; anything else is left alone and
/// binding reports it.
fn remove_stale(path: &PathBuf) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        _ => Ok(()),
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(listener) => listener.as_raw_fd(),
            Self::Unix(listener) => listener.as_raw_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_dead_unix_socket_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let address = ListenAddress::Unix(dir.path().join("s.sock"));
        drop(Listener::bind(&address).unwrap());
        let living = Listener::bind(&address).unwrap();
        assert!(Listener::bind(&address).is_err());
        drop(living);
    }
}
