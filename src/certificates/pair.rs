//! One certificate chain and its private key, read from two files and found to belong together.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys, SignatureAlgorithm};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Error};

use super::CertificateError;
use crate::stamp::FileStamp;

/// The stamps of a pair's files: NAME.crt, NAME.pem, NAME.key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp([Option<FileStamp>; 3]);

impl Stamp {
    /// No file of the pair is there.
    pub(super) const GONE: Stamp = Stamp([None; 3]);
}

/// The files of one NAME; at least one of them is there.
#[derive(Debug, Default)]
pub(super) struct PairFiles {
    stem: PathBuf,
    crt: Option<FileStamp>,
    pem: Option<FileStamp>,
    key: Option<FileStamp>,
}

impl PairFiles {
    pub(super) fn stamp(&self) -> Stamp {
        Stamp([self.crt, self.pem, self.key])
    }

    /// The paths of certificate and key. The stem may hold dots, so nothing is replaced.
    fn path(&self, extension: &str) -> PathBuf {
        let mut path = self.stem.clone().into_os_string();
        path.push(".");
        path.push(extension);
        path.into()
    }
}

/// The pairs of a directory by NAME, whole or not. Links are followed; what is no plain file is
/// passed over, so that a pipe cannot hold up a refresh.
pub(super) fn find(directory: &Path) -> Result<BTreeMap<String, PairFiles>, CertificateError> {
    let unreadable = |source| CertificateError::Directory {
        directory: directory.to_path_buf(),
        source,
    };
    let mut found: BTreeMap<String, PairFiles> = BTreeMap::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let file_name = entry.map_err(unreadable)?.file_name();
        // A name that is not UTF-8 cannot be written in gateway.toml either.
        let Some((name, extension)) = file_name.to_str().and_then(|name| name.rsplit_once('.'))
        else {
            continue;
        };
        if name.is_empty() || name.starts_with('.') {
            continue;
        }
        if !matches!(extension, "crt" | "pem" | "key") {
            continue;
        }
        // A dangling link, or a file removed since, is as good as not there.
        let Ok(metadata) = fs::metadata(directory.join(&file_name)) else {
            continue;
        };
        if !metadata.is_file() {
            continue;
        }
        let files = found.entry(name.to_owned()).or_default();
        files.stem = directory.join(name);
        let stamp = Some(FileStamp::from(&metadata));
        match extension {
            "crt" => files.crt = stamp,
            "pem" => files.pem = stamp,
            _ => files.key = stamp,
        }
    }
    Ok(found)
}

/// A chain and its key, ready to shake hands with.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) name: String,
    pub(super) stamp: Stamp,
    pub(super) certified: Arc<CertifiedKey>,
    /// Lower-case DNS names, `*.parent` for wildcards, and IP addresses as text. From the
    /// subjectAltName alone: clients have ignored the common name for years (RFC 9525 section 2).
    pub(super) subjects: Vec<String>,
    /// Unix seconds.
    not_before: i64,
    not_after: i64,
}

impl Pair {
    /// Reads a pair. `None` for an authority's certificate without a key, which is no server's pair.
    pub(super) fn read(name: &str, files: &PairFiles) -> Result<Option<Self>, CertificateError> {
        let key_file = files.path("key");
        let file = match (files.crt, files.pem) {
            (Some(_), Some(_)) => {
                return Err(CertificateError::Ambiguous {
                    crt: files.path("crt"),
                    pem: files.path("pem"),
                });
            }
            (Some(_), None) => files.path("crt"),
            (None, Some(_)) => files.path("pem"),
            (None, None) => {
                return Err(CertificateError::CertificateMissing {
                    key: key_file,
                    certificate: files.path("crt"),
                });
            }
        };
        let chain = read_chain(&file)?;
        let malformed = |source| CertificateError::MalformedCertificate {
            file: file.clone(),
            source,
        };
        let (_, leaf) =
            X509Certificate::from_der(&chain[0]).map_err(|error| malformed(error.into()))?;
        if files.key.is_none() {
            return match leaf.is_ca() {
                true => Ok(None),
                false => Err(CertificateError::KeyMissing {
                    certificate: file,
                    key: key_file,
                }),
            };
        }
        let subjects = subjects(&leaf).map_err(malformed)?;
        let not_before = leaf.validity().not_before.timestamp();
        let not_after = leaf.validity().not_after.timestamp();
        let certified = certify(chain, file, key_file)?;
        Ok(Some(Pair {
            name: name.to_owned(),
            stamp: files.stamp(),
            certified: Arc::new(certified),
            subjects,
            not_before,
            not_after,
        }))
    }

    /// Orders pairs for one name, the best first: valid now, then ECDSA and Ed25519 before RSA (a
    /// tenth of the work to sign), then the one that lasts longest, then by NAME.
    pub(super) fn rank(&self) -> impl Ord + use<> {
        let is_rsa = self.certified.key.algorithm() == SignatureAlgorithm::RSA;
        let lasts = std::cmp::Reverse(self.not_after);
        (!self.is_valid_now(), is_rsa, lasts, self.name.clone())
    }

    fn is_valid_now(&self) -> bool {
        (self.not_before..=self.not_after).contains(&now())
    }

    /// What a client would complain of now: `expired on …`, `is not valid before …`.
    pub(super) fn complaint(&self) -> Option<String> {
        let date = |seconds: i64| {
            let since = Duration::from_secs(seconds.try_into().unwrap_or(0));
            httpdate::fmt_http_date(UNIX_EPOCH + since)
        };
        match now() {
            now if now > self.not_after => Some(format!("expired on {}", date(self.not_after))),
            now if now < self.not_before => {
                Some(format!("is not valid before {}", date(self.not_before)))
            }
            _ => None,
        }
    }

    /// Says in the log what clients would complain about.
    pub(super) fn warn_if_unusual(&self) {
        let name = self.name.as_str();
        if let Some(complaint) = self.complaint() {
            tracing::warn!(certificate = name, "certificate {complaint}");
        }
        if self.subjects.is_empty() {
            tracing::warn!(
                certificate = name,
                "certificate has no subjectAltName; no client accepts it, and only as the default is it served"
            );
        }
    }
}

fn read_file(file: &Path) -> Result<Vec<u8>, CertificateError> {
    fs::read(file).map_err(|source| CertificateError::Unreadable {
        file: file.to_path_buf(),
        source,
    })
}

/// The certificates of a PEM file, at least one.
fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let none = |source| CertificateError::NoCertificate {
        file: file.to_path_buf(),
        source,
    };
    let text = read_file(file)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| none(Some(error)))?;
    match chain.is_empty() {
        true => Err(none(None)),
        false => Ok(chain),
    }
}

/// Joins a chain with the key in `key_file`, which must be the key of its first certificate.
fn certify(
    chain: Vec<CertificateDer<'static>>,
    file: PathBuf,
    key_file: PathBuf,
) -> Result<CertifiedKey, CertificateError> {
    let key = match PrivateKeyDer::from_pem_slice(&read_file(&key_file)?) {
        Ok(key) => key,
        Err(source) => {
            return Err(CertificateError::NoKey {
                file: key_file,
                source,
            });
        }
    };
    let key = match rustls::crypto::ring::sign::any_supported_type(&key) {
        Ok(key) => key,
        Err(source) => {
            return Err(CertificateError::UnusableKey {
                file: key_file,
                source,
            });
        }
    };
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // Unknown: a key that does not tell its public half. Nothing contradicts it, then.
        Ok(()) | Err(TlsError::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(TlsError::InconsistentKeys(_)) => Err(CertificateError::Mismatch {
            certificate: file,
            key: key_file,
        }),
        Err(source) => Err(CertificateError::UnusableCertificate { file, source }),
    }
}

fn subjects(leaf: &X509Certificate<'_>) -> Result<Vec<String>, X509Error> {
    let Some(extension) = leaf.subject_alternative_name()? else {
        return Ok(Vec::new());
    };
    let names = extension.value.general_names.iter();
    Ok(names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            GeneralName::IPAddress(octets) => ip(octets).map(|ip| ip.to_string()),
            _ => None,
        })
        .collect())
}

fn ip(octets: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(octets).map(|octets| Ipv4Addr::from(octets).into());
    let v6 = || <[u8; 16]>::try_from(octets).map(|octets| Ipv6Addr::from(octets).into());
    v4().or_else(|_| v6()).ok()
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as i64)
}
