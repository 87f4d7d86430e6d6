//! TLS towards backends: whom we believe and who we say we are. Verification is on unless `insecure` is said.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use pingora_core::{
    protocols::tls::CaType,
    utils::tls::{CertKey, WrappedX509, parse_x509},
};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, UnixTime,
    pem::{self, PemObject},
};
use thiserror::Error;

use super::Protocol;

/// The TLS settings of one upstream, ready to use. Equal if a connection made under one may be used under the other.
#[derive(Clone)]
pub struct Tls {
    said: Arc<Said>,
    h1: Arc<ClientConfig>,
    h2: Arc<ClientConfig>,
    /// The same trust and identity as pingora's HTTP/2 connector wants them.
    ca: Option<Arc<CaType>>,
    identity: Option<Arc<CertKey>>,
}

/// What an operator says about TLS.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles<'a> {
    /// The name the certificate must have, sent as SNI. Required unless `insecure`.
    pub sni: Option<ServerName<'static>>,
    /// PEM certificates to believe; `None` is the platform's.
    pub ca: Option<&'a Path>,
    /// Believes every certificate.
    pub insecure: bool,
    /// PEM certificate chain and private key to show.
    pub identity: Option<(&'a Path, &'a Path)>,
}

#[derive(PartialEq, Eq)]
struct Said {
    sni: Option<ServerName<'static>>,
    insecure: bool,
    ca: Option<Vec<CertificateDer<'static>>>,
    chain: Vec<CertificateDer<'static>>,
    key: Option<PrivateKeyDer<'static>>,
}

#[derive(Debug, Error)]
pub enum TlsError {
    #[error("tls without sni; expected the name that the backends prove, or insecure = true")]
    NoSni,
    #[error("cannot read {}; expected PEM", .0.display())]
    Read(PathBuf, #[source] pem::Error),
    #[error("{} holds no certificate; expected PEM", .0.display())]
    NoCertificate(PathBuf),
    #[error("{} holds a certificate that cannot be trusted", .0.display())]
    Ca(PathBuf, #[source] rustls::Error),
    #[error("{} and {} cannot be presented; expected a certificate and its private key", certificate.display(), key.display())]
    Identity {
        certificate: PathBuf,
        key: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("the platform's certificates cannot be read")]
    Platform(#[source] std::io::Error),
}

impl TlsError {
    /// The file that is wrong; of a pair the certificate.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Read(file, _) | Self::NoCertificate(file) | Self::Ca(file, _) => Some(file),
            Self::Identity { certificate, .. } => Some(certificate),
            Self::NoSni | Self::Platform(_) => None,
        }
    }
}

impl Tls {
    /// Reads the files and checks that they can be used. Says everything that is wrong with them.
    pub fn load(files: &TlsFiles<'_>) -> Result<Self, Vec<TlsError>> {
        let mut problems = Vec::new();
        if files.sni.is_none() && !files.insecure {
            problems.push(TlsError::NoSni);
        }
        let ca = files.ca.map(certificates).transpose();
        let chain = files.identity.map(|(chain, _)| certificates(chain));
        let key = files.identity.map(|(_, key)| {
            PrivateKeyDer::from_pem_file(key).map_err(|cause| TlsError::Read(key.into(), cause))
        });
        match (ca, chain.transpose(), key.transpose()) {
            (Ok(ca), Ok(chain), Ok(key)) if problems.is_empty() => {
                Self::of(files, ca, chain.unwrap_or_default(), key).map_err(|wrong| vec![wrong])
            }
            (ca, chain, key) => {
                problems.extend(ca.err());
                problems.extend(chain.err());
                problems.extend(key.err());
                Err(problems)
            }
        }
    }

    fn of(
        files: &TlsFiles<'_>,
        ca: Option<Vec<CertificateDer<'static>>>,
        chain: Vec<CertificateDer<'static>>,
        key: Option<PrivateKeyDer<'static>>,
    ) -> Result<Self, TlsError> {
        let said = Said {
            sni: files.sni.clone(),
            insecure: files.insecure,
            ca,
            chain,
            key,
        };
        let h1 = said.config(files)?;
        let mut h2 = h1.clone();
        h2.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            h1: Arc::new(h1),
            h2: Arc::new(h2),
            ca: said.ca_for_h2(),
            identity: said.identity_for_h2(),
            said: Arc::new(said),
        })
    }

    /// The name to verify and to send; `None` only if the settings are insecure.
    pub fn sni(&self) -> Option<&ServerName<'static>> {
        self.said.sni.as_ref()
    }

    pub fn insecure(&self) -> bool {
        self.said.insecure
    }

    /// For our own connections; it offers `protocol` and nothing else.
    pub(super) fn config(&self, protocol: Protocol) -> &Arc<ClientConfig> {
        match protocol {
            Protocol::H1 => &self.h1,
            Protocol::H2 | Protocol::H2c => &self.h2,
        }
    }

    pub(super) fn ca(&self) -> Option<&Arc<CaType>> {
        self.ca.as_ref()
    }

    pub(super) fn identity(&self) -> Option<&Arc<CertKey>> {
        self.identity.as_ref()
    }
}

impl Said {
    /// For HTTP/1.1.
    fn config(&self, files: &TlsFiles<'_>) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("ring supports TLS 1.2 and 1.3");
        let builder = if self.insecure {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(BelieveEverything(provider)))
        } else {
            builder.with_root_certificates(self.roots(files.ca)?)
        };
        let mut config = match &self.key {
            Some(key) => builder
                .with_client_auth_cert(self.chain.clone(), key.clone_key())
                .map_err(|source| {
                    let (certificate, key) = files.identity.expect("a key comes from a file");
                    TlsError::Identity {
                        certificate: certificate.into(),
                        key: key.into(),
                        source,
                    }
                })?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.enable_sni = self.sni.is_some();
        Ok(config)
    }

    fn roots(&self, path: Option<&Path>) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(certificates) => {
                for certificate in certificates {
                    roots.add(certificate.clone()).map_err(|cause| {
                        TlsError::Ca(path.unwrap_or(Path::new("")).into(), cause)
                    })?;
                }
            }
            None => {
                let platform =
                    rustls_native_certs::load_native_certs().map_err(TlsError::Platform)?;
                // Platforms ship roots that webpki does not accept; one of them is no reason to refuse the rest.
                roots.add_parsable_certificates(platform);
            }
        }
        Ok(roots)
    }

    fn ca_for_h2(&self) -> Option<Arc<CaType>> {
        let certificates = self.ca.as_ref()?;
        Some(
            certificates
                .iter()
                .map(|der| WrappedX509::new(der.to_vec(), parse_x509))
                .collect(),
        )
    }

    fn identity_for_h2(&self) -> Option<Arc<CertKey>> {
        let key = self.key.as_ref()?;
        let chain = self.chain.iter().map(|der| der.to_vec()).collect();
        Some(Arc::new(CertKey::new(chain, key.secret_der().to_vec())))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = |cause| TlsError::Read(path.into(), cause);
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(read)?.collect();
    match found.map_err(read)? {
        none if none.is_empty() => Err(TlsError::NoCertificate(path.into())),
        found => Ok(found),
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.said == other.said
    }
}

impl Eq for Tls {}

/// Never shows the key.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("sni", &self.said.sni)
            .field("insecure", &self.said.insecure)
            .field("own_ca", &self.said.ca.is_some())
            .field("own_certificate", &self.said.key.is_some())
            .finish()
    }
}

/// `insecure = true`: who holds the certificate is not asked; that it holds the key still is.
#[derive(Debug)]
struct BelieveEverything(Arc<CryptoProvider>);

impl ServerCertVerifier for BelieveEverything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
