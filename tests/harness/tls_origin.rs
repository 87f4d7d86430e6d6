//! A backend that speaks TLS: it shows what it is given, and answers every request with `hello`.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::PATIENCE;
use super::port::bind_free;
use super::tls::TestCa;

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

pub struct TlsOrigin {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    served: AtomicUsize,
}

impl TlsOrigin {
    /// Shows a certificate of `ca` for `name`, and chooses among these protocols.
    pub fn start(ca: &TestCa, name: &str, alpn: &[&str]) -> Self {
        Self::start_with(ca, name, alpn, None)
    }

    /// As [`TlsOrigin::start`], and wants to see a certificate of `clients`.
    pub fn for_clients_of(clients: &TestCa, ca: &TestCa, name: &str) -> Self {
        Self::start_with(ca, name, &["http/1.1"], Some(clients))
    }

    fn start_with(ca: &TestCa, name: &str, alpn: &[&str], clients: Option<&TestCa>) -> Self {
        let issued = ca.issue(&[name]);
        let chain = CertificateDer::from_pem_slice(issued.certificate.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("our own key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("ring has them");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                let pem = clients.certificate();
                let root = CertificateDer::from_pem_slice(pem.as_bytes());
                roots
                    .add(root.expect("our own certificate"))
                    .expect("our own certificate");
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().expect("one root"))
            }
        };
        let mut config = builder
            .with_single_cert(vec![chain.expect("our own certificate")], key)
            .expect("they belong together");
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let config = Arc::new(config);
        let (listener, address) = bind_free();
        let shared = Arc::<Shared>::default();
        let (accepting, counting) = (
            listener.try_clone().expect("descriptors"),
            Arc::clone(&shared),
        );
        std::thread::spawn(move || {
            while let Ok((socket, _)) = accepting.accept() {
                let (config, shared) = (Arc::clone(&config), Arc::clone(&counting));
                std::thread::spawn(move || shared.serve(socket, config));
            }
        });
        Self {
            listener,
            address,
            shared,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many clients were content with what they were shown, and sent a request.
    pub fn served(&self) -> usize {
        self.shared.served.load(Ordering::Relaxed)
    }
}

impl Drop for TlsOrigin {
    fn drop(&mut self) {
        // Ends the thread in accept; those that serve end with their client.
        let _ = socket2::SockRef::from(&self.listener).shutdown(Shutdown::Both);
    }
}

impl Shared {
    fn serve(&self, socket: TcpStream, config: Arc<ServerConfig>) {
        socket.set_read_timeout(Some(PATIENCE)).expect("above zero");
        socket.set_nodelay(true).expect("TCP has the option");
        let connection = ServerConnection::new(config).expect("a complete configuration");
        let mut stream = StreamOwned::new(connection, socket);
        let (mut head, mut first, mut block) = (Vec::new(), true, [0; 4096]);
        while let Ok(length @ 1..) = stream.read(&mut block) {
            if first {
                self.served.fetch_add(1, Ordering::Relaxed);
                first = false;
            }
            head.extend_from_slice(&block[..length]);
            if head.ends_with(b"\r\n\r\n") {
                head.clear();
                if stream.write_all(HELLO).is_err() {
                    return;
                }
            }
        }
    }
}
