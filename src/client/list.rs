//! A list of networks that an operator keeps: in the configuration, or in a file that is followed while it changes.
//! Knows lines and files; what being on a list means is not its business.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use parking_lot::Mutex;
use thiserror::Error;

use super::network_set::NetworkSet;
use crate::stamp::FileStamp;

/// How often [`AddressList::watch`] looks at the file. Looking sees every way of replacing it, which watching an inode
/// does not.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The longest file that is read, in bytes: ten million networks.
const LONGEST_FILE: u64 = 512 << 20;

/// Wrong lines that are told one by one.
const MOST_TOLD: usize = 20;

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

/// Why a file is no list.
#[derive(Debug, Error)]
pub enum ListError {
    #[error("cannot read the list {path}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the list {path} has more than {LONGEST_FILE} bytes", path = path.display())]
    TooLong { path: PathBuf },
    #[error("the list {path} has {count} wrong lines, the first of them line {first}", path = path.display())]
    Lines {
        path: PathBuf,
        count: usize,
        first: usize,
        /// The first of them.
        told: Vec<WrongLine>,
    },
}

/// A line that is no network. Displays as `FILE:LINE: why`.
#[derive(Debug)]
pub struct WrongLine {
    file: PathBuf,
    line: usize,
    why: BadNetwork,
}

impl fmt::Display for WrongLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.why)
    }
}

/// A list of networks. Clients are looked up while its file is read anew.
#[derive(Debug)]
pub struct AddressList {
    now: ArcSwap<Listed>,
    file: Option<Followed>,
}

#[derive(Debug)]
struct Listed {
    networks: NetworkSet,
    /// Entries as written.
    entries: usize,
}

#[derive(Debug)]
struct Followed {
    path: PathBuf,
    /// The version that was last read or refused. Its lock also makes refreshes follow one another.
    seen: Mutex<Option<FileStamp>>,
}

impl AddressList {
    /// The networks that the configuration names itself.
    pub fn given(networks: &[IpNet]) -> Self {
        Self {
            now: ArcSwap::from_pointee(Listed {
                networks: NetworkSet::new(networks.iter().copied()),
                entries: networks.len(),
            }),
            file: None,
        }
    }

    /// Reads a file of one network or address a line; what follows a `#` is a comment. Every wrong line is an error.
    pub fn read(path: &Path) -> Result<Self, ListError> {
        let (listed, stamp) = read(path)?;
        Ok(Self {
            now: ArcSwap::from_pointee(listed),
            file: Some(Followed {
                path: path.to_owned(),
                seen: Mutex::new(Some(stamp)),
            }),
        })
    }

    /// Whether `address` is in one of the networks.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.now.load().networks.contains(address)
    }

    /// How many networks were written.
    pub fn entries(&self) -> usize {
        self.now.load().entries
    }

    /// The file, where there is one.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.path.as_path())
    }

    /// Takes in the file if it has changed since the last look, and says whether it did. After an error the list is as it
    /// was; a version of the file that cannot be used is an error once. Blocks on the disk.
    pub fn refresh(&self) -> Result<bool, ListError> {
        let Some(file) = &self.file else {
            return Ok(false);
        };
        let mut seen = file.seen.lock();
        let stamp = std::fs::metadata(&file.path).map(|metadata| FileStamp::from(&metadata));
        let stamp = match stamp {
            Ok(stamp) => Some(stamp),
            // Away for a moment while it is replaced, or for good: said once.
            Err(source) => {
                return match seen.take() {
                    None => Ok(false),
                    Some(_) => Err(ListError::Read {
                        path: file.path.clone(),
                        source,
                    }),
                };
            }
        };
        if *seen == stamp {
            return Ok(false);
        }
        *seen = stamp;
        let (listed, stamp) = read(&file.path)?;
        *seen = Some(stamp);
        self.now.store(Arc::new(listed));
        Ok(true)
    }

    /// Follows the file for as long as the list is in use, and logs what was taken in and what was not. To be called in a
    /// runtime.
    pub fn watch(self: &Arc<Self>) {
        if self.file.is_some() {
            tokio::spawn(watch(Arc::downgrade(self)));
        }
    }

    fn look(&self) {
        match self.refresh() {
            Ok(false) => {}
            Ok(true) => {
                let (entries, list) = (self.entries(), self.path().map(Path::display));
                tracing::info!(
                    list = list.map(tracing::field::display),
                    entries,
                    "list taken from disk"
                );
            }
            Err(error) => {
                if let ListError::Lines { told, .. } = &error {
                    for wrong in told {
                        tracing::error!("list refused: {wrong}");
                    }
                }
                let error = crate::telemetry::chain(&error);
                tracing::error!("list not refreshed, its predecessor stays: {error}");
            }
        }
    }
}

async fn watch(list: Weak<AddressList>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let list = list.clone();
        let looked = tokio::task::spawn_blocking(move || list.upgrade().map(|list| list.look()));
        if !matches!(looked.await, Ok(Some(()))) {
            return;
        }
    }
}

fn read(path: &Path) -> Result<(Listed, FileStamp), ListError> {
    let failed = |source| ListError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let stamp = FileStamp::from(&file.metadata().map_err(failed)?);
    let mut text = Vec::new();
    let length = file.take(LONGEST_FILE + 1).read_to_end(&mut text);
    if length.map_err(failed)? as u64 > LONGEST_FILE {
        return Err(ListError::TooLong {
            path: path.to_owned(),
        });
    }
    let (mut networks, mut told) = (Vec::new(), Vec::new());
    let (mut count, mut first) = (0, 0);
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
        match parse_line(line) {
            Ok(network) => networks.extend(network),
            Err(why) => {
                count += 1;
                if count == 1 {
                    first = index + 1;
                }
                if told.len() < MOST_TOLD {
                    told.push(WrongLine {
                        file: path.to_owned(),
                        line: index + 1,
                        why,
                    });
                }
            }
        }
    }
    if count > 0 {
        return Err(ListError::Lines {
            path: path.to_owned(),
            count,
            first,
            told,
        });
    }
    let listed = Listed {
        entries: networks.len(),
        networks: NetworkSet::new(networks),
    };
    Ok((listed, stamp))
}

/// `None` for a line that says nothing.
fn parse_line(line: &[u8]) -> Result<Option<IpNet>, BadNetwork> {
    let said = line.split(|&byte| byte == b'#').next().unwrap_or_default();
    match str::from_utf8(said.trim_ascii()) {
        Ok("") => Ok(None),
        Ok(text) => parse_network(text).map(Some),
        Err(_) => Err(BadNetwork::NotOne(
            String::from_utf8_lossy(said).into_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let Err(ListError::Lines { count, told, .. }) = AddressList::read(&path) else {
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
        assert!(!list.refresh().unwrap(), "nothing has changed");

        put(folder.path(), "192.0.2.0/24\n");
        assert!(list.refresh().unwrap());
        assert!(holds(&list, "192.0.2.1") && !holds(&list, "10.0.0.1"));

        put(folder.path(), "10.0.0.0/8\nnothing\n");
        assert!(list.refresh().is_err());
        assert!(!list.refresh().unwrap(), "it is told once");
        assert!(holds(&list, "192.0.2.1") && !holds(&list, "10.0.0.1"));

        std::fs::remove_file(&path).unwrap();
        assert!(list.refresh().is_err());
        assert!(!list.refresh().unwrap(), "it is told once");
        assert!(holds(&list, "192.0.2.1"));

        put(folder.path(), "");
        assert!(list.refresh().unwrap());
        assert!(!holds(&list, "192.0.2.1") && list.entries() == 0);
    }
}
