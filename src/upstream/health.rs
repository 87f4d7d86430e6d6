//! Active probes: each backend is asked in its own rhythm whether it is well. Says so to the backend; decides no thresholds' meaning.

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
    Backend, Endpoint, Probe, ProbeKind, Protocol, Transport, Upstream,
    balance::mix,
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
    let chance = mix(backend.identity() ^ u64::from(std::process::id()));
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
        Ok(Socket::connect(endpoint, self.transport.settings().tls.as_ref()).await?)
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
