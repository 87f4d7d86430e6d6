//! Active probes: each backend is asked in its own rhythm whether it is well. Tells the backend, which counts; a
//! backend that is down by probes comes up by probes alone.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Weak},
    time::Duration,
};

use http::Version;
use pingora_core::{connectors::http::Connector as H2Connector, upstreams::peer::HttpPeer};
use pingora_http::RequestHeader;
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, timeout},
};

use super::{
    Backend, Endpoint, Probe, ProbeKind, Protocol, Transport, Upstream, entropy,
    socket::{ConnectError, Socket},
};

/// A probe's response head may not be longer.
const LONGEST_HEAD: usize = 16 * 1024;

#[derive(Debug, Error)]
enum Illness {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("{0}")]
    Connect(#[from] ConnectError),
    #[error("connection lost: {0}")]
    Lost(#[from] io::Error),
    #[error("no HTTP response")]
    Garbage,
    #[error("status {0}")]
    Status(u16),
    #[error("{0}")]
    Http2(Box<pingora_core::Error>),
}

/// Probes every backend of `upstream`, and those that join, for as long as it lives.
pub(super) async fn watch(upstream: Weak<Upstream>, probe: Probe) {
    let Some(running) = upstream.upgrade() else {
        return;
    };
    let prober = Arc::new(Prober::new(probe, running.transport.clone()));
    let changed = running.changed.clone();
    drop(running);

    let mut tasks = JoinSet::new();
    let mut probed: HashMap<u64, AbortHandle> = HashMap::new();
    loop {
        let Some(running) = upstream.upgrade() else {
            return;
        };
        let members = running.members.load_full();
        drop(running);
        probed.retain(|id, task| {
            let stays = members.iter().any(|member| member.backend.id() == *id);
            if !stays {
                task.abort();
            }
            stays
        });
        for member in members.iter() {
            probed.entry(member.backend.id()).or_insert_with(|| {
                tasks.spawn(follow(
                    upstream.clone(),
                    member.backend.clone(),
                    prober.clone(),
                ))
            });
        }
        drop(members);
        changed.notified().await;
        while tasks.try_join_next().is_some() {}
    }
}

/// Probes one backend.
async fn follow(upstream: Weak<Upstream>, backend: Arc<Backend>, prober: Arc<Prober>) {
    let every = prober.probe.every;
    // Spread over the interval, so that neither the backends of one gateway nor the gateways of one backend probe at once.
    let chance = entropy();
    sleep(every.mul_f64((chance >> 11) as f64 / (1_u64 << 53) as f64)).await;
    loop {
        let result = prober.ask(backend.endpoint()).await;
        let Some(running) = upstream.upgrade() else {
            return;
        };
        let recovered = backend.probed(
            result.map_err(|illness| illness.to_string()),
            &prober.probe,
            Instant::now(),
            &running.settings,
        );
        if recovered {
            running.live.serve();
        }
        drop(running);
        sleep(every).await;
    }
}

/// How the backends of one upstream are asked.
struct Prober {
    probe: Probe,
    transport: Arc<Transport>,
    /// pingora's, for HTTP/2 only: making one reads the platform's certificates.
    h2: Option<H2Connector>,
}

impl Prober {
    fn new(probe: Probe, transport: Arc<Transport>) -> Self {
        let wants_h2 =
            transport.settings().protocol != Protocol::H1 && probe.kind != ProbeKind::Tcp;
        Self {
            probe,
            transport,
            h2: wants_h2.then(|| H2Connector::new(None)),
        }
    }

    async fn ask(&self, endpoint: &Endpoint) -> Result<(), Illness> {
        let question = async {
            match (&self.probe.kind, &self.h2) {
                (ProbeKind::Tcp, _) => self.connect(endpoint).await.map(drop),
                (ProbeKind::Http { path, host, status }, h2) => {
                    let host = host.clone().unwrap_or_else(|| own_host(endpoint));
                    let found = match h2 {
                        None => self.get_h1(endpoint, path, &host).await?,
                        Some(connector) => self.get_h2(connector, endpoint, path, &host).await?,
                    };
                    let well = status.iter().any(|range| range.contains(&found));
                    if well {
                        Ok(())
                    } else {
                        Err(Illness::Status(found))
                    }
                }
            }
        };
        timeout(self.probe.timeout, question)
            .await
            .unwrap_or(Err(Illness::Timeout(self.probe.timeout)))
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<Socket, Illness> {
        Ok(Socket::connect(endpoint, self.transport.settings()).await?)
    }

    async fn get_h1(&self, endpoint: &Endpoint, path: &str, host: &str) -> Result<u16, Illness> {
        let mut socket = self.connect(endpoint).await?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tollgate-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await?;
        socket.flush().await?;
        let mut head = Vec::with_capacity(1024);
        while head.len() < LONGEST_HEAD {
            if socket.read_buf(&mut head).await? == 0 {
                return Err(Illness::Lost(io::ErrorKind::UnexpectedEof.into()));
            }
            let mut fields = [httparse::EMPTY_HEADER; 128];
            let mut response = httparse::Response::new(&mut fields);
            match response.parse(&head) {
                Ok(httparse::Status::Complete(_)) => return response.code.ok_or(Illness::Garbage),
                Ok(httparse::Status::Partial) => {}
                Err(_) => return Err(Illness::Garbage),
            }
        }
        Err(Illness::Garbage)
    }

    async fn get_h2(
        &self,
        connector: &H2Connector,
        endpoint: &Endpoint,
        path: &str,
        host: &str,
    ) -> Result<u16, Illness> {
        let mut peer: HttpPeer = self.transport.peer(endpoint);
        // One stream per connection: each probe makes its own, and finds out whether connecting works.
        peer.options.max_h2_streams = 1;
        let (mut session, _) = connector
            .get_http_session(&peer)
            .await
            .map_err(Illness::Http2)?;
        let scheme = if peer.is_tls() { "https" } else { "http" };
        let uri = format!("{scheme}://{host}{path}")
            .parse()
            .map_err(|_| Illness::Garbage)?;
        let mut request =
            RequestHeader::build("GET", path.as_bytes(), None).map_err(Illness::Http2)?;
        request.set_uri(uri);
        request.set_version(Version::HTTP_2);
        request
            .insert_header("user-agent", "tollgate-probe")
            .map_err(Illness::Http2)?;
        session
            .write_request_header(Box::new(request))
            .await
            .map_err(Illness::Http2)?;
        session
            .finish_request_body()
            .await
            .map_err(Illness::Http2)?;
        session
            .read_response_header()
            .await
            .map_err(Illness::Http2)?;
        let response = session.response_header().ok_or(Illness::Garbage)?;
        Ok(response.status.as_u16())
    }
}

/// The `Host` of a probe that was given none.
fn own_host(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Tcp(address) => address.to_string(),
        Endpoint::Unix(_) => "localhost".into(),
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use tokio::io::{AsyncRead, AsyncWrite};
    use tokio::net::{TcpListener, UnixListener};

    use super::*;
    use crate::upstream::{
        Address, Failure, Lookup, Seed, Settings, State, Tls, TlsFiles,
        dns::{Dns, DnsSettings},
        testing::{Authority, lease, seeds, settings},
    };

    const SOON: Duration = Duration::from_millis(5);

    fn http(path: &str) -> ProbeKind {
        ProbeKind::Http {
            path: path.into(),
            host: None,
            status: vec![200..=399],
        }
    }

    fn probe(kind: ProbeKind) -> Probe {
        Probe {
            kind,
            every: SOON,
            timeout: Duration::from_secs(5),
            healthy_after: 2,
            unhealthy_after: 3,
        }
    }

    async fn once(kind: ProbeKind, settings: Settings, address: &str) -> Result<(), String> {
        let upstream = Upstream::new(settings, seeds(&[address]), None);
        let prober = Prober::new(probe(kind), upstream.transport.clone());
        let endpoint = address.parse::<Address>().unwrap().endpoint().unwrap();
        prober
            .ask(&endpoint)
            .await
            .map_err(|illness| illness.to_string())
    }

    /// Answers each connection's request with what `answers` says of its head.
    async fn server(answer: impl Fn(String) -> String + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n")
                    && stream.read_buf(&mut head).await.is_ok_and(|read| read > 0)
                {}
                let response = answer(String::from_utf8(head).unwrap());
                let _ = stream.write_all(response.as_bytes()).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn a_status_in_the_set_is_healthy_and_another_is_not() {
        for (status, expected) in [
            ("200 OK", Ok(())),
            ("302 Found", Ok(())),
            ("503 Service Unavailable", Err("status 503".to_owned())),
        ] {
            let address = server(move |_| format!("HTTP/1.1 {status}\r\n\r\n")).await;
            assert_eq!(once(http("/healthz"), settings(), &address).await, expected);
        }
    }

    #[tokio::test]
    async fn the_path_and_host_asked_for_are_the_ones_that_were_set() {
        let seen = Arc::new(Mutex::new(String::new()));
        let record = seen.clone();
        let address = server(move |head| {
            *record.lock() = head;
            "HTTP/1.1 200 OK\r\n\r\n".into()
        })
        .await;
        let kind = ProbeKind::Http {
            path: "/up?x=1".into(),
            host: Some("app.example".into()),
            status: vec![200..=200],
        };
        once(kind, settings(), &address).await.unwrap();
        let head = seen.lock().clone();
        assert!(
            head.starts_with("GET /up?x=1 HTTP/1.1\r\nHost: app.example\r\n"),
            "{head}"
        );
    }

    #[tokio::test]
    async fn what_is_no_answer_is_named() {
        let garbage = server(|_| "220 smtp.example ESMTP\r\n".into()).await;
        assert_eq!(
            once(http("/"), settings(), &garbage).await,
            Err("no HTTP response".into())
        );

        let silent = server(|_| String::new()).await;
        assert!(
            once(http("/"), settings(), &silent)
                .await
                .unwrap_err()
                .starts_with("connection lost")
        );

        let closed = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string();
        assert!(
            once(ProbeKind::Tcp, settings(), &closed)
                .await
                .unwrap_err()
                .starts_with("cannot connect")
        );
    }

    #[tokio::test]
    async fn a_backend_that_does_not_answer_in_time_is_ill() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let upstream = Upstream::new(settings(), seeds(&[&address]), None);
        let hasty = Probe {
            timeout: SOON,
            ..probe(http("/"))
        };
        let prober = Prober::new(hasty, upstream.transport.clone());
        let result = prober
            .ask(upstream.members.load()[0].backend.endpoint())
            .await;
        assert_eq!(result.unwrap_err().to_string(), "no answer within 5ms");
    }

    #[tokio::test]
    async fn a_unix_socket_is_probed_like_any_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            }
        });
        let address = format!("unix:{}", path.display());
        assert_eq!(once(http("/"), settings(), &address).await, Ok(()));
        assert_eq!(once(ProbeKind::Tcp, settings(), &address).await, Ok(()));
    }

    /// Speaks HTTP/2: 200 for /healthz, 404 for the rest.
    async fn serve_h2(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let status = if request.uri().path() == "/healthz" {
                200
            } else {
                404
            };
            let response = http::Response::builder().status(status).body(()).unwrap();
            respond.send_response(response, true).unwrap();
        }
    }

    #[tokio::test]
    async fn http2_is_probed_in_http2() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve_h2(stream));
            }
        });
        let h2c = Settings {
            protocol: Protocol::H2c,
            ..settings()
        };
        assert_eq!(once(http("/healthz"), h2c.clone(), &address).await, Ok(()));
        assert_eq!(
            once(http("/"), h2c, &address).await,
            Err("status 404".into())
        );
    }

    #[tokio::test]
    async fn probes_verify_what_requests_verify() {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let acceptor = authority.server(None);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                    tokio::spawn(serve_h2(stream));
                } else {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                    let _ = stream.flush().await;
                }
            }
        });
        let named = |ca| TlsFiles {
            sni: "app.example".try_into().ok(),
            ca: Some(ca),
            ..TlsFiles::default()
        };
        let (own, other) = (authority.ca(), stranger.ca());
        let insecure = TlsFiles {
            insecure: true,
            ..TlsFiles::default()
        };
        for protocol in [Protocol::H1, Protocol::H2] {
            for (files, well) in [
                (named(&own), true),
                (named(&other), false),
                (insecure.clone(), true),
            ] {
                let settings = Settings {
                    protocol,
                    tls: Some(Tls::load(&files).unwrap()),
                    ..settings()
                };
                let result = once(http("/healthz"), settings.clone(), &address).await;
                assert_eq!(result.is_ok(), well, "{protocol:?} {files:?} {result:?}");
                assert_eq!(
                    once(ProbeKind::Tcp, settings, &address).await.is_ok(),
                    well,
                    "{protocol:?} {files:?}"
                );
            }
        }
    }

    #[test]
    fn thresholds_hold_both_ways() {
        let probe = probe(ProbeKind::Tcp);
        let settings = settings();
        let backend = Backend::new(Endpoint::Unix("/run/app.sock".into()));
        let now = Instant::now();
        let state = |result: Result<(), &str>| {
            backend.probed(result.map_err(str::to_owned), &probe, now, &settings);
            backend.state(now, &settings, false)
        };
        let down = State::Unhealthy("refused".into());
        assert_eq!(state(Err("refused")), State::Up);
        assert_eq!(state(Err("refused")), State::Up);
        assert_eq!(state(Ok(())), State::Up);
        assert_eq!(
            [(); 3].map(|()| state(Err("refused"))),
            [State::Up, State::Up, down.clone()]
        );
        assert_eq!(state(Ok(())), down);
        assert_eq!(state(Err("refused")), down);
        assert_eq!([(); 2].map(|()| state(Ok(()))), [down, State::Up]);
    }

    #[test]
    fn traffic_does_not_bring_up_what_probes_took_down() {
        let probe = Probe {
            unhealthy_after: 1,
            ..probe(ProbeKind::Tcp)
        };
        let settings = settings();
        let backend = Backend::new(Endpoint::Unix("/run/app.sock".into()));
        let now = Instant::now();
        backend.probed(Err("refused".into()), &probe, now, &settings);
        backend.succeeded(now, &settings);
        assert_eq!(
            backend.state(now, &settings, true),
            State::Unhealthy("refused".into())
        );
    }

    async fn until(upstream: &Upstream, index: usize, wanted: impl Fn(&State) -> bool) {
        let reached = async {
            while !wanted(&upstream.status()[index].state) {
                sleep(SOON).await;
            }
        };
        timeout(Duration::from_secs(20), reached)
            .await
            .expect("the state was never reached");
    }

    #[tokio::test]
    async fn probes_take_a_backend_out_bring_it_back_and_end_with_their_upstream() {
        let well = Arc::new(Mutex::new(true));
        let asked = well.clone();
        let ill = server(move |_| {
            let status = if *asked.lock() { 200 } else { 500 };
            format!("HTTP/1.1 {status} X\r\n\r\n")
        })
        .await;
        let sound = server(|_| "HTTP/1.1 200 OK\r\n\r\n".into()).await;
        let settings = Settings {
            health: Some(probe(http("/"))),
            ..settings()
        };
        let upstream = Upstream::new(settings, seeds(&[&ill, &sound]), None);
        let lookup: Arc<dyn Lookup> = Arc::new(Dns::new(&DnsSettings::default()).unwrap());
        upstream.start(&lookup);

        *well.lock() = false;
        until(&upstream, 0, |state| {
            *state == State::Unhealthy("status 500".into())
        })
        .await;
        for _ in 0..4 {
            assert_eq!(lease(&upstream).await.to_string(), sound);
        }
        *well.lock() = true;
        until(&upstream, 0, |state| *state == State::Up).await;

        let backend = Arc::downgrade(&upstream.members.load()[0].backend);
        drop(upstream);
        let ended = async {
            while backend.strong_count() > 0 {
                sleep(SOON).await;
            }
        };
        timeout(Duration::from_secs(20), ended)
            .await
            .expect("a probe outlived its upstream");
    }

    #[tokio::test]
    async fn a_reload_without_probes_forgets_what_they_said() {
        let probe = Probe {
            unhealthy_after: 1,
            ..probe(ProbeKind::Tcp)
        };
        let settings = settings();
        let backends = || vec![Seed::new("192.0.2.1:80".parse().unwrap())];
        let old = Upstream::new(
            Settings {
                health: Some(probe.clone()),
                ..settings.clone()
            },
            backends(),
            None,
        );
        let backend = old.members.load()[0].backend.clone();
        backend.probed(
            Err(Failure::Connect.to_string()),
            &probe,
            Instant::now(),
            &old.settings,
        );
        let new = Upstream::new(settings, backends(), Some(&old));
        assert!(
            matches!(old.status()[0].state, State::Unhealthy(_)),
            "it may be refused yet"
        );
        let lookup: Arc<dyn Lookup> = Arc::new(Dns::new(&DnsSettings::default()).unwrap());
        new.start(&lookup);
        assert_eq!(new.status()[0].state, State::Up);
    }
}
