//! A connected socket to a backend: TCP or Unix, with or without TLS.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Endpoint, Tls, transport::TransportSettings};
use crate::stream::forward_stream;

/// Bytes to and from a backend.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    // Boxed: a TLS session is large, and most streams are plain.
    TlsTcp(Box<TlsStream<TcpStream>>),
    TlsUnix(Box<TlsStream<UnixStream>>),
}

/// Where a connection failed.
#[derive(Debug, Error)]
pub enum ConnectError {
    #[error("cannot connect: {0}")]
    Refused(io::Error),
    #[error("tls handshake failed: {0}")]
    Handshake(io::Error),
}

impl Socket {
    /// Connects, and completes the TLS handshake where there is one. Has no deadline of its own.
    pub async fn connect(
        endpoint: &Endpoint,
        settings: &TransportSettings,
    ) -> Result<Self, ConnectError> {
        let tls = settings
            .tls
            .as_ref()
            .map(|tls| (tls, tls.config(settings.protocol)));
        match endpoint {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address)
                    .await
                    .map_err(ConnectError::Refused)?;
                // Heads and bodies are written whole: waiting to fill a segment only delays them.
                stream.set_nodelay(true).map_err(ConnectError::Refused)?;
                match tls {
                    None => Ok(Self::Tcp(stream)),
                    Some((tls, config)) => Ok(Self::TlsTcp(Box::new(
                        handshake(tls, config, address.ip(), stream).await?,
                    ))),
                }
            }
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path)
                    .await
                    .map_err(ConnectError::Refused)?;
                match tls {
                    None => Ok(Self::Unix(stream)),
                    Some((tls, config)) => {
                        let stand_in = IpAddr::from(Ipv4Addr::LOCALHOST);
                        Ok(Self::TlsUnix(Box::new(
                            handshake(tls, config, stand_in, stream).await?,
                        )))
                    }
                }
            }
        }
    }
}

/// `unnamed` stands for the server where settings name none, which they may only if nothing is verified.
async fn handshake<S>(
    tls: &Tls,
    config: &Arc<ClientConfig>,
    unnamed: IpAddr,
    stream: S,
) -> Result<TlsStream<S>, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = tls
        .sni()
        .cloned()
        .unwrap_or_else(|| ServerName::IpAddress(unnamed.into()));
    TlsConnector::from(config.clone())
        .connect(name, stream)
        .await
        .map_err(ConnectError::Handshake)
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
            Self::TlsTcp(stream) => stream.as_raw_fd(),
            Self::TlsUnix(stream) => stream.as_raw_fd(),
        }
    }
}

forward_stream!(Socket {
    Tcp,
    Unix,
    TlsTcp,
    TlsUnix,
});
