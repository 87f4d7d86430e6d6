//! HTTP/2 on one connection: its handshake, its streams, its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{self, H2Accept, HttpSession, default_h2_options};
use pingora_core::protocols::{Digest, GetProxyDigest, GetSocketDigest};
use tokio::sync::Notify;

use super::{Acceptor, Shutdown};
use crate::downstream::connection::Connection;
use crate::exchange::barring;
use crate::express;

/// Streams that a client may spoil on one connection before the connection is closed.
const MAX_MALFORMED: usize = 32;

/// How long a client may take to close after GOAWAY, once it has no stream left.
const FAREWELL: Duration = Duration::from_secs(2);

/// The streams being served on one connection.
#[derive(Default)]
struct Streams {
    active: AtomicUsize,
    ended: Notify,
}

struct ActiveStream(Arc<Streams>);

impl Streams {
    fn begin(self: &Arc<Self>) -> ActiveStream {
        self.active.fetch_add(1, Ordering::Relaxed);
        ActiveStream(self.clone())
    }

    async fn none(&self) {
        loop {
            let ended = self.ended.notified();
            if self.active.load(Ordering::Acquire) == 0 {
                return;
            }
            ended.await;
        }
    }
}

impl Drop for ActiveStream {
    fn drop(&mut self) {
        if self.0.active.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.ended.notify_one();
        }
    }
}

/// Serves the connection to its end.
pub async fn serve(acceptor: &Arc<Acceptor>, mut connection: Box<Connection>, shutdown: Shutdown) {
    let settings = &acceptor.settings;
    connection.make_opaque();
    let downstream = connection.downstream().clone();
    let digest = Arc::new(Digest {
        ssl_digest: None,
        timing_digest: Vec::new(),
        proxy_digest: connection.get_proxy_digest(),
        socket_digest: connection.get_socket_digest(),
    });
    let mut options = default_h2_options();
    options.max_concurrent_streams(settings.max_h2_streams);
    options.max_header_list_size(settings.limits.head_bytes as u32);
    let handshake = server::handshake(connection, Some(options));
    let mut h2 = match pingora_timeout::timeout(settings.handshake_timeout, handshake).await {
        Ok(Ok(h2)) => h2,
        Ok(Err(error)) => return tracing::debug!(%error, "HTTP/2 handshake failed"),
        Err(_) => return tracing::debug!("HTTP/2 handshake took too long"),
    };
    let streams = Arc::new(Streams::default());
    let mut malformed = 0;
    let mut served = 0;
    let mut ending = shutdown.clone();
    let mut goaway_sent = false;
    loop {
        let patience = if goaway_sent {
            FAREWELL
        } else {
            settings.idle_timeout
        };
        let idle = async {
            streams.none().await;
            pingora_timeout::sleep(patience).await;
        };
        let accepted = tokio::select! {
            biased;
            _ = ending.wait_for(|ending| *ending), if !goaway_sent => {
                h2.graceful_shutdown();
                goaway_sent = true;
                continue;
            }
            accepted = HttpSession::from_h2_conn(&mut h2, digest.clone()) => accepted,
            () = idle => {
                if goaway_sent {
                    return;
                }
                h2.graceful_shutdown();
                goaway_sent = true;
                continue;
            }
        };
        match accepted {
            Ok(Some(H2Accept::Session(mut session))) => {
                session.write_timeout = Some(settings.send_timeout);
                let active = streams.begin();
                served += 1;
                if served == settings.keepalive_requests {
                    h2.graceful_shutdown();
                    goaway_sent = true;
                }
                let acceptor = acceptor.clone();
                let shutdown = shutdown.clone();
                let downstream = downstream.clone();
                tokio::spawn(async move {
                    let gateway = &acceptor.gateway;
                    if express::is_plain_stream(&session)
                        && express::serve_stream(gateway, &downstream, &mut session).await
                    {
                        return drop(active);
                    }
                    let session = ServerSession::new_http2(session);
                    acceptor.proxy.process_new_http(session, &shutdown).await;
                    drop(active);
                });
            }
            Ok(Some(H2Accept::Rejected)) => {
                malformed += 1;
                barring::note_malformed(&acceptor.gateway.plan(), &downstream);
                if malformed >= MAX_MALFORMED {
                    return tracing::debug!("too many malformed HTTP/2 requests on one connection");
                }
            }
            Ok(None) => return,
            Err(error) => return tracing::debug!(%error, "HTTP/2 connection ended"),
        }
    }
}
