//! What is known of a client connection before its first request.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pingora_core::protocols::Digest;

use crate::listen::ListenerSettings;

/// The facts of one client connection, shared by all its requests.
#[derive(Debug)]
pub struct Downstream {
    /// Who the connection is from: the PROXY header's source where a trusted peer sent one,
    /// else the socket's. `None` on a Unix socket without a PROXY header.
    pub peer: Option<SocketAddr>,
    /// The address that the client connected to, by the same rule.
    pub local: Option<SocketAddr>,
    /// What the handshake settled; `None` on a plaintext connection.
    pub tls: Option<TlsFacts>,
    pub listener: Arc<ListenerSettings>,
}

/// What a TLS handshake settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The name that the client asked for, lower case.
    pub server_name: Option<String>,
    /// `h2` was agreed by ALPN.
    pub h2: bool,
}

/// The peer of a Unix socket, whose other end has no address: the machine itself.
const THIS_MACHINE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

impl Downstream {
    /// The address that trust is asked of. A Unix socket counts as the loopback address.
    pub fn peer_ip(&self) -> IpAddr {
        self.peer
            .map_or(THIS_MACHINE, |peer| peer.ip().to_canonical())
    }

    /// The facts that the acceptance of the connection put into pingora's digest.
    pub fn of(digest: &Digest) -> Option<&Arc<Self>> {
        digest
            .proxy_digest
            .as_ref()?
            .user_data
            .as_ref()?
            .downcast_ref()
    }
}
