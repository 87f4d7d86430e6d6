//! A transport in pingora's words: which connector, TLS, HTTP version and timeouts.

use std::{net::Ipv4Addr, os::unix::net::SocketAddr as UnixAddress, time::Duration};

use pingora_core::{
    protocols::{
        l4::socket::SocketAddr,
        tls::{ALPN, CustomALPN},
    },
    upstreams::peer::HttpPeer,
};

use super::{Endpoint, Protocol, transport::TransportSettings};

/// Names our own connector to pingora; never sent.
const OWN_CONNECTOR: &[u8] = b"tollgate/h1";
/// Requests on one HTTP/2 connection; the usual advertised limit of servers (RFC 9113 6.5.2 asks for no less than 100).
const MAX_H2_STREAMS: usize = 100;

/// A peer of group `id` with everything but the address.
pub(super) fn prototype(id: u64, settings: &TransportSettings) -> HttpPeer {
    let own = settings.protocol == Protocol::H1;
    let tls = settings
        .tls
        .as_ref()
        .filter(|_| settings.protocol == Protocol::H2);
    let sni = tls.map_or_else(String::new, |tls| {
        // pingora verifies nothing without SNI, so it is only a stand-in where verification is off anyway.
        tls.sni()
            .map_or_else(|| "localhost".into(), |name| name.to_str().into_owned())
    });
    let mut peer = HttpPeer::new((Ipv4Addr::LOCALHOST, 0), tls.is_some(), sni);
    peer.group_key = id;
    let options = &mut peer.options;
    if own {
        // Deadlines, TLS and the pool are our own.
        options.alpn = ALPN::Custom(CustomALPN::new(OWN_CONNECTOR.to_vec()));
        return peer;
    }
    options.idle_timeout = Some(if settings.keepalive == 0 {
        Duration::ZERO
    } else {
        settings.keepalive_idle
    });
    options.set_http_version(2, 2);
    options.max_h2_streams = MAX_H2_STREAMS;
    options.connection_timeout = Some(settings.timeouts.connect);
    options.total_connection_timeout = Some(settings.timeouts.connect);
    // One value for head and body: pingora's HTTP/2 client does not tell them apart.
    options.read_timeout = Some(settings.timeouts.first_byte.max(settings.timeouts.read));
    options.write_timeout = Some(settings.timeouts.write);
    if let Some(tls) = tls {
        options.verify_cert = !tls.insecure();
        options.verify_hostname = !tls.insecure();
        options.ca = tls.ca().cloned();
        peer.client_cert_key = tls.identity().cloned();
    }
    peer
}

/// The same peer in a group of its own.
pub(super) fn in_group(prototype: &HttpPeer, id: u64) -> HttpPeer {
    let mut peer = prototype.clone();
    peer.group_key = id;
    peer
}

/// The peer at one endpoint.
pub(super) fn at(prototype: &HttpPeer, endpoint: &Endpoint) -> HttpPeer {
    let mut peer = prototype.clone();
    peer._address = match endpoint {
        Endpoint::Tcp(address) => SocketAddr::Inet(*address),
        Endpoint::Unix(path) => SocketAddr::Unix(
            UnixAddress::from_pathname(path).expect("an Address checks the path it is made from"),
        ),
    };
    peer
}
