//! The yardstick of a limit: what `bare_hit` is, behind a check by governor in `request_filter`. A client is an
//! address; who has used up its quota receives a 429 that says when to come back, and keeps its connection.
//!
//! `bare_limit PER_MINUTE ORIGIN LISTEN [TLS_LISTEN CERTIFICATE KEY]`

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::process::exit;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use governor::clock::{Clock, MonotonicClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use peers::pages::{Arriving, Pages};
use peers::serve;
use pingora_core::Result;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::ResponseHeader;
use pingora_proxy::{ProxyHttp, Session};

const REFUSAL: Bytes = Bytes::from_static(b"too many requests\n");

struct BareLimit {
    origin: HttpPeer,
    pages: Pages,
    limit: RateLimiter<IpAddr, HashMapStateStore<IpAddr>, MonotonicClock>,
}

impl BareLimit {
    /// How long this client is to wait, if it has used up its quota.
    fn wait(&self, session: &Session) -> Option<Duration> {
        let address = session.client_addr()?.as_inet()?.ip();
        let refused = self.limit.check_key(&address).err()?;
        Some(refused.wait_time_from(self.limit.clock().now()))
    }
}

async fn refuse(session: &mut Session, wait: Duration) -> Result<()> {
    let mut head = ResponseHeader::build(429, Some(3))?;
    head.insert_header("Content-Type", "text/plain")?;
    head.insert_header("Content-Length", REFUSAL.len())?;
    head.insert_header("Retry-After", wait.as_secs() + 1)?;
    session.write_response_header(Box::new(head), false).await?;
    session.write_response_body(Some(REFUSAL), true).await
}

#[async_trait]
impl ProxyHttp for BareLimit {
    type CTX = Arriving;

    fn new_ctx(&self) -> Self::CTX {
        Arriving::default()
    }

    async fn request_filter(&self, session: &mut Session, _: &mut Self::CTX) -> Result<bool> {
        if let Some(wait) = self.wait(session) {
            refuse(session, wait).await?;
            return Ok(true);
        }
        self.pages.answer(session).await
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut Self::CTX) -> Result<Box<HttpPeer>> {
        Ok(Box::new(self.origin.clone()))
    }

    async fn response_filter(
        &self,
        _: &mut Session,
        head: &mut ResponseHeader,
        arriving: &mut Self::CTX,
    ) -> Result<()> {
        arriving.head(head);
        Ok(())
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        arriving: &mut Self::CTX,
    ) -> Result<Option<Duration>> {
        self.pages.body(session, body.as_ref(), end, arriving);
        Ok(None)
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (first, others) = arguments.split_first().unzip();
    let Some(quota) = first.and_then(|quota| quota.parse::<NonZeroU32>().ok()) else {
        eprintln!("bare_limit: the first argument is a number from 1");
        exit(2);
    };
    serve(
        "bare_limit PER_MINUTE",
        others.unwrap_or_default(),
        |origin| BareLimit {
            origin,
            pages: Pages::default(),
            limit: RateLimiter::hashmap(Quota::per_minute(quota)),
        },
    );
}
