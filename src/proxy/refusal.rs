//! Every way we say no: one enum, one table of status, reason, title and detail. Knows nothing of
//! the session that writes the answer, and tells the client nothing of what stands behind us.

mod answer;
mod page;

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;

pub use self::answer::{After, Answer, Asked};
pub use self::page::{PageError, Pages};
use super::ingress::Malformed;

/// Why a request is not answered by the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The message breaks the rules of entry.
    Malformed(Malformed),
    Forbidden,
    /// No route; host and path are those that were tried, canonical.
    NotFound {
        host: String,
        path: String,
    },
    /// Routes of this path want one of `allow`, a list for the `Allow` field: `GET, HEAD`.
    MethodNotAllowed {
        allow: String,
    },
    /// The request did not arrive in time.
    RequestTimeout,
    /// The body is larger than `limit` bytes, by its Content-Length or as counted.
    BodyTooLarge {
        limit: u64,
    },
    /// Host names another site than the TLS handshake did.
    Misdirected,
    /// This client holds as many connections as it may.
    TooManyConnections,
    TooManyRequests {
        retry_after: Duration,
    },
    /// No backend took the connection.
    UpstreamConnect,
    /// The response broke the rules of HTTP.
    UpstreamProtocol,
    /// The backend closed before its response was whole.
    UpstreamReset,
    /// Every backend is down.
    UpstreamUnavailable,
    /// Every backend is at its cap and so is the queue.
    QueueFull,
    /// Every backend stayed at its cap for as long as a request may wait.
    QueueTimeout,
    /// The gateway is going away.
    Draining,
    /// The backend did not answer in time.
    UpstreamTimeout,
    /// A bug of ours.
    Internal,
}

/// One row: what a refusal is called.
struct Row {
    status: StatusCode,
    reason: &'static str,
    title: &'static str,
    detail: Cow<'static, str>,
}

impl Refusal {
    fn row(&self) -> Row {
        use StatusCode as S;
        let (status, reason, title, detail) = match self {
            Self::Malformed(malformed) => {
                let status = malformed.status();
                let title = status.canonical_reason().unwrap_or("Bad Request");
                (status, malformed.reason(), title, malformed.detail())
            }
            Self::Forbidden => (
                S::FORBIDDEN,
                "forbidden",
                "Forbidden",
                "this is not allowed",
            ),
            Self::NotFound { .. } => (
                S::NOT_FOUND,
                "no_route",
                "Not Found",
                "nothing is served at this address",
            ),
            Self::MethodNotAllowed { allow } => {
                let detail = format!("this address answers only to {allow}");
                return Row {
                    status: S::METHOD_NOT_ALLOWED,
                    reason: "method_not_allowed",
                    title: "Method Not Allowed",
                    detail: detail.into(),
                };
            }
            Self::RequestTimeout => (
                S::REQUEST_TIMEOUT,
                "request_timeout",
                "Request Timeout",
                "the request did not arrive in time",
            ),
            Self::BodyTooLarge { limit } => {
                let detail = format!("the request body is larger than {limit} bytes");
                return Row {
                    status: S::PAYLOAD_TOO_LARGE,
                    reason: "body_too_large",
                    title: "Content Too Large",
                    detail: detail.into(),
                };
            }
            Self::Misdirected => (
                S::MISDIRECTED_REQUEST,
                "misdirected",
                "Misdirected Request",
                "this connection was opened for another host",
            ),
            Self::TooManyConnections => (
                S::TOO_MANY_REQUESTS,
                "too_many_connections",
                "Too Many Requests",
                "too many connections from this address",
            ),
            Self::TooManyRequests { .. } => (
                S::TOO_MANY_REQUESTS,
                "too_many_requests",
                "Too Many Requests",
                "too many requests in a short time",
            ),
            Self::UpstreamConnect => (
                S::BAD_GATEWAY,
                "upstream_connect",
                "Bad Gateway",
                "the application could not be reached",
            ),
            Self::UpstreamProtocol => (
                S::BAD_GATEWAY,
                "upstream_protocol",
                "Bad Gateway",
                "the application sent an invalid response",
            ),
            Self::UpstreamReset => (
                S::BAD_GATEWAY,
                "upstream_reset",
                "Bad Gateway",
                "the application closed the connection",
            ),
            Self::UpstreamUnavailable => (
                S::SERVICE_UNAVAILABLE,
                "upstream_unavailable",
                "Service Unavailable",
                "the application is not available at the moment",
            ),
            Self::QueueFull => (
                S::SERVICE_UNAVAILABLE,
                "queue_full",
                "Service Unavailable",
                "the application is busy and its queue is full",
            ),
            Self::QueueTimeout => (
                S::SERVICE_UNAVAILABLE,
                "queue_timeout",
                "Service Unavailable",
                "the application was busy for too long",
            ),
            Self::Draining => (
                S::SERVICE_UNAVAILABLE,
                "draining",
                "Service Unavailable",
                "the gateway is restarting",
            ),
            Self::UpstreamTimeout => (
                S::GATEWAY_TIMEOUT,
                "upstream_timeout",
                "Gateway Timeout",
                "the application did not answer in time",
            ),
            Self::Internal => (
                S::INTERNAL_SERVER_ERROR,
                "internal",
                "Internal Server Error",
                "something went wrong in the gateway",
            ),
        };
        Row {
            status,
            reason,
            title,
            detail: detail.into(),
        }
    }

    pub fn status(&self) -> StatusCode {
        self.row().status
    }

    /// Stable snake_case code for logs, metrics and clients.
    pub fn reason(&self) -> &'static str {
        self.row().reason
    }

    /// Whether the connection may carry another request: not after a message whose end is unknown
    /// or not worth reading.
    pub fn keep_connection(&self) -> bool {
        !matches!(
            self,
            Self::Malformed(_)
                | Self::RequestTimeout
                | Self::BodyTooLarge { .. }
                | Self::TooManyConnections
                | Self::Draining
                | Self::Internal
        )
    }

    /// The answer in the form the client prefers; `pages` holds what operators may change.
    pub fn answer(&self, asked: &Asked<'_>, pages: &Pages) -> Answer {
        Answer::of(self, asked, pages)
    }
}
