//! The connection before it is a request: sockets, PROXY protocol, TLS, guards, and the loop
//! that hands one request after the other to the full lane.
//!
//! This is our own loop rather than a pingora `Service`: pingora checks neither the raw head nor
//! the pipelined bytes behind it, knows PROXY headers on TLS listeners only, and has no deadline
//! for a whole head.

pub mod guard;
mod http1;
mod http2;
pub mod listener;
pub mod proxy_protocol;
mod rest;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use self::guard::ConnectionGuards;
use self::listener::Listener;
use crate::certificates::subject;
use crate::downstream::connection::{Connection, Transport};
use crate::downstream::socket::Socket;
use crate::downstream::{Downstream, TlsFacts};
use crate::gateway::Gateway;
use crate::http1::head::Limits;
use crate::listen::ListenerSettings;
use crate::proxy::Proxy;
use crate::refusal::Refusal;

/// Turns true once, when the gateway stops taking new work.
pub type Shutdown = watch::Receiver<bool>;

/// How connections are taken, whatever the listener. Times bound a silent client; see the
/// setting of the same name in `gateway.toml`.
#[derive(Clone, Debug)]
pub struct AcceptSettings {
    pub header_timeout: Duration,
    pub idle_timeout: Duration,
    pub handshake_timeout: Duration,
    pub body_timeout: Duration,
    pub send_timeout: Duration,
    pub keepalive_requests: u32,
    pub max_h2_streams: u32,
    pub limits: Limits,
    /// Requests of HTTP/1.1 go through the full lane, plain ones too.
    pub full_lane_only: bool,
}

/// Takes connections and serves them.
pub struct Acceptor {
    pub settings: AcceptSettings,
    pub guards: Arc<ConnectionGuards>,
    pub gateway: Arc<Gateway>,
    pub proxy: Arc<Proxy>,
}

/// Why a connection ended before its first request.
#[derive(Debug, thiserror::Error)]
enum NotServed {
    #[error("the connection ended")]
    Io(#[from] io::Error),
    #[error("no PROXY header and handshake in time")]
    TooSlow,
    #[error("a PROXY header was expected: {0}")]
    ProxyHeader(#[from] proxy_protocol::ProxyProtocolError),
    #[error("{0} is not a trusted proxy")]
    Untrusted(std::net::IpAddr),
    #[error("too many connections: {0:?}")]
    Guarded(guard::Refused),
}

impl Acceptor {
    /// Accepts until `shutdown`; every connection runs in a task that `alive` is kept by.
    pub async fn run(
        self: Arc<Self>,
        listener: Listener,
        settings: Arc<ListenerSettings>,
        mut shutdown: Shutdown,
        alive: tokio::sync::mpsc::Sender<()>,
    ) {
        let ending = shutdown.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = shutdown.wait_for(|ending| *ending) => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => {
                    let acceptor = self.clone();
                    let settings = settings.clone();
                    tokio::spawn(acceptor.serve(
                        socket,
                        peer,
                        settings,
                        ending.clone(),
                        alive.clone(),
                    ));
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    // Out of descriptors or memory: accepting at once again would only spin.
                    tracing::warn!(%error, listener = %settings.address, "cannot accept; waiting");
                    pingora_timeout::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Serves one connection to its end. What idles does so in this future: what is large in it
    /// stands in a box of its own, which is there only while it is needed.
    async fn serve(
        self: Arc<Self>,
        socket: Socket,
        peer: Option<SocketAddr>,
        listener: Arc<ListenerSettings>,
        shutdown: Shutdown,
        _alive: tokio::sync::mpsc::Sender<()>,
    ) {
        let Some((connection, _guard)) =
            Box::pin(self.establish_in_time(socket, peer, listener)).await
        else {
            return;
        };
        let tls = connection.downstream().tls.as_ref();
        if tls.is_some_and(|tls| tls.h2) {
            Box::pin(http2::serve(&self, connection, shutdown)).await;
        } else {
            http1::serve(&self, connection, shutdown).await;
        }
    }

    /// As [`Acceptor::establish`], within `handshake_timeout`; `None` where the connection is not
    /// to be served, which has been said.
    async fn establish_in_time(
        &self,
        socket: Socket,
        peer: Option<SocketAddr>,
        listener: Arc<ListenerSettings>,
    ) -> Option<(Box<Connection>, guard::ConnectionGuard)> {
        let patience = self.settings.handshake_timeout;
        let address = listener.address.clone();
        let established = self.establish(socket, peer, listener);
        let why = match pingora_timeout::timeout(patience, established).await {
            Ok(Ok(established)) => return Some(established),
            Ok(Err(why)) => why,
            Err(_) => NotServed::TooSlow,
        };
        tracing::debug!(listener = %address, ?peer, %why, "connection not served");
        None
    }

    /// Reads the PROXY header, counts the client, completes the handshake.
    async fn establish(
        &self,
        mut socket: Socket,
        mut peer: Option<SocketAddr>,
        listener: Arc<ListenerSettings>,
    ) -> Result<(Box<Connection>, guard::ConnectionGuard), NotServed> {
        let plan = self.gateway.plan();
        let mut local = socket.local_addr();
        if listener.proxy_protocol {
            if let Some(peer) = peer.filter(|peer| !plan.trusted.contains(peer.ip())) {
                return Err(NotServed::Untrusted(peer.ip()));
            }
            let header = read_proxy_header(&mut socket).await?;
            peer = header.source.or(peer);
            local = header.destination.or(local);
        }
        let client = peer.map(|peer| peer.ip());
        let exempt = client.is_none_or(|client| plan.trusted.contains(client));
        let guard = self
            .guards
            .admit(
                client.unwrap_or(std::net::Ipv4Addr::LOCALHOST.into()),
                exempt,
            )
            .map_err(NotServed::Guarded)?;
        let (transport, tls) = match &listener.tls {
            None => (Transport::Plain(socket), None),
            Some(config) => {
                let stream = TlsAcceptor::from(config.clone()).accept(socket).await?;
                let facts = TlsFacts::of(stream.get_ref().1);
                (Transport::Tls(Box::new(stream)), Some(facts))
            }
        };
        let downstream = Arc::new(Downstream {
            peer,
            local,
            tls,
            listener,
            is_own: false,
            added: parking_lot::Mutex::default(),
            reset: false.into(),
        });
        Ok((
            Box::new(Connection::new(
                transport,
                downstream,
                self.settings.send_timeout,
            )),
            guard,
        ))
    }

    /// The answer to a request that never became one, and its record.
    fn refuse(&self, connection: &Connection, refusal: Refusal, began: Instant) -> BytesMut {
        self.gateway.refuse_unparsed(
            connection.downstream(),
            connection.pending(),
            refusal,
            began,
        )
    }
}

async fn read_proxy_header(socket: &mut Socket) -> Result<proxy_protocol::Header, NotServed> {
    loop {
        if let Some((header, length)) = proxy_protocol::parse(socket.ahead())? {
            socket.ahead().advance(length);
            return Ok(header);
        }
        if socket.read_ahead().await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

impl TlsFacts {
    fn of(connection: &rustls::ServerConnection) -> Self {
        Self {
            version: match connection.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "TLSv1.3",
            },
            server_name: connection.server_name().map(str::to_ascii_lowercase),
            h2: connection.alpn_protocol() == Some(b"h2"),
            client: connection
                .peer_certificates()
                .and_then(|chain| subject(chain.first()?))
                .map(Into::into),
        }
    }
}

/// accept(2) also reports errors of the connection that it would have returned.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of the future that `serve` returns.
    fn size_of_task<F>(_: impl FnOnce(Arc<Acceptor>, Socket, Shutdown) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_connection_is_a_small_task() {
        let size = size_of_task(|acceptor, socket, shutdown| {
            let (alive, _) = tokio::sync::mpsc::channel(1);
            let listener = unreachable_listener();
            acceptor.serve(socket, None, listener, shutdown, alive)
        });
        assert!(size <= 1344, "{size} bytes");
    }

    fn unreachable_listener() -> Arc<ListenerSettings> {
        unreachable!("the future is measured and not made")
    }
}
