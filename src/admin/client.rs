//! The other side of the interface: what commands ask a running gateway.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Request, StatusCode, request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::ban::{BanOrder, Lifted, ToldBan, ToldBans, UnbanOrder};
use super::limit::{ClientOrder, Report, Reset, ToldClient, Top};
use super::look::{LookOrder, Looked};
use super::warm::WarmOrder;
use crate::cache::purger::Purged;
use crate::listen::ListenAddress;
use crate::plan::AdminSettings;
use crate::purge::Order;
use crate::warm::Progress;

/// For a whole answer. The gateway itself waits a second for its peers.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why there is no answer that could be used.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error("cannot reach the interface for administration at {address}")]
    Unreachable {
        address: ListenAddress,
        source: io::Error,
    },
    #[error("the connection to {address} broke")]
    Broken {
        address: ListenAddress,
        source: hyper::Error,
    },
    #[error("no answer from {0} within {PATIENCE:?}")]
    Late(ListenAddress),
    #[error("{address} answered {status}: {why}")]
    Refused {
        address: ListenAddress,
        status: StatusCode,
        why: String,
    },
    #[error("{0} answered something that is no answer")]
    Unexpected(ListenAddress),
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
}

/// What an error says.
#[derive(Deserialize)]
struct Refused {
    error: String,
}

/// Has a running gateway purge, and waits for what becomes of it.
pub fn purge(admin: &AdminSettings, order: &Order) -> Result<Purged, ClientError> {
    call(admin, Request::post("/cache/purge"), body_of(order))
}

/// What a running gateway makes of a request, and what stands there for it.
pub(super) fn look(admin: &AdminSettings, order: &LookOrder) -> Result<Looked, ClientError> {
    call(admin, Request::post("/cache/look"), body_of(order))
}

/// Has a running gateway begin a warm-up.
pub(super) fn warm(admin: &AdminSettings, order: &WarmOrder) -> Result<Progress, ClientError> {
    call(admin, Request::post("/cache/warm"), body_of(order))
}

/// How far the last warm-up of a running gateway has come.
pub(super) fn warm_progress(admin: &AdminSettings) -> Result<Progress, ClientError> {
    call(admin, Request::get("/cache/warm"), Bytes::new())
}

/// Has a running gateway ban a client.
pub(super) fn ban(admin: &AdminSettings, order: &BanOrder) -> Result<ToldBan, ClientError> {
    call(admin, Request::post("/limit/ban"), body_of(order))
}

/// Has a running gateway end the ban of a client.
pub(super) fn unban(admin: &AdminSettings, order: &UnbanOrder) -> Result<Lifted, ClientError> {
    call(admin, Request::post("/limit/unban"), body_of(order))
}

/// The bans of a running gateway.
pub(super) fn bans(admin: &AdminSettings) -> Result<ToldBans, ClientError> {
    call(admin, Request::get("/limit/bans"), Bytes::new())
}

/// How a client stands with the limits of a running gateway.
pub(super) fn limit_show(
    admin: &AdminSettings,
    order: &ClientOrder,
) -> Result<ToldClient, ClientError> {
    call(admin, Request::post("/limit/show"), body_of(order))
}

/// Has a running gateway forget what a client has used.
pub(super) fn limit_reset(
    admin: &AdminSettings,
    order: &ClientOrder,
) -> Result<Reset, ClientError> {
    call(admin, Request::post("/limit/reset"), body_of(order))
}

/// Who asks a running gateway most.
pub(super) fn limit_top(admin: &AdminSettings) -> Result<Top, ClientError> {
    call(admin, Request::get("/limit/top"), Bytes::new())
}

/// Whom the limits of a running gateway have refused, or in shadow would have.
pub(super) fn limit_report(admin: &AdminSettings) -> Result<Report, ClientError> {
    call(admin, Request::get("/limit/report"), Bytes::new())
}

fn body_of(order: &impl Serialize) -> Bytes {
    serde_json::to_vec(order).expect("an order is JSON").into()
}

/// Asks, and waits for the whole answer.
fn call<A: DeserializeOwned>(
    admin: &AdminSettings,
    request: request::Builder,
    body: Bytes,
) -> Result<A, ClientError> {
    let request = request
        .header(HOST, "tollgate")
        .header(AUTHORIZATION, format!("Bearer {}", admin.token.reveal()))
        .header(CONTENT_TYPE, "application/json")
        .body(Full::from(body))
        .expect("a token can be sent");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ClientError::Runtime)?;
    let answer = runtime.block_on(async {
        let answer = tokio::time::timeout(PATIENCE, ask(&admin.listen, request)).await;
        answer.unwrap_or_else(|_| Err(ClientError::Late(admin.listen.clone())))
    });
    let unexpected = || ClientError::Unexpected(admin.listen.clone());
    serde_json::from_slice(&answer?).map_err(|_| unexpected())
}

/// The body of a success.
async fn ask(address: &ListenAddress, request: Request<Full<Bytes>>) -> Result<Bytes, ClientError> {
    let unreachable = |source| ClientError::Unreachable {
        address: address.clone(),
        source,
    };
    match address {
        ListenAddress::Tcp(tcp) => {
            let stream = TcpStream::connect(tcp).await.map_err(unreachable)?;
            exchange(address, stream, request).await
        }
        ListenAddress::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(unreachable)?;
            exchange(address, stream, request).await
        }
    }
}

async fn exchange(
    address: &ListenAddress,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Bytes, ClientError> {
    let broken = |source| ClientError::Broken {
        address: address.clone(),
        source,
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // Its errors come by the sender too.
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(broken)?
        .to_bytes();
    if status.is_success() {
        return Ok(body);
    }
    let refused = serde_json::from_slice::<Refused>(&body);
    let refused = refused.map_err(|_| ClientError::Unexpected(address.clone()))?;
    Err(ClientError::Refused {
        address: address.clone(),
        status,
        why: refused.error,
    })
}
