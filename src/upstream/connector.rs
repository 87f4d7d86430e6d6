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
        let transport = Transport::of(peer).ok_or_else(|| {
            // Whoever holds the lease, or the route's transport, keeps it: this is a request that dropped both.
            Error::explain(
                ErrorType::InternalError,
                "the transport of the peer is gone",
            )
        })?;
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
    let attempt = Socket::connect(&endpoint, settings);
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
        let (mut session, reused) = connectors.get_http_session(&peer).await?;
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
    async fn no_more_connections_are_kept_than_asked_for() {
        for (keepalive, kept) in [(0, 0), (2, 2)] {
            let upstream = upstream(
                Settings {
                    keepalive,
                    ..settings()
                },
                server(None).await,
            );
            let connectors = connectors();
            let peer = lease(&upstream).await.peer();
            let mut sessions = Vec::new();
            for _ in 0..4 {
                let (mut session, _) = connectors.get_http_session(&peer).await.unwrap();
                exchange(&mut session).await.unwrap();
                sessions.push(session);
            }
            for session in sessions {
                connectors
                    .release_http_session(session, &peer, peer.idle_timeout())
                    .await;
            }
            let mut reused = Vec::new();
            for _ in 0..4 {
                let (session, old) = connectors.get_http_session(&peer).await.unwrap();
                reused.push((session, old));
            }
            assert_eq!(reused.iter().filter(|(_, old)| *old).count(), kept);
        }
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
