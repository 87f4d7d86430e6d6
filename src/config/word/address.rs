//! Where connections come from and go to: listeners, backends, name servers, networks, host names.

use std::net::IpAddr;

use ipnet::IpNet;
use rustls_pki_types::ServerName;
use serde_json::{Value as Json, json};

use super::{Word, or_variable};
use crate::config::read::{Node, Reader, Value};
use crate::listen::ListenAddress;
use crate::route::HostPattern;
use crate::target::Url;
use crate::upstream::{Address, NameServer};

impl Word for ListenAddress {
    const EXPECTS: &'static str =
        r#"an address such as "0.0.0.0:8080", "[::]:8080" or "unix:/path""#;

    fn form() -> Json {
        json!({ "type": "string", "pattern": "^(unix:/.+|[0-9.]+:[0-9]+|\\[[0-9A-Fa-f:.]+(%[0-9]+)?\\]:[0-9]+)$" })
    }
}

impl Word for Address {
    const EXPECTS: &'static str =
        r#"an address such as "app:8000", "127.0.0.1:8000" or "unix:/path""#;

    fn form() -> Json {
        json!({ "type": "string", "pattern": "^(unix:/.+|[A-Za-z0-9_.-]+:[0-9]+|\\[[0-9A-Fa-f:.]+\\]:[0-9]+)$" })
    }
}

impl Word for NameServer {
    const EXPECTS: &'static str =
        r#"the address of a name server such as "10.0.0.2" or "10.0.0.2:5353""#;

    fn form() -> Json {
        json!({ "type": "string", "pattern": "^([0-9.]+(:[0-9]+)?|[0-9A-Fa-f:.]+|\\[[0-9A-Fa-f:.]+(%[0-9]+)?\\]:[0-9]+)$" })
    }
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

impl Word for HostPattern {
    const EXPECTS: &'static str = r#"a host such as "shop.example" or "*.shop.example""#;

    fn form() -> Json {
        json!({ "type": "string", "pattern": "^((\\*\\.)?[A-Za-z0-9_.-]+|\\[[0-9A-Fa-f:.]+\\])$" })
    }
}

impl Word for Url {
    const EXPECTS: &'static str = r#"a URL such as "https://shop.example/""#;

    fn form() -> Json {
        json!({ "type": "string", "pattern": "^https?://[^/?#]+(/[^#]*)?$" })
    }
}

/// The name a backend must prove by its certificate.
impl Value for ServerName<'static> {
    fn expects() -> String {
        r#"a name such as "app.example""#.to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.parsed(node, &Self::expects(), |text| {
            ServerName::try_from(text.to_owned()).map_err(|_| {
                format!(r#"{text:?} is not a server name; expected a name such as "app.example", or an address"#)
            })
        })
    }

    fn schema() -> Json {
        or_variable(json!({ "type": "string", "pattern": "^[A-Za-z0-9_.:-]+$" }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
