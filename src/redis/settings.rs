//! Where Redis is and what may be asked of it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use super::Node;

/// Everything about one Redis. Right as it is: nothing behind it checks it again.
#[derive(Clone, Debug)]
pub struct Settings {
    pub kind: Kind,
    /// What the servers are told; sentinels are told what their own nodes say.
    pub credentials: Credentials,
    pub tls: TlsFiles,
    pub prefix: Prefix,
    /// What one question may wait.
    pub deadline: Duration,
    /// For a new connection with TLS, password and first answer.
    pub connect_timeout: Duration,
    /// A connection that stands is checked, and one that is away tried, at least this often.
    pub health_interval: Duration,
    /// For bodies; there is one more for everything small, and one for limits.
    pub connections: usize,
    /// Questions in flight on one connection; more are refused at once.
    pub max_in_flight: usize,
}

/// How the servers stand to one another. Displays as the addresses of the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Single(Node),
    /// Some nodes of a Redis Cluster; they know the others. At least one.
    Cluster(Vec<Node>),
    /// Who knows which server is the master of this name now. At least one.
    Sentinel {
        master: String,
        sentinels: Vec<Node>,
    },
}

/// As whom to log in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    pub username: Option<String>,
    pub password: Option<Secret>,
}

/// PEM as it was read: whom to believe and as whom to appear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// In place of the platform's authorities.
    pub ca: Option<Vec<u8>>,
    /// Certificate and key.
    pub identity: Option<(Vec<u8>, Secret)>,
}

impl Kind {
    pub fn nodes(&self) -> &[Node] {
        match self {
            Self::Single(node) => std::slice::from_ref(node),
            Self::Cluster(nodes)
            | Self::Sentinel {
                sentinels: nodes, ..
            } => nodes,
        }
    }

    pub fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    pub fn is_sentinel(&self) -> bool {
        matches!(self, Self::Sentinel { .. })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, node) in self.nodes().iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(out, "{comma}{node}")?;
        }
        Ok(())
    }
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// For who must say it to the server.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
}

/// What every key and channel begins with. Holds no braces: in a cluster they would put all keys on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(String);

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PrefixError {
    #[error("prefix {0:?} is longer than 64 bytes; expected a short one such as \"tollgate:\"")]
    Long(String),
    #[error(
        "prefix {0:?} has a space, a brace or a character outside ASCII; expected one such as \"tollgate:\""
    )]
    Character(String),
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        if text.len() > 64 {
            return Err(PrefixError::Long(text.to_owned()));
        }
        let permitted = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}');
        if !text.bytes().all(permitted) {
            return Err(PrefixError::Character(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}
