//! Gives pingora our connections: it speaks HTTP/1.1 on them, and when it would keep one, they go to rest in our own pool.
//! HTTP/2 is all its own.

use std::{
    any::Any,
    error::Error as StdError,
    fmt,
    io::{self, IoSlice},
    os::fd::AsRawFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use pingora_core::{
    Error, ErrorType, Result,
    connectors::http::custom::{self, Connection},
    protocols::{
        Digest, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest,
        Ssl, TimingDigest, UniqueID, UniqueIDType, l4::socket::SocketAddr,
        raw_connect::ProxyDigest,
    },
    upstreams::peer::{HttpPeer, Peer},
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::{
    Deadline, Endpoint, Transport,
    connect::{ConnectFailed, connect},
    socket::ConnectError,
    wire::Wire,
};

/// Given to pingora's proxy service once; finds each peer's [`Transport`] by its group key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Connector;

impl Connector {
    /// Whether the connection that pingora was given had rested in our pool: pingora takes it for a new one.
    pub fn had_rested(digest: &Digest) -> bool {
        // Only our streams say nothing of their socket.
        let ours = digest.socket_digest.is_none();
        let made = digest.timing_digest.first().and_then(Option::as_ref);
        ours && made.is_some_and(|made| made.establishment_duration.is_none())
    }
}

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
        let transport = Transport::of(peer).ok_or_else(|| {
            // Whoever holds the lease, or the route's transport, keeps it: this is a request that dropped both.
            Error::explain(
                ErrorType::InternalError,
                "the transport of the peer is gone",
            )
        })?;
        let endpoint = endpoint(&peer._address);
        let began = SystemTime::now();
        let rest = transport.longest_rest(peer);
        let (wire, rested) = connect(&transport, &endpoint, rest)
            .await
            .map_err(explain)?;
        let stream = Stream {
            wire: Some(wire),
            took: (!rested).then(|| began.elapsed().unwrap_or_default()),
            unannounced: false,
            rests: false,
        };
        Ok((Connection::Stream(Box::new(stream)), false))
    }

    async fn reused_http_session<P: Peer + Send + Sync + 'static>(&self, _: &P) -> Option<()> {
        // Idle HTTP/1.1 connections are in our pool, as streams.
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

fn explain(failed: ConnectFailed) -> Box<Error> {
    let context = failed.to_string();
    let (kind, cause): (_, Box<dyn StdError + Send + Sync>) = match failed {
        ConnectFailed::TooSlow { .. } => (ErrorType::ConnectTimedout, Deadline::Connect.into()),
        ConnectFailed::Error { cause, .. } => match cause {
            ConnectError::Refused(cause) => {
                let kind = match cause.kind() {
                    io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
                    io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
                        ErrorType::ConnectNoRoute
                    }
                    _ => ErrorType::ConnectError,
                };
                (kind, cause.into())
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
                (kind, cause.into())
            }
        },
    };
    Error::because(kind, context, cause)
}

/// A [`Wire`] in pingora's hands.
struct Stream {
    /// Present until this is dropped.
    wire: Option<Wire>,
    /// How long connecting took; `None` for a connection that had rested.
    took: Option<Duration>,
    /// The reader has not been told to wait since a request to upgrade was written.
    unannounced: bool,
    /// pingora would keep the connection.
    rests: bool,
}

impl Stream {
    fn wire(&mut self) -> Pin<&mut Wire> {
        Pin::new(self.wire.as_mut().expect("present until the drop"))
    }

    /// Notes whether what is being written asks to upgrade.
    fn writes<T>(&mut self, write: impl FnOnce(Pin<&mut Wire>) -> T) -> T {
        let asked = self.wire().asks_to_upgrade();
        let result = write(self.wire());
        self.unannounced |= !asked && self.wire().asks_to_upgrade();
        result
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(wire) = self.wire.take().filter(|_| self.rests) {
            wire.rest();
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if std::mem::take(&mut this.unannounced) {
            // pingora closes the tunnel if it reads the 101 before it has noticed that the request has no body, which it
            // does as soon as it waits.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // pingora asks for one byte to see whether a connection it would keep is still alive and silent; a body it reads
        // in large pieces. Told that it has ended, pingora drops it, and it comes to us.
        if buf.remaining() == 1 && this.wire().is_over() {
            this.rests = this.wire().is_done();
            return Poll::Ready(Ok(()));
        }
        this.wire().poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().writes(|wire| wire.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .writes(|wire| wire.poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().wire().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().wire().poll_shutdown(cx)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.wire.fmt(f)
    }
}

#[async_trait]
impl Shutdown for Stream {
    async fn shutdown(&mut self) {
        // The connection is given up either way.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Stream {
    fn id(&self) -> UniqueIDType {
        let wire = self.wire.as_ref();
        wire.expect("present until the drop").as_raw_fd()
    }
}

impl Ssl for Stream {}

impl GetTimingDigest for Stream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        vec![Some(TimingDigest {
            established_ts: SystemTime::now(),
            establishment_duration: self.took,
            offload_wait_duration: None,
        })]
    }
}

impl GetProxyDigest for Stream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Stream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

impl Peek for Stream {}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr as StdAddress, path::PathBuf};

    use pingora_core::connectors::http::Connector as Connectors;
    use pingora_core::protocols::http::client::HttpSession;
    use pingora_http::RequestHeader;
    use tokio::{
        io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
        net::{TcpListener, UnixListener},
    };
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::upstream::{
        Protocol, Seed, Settings, Timeouts, Tls, TlsFiles, Upstream,
        testing::{Authority, lease, settings},
    };

    /// Answers every request on every connection with its own count of connections.
    async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, connection: usize) {
        let mut stream = stream;
        let mut head = Vec::new();
        loop {
            match stream.read_buf(&mut head).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            if head.ends_with(b"\r\n\r\n") {
                head.clear();
                let body = connection.to_string();
                let response = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                if stream.write_all(response.as_bytes()).await.is_err() {
                    return;
                }
                let _ = stream.flush().await;
            }
        }
    }

    async fn server(tls: Option<TlsAcceptor>) -> StdAddress {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut connections = 0;
            while let Ok((stream, _)) = listener.accept().await {
                connections += 1;
                match tls.clone() {
                    None => drop(tokio::spawn(serve(stream, connections))),
                    Some(tls) => drop(tokio::spawn(async move {
                        if let Ok(stream) = tls.accept(stream).await {
                            serve(stream, connections).await;
                        }
                    })),
                }
            }
        });
        address
    }

    fn upstream(settings: Settings, address: impl ToString) -> Arc<Upstream> {
        Upstream::new(
            settings,
            vec![Seed::new(address.to_string().parse().unwrap())],
            None,
        )
    }

    fn connectors() -> Connectors<Connector> {
        Connectors::new_custom(None, Connector)
    }

    /// One request by pingora's own means; the body, and whether the connection was an old one.
    async fn get(
        connectors: &Connectors<Connector>,
        upstream: &Arc<Upstream>,
    ) -> Result<(String, bool)> {
        let peer = lease(upstream).await.peer();
        let (mut session, _) = connectors.get_http_session(&peer).await?;
        let reused = session.digest().is_some_and(Connector::had_rested);
        let body = exchange(&mut session).await?;
        connectors
            .release_http_session(session, &peer, peer.idle_timeout())
            .await;
        Ok((body, reused))
    }

    async fn exchange(session: &mut HttpSession<()>) -> Result<String> {
        let mut request = RequestHeader::build("GET", b"/", None)?;
        request.insert_header("Host", "app.example")?;
        session.write_request_header(Box::new(request)).await?;
        session.finish_request_body().await?;
        session.read_response_header().await?;
        while session
            .response_header()
            .is_some_and(|head| head.status.is_informational())
        {
            session.read_response_header().await?;
        }
        let mut body = Vec::new();
        while let Some(bytes) = session.read_response_body().await? {
            body.extend_from_slice(&bytes);
        }
        Ok(String::from_utf8(body).unwrap())
    }

    fn secure(files: &TlsFiles<'_>) -> Settings {
        Settings {
            tls: Some(Tls::load(files).unwrap()),
            ..settings()
        }
    }

    async fn refusal(settings: Settings, address: StdAddress) -> ErrorType {
        get(&connectors(), &upstream(settings, address))
            .await
            .unwrap_err()
            .etype
    }

    #[tokio::test]
    async fn a_connection_is_kept_and_used_again() {
        let upstream = upstream(settings(), server(None).await);
        let connectors = connectors();
        assert_eq!(
            get(&connectors, &upstream).await.unwrap(),
            ("1".into(), false)
        );
        assert_eq!(
            get(&connectors, &upstream).await.unwrap(),
            ("1".into(), true)
        );
    }

    #[tokio::test]
    async fn a_backend_may_be_a_unix_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            serve(stream, 1).await;
        });
        let upstream = upstream(settings(), format!("unix:{}", path.display()));
        let connectors = connectors();
        assert_eq!(
            get(&connectors, &upstream).await.unwrap(),
            ("1".into(), false)
        );
        assert_eq!(
            get(&connectors, &upstream).await.unwrap(),
            ("1".into(), true)
        );
    }

    #[tokio::test]
    async fn a_certificate_of_the_named_authority_and_name_is_accepted() {
        let authority = Authority::new();
        let address = server(Some(authority.server(None))).await;
        let files = TlsFiles {
            sni: "app.example".try_into().ok(),
            ca: Some(&authority.ca()),
            ..TlsFiles::default()
        };
        let upstream = upstream(secure(&files), address);
        let connectors = connectors();
        assert_eq!(
            get(&connectors, &upstream).await.unwrap(),
            ("1".into(), false)
        );
        assert_eq!(
            get(&connectors, &upstream).await.unwrap(),
            ("1".into(), true)
        );
    }

    #[tokio::test]
    async fn a_certificate_for_another_name_is_refused() {
        let authority = Authority::new();
        let address = server(Some(authority.server(None))).await;
        let files = TlsFiles {
            sni: "other.example".try_into().ok(),
            ca: Some(&authority.ca()),
            ..TlsFiles::default()
        };
        assert_eq!(
            refusal(secure(&files), address).await,
            ErrorType::InvalidCert
        );
    }

    #[tokio::test]
    async fn a_certificate_of_an_unknown_authority_is_refused() {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let address = server(Some(authority.server(None))).await;
        for ca in [None, Some(stranger.ca())] {
            let files = TlsFiles {
                sni: "app.example".try_into().ok(),
                ca: ca.as_deref(),
                ..TlsFiles::default()
            };
            assert_eq!(
                refusal(secure(&files), address).await,
                ErrorType::InvalidCert
            );
        }
    }

    #[tokio::test]
    async fn insecure_accepts_what_it_is_shown() {
        let address = server(Some(Authority::new().server(None))).await;
        let files = TlsFiles {
            insecure: true,
            ..TlsFiles::default()
        };
        assert!(
            get(&connectors(), &upstream(secure(&files), address))
                .await
                .is_ok()
        );
    }

    #[tokio::test]
    async fn a_backend_that_asks_who_we_are_is_shown_our_certificate() {
        let authority = Authority::new();
        let address = server(Some(authority.server(Some(&authority)))).await;
        let ca = authority.ca();
        let (chain, key) = authority.identity();
        let anonymous = TlsFiles {
            sni: "app.example".try_into().ok(),
            ca: Some(&ca),
            ..TlsFiles::default()
        };
        assert!(
            get(&connectors(), &upstream(secure(&anonymous), address))
                .await
                .is_err()
        );

        let known = TlsFiles {
            identity: Some((&chain, &key)),
            ..anonymous
        };
        assert!(
            get(&connectors(), &upstream(secure(&known), address))
                .await
                .is_ok()
        );
    }

    #[tokio::test]
    async fn http2_is_verified_by_the_same_settings() {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let address = server(Some(authority.server(None))).await;
        let peer_with = async |ca: PathBuf, sni: &str| {
            let files = TlsFiles {
                sni: sni.to_owned().try_into().ok(),
                ca: Some(&ca),
                ..TlsFiles::default()
            };
            lease(&upstream(
                Settings {
                    protocol: Protocol::H2,
                    ..secure(&files)
                },
                address,
            ))
            .await
            .peer()
        };
        let connect = async |peer: HttpPeer| {
            connectors()
                .get_http_session(&peer)
                .await
                .err()
                .map(|error| error.etype)
        };
        let handshake = Some(ErrorType::TLSHandshakeFailure);
        assert_eq!(
            connect(peer_with(stranger.ca(), "app.example").await).await,
            handshake
        );
        assert_eq!(
            connect(peer_with(authority.ca(), "other.example").await).await,
            handshake
        );
        assert_ne!(
            connect(peer_with(authority.ca(), "app.example").await).await,
            handshake
        );
    }

    #[test]
    fn tls_without_a_name_must_say_that_it_is_insecure() {
        let errors = Tls::load(&TlsFiles::default()).unwrap_err();
        assert_eq!(
            errors[0].to_string(),
            "tls without sni; expected the name that the backends prove, or insecure = true"
        );
    }

    #[tokio::test]
    async fn a_refused_connection_says_so() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(
            refusal(settings(), address).await,
            ErrorType::ConnectRefused
        );
    }

    #[tokio::test]
    async fn a_handshake_that_stalls_ends_with_the_connect_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let files = TlsFiles {
            insecure: true,
            ..TlsFiles::default()
        };
        let timeouts = Timeouts {
            connect: Duration::from_millis(50),
            ..Timeouts::default()
        };
        let settings = Settings {
            timeouts,
            ..secure(&files)
        };
        let upstream = upstream(settings, listener.local_addr().unwrap());
        let error = get(&connectors(), &upstream).await.unwrap_err();
        assert_eq!(
            (&error.etype, Deadline::of(&error)),
            (&ErrorType::ConnectTimedout, Some(Deadline::Connect))
        );
    }

    /// A backend that reads one request, writes `response` and then waits.
    async fn stalling(response: &'static str) -> StdAddress {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 1024];
            let _ = stream.read(&mut bytes).await;
            stream.write_all(response.as_bytes()).await.unwrap();
            std::future::pending::<()>().await;
        });
        address
    }

    #[tokio::test]
    async fn every_wait_for_a_response_has_its_deadline() {
        let short = Duration::from_millis(50);
        let table = [
            (
                "",
                Timeouts {
                    first_byte: short,
                    ..Timeouts::default()
                },
                Deadline::FirstByte,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-",
                Timeouts {
                    first_byte: short,
                    ..Timeouts::default()
                },
                Deadline::FirstByte,
            ),
            (
                "HTTP/1.1 103 Early Hints\r\n\r\n",
                Timeouts {
                    first_byte: short,
                    ..Timeouts::default()
                },
                Deadline::FirstByte,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
                Timeouts {
                    read: short,
                    ..Timeouts::default()
                },
                Deadline::Read,
            ),
        ];
        for (response, timeouts, deadline) in table {
            let upstream = upstream(
                Settings {
                    timeouts,
                    ..settings()
                },
                stalling(response).await,
            );
            let error = get(&connectors(), &upstream).await.unwrap_err();
            assert_eq!(
                Deadline::of(&error),
                Some(deadline),
                "{response:?}: {error}"
            );
        }
    }

    #[tokio::test]
    async fn a_head_that_drips_does_not_outlive_its_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut tick = tokio::time::interval(Duration::from_millis(10));
            stream.write_all(b"HTTP/1.1 200 OK\r\nX: ").await.unwrap();
            while stream.write_all(b"x").await.is_ok() {
                tick.tick().await;
            }
        });
        let timeouts = Timeouts {
            first_byte: Duration::from_millis(80),
            ..Timeouts::default()
        };
        let upstream = upstream(
            Settings {
                timeouts,
                ..settings()
            },
            address,
        );
        let error = get(&connectors(), &upstream).await.unwrap_err();
        assert_eq!(Deadline::of(&error), Some(Deadline::FirstByte));
    }
}
