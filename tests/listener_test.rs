//! Listeners of the running binary: addresses, TLS, PROXY protocol, and the bounds on a connection.

use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::harness::client::{Connection, connect, get, raw};
use crate::harness::gateway::Gateway;
use crate::harness::h2_client::H2;
use crate::harness::origin::{Origin, Reply};
use crate::harness::process::Signal;
use crate::harness::tls::TestCa;
use crate::harness::{PATIENCE, wait_for};

/// A gateway in front of an origin that answers with the head it received, in lower case.
struct Setup {
    ca: TestCa,
    gateway: Gateway,
    _origin: Origin,
}

impl Setup {
    /// `listen` in the words of the file; `rest` follows in `[server]` and after it. The folder
    /// holds `certs/` with a certificate for `a.example` and one for `*.wild.example`.
    fn new(listen: &str, rest: &str) -> Self {
        let origin = Origin::with(|request| Reply::ok(&request.head_text().to_lowercase()));
        let ca = TestCa::new();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let certs = folder.path().join("certs");
        ca.issue_into(&certs, "a", &["a.example"]);
        ca.issue_into(&certs, "wild", &["*.wild.example", "192.0.2.1"]);
        let listen = listen.replace("{folder}", folder.path().to_str().expect("UTF-8 paths"));
        let upstream = origin.address();
        let config = format!(
            "[server]\nlisten = [{listen}]\n{rest}\n\
             [upstream.app]\nbackends = [\"{upstream}\"]\n[[route]]\nupstream = \"app\"\n"
        );
        let gateway = Gateway::start_in(folder, &config);
        gateway.wait_for_log("that it is ready", |line| line.contains("\"ready\""));
        Self {
            ca,
            gateway,
            _origin: origin,
        }
    }

    fn plain(rest: &str) -> Self {
        Self::new("\"127.0.0.1:0\"", rest)
    }

    fn tls(options: &str, rest: &str) -> Self {
        let listen = format!("{{ address = \"127.0.0.1:0\", tls = \"certs/\"{options} }}");
        Self::new(&listen, rest)
    }

    fn address(&self) -> SocketAddr {
        self.gateway.address()
    }

    fn certs(&self) -> PathBuf {
        self.gateway.folder().join("certs")
    }

    /// The names of the certificate that is served to a client that asks for `name`.
    fn served(&self, name: &str) -> String {
        let config = self.ca.client_config(&["http/1.1"]);
        match handshake(connect(self.address()), config, name) {
            Ok(tls) => {
                let chain = tls.peer_certificates().expect("the handshake is complete");
                names_in(&String::from_utf8_lossy(&chain[0]))
            }
            // The client refuses a certificate for other names, and says which they are.
            Err(error) => names_in(&error.to_string()),
        }
    }
}

fn handshake(
    mut socket: TcpStream,
    config: Arc<ClientConfig>,
    name: &str,
) -> io::Result<ClientConnection> {
    let name = ServerName::try_from(name.to_owned()).expect("a valid name");
    let mut tls = ClientConnection::new(config, name).expect("a complete configuration");
    while tls.is_handshaking() {
        tls.complete_io(&mut socket)?;
    }
    Ok(tls)
}

/// Those of the names that the tests issue certificates for.
fn names_in(text: &str) -> String {
    let known = ["a.example", "*.wild.example", "new.example"];
    let found = known.into_iter().filter(|name| text.contains(name));
    found.collect::<Vec<_>>().join(" ")
}

fn free_ipv6() -> SocketAddr {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).expect("IPv6 on the loopback");
    listener.local_addr().expect("bound")
}

#[test]
fn one_gateway_listens_in_every_way_at_once() {
    let ipv6 = free_ipv6();
    let listen = format!(
        r#""127.0.0.1:0", {{ address = "127.0.0.1:0", tls = "certs/" }}, "{ipv6}", "unix:{{folder}}/g.sock""#
    );
    let setup = Setup::new(&listen, "");
    let [plain, secure] = [setup.gateway.addresses()[0], setup.gateway.addresses()[1]];
    assert!(
        get(plain, "/")
            .text()
            .contains("x-forwarded-proto: http\r\n")
    );
    let mut client = setup.ca.connect(secure, "a.example");
    let head = client.get("/").expect("a response").text();
    assert!(head.contains("x-forwarded-proto: https\r\n"), "{head}");
    assert!(get(ipv6, "/").text().contains("x-forwarded-for: ::1\r\n"));
    let mut unix = UnixStream::connect(setup.gateway.folder().join("g.sock")).expect("it listens");
    unix.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .expect("the gateway reads");
    let mut answer = String::new();
    unix.read_to_string(&mut answer)
        .expect("the gateway closes");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn both_versions_of_tls_are_spoken_unless_one_is_excluded() {
    let setup = Setup::tls("", "");
    for version in [&TLS12, &TLS13] {
        let tls = handshake(
            connect(setup.address()),
            setup.ca.client_config_of(&[version], &[]),
            "a.example",
        )
        .expect("a handshake");
        assert_eq!(tls.protocol_version(), Some(version.version));
    }
    let strict = Setup::tls(", min_tls = \"1.3\"", "");
    let tls = handshake(
        connect(strict.address()),
        strict.ca.client_config_of(&[&TLS12], &[]),
        "a.example",
    );
    assert!(tls.is_err(), "TLS 1.2 was accepted");
    let tls = handshake(
        connect(strict.address()),
        strict.ca.client_config_of(&[&TLS13], &[]),
        "a.example",
    )
    .expect("a handshake");
    assert_eq!(tls.protocol_version(), Some(TLS13.version));
}

#[test]
fn alpn_chooses_the_version_of_http() {
    let alpn = |setup: &Setup, offered: &[&str]| {
        let config = setup.ca.client_config(offered);
        let tls = handshake(connect(setup.address()), config, "a.example").expect("a handshake");
        tls.alpn_protocol()
            .map(|name| String::from_utf8_lossy(name).into_owned())
    };
    let setup = Setup::tls("", "");
    assert_eq!(alpn(&setup, &["http/1.1", "h2"]).as_deref(), Some("h2"));
    assert_eq!(alpn(&setup, &["http/1.1"]).as_deref(), Some("http/1.1"));
    assert_eq!(alpn(&setup, &[]), None);
    let without = Setup::tls(", h2 = false", "");
    let chosen = alpn(&without, &["h2", "http/1.1"]);
    assert_eq!(chosen.as_deref(), Some("http/1.1"));
}

#[test]
fn the_certificate_is_chosen_by_name() {
    let setup = Setup::tls(", default_certificate = \"wild\"", "");
    assert_eq!(setup.served("a.example"), "a.example");
    assert_eq!(setup.served("A.EXAMPLE"), "a.example");
    assert_eq!(setup.served("shop.wild.example"), "*.wild.example");
    for name in ["other.example", "two.labels.wild.example", "192.0.2.1"] {
        assert_eq!(setup.served(name), "*.wild.example", "{name}");
    }
}

#[test]
fn a_certificate_replaced_on_disk_is_served_and_a_broken_one_is_not() {
    let setup = Setup::tls("", "");
    let mut kept = setup.ca.connect(setup.address(), "a.example");
    kept.get("/").expect("a response");
    setup
        .ca
        .issue_into(&setup.certs(), "a", &["a.example", "new.example"]);
    let position = setup.gateway.log().position();
    setup.gateway.signal(Signal::Hangup);
    let taken = |line: &str| line.contains("certificate taken from disk");
    setup
        .gateway
        .wait_for_log_after(position, "the new certificate", taken);
    assert_eq!(setup.served("new.example"), "a.example new.example");

    std::fs::write(setup.certs().join("a.crt"), "no certificate").expect("writable");
    let position = setup.gateway.log().position();
    setup.gateway.signal(Signal::Hangup);
    setup
        .gateway
        .wait_for_log_after(position, "the refusal", |line| {
            line.contains("certificate refused, its predecessor stays") && line.contains("a.crt")
        });
    assert_eq!(setup.served("new.example"), "a.example new.example");
    assert_eq!(kept.get("/").expect("the kept connection").status(), 200);
}

// Up to five seconds: the time between two looks at the directory.
#[test]
fn a_new_certificate_is_served_without_any_signal() {
    let setup = Setup::tls("", "");
    setup.ca.issue_into(&setup.certs(), "new", &["new.example"]);
    setup.gateway.wait_for_log("the new certificate", |line| {
        line.contains("certificate taken from disk") && line.contains("\"new\"")
    });
    assert_eq!(setup.served("new.example"), "new.example");
}

#[test]
fn cleartext_http2_is_spoken_where_it_is_allowed() {
    let setup = Setup::new(
        "{ address = \"127.0.0.1:0\", h2c = true }, \"127.0.0.1:0\"",
        "",
    );
    let url = format!("http://{}/", setup.address());
    let answer = H2::cleartext(setup.address())
        .get(&url)
        .expect("a response");
    assert_eq!(answer.response.status(), 200);
    assert_eq!(get(setup.address(), "/").status(), 200);
    let without = setup.gateway.addresses()[1];
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let answer = raw(without, preface, PATIENCE);
    let text = String::from_utf8_lossy(&answer);
    assert!(
        text.starts_with("HTTP/1.1 400 ") || text.starts_with("HTTP/1.1 505 "),
        "{text}"
    );
}

#[test]
fn a_redirecting_listener_keeps_path_and_query() {
    let setup = Setup::new(
        r#"{ address = "127.0.0.1:0", redirect_https = true }, { address = "127.0.0.1:0", redirect_https = 8443 }"#,
        "",
    );
    let ask = |address, request: &str| {
        let mut client = Connection::open(address);
        client.send(request.as_bytes()).expect("the gateway reads");
        client.response().expect("a response")
    };
    let addresses = setup.gateway.addresses();
    let request =
        "POST /a%20b/c?x=1&y=%2F HTTP/1.1\r\nHost: Shop.example:8080\r\nContent-Length: 0\r\n\r\n";
    let response = ask(addresses[0], request);
    assert_eq!(response.status(), 308);
    let wanted = "https://shop.example/a%20b/c?x=1&y=%2F";
    assert_eq!(response.field("location"), Some(wanted));
    let response = ask(addresses[1], request);
    let wanted = "https://shop.example:8443/a%20b/c?x=1&y=%2F";
    assert_eq!(response.field("location"), Some(wanted));
}

/// A PROXY header of version 2 for 192.0.2.9:4711 to 198.51.100.1:443.
fn proxy_v2() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend([192, 0, 2, 9, 198, 51, 100, 1]);
    header.extend([4711_u16.to_be_bytes(), 443_u16.to_be_bytes()].concat());
    header
}

const PROXY_V1: &[u8] = b"PROXY TCP4 192.0.2.9 198.51.100.1 4711 443\r\n";

#[test]
fn a_trusted_proxy_says_who_the_client_is() {
    let setup = Setup::new(
        r#"{ address = "127.0.0.1:0", proxy_protocol = true },
           { address = "127.0.0.1:0", proxy_protocol = true, tls = "certs/" }"#,
        "[clients]\ntrusted_proxies = [\"127.0.0.1/32\"]\n[log]\naccess = \"all\"",
    );
    let [plain, secure] = [setup.gateway.addresses()[0], setup.gateway.addresses()[1]];
    for header in [PROXY_V1.to_vec(), proxy_v2()] {
        let mut client = Connection::open(plain);
        client.send(&header).expect("the gateway reads");
        let head = client.get("/plain").expect("a response").text();
        assert!(head.contains("x-forwarded-for: 192.0.2.9\r\n"), "{head}");
        assert!(head.contains("x-real-ip: 192.0.2.9\r\n"), "{head}");

        let mut socket = connect(secure);
        socket.write_all(&header).expect("the gateway reads");
        let below = socket.try_clone().expect("descriptors are left");
        let name = ServerName::try_from("a.example").expect("a valid name");
        let tls = ClientConnection::new(setup.ca.client_config(&["http/1.1"]), name);
        let stream = StreamOwned::new(tls.expect("a complete configuration"), below);
        let mut client = Connection::over(socket, Box::new(stream));
        let head = client.get("/secure").expect("a response").text();
        assert!(head.contains("x-forwarded-for: 192.0.2.9\r\n"), "{head}");
        assert!(head.contains("x-forwarded-proto: https\r\n"), "{head}");
    }
    setup.gateway.wait_for_log("the client", |line| {
        line.contains("/plain") && line.contains("192.0.2.9")
    });
    // No header, or a broken one: the connection ends without a word.
    for wrong in [
        &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"PROXY TCP4 nobody\r\n",
    ] {
        assert_eq!(raw(plain, wrong, PATIENCE), b"");
    }
}

#[test]
fn an_untrusted_client_cannot_say_who_it_is() {
    let setup = Setup::new(
        r#"{ address = "127.0.0.1:0", proxy_protocol = true }, "127.0.0.1:0""#,
        "[clients]\ntrusted_proxies = [\"192.0.2.0/24\"]",
    );
    let request = [PROXY_V1, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
    let mut socket = connect(setup.address());
    // It may be closed before the last byte is out.
    let _ = socket.write_all(&request);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    assert_eq!(answer, b"");
    let answer = raw(setup.gateway.addresses()[1], &request, PATIENCE);
    assert!(
        answer.starts_with(b"HTTP/1.1 400 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

#[test]
fn a_head_has_its_time() {
    let setup = Setup::plain("header_timeout = \"200ms\"");
    // Nothing was asked, so nothing is answered.
    assert_eq!(raw(setup.address(), b"", PATIENCE), b"");
    let answer = raw(setup.address(), b"GET / HTTP/1.1\r\nHost: a\r\n", PATIENCE);
    assert!(
        answer.starts_with(b"HTTP/1.1 408 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    // A byte now and then does not prolong it.
    let mut slow = connect(setup.address());
    let began = Instant::now();
    slow.set_read_timeout(Some(Duration::from_millis(20)))
        .expect("above zero");
    let mut answer = Vec::new();
    while answer.is_empty() {
        assert!(began.elapsed() < PATIENCE, "the head may take forever");
        let _ = slow.write_all(b"x");
        let mut block = [0; 64];
        if let Ok(length) = slow.read(&mut block) {
            answer.extend_from_slice(&block[..length]);
            break;
        }
    }
    assert!(
        answer.starts_with(b"HTTP/1.1 408 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

#[test]
fn a_kept_connection_is_closed_when_it_idles() {
    let setup = Setup::plain("idle_timeout = \"200ms\"");
    let mut client = setup.gateway.connect();
    client.get("/").expect("a response");
    let idle = Instant::now();
    client.wait_for_close().expect("the gateway closes it");
    assert!(idle.elapsed() >= Duration::from_millis(150));
}

#[test]
fn a_connection_serves_as_many_requests_as_allowed() {
    let setup = Setup::plain("keepalive_requests = 3");
    let mut client = setup.gateway.connect();
    for _ in 0..2 {
        let response = client.get("/").expect("a response");
        assert_ne!(response.field("connection"), Some("close"));
    }
    let last = client.get("/").expect("a response");
    assert_eq!(last.field("connection"), Some("close"));
    client.wait_for_close().expect("the gateway closes it");

    let setup = Setup::new(
        "{ address = \"127.0.0.1:0\", h2c = true }",
        "keepalive_requests = 3",
    );
    let client = H2::cleartext(setup.address());
    let url = format!("http://{}/", setup.address());
    for _ in 0..3 {
        assert_eq!(client.get(&url).expect("a response").response.status(), 200);
    }
    let error = wait_for("the end of the connection", || client.get(&url).err());
    assert!(error.is_go_away() || error.is_io(), "{error}");
}

#[test]
fn connections_beyond_the_limits_are_closed_at_once() {
    for limit in ["max_connections = 2", "max_connections_per_client = 2"] {
        let setup = Setup::plain(limit);
        let mut first = setup.gateway.connect();
        let mut second = setup.gateway.connect();
        for client in [&mut first, &mut second] {
            assert_eq!(
                client.get("/").expect("a response").status(),
                200,
                "{limit}"
            );
        }
        let mut third = setup.gateway.connect();
        third.wait_for_close().expect("the gateway closes it");
        assert_eq!(first.get("/").expect("a response").status(), 200, "{limit}");
        drop(second);
        wait_for("room for another", || {
            let mut next = Connection::try_open(setup.address()).ok()?;
            next.get("/").ok()
        });
    }
}

#[test]
fn trusted_proxies_are_not_counted_as_clients() {
    let setup = Setup::plain(
        "max_connections_per_client = 1\n[clients]\ntrusted_proxies = [\"127.0.0.1\"]",
    );
    let mut clients: Vec<_> = (0..3).map(|_| setup.gateway.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").expect("a response").status(), 200);
    }
}

#[test]
fn a_silent_handshake_has_its_time() {
    let setup = Setup::tls("", "handshake_timeout = \"200ms\"");
    assert_eq!(raw(setup.address(), b"\x16\x03\x01", PATIENCE), b"");
    let setup = Setup::new(
        r#"{ address = "127.0.0.1:0", proxy_protocol = true }"#,
        "handshake_timeout = \"200ms\"\n[clients]\ntrusted_proxies = [\"127.0.0.1\"]",
    );
    assert_eq!(raw(setup.address(), b"PROXY TCP4 ", PATIENCE), b"");
}

#[test]
fn an_idle_http2_connection_is_told_to_go_away() {
    let setup = Setup::new(
        "{ address = \"127.0.0.1:0\", h2c = true }",
        "idle_timeout = \"300ms\"",
    );
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let answer = raw(setup.address(), preface, PATIENCE);
    assert!(frames(&answer).contains(&GOAWAY), "{:?}", frames(&answer));
}

#[test]
fn a_draining_gateway_finishes_http2_streams() {
    let (release, gate) = std::sync::mpsc::channel();
    let gate = std::sync::Mutex::new(gate);
    let origin = Origin::with(move |_| {
        let gate = gate.lock().expect("no holder panics");
        gate.recv().map_or(Reply::nothing().then_close(), Reply::ok)
    });
    let config = format!(
        "[server]\nlisten = [{{ address = \"127.0.0.1:0\", h2c = true }}]\n\
         [upstream.app]\nbackends = [\"{}\"]\n[[route]]\nupstream = \"app\"\n",
        origin.address()
    );
    let mut gateway = Gateway::start(&config);
    let url = format!("http://{}/", gateway.address());
    let client = H2::cleartext(gateway.address());
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| client.get(&url));
        origin.wait_for_requests(1);
        gateway.signal(Signal::Terminate);
        wait_for("the port to close", || {
            TcpStream::connect(gateway.address()).err()
        });
        release.send("whole").expect("the origin waits");
        let answer = asking.join().expect("no panic").expect("a whole response");
        assert_eq!(answer.response.body(), b"whole");
    });
    assert_eq!(gateway.wait_for_exit().code(), Some(0));
}

const GOAWAY: u8 = 7;

/// The types of the frames in these bytes (RFC 9113 4.1).
fn frames(mut bytes: &[u8]) -> Vec<u8> {
    let mut types = Vec::new();
    while let [high, mid, low, kind, rest @ ..] = bytes {
        types.push(*kind);
        let length = usize::from(*high) << 16 | usize::from(*mid) << 8 | usize::from(*low);
        bytes = rest.get(5 + length..).unwrap_or_default();
    }
    types
}
