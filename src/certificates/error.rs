//! What can be wrong with a directory of certificates.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use rustls::Error as TlsError;
use rustls::pki_types::pem;
use x509_parser::prelude::X509Error;

use crate::word::unknown;

/// What is wrong with a certificate directory, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The directory itself cannot be read.
    #[error("{directory}: cannot be read; expected a directory of NAME.crt and NAME.key pairs", directory = directory.display())]
    Directory {
        directory: PathBuf,
        #[source]
        source: io::Error,
    },
    /// No pair at all.
    #[error("{directory}: no certificate here; expected at least one pair NAME.crt (or NAME.pem) and NAME.key", directory = directory.display())]
    Empty { directory: PathBuf },
    /// `default_certificate` names no pair.
    #[error("{}", unknown_default(directory, name, pairs))]
    Default {
        directory: PathBuf,
        name: String,
        /// The names that there are.
        pairs: Vec<String>,
    },
    /// A certificate alone.
    #[error("{certificate}: has no key; expected it in {key}", certificate = certificate.display(), key = key.display())]
    KeyMissing { certificate: PathBuf, key: PathBuf },
    /// A key alone.
    #[error("{key}: has no certificate; expected it in {certificate}", key = key.display(), certificate = certificate.display())]
    CertificateMissing { key: PathBuf, certificate: PathBuf },
    /// NAME.crt beside NAME.pem.
    #[error("{crt} and {pem}: both are for the same key; expected only one of them", crt = crt.display(), pem = pem.display())]
    Ambiguous { crt: PathBuf, pem: PathBuf },
    /// A file is there and cannot be read.
    #[error("{file}: cannot be read; expected a file this user may read", file = file.display())]
    Unreadable {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The chain is not PEM, or has none.
    #[error("{file}: no certificate in it; expected PEM that begins with -----BEGIN CERTIFICATE-----", file = file.display())]
    NoCertificate {
        file: PathBuf,
        #[source]
        source: Option<pem::Error>,
    },
    /// One of the certificates is none of an authority.
    #[error("{file}: a certificate in it is none of an authority; expected those that sign the certificates of clients", file = file.display())]
    NoAuthority {
        file: PathBuf,
        #[source]
        source: TlsError,
    },
    /// The key file is not PEM, has no key, or an encrypted one.
    #[error("{file}: no usable private key in it; expected unencrypted PEM: PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY", file = file.display())]
    NoKey {
        file: PathBuf,
        #[source]
        source: pem::Error,
    },
    /// The key is of a kind or size that cannot sign a handshake.
    #[error("{file}: the key cannot be used; expected RSA of 2048 to 8192 bits, ECDSA P-256, P-384, or Ed25519", file = file.display())]
    UnusableKey {
        file: PathBuf,
        #[source]
        source: TlsError,
    },
    /// The first certificate is not one a server can present.
    #[error("{file}: the first certificate cannot be used; expected an X.509 version 3 server certificate", file = file.display())]
    UnusableCertificate {
        file: PathBuf,
        #[source]
        source: TlsError,
    },
    /// As above, found while its names were read.
    #[error("{file}: the first certificate is malformed; expected an X.509 version 3 server certificate", file = file.display())]
    MalformedCertificate {
        file: PathBuf,
        #[source]
        source: X509Error,
    },
    /// Certificate and key are of different pairs, or the chain begins with the wrong one.
    #[error("{certificate}: is not for the key in {key}; expected the server's own certificate first, then the intermediate ones", certificate = certificate.display(), key = key.display())]
    Mismatch { certificate: PathBuf, key: PathBuf },
}

fn unknown_default(directory: &Path, name: &str, pairs: &[String]) -> String {
    let known: Vec<&str> = pairs.iter().map(String::as_str).collect();
    let label = format!("in {}", directory.display());
    unknown("certificate", name, &label, &known)
}

impl CertificateError {
    /// The error and its causes on one line, for the log.
    pub(super) fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        text
    }
}
