//! TLS sessions that go on: what a client that was here before need not do again, and what it may not do.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};

use crate::harness::client::connect;
use crate::harness::gateway::Gateway;
use crate::harness::tls::TestCa;

const CONFIG: &str = r#"
    [server]
    listen = [{ address = "127.0.0.1:0", tls = "certs/" }]
    [[route]]
    respond = { body = "hello" }
"#;

fn start(ca: &TestCa) -> Gateway {
    let folder = tempfile::tempdir().expect("a temporary folder");
    ca.issue_into(&folder.path().join("certs"), "site", &["a.example"]);
    Gateway::start_in(folder, CONFIG)
}

/// One request on a connection of its own: how the handshake went, and whether the server would
/// have taken a request with it.
fn handshake(address: SocketAddr, config: &Arc<ClientConfig>) -> (HandshakeKind, bool) {
    let name = ServerName::try_from("a.example").expect("a valid name");
    let tls = ClientConnection::new(Arc::clone(config), name).expect("a complete configuration");
    let mut stream = StreamOwned::new(tls, connect(address));
    let early = stream.conn.early_data().is_some();
    let request = b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
    stream.write_all(request).expect("the gateway reads");
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .expect("the answer and its end");
    assert!(answer.ends_with(b"hello"));
    let kind = stream.conn.handshake_kind().expect("it is complete");
    (kind, early)
}

#[test]
fn a_session_is_resumed_and_never_with_a_request_in_its_first_flight() {
    let ca = TestCa::new();
    let gateway = start(&ca);
    for version in [&TLS12, &TLS13] {
        let mut config = ca.client_config_of(&[version], &["http/1.1"]);
        Arc::get_mut(&mut config)
            .expect("nobody has it yet")
            .enable_early_data = true;
        let first = handshake(gateway.address(), &config);
        assert_eq!(first, (HandshakeKind::Full, false), "{version:?}");
        let second = handshake(gateway.address(), &config);
        assert_eq!(second, (HandshakeKind::Resumed, false), "{version:?}");
    }
}

#[test]
fn a_session_of_another_gateway_is_none() {
    let ca = TestCa::new();
    let config = ca.client_config(&["http/1.1"]);
    let before = start(&ca);
    handshake(before.address(), &config);
    drop(before);
    let after = start(&ca);
    let (kind, _) = handshake(after.address(), &config);
    assert_eq!(kind, HandshakeKind::Full);
}
