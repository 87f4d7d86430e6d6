//! Where one server of Redis is written to be: `redis://USER:PASSWORD@HOST:PORT/DATABASE`, or `rediss://` for TLS.
//! What is said of a wrong one hides its password.

use std::fmt;
use std::str::FromStr;

use ::redis::{ConnectionAddr, IntoConnectionInfo, parse_redis_url};
use thiserror::Error;

use super::Secret;
use crate::word::without_credentials;

/// One server, or one sentinel. Displays without what is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub host: String,
    pub port: u16,
    pub tls: bool,
    pub database: i64,
    pub username: Option<String>,
    pub password: Option<Secret>,
}

/// Why a text is no [`Node`]. Displays without what is secret.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NodeError {
    #[error(
        r#"{0:?} is not the address of a Redis; expected one such as "redis://127.0.0.1:6379" or "rediss://redis.internal:6380/1""#
    )]
    Form(String),
    #[error("{0:?} has a part behind its database; expected none")]
    Rest(String),
}

impl FromStr for Node {
    type Err = NodeError;

    fn from_str(text: &str) -> Result<Self, NodeError> {
        let wrong = || NodeError::Form(without_credentials(text));
        let url = parse_redis_url(text).ok_or_else(wrong)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(NodeError::Rest(without_credentials(text)));
        }
        let info = url.into_connection_info().map_err(|_| wrong())?;
        let (host, port, tls) = match info.addr() {
            ConnectionAddr::Tcp(host, port) => (host.clone(), *port, false),
            ConnectionAddr::TcpTls { host, port, .. } => (host.clone(), *port, true),
            _ => return Err(wrong()),
        };
        let redis = info.redis_settings();
        if redis.db() < 0 || port == 0 {
            return Err(wrong());
        }
        Ok(Self {
            host,
            port,
            tls,
            database: redis.db(),
            username: redis.username().map(str::to_owned),
            password: redis.password().map(|text| Secret::new(text.to_owned())),
        })
    }
}

impl fmt::Display for Node {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(out, "[{}]:{}", self.host, self.port),
            false => write!(out, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_read_with_all_its_parts() {
        let node: Node = "rediss://shop:s%40fe@redis.internal:6380/2"
            .parse()
            .unwrap();
        assert_eq!((node.host.as_str(), node.port), ("redis.internal", 6380));
        assert!(node.tls);
        assert_eq!(node.database, 2);
        assert_eq!(node.username.as_deref(), Some("shop"));
        assert_eq!(node.password.as_ref().unwrap().text(), "s@fe");
        assert_eq!(node.to_string(), "redis.internal:6380");
        assert!(!format!("{node:?}").contains("s@fe"));

        let plain: Node = "valkey://[::1]".parse().unwrap();
        assert_eq!(plain.to_string(), "[::1]:6379");
        assert!(!plain.tls && plain.username.is_none() && plain.password.is_none());
    }

    #[test]
    fn what_is_said_of_a_wrong_node_hides_its_password() {
        let wrong = [
            "http://u:hidden@host",
            "redis://u:hidden@host/one",
            "redis://u:hidden@host:0",
            "redis://u:hidden@host/0?protocol=3",
            "rediss://u:hidden@host/0#insecure",
            "redis://u:hid@hidden@host:x",
            "u:hidden@host",
            "unix:///run/redis.sock",
            "redis://0.0.0.0",
            "host:6379",
        ];
        for text in wrong {
            let error = text.parse::<Node>().unwrap_err().to_string();
            assert!(!error.contains("hid"), "{text}: {error}");
        }
    }
}
