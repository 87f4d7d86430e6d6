//! The certificates of one directory, by the names they are for, kept up to date with the disk.
//! Knows TLS names and files; knows nothing of listeners, routes or HTTP.
//!
//! A name asked for by SNI is looked up exactly, then as a wildcard of one label, then answered with
//! the default. Where several pairs are for one name, the best the client can verify is served.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SignatureScheme};

use crate::word::choice;

mod client;
mod error;
mod pair;

pub use client::{ClientCertificates, client_verifier, subject};
pub use error::CertificateError;
use pair::{Pair, Stamp};

/// How often [`CertificateStore::watch`] looks at the directory. Looking, rather than being told by
/// the kernel, also sees renames and the swapped symbolic links of certbot and Kubernetes.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// TLS 1.2 sessions remembered for clients that take no tickets; about 300 bytes each.
const SESSIONS: usize = 4096;

/// The certificate pairs of one directory. Resolves a server certificate for rustls.
pub struct CertificateStore {
    directory: PathBuf,
    default: Option<String>,
    table: ArcSwap<Table>,
    /// What was read and is not served, so that it is read, and reported, once for each change.
    /// Its lock also makes refreshes follow one another.
    passed_over: Mutex<BTreeMap<String, Stamp>>,
}

/// What a [`CertificateStore::refresh`] did, by pair name in order.
#[derive(Debug, Default)]
pub struct Changed {
    /// New or replaced pairs, served from now on.
    pub updated: Vec<String>,
    /// Pairs whose files are gone.
    pub removed: Vec<String>,
    /// Pairs that were refused; where an older version of one was being served, it still is.
    /// A refused pair is named once for each change of its files.
    pub refused: Vec<CertificateError>,
}

impl Changed {
    /// True if the directory is as it was.
    pub fn is_nothing(&self) -> bool {
        self.updated.is_empty() && self.removed.is_empty() && self.refused.is_empty()
    }
}

impl CertificateStore {
    /// Reads every pair NAME.crt (or NAME.pem) and NAME.key of `directory`.
    ///
    /// `default` is the NAME served to clients that ask for no name or for one that no pair is for;
    /// `None` takes the first by file name. Hidden files and other extensions are passed over, and so
    /// is an authority's certificate without a key (the `ca.crt` of a Kubernetes secret).
    ///
    /// Every broken pair is an error here: what is wrong at the start should be seen at the start. A
    /// certificate that has expired, or is not valid yet, is loaded with a warning: refusing it would
    /// take down every other name of the directory, and a browser's warning says the same thing.
    pub fn load(directory: &Path, default: Option<&str>) -> Result<Self, Vec<CertificateError>> {
        let mut pairs = BTreeMap::new();
        let mut broken = Vec::new();
        for (name, files) in pair::find(directory).map_err(|error| vec![error])? {
            match Pair::read(&name, &files) {
                Ok(Some(pair)) => {
                    pair.warn_if_unusual();
                    pairs.insert(name, Arc::new(pair));
                }
                Ok(None) => {}
                Err(error) => broken.push(error),
            }
        }
        if !broken.is_empty() {
            return Err(broken);
        }
        let table = Table::new(directory, pairs, default).map_err(|error| vec![error])?;
        Ok(CertificateStore {
            directory: directory.to_path_buf(),
            default: default.map(str::to_owned),
            table: ArcSwap::from_pointee(table),
            passed_over: Mutex::default(),
        })
    }

    /// Looks at the directory and takes in what changed there since the last look.
    ///
    /// Each pair stands for itself: a new or changed one is served from the next handshake on, one
    /// whose files are both gone is forgotten (unless it is the named default), and a broken one is
    /// refused while its predecessor stays. An `Err` means that nothing changed at all: the directory
    /// cannot be read or has no pair left.
    ///
    /// Reads files only where size, times or inode differ. Blocks on the disk.
    pub fn refresh(&self) -> Result<Changed, CertificateError> {
        let mut passed_over = self.passed_over.lock();
        let old = self.table.load_full();
        let mut changed = Changed::default();
        let mut pairs = BTreeMap::new();
        let mut now_passed_over = BTreeMap::new();
        for (name, files) in pair::find(&self.directory)? {
            let served = old.pairs.get(&name);
            let stamp = files.stamp();
            if served.is_some_and(|served| served.stamp == stamp) {
                pairs.extend(served.map(|served| (name, served.clone())));
                continue;
            }
            let read = match passed_over.get(&name) == Some(&stamp) {
                true => Ok(None),
                false => Pair::read(&name, &files),
            };
            match read {
                Ok(Some(pair)) => {
                    pair.warn_if_unusual();
                    changed.updated.push(name.clone());
                    pairs.insert(name, Arc::new(pair));
                    continue;
                }
                Ok(None) => {}
                Err(error) => changed.refused.push(error),
            }
            pairs.extend(served.map(|served| (name.clone(), served.clone())));
            now_passed_over.insert(name, stamp);
        }
        if pairs.is_empty() {
            return Err(CertificateError::Empty {
                directory: self.directory.clone(),
            });
        }
        if let Some(name) = &self.default
            && !pairs.contains_key(name)
        {
            // Kept: one file moved away by mistake must not hold up every renewal to come.
            if passed_over.get(name) != Some(&Stamp::GONE) {
                changed
                    .refused
                    .push(no_default(&self.directory, name, &pairs));
            }
            now_passed_over.insert(name.clone(), Stamp::GONE);
            pairs.insert(name.clone(), old.default.clone());
        }
        let gone = old.pairs.keys().filter(|name| !pairs.contains_key(*name));
        changed.removed.extend(gone.cloned());
        if !changed.updated.is_empty() || !changed.removed.is_empty() {
            let table = Table::new(&self.directory, pairs, self.default.as_deref())?;
            self.table.store(Arc::new(table));
        }
        *passed_over = now_passed_over;
        Ok(changed)
    }

    /// Refreshes every five seconds for as long as the store is in use, and logs what it did.
    ///
    /// The task holds the store weakly and ends with it. Must be called within a tokio runtime.
    pub fn watch(self: &Arc<Self>) -> tokio::task::JoinHandle<()> {
        tokio::spawn(watch(Arc::downgrade(self), LOOK_EVERY))
    }

    /// The certificate for a name, or the default; `scheme` says what the client can verify.
    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Arc<CertifiedKey> {
        let table = self.table.load();
        let candidates = name.and_then(|name| table.lookup(name));
        let Some(candidates) = candidates else {
            return table.default.certified.clone();
        };
        let (best, others) = candidates.split_first().expect("a name has a pair");
        // Asking a key allocates: only where there is a choice.
        let verifiable = |pair: &&Arc<Pair>| pair.certified.key.choose_scheme(schemes).is_some();
        let chosen = match others {
            [] => best,
            _ => candidates.iter().find(verifiable).unwrap_or(best),
        };
        chosen.certified.clone()
    }

    /// NAME of the pair that is served for `host`, for `explain` and the banner.
    pub fn name_for(&self, host: Option<&str>) -> String {
        let table = self.table.load();
        let found = host.and_then(|host| table.lookup(host)?.first());
        found.unwrap_or(&table.default).name.clone()
    }

    /// What clients would complain of, as (NAME, `expired on …`), in order of NAME.
    pub fn complaints(&self) -> Vec<(String, String)> {
        let table = self.table.load();
        let complaints = table.pairs.values();
        complaints
            .filter_map(|pair| Some((pair.name.clone(), pair.complaint()?)))
            .collect()
    }

    /// Every pair as (NAME, names it is for), in order of NAME.
    pub fn names(&self) -> Vec<(String, Vec<String>)> {
        let table = self.table.load();
        let pairs = table.pairs.values();
        pairs
            .map(|pair| (pair.name.clone(), pair.subjects.clone()))
            .collect()
    }
}

async fn watch(store: Weak<CertificateStore>, every: Duration) {
    let mut last_error = None;
    loop {
        tokio::time::sleep(every).await;
        let Some(looked) = look(store.clone()).await else {
            return;
        };
        // A directory that stays unreadable is reported once, not every five seconds.
        let error = looked.err().map(|error| error.in_full());
        if let Some(error) = error.as_ref().filter(|_| error != last_error) {
            tracing::error!("certificates not refreshed, still serving the old: {error}");
        }
        last_error = error;
    }
}

/// One look of the watching task; `None` when the store is no longer in use.
async fn look(store: Weak<CertificateStore>) -> Option<Result<(), CertificateError>> {
    let looked = tokio::task::spawn_blocking(move || {
        let store = store.upgrade()?;
        Some(store.refresh().map(|changed| changed.log()))
    });
    looked.await.ok().flatten()
}

impl Changed {
    /// Says in the log what was taken in and what was refused.
    pub fn log(&self) {
        for name in &self.updated {
            tracing::info!(certificate = name, "certificate taken from disk");
        }
        for name in &self.removed {
            tracing::warn!(certificate = name, "certificate is gone from disk");
        }
        for error in &self.refused {
            let error = error.in_full();
            tracing::error!("certificate refused, its predecessor stays: {error}");
        }
    }
}

impl ResolvesServerCert for CertificateStore {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.choose(hello.server_name(), hello.signature_schemes()))
    }
}

impl fmt::Debug for CertificateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateStore")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

/// One consistent view: what every handshake between two refreshes sees.
struct Table {
    pairs: BTreeMap<String, Arc<Pair>>,
    /// Lower-case name → its pairs, the best first; never empty.
    exact: HashMap<String, Vec<Arc<Pair>>>,
    /// As `exact`, by what follows the `*.`.
    wildcard: HashMap<String, Vec<Arc<Pair>>>,
    default: Arc<Pair>,
}

impl Table {
    fn new(
        directory: &Path,
        pairs: BTreeMap<String, Arc<Pair>>,
        default: Option<&str>,
    ) -> Result<Self, CertificateError> {
        let default_name = default.unwrap_or_default();
        let default = match default {
            Some(name) => pairs.get(name),
            None => pairs.values().next(),
        };
        let default = default.cloned().ok_or_else(|| match pairs.is_empty() {
            true => CertificateError::Empty {
                directory: directory.to_path_buf(),
            },
            false => no_default(directory, default_name, &pairs),
        })?;
        let mut best_first: Vec<&Arc<Pair>> = pairs.values().collect();
        best_first.sort_by_key(|pair| pair.rank());
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        for pair in best_first {
            for subject in &pair.subjects {
                let (names, name) = match subject.strip_prefix("*.") {
                    Some(parent) => (&mut wildcard, parent),
                    None => (&mut exact, subject.as_str()),
                };
                let pairs: &mut Vec<Arc<Pair>> = names.entry(name.to_owned()).or_default();
                pairs.push(pair.clone());
            }
        }
        Ok(Table {
            pairs,
            exact,
            wildcard,
            default,
        })
    }

    /// The pairs for a name: exact, else by a wildcard of one label (RFC 9525 section 6.3).
    fn lookup(&self, name: &str) -> Option<&[Arc<Pair>]> {
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return self.lookup(&name.to_ascii_lowercase());
        }
        let name = name.strip_suffix('.').unwrap_or(name);
        let by_wildcard = || {
            let (label, parent) = name.split_once('.')?;
            (!label.is_empty()).then(|| self.wildcard.get(parent))?
        };
        let found = self.exact.get(name).or_else(by_wildcard);
        found.map(Vec::as_slice)
    }
}

fn no_default(
    directory: &Path,
    name: &str,
    pairs: &BTreeMap<String, Arc<Pair>>,
) -> CertificateError {
    CertificateError::Default {
        directory: directory.to_path_buf(),
        name: name.to_owned(),
        pairs: pairs.keys().cloned().collect(),
    }
}

choice! {
    /// The oldest version of TLS a listener speaks.
    #[derive(Default)]
    pub enum MinTls: "TLS version" {
        /// TLS 1.2 and 1.3.
        #[default]
        V1_2 = "1.2",
        /// TLS 1.3 only.
        V1_3 = "1.3",
    }
}

/// How a TLS listener shakes hands: ring's suites, tickets, no 0-RTT (a replayed first flight would
/// be a replayed request). Without `clients` nobody is asked for a certificate.
///
/// `h2` offers HTTP/2 before HTTP/1.1 by ALPN. Tickets are sealed with a key of this process, changed
/// every six hours; a client of another gateway, or from before a restart, shakes hands in full.
pub fn server_config(
    store: Arc<CertificateStore>,
    h2: bool,
    min_tls: MinTls,
    clients: Option<Arc<dyn ClientCertVerifier>>,
) -> Arc<ServerConfig> {
    let versions: &[&rustls::SupportedProtocolVersion] = match min_tls {
        MinTls::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        MinTls::V1_3 => &[&rustls::version::TLS13],
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("ring has suites for TLS 1.2 and 1.3");
    let config = match clients {
        Some(clients) => config.with_client_cert_verifier(clients),
        None => config.with_no_client_auth(),
    };
    let mut config = config.with_cert_resolver(store);
    config.alpn_protocols = match h2 {
        true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        false => vec![b"http/1.1".to_vec()],
    };
    config.ticketer =
        rustls::crypto::ring::Ticketer::new().expect("the system's random numbers are readable");
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    Arc::new(config)
}

#[cfg(test)]
mod tests;
