//! Who is one client: an address, or the network within which one client may change its address.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::client::list::{BadNetwork, parse_network};

/// One client. Displays as its address, or as its network where that has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client(IpNet);

impl Client {
    /// Its first address.
    pub fn address(&self) -> IpAddr {
        self.0.network()
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.prefix_len() == self.0.max_prefix_len() {
            true => self.0.network().fmt(f),
            false => self.0.fmt(f),
        }
    }
}

impl FromStr for Client {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        parse_network(text).map(Self)
    }
}

/// How many bits of an address tell clients apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Widths {
    /// Of IPv4, 0 to 32.
    pub four: u8,
    /// Of IPv6, 0 to 128.
    pub six: u8,
}

impl Widths {
    /// The client that has this address.
    pub fn client(&self, address: IpAddr) -> Client {
        let address = address.to_canonical();
        let width = match address {
            IpAddr::V4(_) => self.four.min(32),
            IpAddr::V6(_) => self.six.min(128),
        };
        let network = IpNet::new(address, width).expect("no more bits than the address has");
        Client(network.trunc())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_network_are_one_client() {
        let widths = Widths { four: 32, six: 64 };
        for (address, client) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:0:1::7", "2001:db8:0:1::/64"),
            ("2001:db8:0:1:ffff::", "2001:db8:0:1::/64"),
        ] {
            let found = widths.client(address.parse().unwrap());
            assert_eq!(found.to_string(), client);
            assert_eq!(client.parse(), Ok(found));
        }
        let wide = Widths { four: 24, six: 128 };
        assert_eq!(
            wide.client("192.0.2.7".parse().unwrap()).to_string(),
            "192.0.2.0/24"
        );
        assert_eq!(
            wide.client("2001:db8::7".parse().unwrap()).to_string(),
            "2001:db8::7"
        );
    }
}
