//! Where a backend is written to be: a host and port, or the path of a Unix socket. Knows nothing of DNS.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use thiserror::Error;

use crate::address::{BadSocketPath, is_host_name, socket_path};

/// A backend as an operator writes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    Tcp { host: Host, port: u16 },
    Unix(PathBuf),
}

/// The host part of an [`Address`]: already an address, or a name that DNS has to answer for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    Ip(IpAddr),
    /// Lower case, without a final dot.
    Name(String),
}

/// One place that can be connected to; the identity of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Why a text is no [`Address`].
#[derive(Debug, Error, PartialEq, Eq)]
pub enum AddressError {
    #[error("address {0:?} has no port; expected HOST:PORT, IP:PORT, [IPv6]:PORT or unix:/path")]
    NoPort(String),
    #[error("address {0:?} has no valid port; expected 1 to 65535")]
    Port(String),
    #[error(
        "address {0:?} has no valid host; expected a name, an IPv4 address or an IPv6 address in brackets"
    )]
    Host(String),
    #[error(transparent)]
    UnixPath(BadSocketPath),
}

impl Address {
    /// The endpoint, where no name has to be resolved for it.
    pub fn endpoint(&self) -> Option<Endpoint> {
        match self {
            Self::Tcp {
                host: Host::Ip(ip),
                port,
            } => Some(Endpoint::Tcp(SocketAddr::new(*ip, *port))),
            Self::Tcp {
                host: Host::Name(_),
                ..
            } => None,
            Self::Unix(path) => Some(Endpoint::Unix(path.clone())),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return socket_path(path)
                .map(Self::Unix)
                .map_err(AddressError::UnixPath);
        }
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| AddressError::NoPort(text.into()))?;
        if host.starts_with('[') && !host.ends_with(']') {
            return Err(AddressError::NoPort(text.into()));
        }
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let port = match port.parse::<u16>() {
            Ok(port) if digits && port > 0 => port,
            _ => return Err(AddressError::Port(text.into())),
        };
        let host = parse_host(host).ok_or_else(|| AddressError::Host(text.into()))?;
        Ok(Self::Tcp { host, port })
    }
}

fn parse_host(text: &str) -> Option<Host> {
    if let Some(inner) = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return inner.parse::<Ipv6Addr>().ok().map(|ip| Host::Ip(ip.into()));
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        // A bare IPv6 address would make the port ambiguous.
        return ip.is_ipv4().then_some(Host::Ip(ip));
    }
    is_host_name(text).then(|| Host::Name(text.trim_end_matches('.').to_ascii_lowercase()))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp {
                host: Host::Ip(ip),
                port,
            } => SocketAddr::new(*ip, *port).fmt(f),
            Self::Tcp {
                host: Host::Name(name),
                port,
            } => write!(f, "{name}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_printed_as_it_was_written() {
        for text in [
            "127.0.0.1:8000",
            "[::1]:80",
            "app:8001",
            "my_app.internal:1",
            "unix:/run/x.sock",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!(
            "App.Example.:80".parse::<Address>().unwrap().to_string(),
            "app.example:80"
        );
    }

    #[test]
    fn what_cannot_be_connected_to_is_refused_with_its_reason() {
        let port = |text: &str| AddressError::Port(text.into());
        let host = |text: &str| AddressError::Host(text.into());
        let table = [
            ("app", AddressError::NoPort("app".into())),
            ("[::1]", AddressError::NoPort("[::1]".into())),
            ("app:", port("app:")),
            ("app:0", port("app:0")),
            ("app:+80", port("app:+80")),
            ("app:65536", port("app:65536")),
            (":80", host(":80")),
            ("::1:80", host("::1:80")),
            ("10.0.0.300:80", host("10.0.0.300:80")),
            ("a b:80", host("a b:80")),
            ("http://app:80", host("http://app:80")),
            ("-app:80", host("-app:80")),
            (
                "unix:run/x.sock",
                AddressError::UnixPath(BadSocketPath::Relative("run/x.sock".into())),
            ),
        ];
        for (text, error) in table {
            assert_eq!(text.parse::<Address>(), Err(error), "{text}");
        }
    }
}
