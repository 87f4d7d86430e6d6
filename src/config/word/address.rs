//! Where connections come from and go to: listeners, backends, name servers, networks, host names.

use ipnet::IpNet;
use rustls_pki_types::ServerName;
use serde_json::{Value as Json, json};

use super::{FilePath, Word, or_variable};
use crate::client::list::parse_network;
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

impl Value for IpNet {
    fn expects() -> String {
        r#"a network such as "10.0.0.0/8" or an address"#.to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.parsed(node, &Self::expects(), |text| {
            parse_network(text).map_err(|wrong| wrong.to_string())
        })
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

/// A list of networks: the path of a file that has one a line, or the networks.
#[derive(Debug, Clone, PartialEq)]
pub enum NetworksOrFile {
    Networks(Vec<IpNet>),
    File(FilePath),
}

impl Value for NetworksOrFile {
    fn expects() -> String {
        r#"the path of a file with one network a line, or a list such as ["10.0.0.0/8"]"#.to_owned()
    }

    fn read(node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if !node.is_str() {
            return Vec::read(node, reader).map(Self::Networks);
        }
        let file = FilePath::read(node, reader)?;
        if parse_network(&file.written).is_ok() {
            reader.mismatch(node, &Self::expects());
            return None;
        }
        Some(Self::File(file))
    }

    fn schema() -> Json {
        json!({ "anyOf": [FilePath::schema(), Vec::<IpNet>::schema()] })
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
