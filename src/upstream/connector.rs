//! Makes every HTTP/1.1 connection to a backend. pingora keeps the pool and speaks the protocol; HTTP/2 is all its own.

use std::{
    any::Any,
    error::Error as StdError,
    io,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use async_trait::async_trait;
use pingora_core::{
    Error, ErrorType, Result,
    connectors::http::custom::{self, Connection},
    protocols::l4::socket::SocketAddr,
    upstreams::peer::{HttpPeer, Peer},
};
use tokio::time::{Instant, timeout};

use super::{
    Deadline, Endpoint, Transport,
    socket::{ConnectError, Socket},
    wire::WireStream,
};

/// Given to pingora's proxy service once; finds each peer's [`Transport`] by its group key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Connector;

#[async_trait]
impl custom::Connector for Connector {
    type Session = ();

    async fn get_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        peer: &P,
    ) -> Result<(Connection<()>, bool)> {
        let peer = (peer as &dyn Any)
            .downcast_ref::<HttpPeer>()
            .expect("the proxy connects to nothing but HttpPeers");
        let transport = Transport::of(peer).expect("a request holds the transport of its peer");
        let stream = connect(&transport, &peer._address).await?;
        Ok((Connection::Stream(Box::new(stream)), false))
    }

    async fn reused_http_session<P: Peer + Send + Sync + 'static>(&self, _: &P) -> Option<()> {
        // Idle HTTP/1.1 connections are in pingora's pool.
        None
    }

    async fn release_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        (): (),
        _: &P,
        _: Option<Duration>,
    ) {
    }
}

/// One new connection, made within the transport's connect timeout.
pub(super) async fn connect(
    transport: &Arc<Transport>,
    address: &SocketAddr,
) -> Result<WireStream> {
    let settings = transport.settings();
    let endpoint = endpoint(address);
    let began = Instant::now();
    let attempt = Socket::connect(&endpoint, settings.tls.as_ref());
    let socket = match timeout(settings.timeouts.connect, attempt).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) => return Err(explain(error, &endpoint)),
        Err(_) => {
            let context = format!(
                "connecting to {endpoint} took longer than {:?}",
                settings.timeouts.connect
            );
            return Err(Error::because(
                ErrorType::ConnectTimedout,
                context,
                Deadline::Connect,
            ));
        }
    };
    let parked: Arc<AtomicUsize> = transport.parked(&endpoint);
    Ok(WireStream::new(
        socket,
        address.clone(),
        transport.clone(),
        parked,
        began.elapsed(),
    ))
}

fn endpoint(address: &SocketAddr) -> Endpoint {
    match address {
        SocketAddr::Inet(address) => Endpoint::Tcp(*address),
        SocketAddr::Unix(address) => Endpoint::Unix(
            address
                .as_pathname()
                .expect("peers are made from a path")
                .to_owned(),
        ),
    }
}

fn explain(error: ConnectError, endpoint: &Endpoint) -> Box<Error> {
    let (kind, cause) = match error {
        ConnectError::Refused(cause) => {
            let kind = match cause.kind() {
                io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
                io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
                    ErrorType::ConnectNoRoute
                }
                _ => ErrorType::ConnectError,
            };
            (kind, cause)
        }
        ConnectError::Handshake(cause) => {
            let certificate = cause
                .get_ref()
                .and_then(|inner| {
                    (inner as &(dyn StdError + 'static)).downcast_ref::<rustls::Error>()
                })
                .is_some_and(|error| matches!(error, rustls::Error::InvalidCertificate(_)));
            let kind = if certificate {
                ErrorType::InvalidCert
            } else {
                ErrorType::TLSHandshakeFailure
            };
            (kind, cause)
        }
    };
    Error::because(kind, format!("connecting to {endpoint}"), cause)
}
