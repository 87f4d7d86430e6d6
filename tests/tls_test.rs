//! The TLS clients of the harness against servers of a few lines, so that a failed handshake with
//! the gateway is the gateway's.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use bytes::Bytes;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::harness::h2_client::{H2, runtime};
use crate::harness::port::bind_free;
use crate::harness::tls::TestCa;

#[test]
fn a_tls_client_trusts_the_test_authority_alone() {
    let ca = TestCa::new();
    let (listener, address) = bind_free();
    let server = serve_once(listener, server_config(&ca, "shop.example", "http/1.1"));
    let response = ca
        .connect(address, "shop.example")
        .get("/")
        .expect("a response");
    assert_eq!(response.text(), "sealed");
    server.join().expect("the server had a client");

    let (listener, address) = bind_free();
    let server = serve_once(
        listener,
        server_config(&TestCa::new(), "shop.example", "http/1.1"),
    );
    assert!(ca.connect(address, "shop.example").get("/").is_err());
    server.join().expect("the server had a client");
}

#[test]
fn the_http2_client_speaks_tls() {
    let ca = TestCa::new();
    let config = server_config(&ca, "shop.example", "h2");
    let runtime = runtime();
    let (listener, address) = bind_free();
    runtime.spawn(serve_h2(listener, config));
    let client = H2::tls(address, "shop.example", &ca);
    let answer = client.get("https://shop.example/path").expect("a response");
    assert_eq!(answer.response.body(), b"https://shop.example/path");
    assert_eq!(answer.response.status(), 200);
}

#[test]
fn certificates_are_issued_into_a_folder() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ca = TestCa::new();
    ca.issue_into(folder.path(), "shop", &["shop.example", "127.0.0.1"]);
    for (file, label) in [("shop.crt", "CERTIFICATE"), ("shop.key", "PRIVATE KEY")] {
        let text = std::fs::read_to_string(folder.path().join(file)).expect("written");
        assert!(text.contains(&format!("BEGIN {label}")), "{file}");
    }
    assert!(ca.certificate().contains("BEGIN CERTIFICATE"));
}

fn server_config(ca: &TestCa, name: &str, alpn: &str) -> Arc<ServerConfig> {
    let issued = ca.issue(&[name]);
    let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.expect("PEM")], key.expect("PEM"))
        .expect("the key is the certificate's");
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    Arc::new(config)
}

fn serve_once(listener: TcpListener, config: Arc<ServerConfig>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let (socket, _) = listener.accept().expect("a client comes");
        let tls = ServerConnection::new(config).expect("a complete configuration");
        let mut stream = StreamOwned::new(tls, socket);
        // A client that does not trust us ends the handshake here, and that is its test.
        if stream.read(&mut [0; 1024]).is_ok() {
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsealed";
            stream.write_all(answer).expect("the client reads");
        }
    })
}

async fn serve_h2(listener: TcpListener, config: Arc<ServerConfig>) {
    listener.set_nonblocking(true).expect("a listener can");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a tokio runtime");
    let (socket, _): (_, SocketAddr) = listener.accept().await.expect("a client comes");
    let stream = tokio_rustls::TlsAcceptor::from(config)
        .accept(socket)
        .await
        .expect("trust");
    let mut connection = h2::server::handshake(stream)
        .await
        .expect("an HTTP/2 client");
    while let Some(Ok((request, mut reply))) = connection.accept().await {
        let target = request.uri().to_string();
        let mut body = reply
            .send_response(http::Response::new(()), false)
            .expect("open");
        body.send_data(Bytes::from(target), true).expect("open");
    }
}
