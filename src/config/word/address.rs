//! Where connections come from and go to: listeners, backends, networks, host names.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;
use rustls_pki_types::ServerName;
use serde_json::{Value as Json, json};

use super::{Word, or_variable};
use crate::config::read::{Node, Reader, Value};

/// Longest path of a Unix socket that every supported system takes: 104 bytes on BSD, with the final NUL.
const SOCKET_PATH: usize = 103;

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(out),
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return socket_path(path).map(Self::Unix);
        }
        match text.parse::<SocketAddr>() {
            Ok(address) => Ok(Self::Tcp(address)),
            Err(_) => Err(format!(
                r#"{text:?} is not an address to listen on; expected an IP address with a port such as "0.0.0.0:8080" or "[::]:8080", or "unix:/path""#
            )),
        }
    }
}

impl Word for ListenAddress {
    const EXPECTS: &'static str =
        r#"an address such as "0.0.0.0:8080", "[::]:8080" or "unix:/path""#;

    fn form() -> Json {
        json!({ "type": "string", "pattern": "^(unix:/.+|[0-9.]+:[0-9]+|\\[[0-9A-Fa-f:.]+(%[0-9]+)?\\]:[0-9]+)$" })
    }
}

fn socket_path(path: &str) -> Result<PathBuf, String> {
    if !path.starts_with('/') {
        return Err(format!(
            r#""unix:{path}" has no absolute path; expected "unix:/path""#
        ));
    }
    if path.len() > SOCKET_PATH || path.contains('\0') {
        return Err(format!(
            r#""unix:{path}" is not the path of a socket; expected at most {SOCKET_PATH} bytes"#
        ));
    }
    Ok(PathBuf::from(path))
}

/// Where a backend is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackendAddress {
    Ip(SocketAddr),
    /// Resolved while running; the name is in lower case.
    Name {
        host: String,
        port: u16,
    },
    Unix(PathBuf),
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(out),
            Self::Name { host, port } => write!(out, "{host}:{port}"),
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

impl FromStr for BackendAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return socket_path(path).map(Self::Unix);
        }
        let wrong = || {
            format!(
                r#"{text:?} is not the address of a backend; expected "HOST:PORT", "IP:PORT", "[IPv6]:PORT" or "unix:/path""#
            )
        };
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 {
                Err(wrong())
            } else {
                Ok(Self::Ip(address))
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = parse_port(port).ok_or_else(wrong)?;
        if is_host_name(host) {
            Ok(Self::Name {
                host: host.to_ascii_lowercase(),
                port,
            })
        } else {
            Err(wrong())
        }
    }
}

impl Word for BackendAddress {
    const EXPECTS: &'static str =
        r#"an address such as "app:8000", "127.0.0.1:8000" or "unix:/path""#;

    fn form() -> Json {
        json!({ "type": "string", "pattern": "^(unix:/.+|[A-Za-z0-9_.-]+:[0-9]+|\\[[0-9A-Fa-f:.]+(%[0-9]+)?\\]:[0-9]+)$" })
    }
}

fn parse_port(text: &str) -> Option<u16> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
        .filter(|port| *port != 0)
}

/// Letters, digits, hyphens and, since compose services may be named so, underscores; labels of 1 to 63; 253 in all.
/// What ends in digits alone is a misspelt IPv4 address.
pub(super) fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253
        && name.split('.').all(label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// A network, or a bare address as the network of that one address. Host bits must be zero.
pub fn parse_cidr(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let network: IpNet = text
        .parse()
        .map_err(|_| format!(r#"{text:?} is not a network; expected one such as "10.0.0.0/8" or "fd00::/8", or an address"#))?;
    if network.trunc() != network {
        return Err(format!(
            "{text:?} has bits after its prefix; expected {:?}",
            network.trunc().to_string()
        ));
    }
    Ok(network)
}

impl Value for IpNet {
    fn expects() -> String {
        r#"a network such as "10.0.0.0/8" or an address"#.to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.parsed(node, &Self::expects(), parse_cidr)
    }

    fn schema() -> Json {
        or_variable(json!({ "type": "string", "pattern": "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$" }))
    }
}

/// Which hosts a route is for. In lower case, without a final dot and without a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// One host, as a name or an address; IPv6 in its brackets.
    Exact(String),
    /// Any host that ends in a dot and this name, at any depth.
    Under(String),
}

impl fmt::Display for HostPattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => out.write_str(host),
            Self::Under(parent) => write!(out, "*.{parent}"),
        }
    }
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                r#"{text:?} is not a host; expected a name such as "shop.example" or "*.shop.example", without port"#
            )
        };
        let name = |text: &str| {
            is_host_name(text)
                .then(|| text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase())
                .ok_or_else(wrong)
        };
        if let Some(parent) = text.strip_prefix("*.") {
            return name(parent).map(Self::Under);
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Exact(address.to_string()));
        }
        if let Some(Ok(address)) = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
            .map(str::parse::<Ipv6Addr>)
        {
            return Ok(Self::Exact(format!("[{address}]")));
        }
        name(text).map(Self::Exact)
    }
}

impl Word for HostPattern {
    const EXPECTS: &'static str = r#"a host such as "shop.example" or "*.shop.example""#;

    fn form() -> Json {
        json!({ "type": "string", "pattern": "^((\\*\\.)?[A-Za-z0-9_.-]+|\\[[0-9A-Fa-f:.]+\\])$" })
    }
}

/// The name a backend must prove by its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerNameSpec(pub ServerName<'static>);

impl FromStr for ServerNameSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        ServerName::try_from(text.to_owned())
            .map(Self)
            .map_err(|_| format!(r#"{text:?} is not a server name; expected a name such as "app.example", or an address"#))
    }
}

impl Word for ServerNameSpec {
    const EXPECTS: &'static str = r#"a name such as "app.example""#;

    fn form() -> Json {
        json!({ "type": "string", "pattern": "^[A-Za-z0-9_.:-]+$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_has_an_address_and_a_port_or_a_path() {
        assert_eq!(
            "[::]:80".parse(),
            Ok(ListenAddress::Tcp("[::]:80".parse().unwrap()))
        );
        assert_eq!(
            "unix:/run/a.sock".parse(),
            Ok(ListenAddress::Unix("/run/a.sock".into()))
        );
        for text in [
            "8080",
            ":8080",
            "localhost:8080",
            "0.0.0.0",
            "::1:80",
            "unix:",
            "unix:a.sock",
            "0.0.0.0:65536",
        ] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
        assert!(
            format!("unix:/{}", "a".repeat(103))
                .parse::<ListenAddress>()
                .is_err()
        );
    }

    #[test]
    fn a_backend_is_a_name_an_address_or_a_socket() {
        assert_eq!(
            "App_1:80".parse(),
            Ok(BackendAddress::Name {
                host: "app_1".to_owned(),
                port: 80
            })
        );
        assert_eq!(
            "[::1]:80".parse(),
            Ok(BackendAddress::Ip("[::1]:80".parse().unwrap()))
        );
        assert_eq!("unix:/a".parse(), Ok(BackendAddress::Unix("/a".into())));
        for text in [
            "app",
            "app:0",
            "app:+1",
            "app:",
            ":80",
            "1.2.3:80",
            "1.2.3.256:80",
            "::1:80",
            "a b:80",
            "http://app:80",
            "-a:80",
            "127.0.0.1:0",
        ] {
            assert!(text.parse::<BackendAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_bare_address_is_a_network_of_one() {
        assert_eq!(parse_cidr("10.1.2.3").unwrap().to_string(), "10.1.2.3/32");
        assert_eq!(parse_cidr("::1").unwrap().to_string(), "::1/128");
        assert_eq!(parse_cidr("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(
            parse_cidr("10.0.0.1/8").unwrap_err(),
            r#""10.0.0.1/8" has bits after its prefix; expected "10.0.0.0/8""#
        );
        assert!(parse_cidr("10.0.0.0/33").is_err() && parse_cidr("localhost").is_err());
    }

    #[test]
    fn a_host_pattern_is_in_one_spelling() {
        assert_eq!(
            "Shop.Example.".parse(),
            Ok(HostPattern::Exact("shop.example".to_owned()))
        );
        assert_eq!(
            "*.Shop.example".parse(),
            Ok(HostPattern::Under("shop.example".to_owned()))
        );
        assert_eq!(
            "[::0:1]".parse(),
            Ok(HostPattern::Exact("[::1]".to_owned()))
        );
        for text in [
            "",
            "*",
            "*.",
            "a.*.b",
            "shop.example:80",
            "shop_ example",
            "a..b",
            "http://a",
            "bücher.example",
            "1.2.3",
        ] {
            assert!(text.parse::<HostPattern>().is_err(), "{text}");
        }
    }
}
