//! A certificate authority of the test's own, and TLS clients that trust it alone.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use super::client::{Connection, connect};

pub struct TestCa {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, both PEM.
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

impl TestCa {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("the system has random numbers");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a plain CA");
        Self { issuer }
    }

    /// The authority's own certificate, PEM.
    pub fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for these names and addresses.
    pub fn issue(&self, names: &[&str]) -> Issued {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).expect("valid names");
        // rcgen names every certificate alike; one that is named as its issuer passes for self-signed.
        params
            .distinguished_name
            .push(DnType::CommonName, &*names[0]);
        let key = KeyPair::generate().expect("the system has random numbers");
        let certificate = params
            .signed_by(&key, &self.issuer)
            .expect("a plain certificate");
        Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// Issues a certificate into `folder` as `stem.crt` and `stem.key`.
    pub fn issue_into(&self, folder: &Path, stem: &str, names: &[&str]) {
        let issued = self.issue(names);
        fs::create_dir_all(folder).expect("the folder is writable");
        fs::write(folder.join(format!("{stem}.crt")), issued.certificate).expect("writable");
        fs::write(folder.join(format!("{stem}.key")), issued.key).expect("writable");
    }

    /// A client configuration that trusts this authority and offers these protocols.
    pub fn client_config(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        self.client_config_of(rustls::DEFAULT_VERSIONS, alpn)
    }

    /// As [`TestCa::client_config`], of these versions of TLS.
    pub fn client_config_of(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots
            .add(self.issuer.der().clone())
            .expect("our own certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("ring has them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// As [`TestCa::client_config`], for a client that shows this certificate.
    pub fn config_of_client(&self, client: &Issued, alpn: &[&str]) -> Arc<ClientConfig> {
        let mut config = ClientConfig::clone(&self.client_config(alpn));
        let chain = CertificateDer::from_pem_slice(client.certificate.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(client.key.as_bytes());
        let provider = rustls::crypto::ring::default_provider();
        let shown = CertifiedKey::from_der(
            vec![chain.expect("a certificate")],
            key.expect("its key"),
            &provider,
        );
        let shown = SingleCertAndKey::from(shown.expect("they belong together"));
        config.client_auth_cert_resolver = Arc::new(shown);
        Arc::new(config)
    }

    /// An HTTP/1.1 connection over TLS to `address`, asking for `name`. The handshake is done
    /// with the first bytes sent; its failure is their error.
    pub fn connect(&self, address: SocketAddr, name: &str) -> Connection {
        connect_with(self.client_config(&["http/1.1"]), address, name)
    }

    /// As [`TestCa::connect`], showing this certificate.
    pub fn connect_as(&self, client: &Issued, address: SocketAddr, name: &str) -> Connection {
        connect_with(self.config_of_client(client, &["http/1.1"]), address, name)
    }
}

fn connect_with(config: Arc<ClientConfig>, address: SocketAddr, name: &str) -> Connection {
    let name = ServerName::try_from(name.to_owned()).expect("a valid name");
    let tls = ClientConnection::new(config, name);
    let socket = connect(address);
    let below = socket.try_clone().expect("descriptors are left");
    let stream = StreamOwned::new(tls.expect("a complete configuration"), below);
    Connection::over(socket, Box::new(stream))
}
