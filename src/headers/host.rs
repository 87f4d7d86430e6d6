//! The Host that the application receives. Knows what may be written; what a client sent comes from outside.

use std::str::FromStr;

use http::HeaderValue;
use thiserror::Error;

use crate::address::is_host;
use crate::target::Host;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostSent {
    /// As the client sent it.
    Client,
    /// The address of the backend.
    Backend,
    /// This host, with its port if it has one (RFC 9110 section 7.2).
    Name(HeaderValue),
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    r#"{0:?} is not a host to send; expected "client", "backend" or a name such as "app.example""#
)]
pub struct BadHostSent(String);

impl FromStr for HostSent {
    type Err = BadHostSent;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || BadHostSent(text.to_owned());
        match text {
            "client" => Ok(Self::Client),
            "backend" => Ok(Self::Backend),
            _ => {
                let host = Host::parse(text.as_bytes()).map_err(|_| wrong())?;
                let value = HeaderValue::from_str(text).ok();
                value
                    .filter(|_| is_host(host.name()))
                    .map(Self::Name)
                    .ok_or_else(wrong)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_to_send_is_a_word_or_an_authority() {
        assert_eq!("client".parse(), Ok(HostSent::Client));
        for text in [
            "app.example",
            "app:8000",
            "[::1]:80",
            "[::1]",
            "127.0.0.1:80",
        ] {
            assert_eq!(
                text.parse(),
                Ok(HostSent::Name(HeaderValue::from_static(text)))
            );
        }
        for text in [
            "",
            "a b",
            "http://app",
            "app:",
            "app:port",
            "::1",
            "app:99999",
        ] {
            assert!(text.parse::<HostSent>().is_err(), "{text}");
        }
    }
}
