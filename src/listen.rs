//! What a listener was told to be: its address, its TLS, what it expects of connections. Knows no socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

use crate::address::{BadSocketPath, socket_path};
use crate::certificates::CertificateStore;

/// Where to listen: `IP:PORT`, `[IPv6]:PORT` or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Why a text is no [`ListenAddress`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BadListenAddress {
    #[error(
        r#"{0:?} is not an address to listen on; expected an IP address with a port such as "0.0.0.0:8080" or "[::]:8080", or "unix:/path""#
    )]
    Socket(String),
    #[error(transparent)]
    Path(BadSocketPath),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = BadListenAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some(path) => socket_path(path)
                .map(Self::Unix)
                .map_err(BadListenAddress::Path),
            None => text
                .parse()
                .map(Self::Tcp)
                .map_err(|_| BadListenAddress::Socket(text.to_owned())),
        }
    }
}

/// One configured address and how connections to it are taken.
pub struct ListenerSettings {
    pub address: ListenAddress,
    /// The certificates of a TLS listener, to know which names share one.
    pub certificates: Option<Arc<CertificateStore>>,
    /// Plaintext without it.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// HTTP/2 with prior knowledge on plaintext.
    pub h2c: bool,
    /// Every request is answered with a redirect to https on this port.
    pub redirect_https: Option<u16>,
    /// Every connection begins with a PROXY header, which only trusted proxies may send.
    pub proxy_protocol: bool,
}

impl fmt::Debug for ListenerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_prints_as_it_was_written() {
        for text in ["127.0.0.1:8080", "[::1]:8443", "unix:/run/tollgate.sock"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_listener_has_an_address_and_a_port_or_a_path() {
        for text in [
            "",
            "8080",
            ":8080",
            ":80",
            "localhost:80",
            "localhost:8080",
            "0.0.0.0",
            "::1:80",
            "unix:",
            "unix:a.sock",
            "unix:run.sock",
            "0.0.0.0:65536",
        ] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
        let long = format!("unix:/{}", "a".repeat(103));
        assert!(long.parse::<ListenAddress>().is_err());
    }
}
