//! A client connection: what is known of it before its first request, and its bytes.

pub mod connection;
mod sending;
pub mod socket;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
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
    /// There is no client: the gateway asks itself.
    pub is_own: bool,
    /// Field lines for the answer under way: a connection of HTTP/1.x has one at a time.
    pub added: Mutex<Vec<u8>>,
    /// See [`Downstream::end_with_reset`].
    pub reset: AtomicBool,
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
    /// The subject of the client's certificate, which was verified.
    pub client: Option<Arc<str>>,
}

/// The peer of a Unix socket, whose other end has no address: the machine itself.
const THIS_MACHINE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

impl Downstream {
    /// Makes the end of this connection an RST: where only its end marks that of a body, an
    /// orderly one would make a whole answer of one that broke off.
    pub fn end_with_reset(&self) {
        self.reset.store(true, Ordering::Relaxed);
    }

    pub fn ends_with_reset(&self) -> bool {
        self.reset.load(Ordering::Relaxed)
    }

    /// Gives the next final HTTP/1.x response head these field lines, each with its line end, in
    /// place of any given before.
    pub fn add_to_answer(&self, lines: Vec<u8>) {
        *self.added.lock() = lines;
    }

    /// What the head that is being written gains.
    pub fn take_added(&self) -> Vec<u8> {
        std::mem::take(&mut self.added.lock())
    }

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
