//! What the bare pingora proxies have in common: arguments, one thread, listeners, stock modules; a map of answers.
//! And what origin and visitors have: epoll, heads.

pub mod epoll;
pub mod head;
pub mod pages;

use std::process::exit;

use pingora_core::listeners::tls::TlsSettings;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, http_proxy_service};

/// Runs the proxy that `make` makes for the origin, until it is told to end.
///
/// `arguments` are `ORIGIN LISTEN [TLS_LISTEN CERTIFICATE KEY]`; the TLS listener offers h2 and http/1.1.
/// `program` stands before them in the line of usage.
pub fn serve<P>(program: &str, arguments: &[String], make: impl FnOnce(HttpPeer) -> P)
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let (origin, listen, tls) = match arguments {
        [origin, listen] => (origin, listen, None),
        [origin, listen, tls, certificate, key] => (origin, listen, Some((tls, certificate, key))),
        _ => {
            eprintln!("usage: {program} ORIGIN LISTEN [TLS_LISTEN CERTIFICATE KEY]");
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
    let mut proxy = http_proxy_service(&server.configuration, make(origin));
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
