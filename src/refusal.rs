//! Every way we say no: one enum, one table of status, reason, title and detail. Knows nothing of
//! the session that writes the answer, and tells the client nothing of what stands behind us.

mod answer;
mod page;

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;

pub use self::answer::{After, Answer, Asked};
pub use self::page::{PageError, Pages};
use crate::http1::Malformed;
use crate::limit::ban::Answer as BanAnswer;
use crate::limit::{Bound, Limited, whole_seconds};

/// Why a request is not answered by the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The message breaks the rules of entry.
    Malformed(Malformed),
    Forbidden,
    /// The client is on the list of those who are not let in.
    Denied,
    /// The client is banned, for so long from now.
    Banned {
        answer: BanAnswer,
        left: Duration,
    },
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
    /// A quota is used up.
    Limited(Limited),
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
    /// The upstream has as many requests as it does well with, and no place or time to wait is left.
    Overloaded,
    /// The pace of the upstream does not allow the request in time.
    UpstreamPaced {
        retry_after: Duration,
    },
    /// The upstream has asked for a pause that is longer than the request may wait.
    UpstreamPaused {
        retry_after: Duration,
    },
    /// The gateway is going away.
    Draining,
    /// The backend did not answer in time.
    UpstreamTimeout,
    /// The client wants what is in the cache, and nothing usable is.
    NotCached,
    /// A bug of ours.
    Internal,
}

impl Refusal {
    /// The table: status, reason and detail of every refusal.
    fn row(&self) -> (StatusCode, &'static str, Cow<'static, str>) {
        use StatusCode as S;
        let (status, reason, detail) = match self {
            Self::Malformed(what) => (what.status(), what.reason(), what.detail()),
            Self::Forbidden => (S::FORBIDDEN, "forbidden", "this is not allowed"),
            Self::Denied => (S::FORBIDDEN, "denied", "this client is not let in"),
            Self::Banned { answer, .. } => {
                let status = match answer {
                    BanAnswer::Forbidden | BanAnswer::Close => S::FORBIDDEN,
                    BanAnswer::TooManyRequests => S::TOO_MANY_REQUESTS,
                };
                (status, "banned", "this client is not let in for a while")
            }
            Self::NotFound { host, path } => {
                let detail = format!("nothing is served at {host}{path}");
                return (S::NOT_FOUND, "no_route", detail.into());
            }
            Self::MethodNotAllowed { allow } => {
                let detail = format!("this address answers only to {allow}");
                return (S::METHOD_NOT_ALLOWED, "method_not_allowed", detail.into());
            }
            Self::RequestTimeout => (
                S::REQUEST_TIMEOUT,
                "request_timeout",
                "the request did not arrive in time",
            ),
            Self::BodyTooLarge { limit } => {
                let detail = format!("the request body is larger than {limit} bytes");
                return (S::PAYLOAD_TOO_LARGE, "body_too_large", detail.into());
            }
            Self::Misdirected => (
                S::MISDIRECTED_REQUEST,
                "misdirected",
                "this connection was opened for another host",
            ),
            Self::TooManyConnections => (
                S::TOO_MANY_REQUESTS,
                "too_many_connections",
                "too many connections from this address",
            ),
            Self::Limited(limited) => {
                let (policy, after) = (&limited.policy, whole_seconds(limited.retry_after));
                let (reason, detail) = match limited.bound {
                    Bound::Quota => (
                        "too_many_requests",
                        format!("the quota {policy:?} is used up; come back in {after} s"),
                    ),
                    Bound::InFlight => (
                        "too_many_in_flight",
                        format!(
                            "as many requests are under way as {policy:?} allows; come back when one has ended"
                        ),
                    ),
                    Bound::StoreAway => (
                        "too_many_requests",
                        format!(
                            "what is left of the quota {policy:?} is not known at the moment; come back in {after} s"
                        ),
                    ),
                };
                return (limited.status, reason, detail.into());
            }
            Self::UpstreamConnect => (
                S::BAD_GATEWAY,
                "upstream_connect",
                "the application could not be reached",
            ),
            Self::UpstreamProtocol => (
                S::BAD_GATEWAY,
                "upstream_protocol",
                "the application sent an invalid response",
            ),
            Self::UpstreamReset => (
                S::BAD_GATEWAY,
                "upstream_reset",
                "the application closed the connection",
            ),
            Self::UpstreamUnavailable => (
                S::SERVICE_UNAVAILABLE,
                "upstream_unavailable",
                "the application is not available at the moment",
            ),
            Self::QueueFull => (
                S::SERVICE_UNAVAILABLE,
                "queue_full",
                "the application is busy and its queue is full",
            ),
            Self::QueueTimeout => (
                S::SERVICE_UNAVAILABLE,
                "queue_timeout",
                "the application was busy for too long",
            ),
            Self::Overloaded => (
                S::SERVICE_UNAVAILABLE,
                "overloaded",
                "the application has more to do than it can",
            ),
            Self::UpstreamPaced { .. } => (
                S::SERVICE_UNAVAILABLE,
                "upstream_paced",
                "the application takes only so many requests in a time",
            ),
            Self::UpstreamPaused { .. } => (
                S::SERVICE_UNAVAILABLE,
                "upstream_paused",
                "the application has asked for a pause",
            ),
            Self::Draining => (
                S::SERVICE_UNAVAILABLE,
                "draining",
                "the gateway is restarting",
            ),
            Self::UpstreamTimeout => (
                S::GATEWAY_TIMEOUT,
                "upstream_timeout",
                "the application did not answer in time",
            ),
            Self::NotCached => (
                S::GATEWAY_TIMEOUT,
                "not_cached",
                "this is not in the cache, and nothing else was to be asked",
            ),
            Self::Internal => (
                S::INTERNAL_SERVER_ERROR,
                "internal",
                "something went wrong in the gateway",
            ),
        };
        (status, reason, detail.into())
    }

    pub fn status(&self) -> StatusCode {
        self.row().0
    }

    /// Stable snake_case code for logs, metrics and clients.
    pub fn reason(&self) -> &'static str {
        self.row().1
    }

    /// The status in words, by RFC 9110.
    fn title(status: StatusCode) -> &'static str {
        match status {
            StatusCode::PAYLOAD_TOO_LARGE => "Content Too Large",
            _ => status.canonical_reason().unwrap_or("Error"),
        }
    }

    /// Whether the connection may carry another request: not after a message whose end is unknown
    /// or not worth reading, not when the connection itself is one too many, and not when we are
    /// going away or no longer know our own state. After a failed attempt in the full lane it is
    /// closed regardless, because pingora ends it.
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

    /// Nothing is answered: the connection ends, or over HTTP/2 the stream.
    pub fn is_silent(&self) -> bool {
        matches!(
            self,
            Self::Banned {
                answer: BanAnswer::Close,
                ..
            }
        )
    }

    /// The answer in the form the client prefers; `pages` holds what operators may change.
    pub fn answer(&self, asked: &Asked<'_>, pages: &Pages) -> Answer {
        Answer::of(self, asked, pages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<(Refusal, u16, &'static str, bool)> {
        let not_found = Refusal::NotFound {
            host: "a.example".into(),
            path: "/x".into(),
        };
        let not_allowed = Refusal::MethodNotAllowed {
            allow: "GET, HEAD".into(),
        };
        let banned = Refusal::Banned {
            answer: BanAnswer::TooManyRequests,
            left: Duration::from_millis(1500),
        };
        let too_many = Refusal::Limited(Limited {
            bound: Bound::Quota,
            policy: "api".into(),
            status: StatusCode::TOO_MANY_REQUESTS,
            retry_after: Duration::from_millis(1500),
        });
        let in_flight = Refusal::Limited(Limited {
            bound: Bound::InFlight,
            policy: "api".into(),
            status: StatusCode::TOO_MANY_REQUESTS,
            retry_after: Duration::from_secs(1),
        });
        vec![
            (Refusal::Forbidden, 403, "forbidden", true),
            (Refusal::Denied, 403, "denied", true),
            (banned, 429, "banned", true),
            (not_found, 404, "no_route", true),
            (not_allowed, 405, "method_not_allowed", true),
            (Refusal::RequestTimeout, 408, "request_timeout", false),
            (
                Refusal::BodyTooLarge { limit: 10 },
                413,
                "body_too_large",
                false,
            ),
            (Refusal::Misdirected, 421, "misdirected", true),
            (
                Refusal::TooManyConnections,
                429,
                "too_many_connections",
                false,
            ),
            (too_many, 429, "too_many_requests", true),
            (in_flight, 429, "too_many_in_flight", true),
            (Refusal::Internal, 500, "internal", false),
            (Refusal::UpstreamConnect, 502, "upstream_connect", true),
            (Refusal::UpstreamProtocol, 502, "upstream_protocol", true),
            (Refusal::UpstreamReset, 502, "upstream_reset", true),
            (
                Refusal::UpstreamUnavailable,
                503,
                "upstream_unavailable",
                true,
            ),
            (Refusal::QueueFull, 503, "queue_full", true),
            (Refusal::QueueTimeout, 503, "queue_timeout", true),
            (Refusal::Overloaded, 503, "overloaded", true),
            (
                Refusal::UpstreamPaced {
                    retry_after: Duration::from_secs(1),
                },
                503,
                "upstream_paced",
                true,
            ),
            (
                Refusal::UpstreamPaused {
                    retry_after: Duration::from_secs(1),
                },
                503,
                "upstream_paused",
                true,
            ),
            (Refusal::Draining, 503, "draining", false),
            (Refusal::UpstreamTimeout, 504, "upstream_timeout", true),
            (Refusal::NotCached, 504, "not_cached", true),
        ]
    }

    #[test]
    fn every_refusal_has_its_status_its_own_reason_and_its_way_with_the_connection() {
        let mut reasons = std::collections::HashSet::new();
        for (refusal, status, reason, keeps) in all() {
            assert_eq!(refusal.status().as_u16(), status, "{refusal:?}");
            assert_eq!(refusal.reason(), reason);
            assert_eq!(refusal.keep_connection(), keeps, "{refusal:?}");
            assert!(reasons.insert(reason), "{reason} is used twice");
        }
    }

    #[test]
    fn a_malformed_message_is_called_what_ingress_calls_it_and_closes() {
        let what = Malformed::BareLineFeed;
        let refusal = Refusal::Malformed(what);
        assert_eq!(refusal.status(), what.status());
        assert_eq!(refusal.reason(), what.reason());
        assert!(!refusal.keep_connection());
    }
}
