//! Upstreams and certificates for tests.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{RootCertStore, ServerConfig, crypto::ring, server::WebPkiClientVerifier};
use rustls_pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use super::{Failure, Lease, Priority, Seed, Settings, Tried, Upstream};

pub fn seeds(addresses: &[&str]) -> Vec<Seed> {
    addresses
        .iter()
        .map(|address| Seed::new(address.parse().unwrap()))
        .collect()
}

/// Two to four backends that nobody connects to.
pub fn upstream(settings: Settings, backends: usize) -> Arc<Upstream> {
    let addresses = [
        "192.0.2.1:80",
        "192.0.2.2:80",
        "192.0.2.3:80",
        "192.0.2.4:80",
    ];
    Upstream::new(settings, seeds(&addresses[..backends]), None)
}

pub fn settings() -> Settings {
    Settings::named("app")
}

pub async fn lease(upstream: &Arc<Upstream>) -> Lease {
    upstream
        .lease(Priority::Normal, None, &Tried::default())
        .await
        .unwrap()
}

/// Requests in flight per backend, in the order they were written.
pub fn loads(upstream: &Upstream) -> Vec<u32> {
    upstream
        .status()
        .iter()
        .map(|backend| backend.in_flight)
        .collect()
}

pub fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub fn with(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = settings();
    change(&mut settings);
    settings
}

pub fn only(upstream: &Upstream, index: usize) -> Tried {
    let mut tried = Tried::default();
    for (other, member) in upstream.members.load().iter().enumerate() {
        if other != index {
            tried.add(&member.backend);
        }
    }
    tried
}

pub async fn take_down(upstream: &Arc<Upstream>, index: usize) {
    for _ in 0..upstream.settings.max_fails {
        let mut lease = upstream
            .lease(Priority::Normal, None, &only(upstream, index))
            .await
            .unwrap();
        assert_eq!(lease.to_string(), upstream.status()[index].address);
        lease.failed(Failure::Connect);
    }
}

/// A certificate authority, and files of what it signs.
pub struct Authority {
    files: TempDir,
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let files = tempfile::tempdir().unwrap();
        fs::write(files.path().join("ca.pem"), certificate.pem()).unwrap();
        Self {
            files,
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    pub fn ca(&self) -> PathBuf {
        self.files.path().join("ca.pem")
    }

    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// A client's certificate and key, as files.
    pub fn identity(&self) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.sign("gateway.example");
        let (chain, secret) = (
            self.files.path().join("client.crt"),
            self.files.path().join("client.key"),
        );
        fs::write(&chain, certificate.pem()).unwrap();
        fs::write(&secret, key.serialize_pem()).unwrap();
        (chain, secret)
    }

    /// A server named app.example; `clients` is who signs the certificates it asks of clients.
    pub fn server(&self, clients: Option<&Self>) -> TlsAcceptor {
        let (certificate, key) = self.sign("app.example");
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.certificate.der().clone()).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .build()
                        .unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut config = builder
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}
