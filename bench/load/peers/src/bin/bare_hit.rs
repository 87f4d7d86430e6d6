//! The yardstick of a hit: what `bare` is, with a map of answers in memory that `request_filter` gives. It stores
//! what comes, asks nobody whether it may, and tells its client nothing of it.
//!
//! `bare_hit ORIGIN LISTEN [TLS_LISTEN CERTIFICATE KEY]`

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use peers::pages::{Arriving, Pages};
use peers::serve;
use pingora_core::Result;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::ResponseHeader;
use pingora_proxy::{ProxyHttp, Session};

struct BareHit {
    origin: HttpPeer,
    pages: Pages,
}

#[async_trait]
impl ProxyHttp for BareHit {
    type CTX = Arriving;

    fn new_ctx(&self) -> Self::CTX {
        Arriving::default()
    }

    async fn request_filter(&self, session: &mut Session, _: &mut Self::CTX) -> Result<bool> {
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
    serve("bare_hit", &arguments, |origin| BareHit {
        origin,
        pages: Pages::default(),
    });
}
