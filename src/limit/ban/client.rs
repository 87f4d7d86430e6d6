//! Who is one client: an address, or the network within which one client may change its address.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::client::list::{BadNetwork, parse_network};
use crate::limit::key::{Prefixes, network};

/// One client. Displays as its address, or as its network where that has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Client(IpNet);

impl Client {
    /// The client that has this address.
    pub fn of(address: IpAddr, prefixes: Prefixes) -> Self {
        let network = network(address, prefixes);
        let length = match network {
            IpAddr::V4(_) => prefixes.v4.min(32),
            IpAddr::V6(_) => prefixes.v6.min(128),
        };
        Self(IpNet::new(network, length).expect("no more bits than the address has"))
    }

    /// All of its address; two clients may have the same.
    pub fn bits(&self) -> u128 {
        match self.address() {
            IpAddr::V4(address) => address.to_bits().into(),
            IpAddr::V6(address) => address.to_bits(),
        }
    }

    /// Its first address.
    pub fn address(&self) -> IpAddr {
        self.0.network()
    }
}

/// One number, where the standard library's would be a dozen bytes one by one: each request is looked for.
impl Hash for Client {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u128(self.bits());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_network_are_one_client() {
        let usual = Prefixes::default();
        for (address, client) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:0:1::7", "2001:db8:0:1::/64"),
            ("2001:db8:0:1:ffff::", "2001:db8:0:1::/64"),
        ] {
            let found = Client::of(address.parse().unwrap(), usual);
            assert_eq!(found.to_string(), client);
            assert_eq!(client.parse(), Ok(found));
        }
        let others = Prefixes { v4: 24, v6: 128 };
        let of = |text: &str| Client::of(text.parse().unwrap(), others).to_string();
        assert_eq!(of("192.0.2.7"), "192.0.2.0/24");
        assert_eq!(of("2001:db8::7"), "2001:db8::7");
    }
}
