//! Certificates and keys on disk: which belong together, and whether they do. Knows no key of the configuration.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls::crypto::ring::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::files::why;

/// The pairs of a directory, by name.
pub struct Directory {
    pub pairs: Vec<Files>,
}

/// The files NAME.crt, NAME.pem and NAME.key of one name, of which any may be missing.
pub struct Files {
    directory: PathBuf,
    name: String,
    extensions: Vec<&'static str>,
}

/// A certificate that can be served, or an authority's without a key.
pub struct Pair {
    pub name: String,
    pub has_key: bool,
    /// Seconds since 1970.
    not_before: i64,
    not_after: i64,
}

impl Directory {
    /// Hidden files, other extensions and what is no plain file are passed over.
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut by_name: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
        for entry in fs::read_dir(path)? {
            let file = entry?.file_name();
            let Some((name, extension)) = file.to_str().and_then(|file| file.rsplit_once('.'))
            else {
                continue;
            };
            let known = ["crt", "pem", "key"]
                .into_iter()
                .find(|known| *known == extension);
            if let Some(extension) = known
                && !name.is_empty()
                && !name.starts_with('.')
                && path.join(&file).is_file()
            {
                by_name.entry(name.to_owned()).or_default().push(extension);
            }
        }
        let pairs = by_name
            .into_iter()
            .map(|(name, extensions)| Files {
                directory: path.to_path_buf(),
                name,
                extensions,
            })
            .collect();
        Ok(Self { pairs })
    }
}

impl Files {
    /// The pair if it can be served; otherwise what is wrong, by file name.
    pub fn check(self) -> Result<Pair, String> {
        let name = &self.name;
        let has = |extension| self.extensions.contains(&extension);
        let extension = match (has("crt"), has("pem")) {
            (true, true) => {
                return Err(format!(
                    "{name}.crt and {name}.pem are for one key; expected only one of them"
                ));
            }
            (true, false) => "crt",
            (false, true) => "pem",
            (false, false) => {
                return Err(format!(
                    "{name}.key has no certificate; expected it in {name}.crt or {name}.pem"
                ));
            }
        };
        let file = format!("{name}.{extension}");
        let text = self.bytes(extension)?;
        let certificates =
            chain(&text).ok_or_else(|| format!("{file} holds no certificate; expected PEM"))?;
        let (_, leaf) = X509Certificate::from_der(&certificates[0]).map_err(|_| {
            format!("the first certificate of {file} is malformed; expected X.509 version 3")
        })?;
        match has("key") {
            true => fit(&file, &text, &format!("{name}.key"), &self.bytes("key")?)?,
            false if leaf.is_ca() => {}
            false => return Err(format!("{file} has no key; expected it in {name}.key")),
        }
        let (not_before, not_after) = (
            leaf.validity().not_before.timestamp(),
            leaf.validity().not_after.timestamp(),
        );
        Ok(Pair {
            has_key: has("key"),
            name: self.name,
            not_before,
            not_after,
        })
    }

    fn bytes(&self, extension: &str) -> Result<Vec<u8>, String> {
        let file = format!("{}.{extension}", self.name);
        fs::read(self.directory.join(&file)).map_err(|error| format!("{file} {}", why(&error)))
    }
}

impl Pair {
    /// What a client would complain of at `now`, in seconds since 1970.
    pub fn validity_at(&self, now: i64) -> Option<String> {
        let date = |seconds: i64| {
            let since = Duration::from_secs(seconds.try_into().unwrap_or(0));
            httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + since)
        };
        match now {
            _ if now > self.not_after => Some(format!("expired on {}", date(self.not_after))),
            _ if now < self.not_before => {
                Some(format!("is not valid before {}", date(self.not_before)))
            }
            _ => None,
        }
    }
}

/// The certificates of a PEM text, at least one.
pub fn chain(text: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .ok()?;
    (!certificates.is_empty()).then_some(certificates)
}

/// Whether the key in `private` is the key of the first certificate in `public`; the file names are for the message.
pub fn fit(certificate: &str, public: &[u8], key: &str, private: &[u8]) -> Result<(), String> {
    let chain =
        chain(public).ok_or_else(|| format!("{certificate} holds no certificate; expected PEM"))?;
    let private = PrivateKeyDer::from_pem_slice(private)
        .map_err(|_| format!("{key} holds no private key; expected unencrypted PEM"))?;
    let private = any_supported_type(&private).map_err(|_| {
        format!(
            "{key} cannot sign; expected RSA of 2048 to 8192 bits, ECDSA P-256 or P-384, or Ed25519"
        )
    })?;
    match CertifiedKey::new(chain, private).keys_match() {
        // A key that does not tell its public half contradicts nothing.
        Ok(()) | Err(TlsError::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(()),
        Err(TlsError::InconsistentKeys(_)) => Err(format!(
            "{key} is not the key of {certificate}; expected the pair, the server's own certificate first in its file"
        )),
        Err(_) => Err(format!(
            "the first certificate of {certificate} cannot be served; expected X.509 version 3"
        )),
    }
}
