//! Listeners that cannot stand beside each other, and settings that cannot stand on one.

use std::net::{IpAddr, SocketAddr};

use crate::config::problem::Problems;
use crate::config::spec::Config;
use crate::listen::ListenAddress;

/// Each address can be bound once, and a wildcard takes every address of its family on that port.
pub fn collisions(config: &Config, problems: &mut Problems) {
    let admin = config.admin.as_ref().map(|admin| &admin.listen);
    let public = config
        .server
        .listen
        .iter()
        .map(|listener| &listener.address);
    let addresses: Vec<_> = public.chain(admin).collect();
    for (index, later) in addresses.iter().enumerate() {
        let earlier = addresses[..index]
            .iter()
            .find(|earlier| overlap(earlier, later));
        let Some(earlier) = earlier else { continue };
        let (later, earlier) = (*later, *earlier);
        let message = match later.value == earlier.value {
            true => format!("duplicate listener {}; expected each address once", **later),
            false => format!(
                "listener {} overlaps listener {}; expected one of them or another port",
                **later, **earlier
            ),
        };
        problems.note(later, message);
    }
}

fn overlap(one: &ListenAddress, other: &ListenAddress) -> bool {
    match (one, other) {
        (ListenAddress::Unix(one), ListenAddress::Unix(other)) => one == other,
        // Port 0 is a free port each time.
        (ListenAddress::Tcp(one), ListenAddress::Tcp(other))
            if one.port() == other.port() && one.port() != 0 =>
        {
            one == other
                || (one.is_ipv4() == other.is_ipv4() && (is_wildcard(one) || is_wildcard(other)))
        }
        _ => false,
    }
}

fn is_wildcard(address: &SocketAddr) -> bool {
    match address.ip() {
        IpAddr::V4(ip) => ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_unspecified(),
    }
}

pub fn contradictions(config: &Config, problems: &mut Problems) {
    for listener in config
        .server
        .listen
        .iter()
        .filter(|listener| listener.origin.sound)
    {
        let tls = listener.tls.is_some();
        if tls && *listener.h2c {
            problems.note(
                &listener.h2c,
                "h2c on a TLS listener; expected h2 = true, which ALPN offers, or no tls",
            );
        }
        if tls && listener.redirect_https.is_some() {
            problems.note(
                &listener.redirect_https,
                "redirect_https on a TLS listener; expected it on a plaintext one",
            );
        }
        if let Some(authorities) = listener.client_ca.as_ref().filter(|_| !tls) {
            problems.note(
                authorities,
                "client_ca without tls; expected tls with the directory of certificates",
            );
        }
        if let Some(name) = listener.default_certificate.as_ref().filter(|_| !tls) {
            problems.note(
                name,
                "default_certificate without tls; expected tls with the directory of certificates",
            );
        }
        if *listener.proxy_protocol
            && config.clients.origin.sound
            && config.clients.trusted_proxies.is_empty()
        {
            let message = "proxy_protocol without clients.trusted_proxies would close every connection; expected the networks of the proxies there";
            problems.note(&listener.proxy_protocol, message);
        }
    }
}
