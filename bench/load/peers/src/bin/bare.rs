//! The yardstick: a pingora 0.9.1 proxy with nothing added. One thread, one upstream address,
//! stock modules, stock allocator. Whatever Tollgate costs above this, Tollgate has added.
//!
//! `bare ORIGIN LISTEN [TLS_LISTEN CERTIFICATE KEY]`; the TLS listener offers h2 and http/1.1.

use std::process::exit;

use async_trait::async_trait;
use pingora_core::Result;
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

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
    let (origin, listen, tls) = match arguments.as_slice() {
        [origin, listen] => (origin, listen, None),
        [origin, listen, tls, certificate, key] => (origin, listen, Some((tls, certificate, key))),
        _ => {
            eprintln!("usage: bare ORIGIN LISTEN [TLS_LISTEN CERTIFICATE KEY]");
            exit(2);
        }
    };

    let conf = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: 128,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();

    let origin = HttpPeer::new(origin.as_str(), false, String::new());
    let mut proxy = http_proxy_service(&server.configuration, Bare { origin });
    proxy.add_tcp(listen);
    if let Some((address, certificate, key)) = tls {
        let mut settings =
            TlsSettings::intermediate(certificate, key).expect("paths are only stored here");
        settings.enable_h2();
        proxy.add_tls_with_settings(address, None, settings);
    }
    server.add_service(proxy);
    server.run(RunArgs::default());
}
