//! The interface for administration: a listener of its own, a token, and one table of endpoints.
//! Small and slow on purpose: whoever speaks here is few, and must not take from those who visit.

pub mod ban;
mod cache;
mod client;
pub mod command;
mod health;
pub mod limit;
mod look;
mod metrics;
mod purge;
mod quarantine;
mod warm;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value as Json, json};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::accept::listener::Listener;
use crate::downstream::socket::Socket;
use crate::gateway::Gateway;
use crate::token::Token;
use crate::warm::Warmer;

/// Connections at once; further ones wait.
const MOST_CONNECTIONS: usize = 64;
/// Fields of a request, and bytes of its head.
const MOST_FIELDS: usize = 64;
const LARGEST_HEAD: usize = 16 << 10;
const LARGEST_BODY: usize = 256 << 10;
/// For a head, and for a body.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection lives.
const LONGEST_CONNECTION: Duration = Duration::from_secs(60);
/// Before the next try when no connection can be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// What is behind the endpoints.
pub struct Admin {
    pub gateway: Arc<Gateway>,
    pub warmer: Arc<Warmer>,
    pub token: Token,
}

/// One row of the table.
struct Endpoint {
    method: Method,
    path: &'static str,
    /// Whether it answers without the token.
    is_open: bool,
    call: for<'a> fn(&'a Admin, Bytes) -> BoxFuture<'a, Reply>,
}

static ENDPOINTS: [Endpoint; 16] = [
    Endpoint {
        method: Method::GET,
        path: "/health",
        is_open: true,
        call: |admin, _| Box::pin(health::health(admin)),
    },
    Endpoint {
        method: Method::GET,
        path: "/metrics",
        is_open: false,
        call: |admin, _| Box::pin(metrics::metrics(admin)),
    },
    Endpoint {
        method: Method::GET,
        path: "/cache",
        is_open: false,
        call: |admin, _| Box::pin(cache::cache(admin)),
    },
    Endpoint {
        method: Method::POST,
        path: "/cache/look",
        is_open: false,
        call: |admin, body| Box::pin(look::look(admin, body)),
    },
    Endpoint {
        method: Method::POST,
        path: "/cache/purge",
        is_open: false,
        call: |admin, body| Box::pin(purge::purge(admin, body)),
    },
    Endpoint {
        method: Method::GET,
        path: "/cache/quarantine",
        is_open: false,
        call: |admin, _| Box::pin(quarantine::list(admin)),
    },
    Endpoint {
        method: Method::POST,
        path: "/cache/release",
        is_open: false,
        call: |admin, body| Box::pin(quarantine::release(admin, body)),
    },
    Endpoint {
        method: Method::POST,
        path: "/cache/warm",
        is_open: false,
        call: |admin, body| Box::pin(warm::start(admin, body)),
    },
    Endpoint {
        method: Method::GET,
        path: "/cache/warm",
        is_open: false,
        call: |admin, _| Box::pin(warm::progress(admin)),
    },
    Endpoint {
        method: Method::GET,
        path: "/limit/bans",
        is_open: false,
        call: |admin, _| Box::pin(ban::list(admin)),
    },
    Endpoint {
        method: Method::POST,
        path: "/limit/ban",
        is_open: false,
        call: |admin, body| Box::pin(ban::ban(admin, body)),
    },
    Endpoint {
        method: Method::POST,
        path: "/limit/unban",
        is_open: false,
        call: |admin, body| Box::pin(ban::unban(admin, body)),
    },
    Endpoint {
        method: Method::POST,
        path: "/limit/show",
        is_open: false,
        call: |admin, body| Box::pin(limit::show(admin, body)),
    },
    Endpoint {
        method: Method::POST,
        path: "/limit/reset",
        is_open: false,
        call: |admin, body| Box::pin(limit::reset(admin, body)),
    },
    Endpoint {
        method: Method::GET,
        path: "/limit/top",
        is_open: false,
        call: |admin, _| Box::pin(limit::top(admin)),
    },
    Endpoint {
        method: Method::GET,
        path: "/limit/report",
        is_open: false,
        call: |admin, _| Box::pin(limit::report(admin)),
    },
];

/// An answer: JSON, but for the metrics; an error with its reason in `error`.
struct Reply {
    status: StatusCode,
    content_type: &'static str,
    body: String,
}

impl Reply {
    fn json(status: StatusCode, body: Json) -> Self {
        Self {
            status,
            content_type: "application/json",
            body: format!("{body}\n"),
        }
    }

    /// What Prometheus reads.
    fn metrics(body: String) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: "text/plain; version=0.0.4",
            body,
        }
    }

    fn error(status: StatusCode, why: impl ToString) -> Self {
        Self::json(status, json!({ "error": why.to_string() }))
    }

    fn response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(self.body));
        *response.status_mut() = self.status;
        let content_type = HeaderValue::from_static(self.content_type);
        let no_store = HeaderValue::from_static("no-store");
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        response.headers_mut().insert(CACHE_CONTROL, no_store);
        response
    }
}

impl Admin {
    /// Serves until `ending` says so.
    pub async fn run(self: Arc<Self>, listener: Listener, mut ending: watch::Receiver<bool>) {
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        loop {
            let place = places.clone().acquire_owned().await;
            let place = place.expect("it is never closed");
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = ending.changed() => return,
            };
            match accepted {
                Ok((socket, _)) => {
                    let admin = self.clone();
                    tokio::spawn(async move {
                        admin.serve(socket).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the interface for administration accepts nothing");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn serve(self: Arc<Self>, socket: Socket) {
        let service = service_fn(|request| {
            let admin = self.clone();
            async move { Ok::<_, Infallible>(admin.answer(request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .max_headers(MOST_FIELDS)
            .max_buf_size(LARGEST_HEAD)
            .serve_connection(TokioIo::new(socket), service);
        // How a connection ends is its client's business.
        let _ = timeout(LONGEST_CONNECTION, connection).await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let mut there = ENDPOINTS.iter().filter(|endpoint| endpoint.path == path);
        let found = there.clone().find(|one| one.method == *request.method());
        // Who has no token learns nothing of what there is, but of what is open to all.
        if !found.is_some_and(|endpoint| endpoint.is_open) && !self.is_allowed(request.headers()) {
            let why = "expected the token of [admin] as \"Authorization: Bearer TOKEN\"";
            let mut response = Reply::error(StatusCode::UNAUTHORIZED, why).response();
            let bearer = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, bearer);
            return response;
        }
        match (found, there.next()) {
            (Some(endpoint), _) => match body(request.into_body()).await {
                Ok(body) => (endpoint.call)(self, body).await.response(),
                Err(reply) => reply.response(),
            },
            (None, Some(other)) => {
                let why = format!("expected {}", other.method);
                let mut response = Reply::error(StatusCode::METHOD_NOT_ALLOWED, why).response();
                let allow = HeaderValue::from_str(other.method.as_str()).expect("a method");
                response.headers_mut().insert(ALLOW, allow);
                response
            }
            (None, None) => {
                let endpoints = ENDPOINTS
                    .each_ref()
                    .map(|one| format!("{} {}", one.method, one.path));
                let why = format!("no such endpoint; there are {}", endpoints.join(", "));
                Reply::error(StatusCode::NOT_FOUND, why).response()
            }
        }
    }

    fn is_allowed(&self, fields: &HeaderMap) -> bool {
        let mut lines = fields.get_all(AUTHORIZATION).iter();
        let line = lines.next().filter(|_| lines.next().is_none());
        let token = line.and_then(|line| bearer(line.as_bytes()));
        token.is_some_and(|token| self.token.is(token))
    }
}

/// What follows the scheme, which is of any case (RFC 9110 11.1).
fn bearer(line: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = line.split_at_checked(b"Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then_some(token.trim_ascii())
}

async fn body(body: Incoming) -> Result<Bytes, Reply> {
    let whole = timeout(PATIENCE, Limited::new(body, LARGEST_BODY).collect()).await;
    let Ok(whole) = whole else {
        let why = format!("the body did not arrive within {PATIENCE:?}");
        return Err(Reply::error(StatusCode::REQUEST_TIMEOUT, why));
    };
    whole.map(|body| body.to_bytes()).map_err(|error| {
        match error.downcast_ref::<LengthLimitError>() {
            Some(_) => {
                let why = format!("the body has more than {LARGEST_BODY} bytes");
                Reply::error(StatusCode::PAYLOAD_TOO_LARGE, why)
            }
            None => Reply::error(StatusCode::BAD_REQUEST, "the body broke off"),
        }
    })
}
