//! DNS as it is asked: by which name servers, for how long. What its answers become is decided in `resolve`.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{RData, RecordType},
};
use thiserror::Error;

use super::resolve::{Answer, Family, Lookup, LookupError};

/// The port of DNS (RFC 1035 4.2).
const PORT: u16 = 53;

/// Who is asked for the addresses of names, and for how long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsSettings {
    /// In the place of those of /etc/resolv.conf; none means those.
    pub servers: Vec<NameServer>,
    /// For one answer of one server; otherwise what /etc/resolv.conf says, or 5 s.
    pub timeout: Option<Duration>,
}

/// A name server, asked over UDP, and over TCP where an answer is too long for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NameServer(SocketAddr);

/// A text that is no [`NameServer`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    r#"{0:?} is not the address of a name server; expected one such as "10.0.0.2", "10.0.0.2:5353" or "[fd00::2]:53""#
)]
pub struct BadNameServer(String);

impl FromStr for NameServer {
    type Err = BadNameServer;

    fn from_str(text: &str) -> Result<Self, BadNameServer> {
        let at_port = text.parse::<SocketAddr>().ok();
        let bare = || {
            text.parse::<IpAddr>()
                .ok()
                .map(|ip| SocketAddr::new(ip, PORT))
        };
        at_port
            .or_else(bare)
            .filter(|address| address.port() != 0)
            .map(Self)
            .ok_or_else(|| BadNameServer(text.to_owned()))
    }
}

impl fmt::Display for NameServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The resolver: name servers, and /etc/hosts before them, as the files were when it was made.
pub struct Dns(TokioResolver);

impl Dns {
    pub fn new(settings: &DnsSettings) -> Result<Self, LookupError> {
        let mut builder = if settings.servers.is_empty() {
            TokioResolver::builder_tokio().map_err(LookupError::failed)?
        } else {
            let servers = settings.servers.iter().map(|server| server.config());
            TokioResolver::builder_with_config(
                ResolverConfig::from_name_servers(servers.collect()),
                TokioRuntimeProvider::default(),
            )
        };
        let options = builder.options_mut();
        // Answers are asked for when their TTL has ended: what a cache would say is known.
        options.cache_size = 0;
        if let Some(timeout) = settings.timeout {
            options.timeout = timeout;
        }
        Ok(Self(builder.build().map_err(LookupError::failed)?))
    }
}

impl NameServer {
    fn config(&self) -> NameServerConfig {
        let at_port = |mut connection: ConnectionConfig| {
            connection.port = self.0.port();
            connection
        };
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(at_port);
        NameServerConfig::new(self.0.ip(), true, connections.into())
    }
}

#[async_trait]
impl Lookup for Dns {
    async fn lookup(&self, name: &str, family: Family) -> Result<Answer, LookupError> {
        let kind = match family {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        };
        match self.0.lookup(name, kind).await {
            Ok(found) => {
                let address = |data: &RData| match data {
                    RData::A(address) => Some(IpAddr::V4(address.0)),
                    RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                    _ => None,
                };
                Ok(Answer {
                    addresses: found
                        .answers()
                        .iter()
                        .filter_map(|record| address(&record.data))
                        .collect(),
                    ttl: found
                        .valid_until()
                        .saturating_duration_since(Instant::now()),
                })
            }
            Err(error) if error.is_no_records_found() || error.is_nx_domain() => Ok(Answer {
                addresses: Vec::new(),
                ttl: Duration::MAX,
            }),
            Err(error) => Err(LookupError::failed(error)),
        }
    }
}

impl LookupError {
    fn failed(error: NetError) -> Self {
        Self::Failed(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_server_is_an_address_with_the_port_of_dns_unless_another_is_said() {
        for (text, address) in [
            ("10.0.0.2", "10.0.0.2:53"),
            ("10.0.0.2:5353", "10.0.0.2:5353"),
            ("fd00::2", "[fd00::2]:53"),
            ("[fd00::2]:5353", "[fd00::2]:5353"),
        ] {
            assert_eq!(text.parse::<NameServer>().unwrap().to_string(), address);
        }
        for text in [
            "",
            "ns.example",
            "10.0.0.2:0",
            "10.0.0.2:",
            "[fd00::2]",
            "10.0.0.2:53:53",
        ] {
            assert_eq!(
                text.parse::<NameServer>(),
                Err(BadNameServer(text.to_owned()))
            );
        }
    }

    #[tokio::test]
    async fn the_system_knows_localhost() {
        let system = Dns::new(&DnsSettings::default()).unwrap();
        let found = system.lookup("localhost", Family::V4).await.unwrap();
        assert_eq!(found.addresses, ["127.0.0.1".parse::<IpAddr>().unwrap()]);
    }
}
