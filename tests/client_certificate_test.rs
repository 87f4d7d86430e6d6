//! Clients that say by a certificate who they are.

use http::Request;

use crate::harness::client::Connection;
use crate::harness::gateway::Gateway;
use crate::harness::h2_client::H2;
use crate::harness::origin::{Origin, Reply};
use crate::harness::tls::{Issued, TestCa};

const NAME: &str = "api.example";

struct Setup {
    ca: TestCa,
    _origin: Origin,
    gateway: Gateway,
}

/// A gateway that asks for certificates of the test's authority, and lets each client ask three times.
fn setup(demand: &str) -> Setup {
    let origin = Origin::always(Reply::ok("ok"));
    let ca = TestCa::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    ca.issue_into(&folder.path().join("certs"), "api", &[NAME]);
    std::fs::write(folder.path().join("ca.pem"), ca.certificate()).expect("there is space");
    let config = format!(
        r#"
        [server]
        listen = [{{ address = "127.0.0.1:0", tls = "certs/", client_ca = "ca.pem"{demand} }}]
        [upstream.app]
        backends = ["{}"]
        [limit.partners]
        quota = "3 per hour"
        key = "client-certificate | client-ip"
        [[route]]
        upstream = "app"
        limit = ["partners"]
        "#,
        origin.address()
    );
    Setup {
        gateway: Gateway::start_in(folder, &config),
        ca,
        _origin: origin,
    }
}

fn ask(mut client: Connection, method: &str) -> u16 {
    let request = format!("{method} / HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 0\r\n\r\n");
    client.send(request.as_bytes()).expect("it is taken");
    client.response().expect("an answer").status()
}

impl Setup {
    /// Both lanes of HTTP/1.1, and HTTP/2.
    fn asked_four_times(&self, client: &Issued) -> [u16; 4] {
        let address = self.gateway.address();
        let by = |method| ask(self.ca.connect_as(client, address, NAME), method);
        let get = Request::get(format!("https://{NAME}/")).body(Vec::new());
        let h2 = H2::tls_as(client, address, NAME, &self.ca);
        let h2 = h2.request(get.expect("a request")).expect("an answer");
        [
            h2.response.status().as_u16(),
            by("GET"),
            by("POST"),
            by("GET"),
        ]
    }
}

#[test]
fn each_certificate_has_a_quota_of_its_own_from_the_same_address() {
    let setup = setup("");
    for name in ["ada", "bob"] {
        let client = setup.ca.issue(&[name]);
        assert_eq!(setup.asked_four_times(&client), [200, 200, 200, 429]);
        // Another certificate of the same subject is the same client.
        let renewed = setup.ca.issue(&[name]);
        assert_eq!(setup.asked_four_times(&renewed), [429; 4]);
    }
}

#[test]
fn who_shows_no_certificate_or_one_of_strangers_does_not_get_in() {
    let setup = setup("");
    let address = setup.gateway.address();
    let is_let_in = |mut client: Connection| {
        let sent = client.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n").as_bytes());
        sent.is_ok() && client.response().is_ok()
    };
    let stranger = TestCa::new().issue(&["ada"]);
    assert!(!is_let_in(setup.ca.connect(address, NAME)));
    assert!(!is_let_in(setup.ca.connect_as(&stranger, address, NAME)));
    let known = setup.ca.issue(&["ada"]);
    assert!(is_let_in(setup.ca.connect_as(&known, address, NAME)));
}

#[test]
fn where_a_certificate_is_optional_who_shows_none_is_counted_by_its_address() {
    let setup = setup(r#", client_certificates = "optional""#);
    let address = setup.gateway.address();
    let nobody = || ask(setup.ca.connect(address, NAME), "GET");
    assert_eq!(
        [nobody(), nobody(), nobody(), nobody()],
        [200, 200, 200, 429]
    );
    let ada = setup.ca.issue(&["ada"]);
    assert_eq!(setup.asked_four_times(&ada), [200, 200, 200, 429]);
}
