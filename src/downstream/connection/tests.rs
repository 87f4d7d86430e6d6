use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::PrivateKeyDer;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, client};

use super::*;
use crate::listen::{ListenAddress, ListenerSettings};

const LONG: Duration = Duration::from_secs(20);

/// A TLS connection and its client.
async fn tls() -> (Connection, client::TlsStream<UnixStream>) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![cert.der().clone()],
            PrivateKeyDer::Pkcs8(signing_key.serialize_der().into()),
        )
        .unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (near, far) = UnixStream::pair().unwrap();
    let (near, far) = tokio::join!(
        TlsAcceptor::from(Arc::new(server)).accept(Socket::from(near)),
        TlsConnector::from(Arc::new(client)).connect("a.example".try_into().unwrap(), far),
    );
    let transport = Transport::Tls(Box::new(near.unwrap()));
    (Connection::new(transport, downstream(), LONG), far.unwrap())
}

fn downstream() -> Arc<Downstream> {
    let listener = ListenerSettings {
        address: ListenAddress::Unix("/nowhere".into()),
        certificates: None,
        tls: None,
        h2c: false,
        redirect_https: None,
        proxy_protocol: false,
    };
    Arc::new(Downstream {
        peer: None,
        local: None,
        tls: None,
        listener: Arc::new(listener),
        is_own: false,
        added: parking_lot::Mutex::default(),
        reset: false.into(),
    })
}

/// Writes until TLS holds bytes that the kernel did not take; how many were written.
async fn fill(connection: &mut Connection) -> usize {
    let piece = [b'x'; 2 * WRITE_BUFFER];
    let mut written = 0;
    loop {
        connection.put(&piece).await.unwrap();
        written += piece.len();
        let Transport::Tls(tls) = &connection.transport else {
            unreachable!("it is a TLS connection");
        };
        if tls.get_ref().1.wants_write() {
            return written;
        }
    }
}

#[tokio::test]
async fn the_end_of_an_event_does_not_wait_for_the_next_one() {
    let (mut connection, mut client) = tls().await;
    let written = fill(&mut connection).await;
    let mut received = vec![0; written];
    let waiting = poll_fn(|cx| connection.poll_gone(cx));
    let whole = tokio::select! {
        () = waiting => panic!("the client is there"),
        whole = timeout(LONG, client.read_exact(&mut received)) => whole,
    };
    whole.expect("every byte in time").unwrap();
}

#[tokio::test]
async fn the_full_lane_waits_for_no_next_event_either() {
    let (mut connection, mut client) = tls().await;
    let written = fill(&mut connection).await;
    let mut received = vec![0; written];
    let mut nothing = [0];
    let whole = tokio::select! {
        _ = connection.read(&mut nothing) => panic!("the client says nothing"),
        whole = timeout(LONG, client.read_exact(&mut received)) => whole,
    };
    whole.expect("every byte in time").unwrap();
}
