//! The yardstick: a pingora 0.9.1 proxy with nothing added. One thread, one upstream address,
//! stock modules, stock allocator. Whatever Tollgate costs above this, Tollgate has added.
//!
//! `bare ORIGIN LISTEN [TLS_LISTEN CERTIFICATE KEY]`

use async_trait::async_trait;
use peers::serve;
use pingora_core::Result;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session};

struct Bare {
    origin: HttpPeer,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _: &mut Session, _: &mut Self::CTX) -> Result<Box<HttpPeer>> {
        Ok(Box::new(self.origin.clone()))
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    serve("bare", &arguments, |origin| Bare { origin });
}
