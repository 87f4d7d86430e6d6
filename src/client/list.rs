//! A list of networks that an operator keeps: in the configuration, or in a file that is followed while it changes.
//! Knows networks; what being on a list means is not its business.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use thiserror::Error;

use super::network_set::NetworkSet;
use crate::followed::{Content, FileError, Followed, Form, Wrong, each_line};

/// The longest file that is read, in bytes: ten million networks.
const LONGEST_FILE: u64 = 512 << 20;

/// A text that is no network.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BadNetwork {
    #[error(
        r#"{0:?} is not a network; expected one such as "10.0.0.0/8" or "fd00::/8", or an address"#
    )]
    NotOne(String),
    #[error("{0:?} has bits after its prefix; expected {expected:?}", expected = .1.to_string())]
    HostBits(String, IpNet),
    #[error("{0:?} has a port; expected {expected:?}", expected = .1.to_string())]
    Port(String, IpAddr),
}

/// A network, or a bare address as the network of that one address. Host bits must be zero.
pub fn parse_network(text: &str) -> Result<IpNet, BadNetwork> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Err(BadNetwork::Port(text.to_owned(), address.ip()));
    }
    let network: IpNet = text
        .parse()
        .map_err(|_| BadNetwork::NotOne(text.to_owned()))?;
    match network.trunc() {
        whole if whole == network => Ok(network),
        whole => Err(BadNetwork::HostBits(text.to_owned(), whole)),
    }
}

/// A list of networks. Clients are looked up while its file is read anew.
#[derive(Debug)]
pub enum AddressList {
    Given(Listed),
    File(Arc<Followed<Listed>>),
}

/// What a list says.
#[derive(Debug)]
pub struct Listed {
    networks: NetworkSet,
    /// Entries as written.
    entries: usize,
}

impl Content for Listed {
    fn entries(&self) -> usize {
        self.entries
    }
}

impl Listed {
    fn new(networks: impl ExactSizeIterator<Item = IpNet>) -> Self {
        Self {
            entries: networks.len(),
            networks: NetworkSet::new(networks),
        }
    }

    fn parse(text: &[u8]) -> Result<Self, Wrong> {
        let mut networks = Vec::new();
        each_line(text, |line| {
            networks.push(match str::from_utf8(line) {
                Ok(text) => parse_network(text)?,
                Err(_) => {
                    let text = String::from_utf8_lossy(line).into_owned();
                    return Err(BadNetwork::NotOne(text));
                }
            });
            Ok(())
        })?;
        Ok(Self::new(networks.into_iter()))
    }
}

impl AddressList {
    /// The networks that the configuration names itself.
    pub fn given(networks: &[IpNet]) -> Self {
        Self::Given(Listed::new(networks.iter().copied()))
    }

    /// Reads a file of one network or address a line; what follows a `#` is a comment. Every wrong line is an error.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let form = Form {
            noun: "list",
            longest: LONGEST_FILE,
            parse: Box::new(Listed::parse),
        };
        Followed::read(path, form).map(|file| Self::File(Arc::new(file)))
    }

    /// Whether `address` is in one of the networks.
    pub fn contains(&self, address: IpAddr) -> bool {
        match self {
            Self::Given(listed) => listed.networks.contains(address),
            Self::File(file) => file.now().networks.contains(address),
        }
    }

    /// How many networks were written.
    pub fn entries(&self) -> usize {
        match self {
            Self::Given(listed) => listed.entries,
            Self::File(file) => file.now().entries,
        }
    }

    /// The file, where there is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Given(_) => None,
            Self::File(file) => Some(file.path()),
        }
    }

    /// Follows the file for as long as the list is in use. To be called in a runtime.
    pub fn watch(&self) {
        if let Self::File(file) = self {
            file.watch();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::followed::WrongLine;

    fn refreshed(list: &AddressList) -> Result<bool, FileError> {
        let AddressList::File(file) = list else {
            panic!("it is of a file");
        };
        file.refresh()
    }

    fn holds(list: &AddressList, address: &str) -> bool {
        list.contains(address.parse().unwrap())
    }

    fn put(folder: &Path, text: impl AsRef<[u8]>) -> PathBuf {
        // By rename, as a list should be replaced: it is another inode each time.
        let file = tempfile::NamedTempFile::new_in(folder).unwrap();
        std::fs::write(file.path(), text).unwrap();
        let path = folder.join("deny.txt");
        file.persist(&path).unwrap();
        path
    }

    #[test]
    fn a_bare_address_is_a_network_of_one() {
        for (text, network) in [
            ("10.1.2.3", "10.1.2.3/32"),
            ("::1", "::1/128"),
            ("10.0.0.0/8", "10.0.0.0/8"),
        ] {
            assert_eq!(parse_network(text).unwrap().to_string(), network);
        }
        for (text, why) in [
            (
                "10.0.0.1/8",
                r#""10.0.0.1/8" has bits after its prefix; expected "10.0.0.0/8""#,
            ),
            (
                "10.0.0.1:80",
                r#""10.0.0.1:80" has a port; expected "10.0.0.1""#,
            ),
        ] {
            assert_eq!(parse_network(text).unwrap_err().to_string(), why);
        }
        for text in ["10.0.0.0/33", "localhost", "10.0.0", ""] {
            let wrong = parse_network(text).unwrap_err();
            assert!(matches!(wrong, BadNetwork::NotOne(_)), "{text}");
        }
    }

    #[test]
    fn a_file_has_a_network_a_line_and_comments() {
        let folder = tempfile::tempdir().unwrap();
        let path = put(
            folder.path(),
            "# scrapers\n192.0.2.0/24 # of May\r\n\n  2001:db8::/32\n198.51.100.7",
        );
        let list = AddressList::read(&path).unwrap();
        assert_eq!(list.entries(), 3);
        assert!(holds(&list, "192.0.2.9") && holds(&list, "2001:db8::1"));
        assert!(holds(&list, "198.51.100.7") && !holds(&list, "198.51.100.8"));
    }

    #[test]
    fn every_wrong_line_is_told_with_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = put(
            folder.path(),
            b"10.0.0.0/8\n10.0.0.300\n# fine\n10.0.0.1/8\n\xff",
        );
        let Err(FileError::Lines { count, told, .. }) = AddressList::read(&path) else {
            panic!("it has wrong lines");
        };
        let told: Vec<_> = told.iter().map(WrongLine::to_string).collect();
        assert_eq!(count, 3);
        let path = path.display();
        assert!(told[0].starts_with(&format!(r#"{path}:2: "10.0.0.300" is not a network"#)));
        assert!(told[1].contains(r#":4: "10.0.0.1/8" has bits"#), "{told:?}");
        assert!(told[2].contains(":5: "), "{told:?}");
    }

    #[test]
    fn a_changed_file_is_taken_in_and_a_wrong_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = put(folder.path(), "10.0.0.0/8\n");
        let list = AddressList::read(&path).unwrap();
        assert!(!refreshed(&list).unwrap(), "nothing has changed");

        put(folder.path(), "192.0.2.0/24\n");
        assert!(refreshed(&list).unwrap());
        assert!(holds(&list, "192.0.2.1") && !holds(&list, "10.0.0.1"));

        put(folder.path(), "10.0.0.0/8\nnothing\n");
        assert!(refreshed(&list).is_err());
        assert!(!refreshed(&list).unwrap(), "it is told once");
        assert!(holds(&list, "192.0.2.1") && !holds(&list, "10.0.0.1"));

        std::fs::remove_file(&path).unwrap();
        assert!(refreshed(&list).is_err());
        assert!(!refreshed(&list).unwrap(), "it is told once");
        assert!(holds(&list, "192.0.2.1"));

        put(folder.path(), "");
        assert!(refreshed(&list).unwrap());
        assert!(!holds(&list, "192.0.2.1") && list.entries() == 0);
    }
}
