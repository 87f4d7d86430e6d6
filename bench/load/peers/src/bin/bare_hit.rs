//! The yardstick of a hit: what `bare` is, with a map of answers in memory that `request_filter` gives. It stores
//! what comes, asks nobody whether it may, and tells its client nothing of it.
//!
//! `bare_hit ORIGIN LISTEN [TLS_LISTEN CERTIFICATE KEY]`

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use moka::sync::Cache;
use peers::serve;
use pingora_core::Result;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::ResponseHeader;
use pingora_proxy::{ProxyHttp, Session};

/// Answers that are kept: more than any case of the bench asks for.
const MOST: u64 = 100_000;

struct Page {
    head: ResponseHeader,
    body: Bytes,
}

struct Bare {
    origin: HttpPeer,
    pages: Cache<String, Arc<Page>>,
}

/// What has arrived of an answer.
#[derive(Default)]
struct Arriving {
    head: Option<ResponseHeader>,
    body: BytesMut,
}

/// What it is stored under: path and query.
fn key(session: &Session) -> &str {
    let target = session.req_header().uri.path_and_query();
    target.map_or("/", |target| target.as_str())
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = Arriving;

    fn new_ctx(&self) -> Self::CTX {
        Arriving::default()
    }

    async fn request_filter(&self, session: &mut Session, _: &mut Self::CTX) -> Result<bool> {
        let Some(page) = self.pages.get(key(session)) else {
            return Ok(false);
        };
        let head = Box::new(page.head.clone());
        session.write_response_header(head, false).await?;
        session
            .write_response_body(Some(page.body.clone()), true)
            .await?;
        Ok(true)
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
        arriving.head = Some(head.clone());
        Ok(())
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        arriving: &mut Self::CTX,
    ) -> Result<Option<Duration>> {
        if let Some(body) = body {
            arriving.body.extend_from_slice(body);
        }
        if let Some(head) = arriving.head.take_if(|_| end) {
            let body = std::mem::take(&mut arriving.body).freeze();
            self.pages
                .insert(key(session).to_owned(), Arc::new(Page { head, body }));
        }
        Ok(None)
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    serve("bare_hit", &arguments, |origin| Bare {
        origin,
        pages: Cache::new(MOST),
    });
}
