//! A visitor of the Django site: keeps cookies, fills in forms with their CSRF token.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;

use super::client::Connection;
use super::response::Response;

pub struct Visitor {
    address: SocketAddr,
    host: String,
    cookies: BTreeMap<String, String>,
}

impl Visitor {
    /// Someone without cookies, who will ask `address` for `host`.
    pub fn new(address: SocketAddr, host: &str) -> Self {
        Self {
            address,
            host: host.to_owned(),
            cookies: BTreeMap::new(),
        }
    }

    /// Asks another address from now on, with the same cookies.
    pub fn go_to(&mut self, address: SocketAddr) {
        self.address = address;
    }

    /// Logs in through the form; panics when the site refuses.
    pub fn log_in(&mut self, user: &str, password: &str) {
        let form = format!("username={user}&password={password}");
        let answer = self.post("/login", &form);
        assert_eq!(answer.status(), 302, "login of {user}: {}", answer.text());
    }

    pub fn get(&mut self, path: &str) -> Response {
        self.request("GET", path, "")
    }

    /// Loads the page, takes the token from its form, and sends the form to the same path.
    pub fn post(&mut self, path: &str, form: &str) -> Response {
        let page = self.get(path).text();
        let token = page
            .split_once("name=\"csrfmiddlewaretoken\" value=\"")
            .and_then(|(_, rest)| rest.split_once('"'))
            .map(|(token, _)| token)
            .unwrap_or_else(|| panic!("{path} has no CSRF token: {page}"));
        self.request("POST", path, &format!("csrfmiddlewaretoken={token}&{form}"))
    }

    fn request(&mut self, method: &str, path: &str, form: &str) -> Response {
        let cookies: Vec<_> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        if !cookies.is_empty() {
            write!(head, "Cookie: {}\r\n", cookies.join("; ")).expect("a string has room");
        }
        if !form.is_empty() {
            head.push_str("Content-Type: application/x-www-form-urlencoded\r\n");
        }
        let request = format!("{head}Content-Length: {}\r\n\r\n{form}", form.len());
        let mut client = Connection::open(self.address);
        client.send(request.as_bytes()).expect("the site reads");
        let response = client
            .response()
            .unwrap_or_else(|broken| panic!("{method} {path} from {}: {broken}", self.address));
        for cookie in response.head.fields("set-cookie") {
            let pair = cookie.split(';').next().unwrap_or_default();
            if let Some((name, value)) = pair.split_once('=') {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        response
    }
}

/// The SHA-256 of some bytes, as the FastAPI service writes it.
pub fn sha256_hex(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest
        .as_ref()
        .iter()
        .fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a string has room");
            text
        })
}
