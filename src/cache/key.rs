//! The place of a URL in the cache. GET and HEAD share it; variants stand below it.

use std::fmt;

use super::Request;
use super::frame::{Digest, Frame, Framed};
use super::policy::Policy;
use super::vary::{ABSENT, COOKIE_NAME, NAME, write_field, write_named_cookies};

/// Scheme, host, path, normal query, route, and the chosen headers and cookies of a request, framed
/// by length. Keys are equal only if all of that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(Framed);

const SCHEME: u8 = b's';
const HOST: u8 = b'h';
const PATH: u8 = b'/';
const QUERY: u8 = b'?';
const ROUTE: u8 = b'r';

impl Key {
    /// `route` is the name of the route, or of whatever else decides how the request is answered.
    pub fn of(request: &Request<'_>, route: &str, policy: &Policy) -> Self {
        let mut frame = Frame::default();
        frame.part(SCHEME, request.scheme.as_bytes());
        frame.part(HOST, request.host.as_bytes());
        frame.part(PATH, request.path.as_bytes());
        if let Some(query) = policy.query.normal(request.query) {
            frame.part(QUERY, query.as_bytes());
        }
        frame.part(ROUTE, route.as_bytes());
        for name in &policy.key_headers {
            write_field(&mut frame, name, request.fields);
        }
        write_named_cookies(&mut frame, &policy.key_cookies, request.fields);
        Self(frame.finish())
    }

    /// The key of these [`bytes`](Self::bytes).
    pub(super) fn read(bytes: &[u8]) -> Self {
        Self(Framed::read(bytes))
    }

    /// Where it is, for purges.
    pub fn url(&self) -> Url<'_> {
        Url {
            scheme: self.part(SCHEME).unwrap_or_default(),
            host: name(self.part(HOST).unwrap_or_default()),
            path: self.part(PATH).unwrap_or_default(),
            query: self.part(QUERY),
        }
    }

    /// The URL that visitors ask for, with its port and the normal query.
    pub fn page(&self) -> String {
        let part = |tag| self.part(tag).unwrap_or_default();
        let query = self.part(QUERY).map(|query| format!("?{query}"));
        let query = query.unwrap_or_default();
        format!("{}://{}{}{query}", part(SCHEME), part(HOST), part(PATH))
    }

    fn part(&self, wanted: u8) -> Option<&str> {
        let mut parts = self.0.parts();
        let found = parts.find(|(tag, _)| *tag == wanted);
        found.map(|(_, part)| std::str::from_utf8(part).expect("it was written from text"))
    }

    /// Stands for the key in memory and in Redis.
    pub fn digest(&self) -> Digest {
        self.0.digest()
    }

    /// With the values of the chosen headers and cookies.
    pub fn with_values(&self) -> WithValues<'_> {
        WithValues(self)
    }

    fn write(
        &self,
        f: &mut fmt::Formatter<'_>,
        write_value: impl Fn(&mut fmt::Formatter<'_>, &[u8]) -> fmt::Result,
    ) -> fmt::Result {
        for (tag, part) in self.0.parts() {
            let text = part.escape_ascii();
            match tag {
                SCHEME => write!(f, "{text}://")?,
                HOST | PATH => write!(f, "{text}")?,
                QUERY => write!(f, "?{text}")?,
                ROUTE => write!(f, " route={text}")?,
                NAME | COOKIE_NAME => write!(f, " {text}")?,
                ABSENT => {}
                _ => write_value(f, part)?,
            }
        }
        Ok(())
    }

    /// What an entry found by the digest is held to.
    pub fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// The name in `host[:port]`.
fn name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    }
}

/// The parts of a key by which it can be purged. The host is without its port: a client may send the
/// one that is meant anyway. The query is in its normal form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Url<'a> {
    pub scheme: &'a str,
    pub host: &'a str,
    pub path: &'a str,
    pub query: Option<&'a str>,
}

/// For humans and logs: the URL, the route, and which headers and cookies were chosen, with `*` for what they
/// say. That may be somebody's secret.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, |f, _| f.write_str("=*"))
    }
}

/// A key for the one who has sent all of it.
pub struct WithValues<'a>(&'a Key);

impl fmt::Display for WithValues<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .write(f, |f, value| write!(f, "={}", value.escape_ascii()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::pattern::known;
    use crate::cache::testing::{anonymous, get, request, rfc9111};

    fn key(asked: &crate::cache::testing::Asked) -> Key {
        Key::of(&asked.head(), "pages", &rfc9111())
    }

    #[test]
    fn get_and_head_share_a_key() {
        assert_eq!(key(&get(&[])), key(&request("HEAD", &[])));
    }

    #[test]
    fn every_part_counts() {
        let plain = get(&[]);
        let with_query = |query: &str| {
            let mut asked = get(&[]);
            asked.query = Some(query.to_owned());
            asked
        };
        let mut other_path = get(&[]);
        other_path.path = "/pag".to_owned();
        assert_ne!(key(&plain), key(&other_path));
        assert_ne!(key(&plain), key(&with_query("")));
        assert_ne!(key(&with_query("a=1")), key(&with_query("a=2")));
        assert_eq!(key(&with_query("a=1")), key(&with_query("a=1")));
        let head = plain.head();
        let http = Request {
            scheme: "http",
            ..head
        };
        let port = Request {
            host: "a.example:8443",
            ..head
        };
        for other in [http, port] {
            assert_ne!(key(&plain), Key::of(&other, "pages", &rfc9111()));
        }
        assert_ne!(key(&plain), Key::of(&head, "api", &rfc9111()));
    }

    #[test]
    fn what_stands_at_the_border_of_two_parts_belongs_to_one_of_them() {
        let of = |host, path| {
            let asked = get(&[]);
            let head = Request {
                host,
                path,
                ..asked.head()
            };
            Key::of(&head, "", &rfc9111())
        };
        assert_ne!(of("a", "/b/c"), of("a/b", "/c"));
    }

    #[test]
    fn a_page_is_purged_by_the_name_of_its_host() {
        let asked = get(&[]);
        for (host, name) in [
            ("a.example", "a.example"),
            ("a.example:8443", "a.example"),
            ("[::1]", "[::1]"),
            ("[::1]:80", "[::1]"),
        ] {
            let request = Request {
                host,
                ..asked.head()
            };
            let key = Key::of(&request, "", &rfc9111());
            assert_eq!(key.url().host, name);
        }
    }

    #[test]
    fn parameters_of_campaigns_are_not_part_of_an_anonymous_key() {
        let mut campaign = get(&[]);
        campaign.query = Some("utm_source=mail&gclid=1".to_owned());
        let of = |asked: &crate::cache::testing::Asked| Key::of(&asked.head(), "", &anonymous());
        assert_eq!(of(&campaign), of(&get(&[])));
    }

    #[test]
    fn chosen_headers_and_cookies_are_part_of_the_key() {
        let policy = Policy {
            key_headers: vec!["x-device".parse().unwrap()],
            key_cookies: known(&["country"]),
            ..anonymous()
        };
        let of = |lines: &[(&str, &str)]| Key::of(&get(lines).head(), "pages", &policy);
        assert_ne!(of(&[("x-device", "phone")]), of(&[("x-device", "desk")]));
        assert_ne!(of(&[("x-device", "")]), of(&[]));
        assert_ne!(
            of(&[("cookie", "country=de")]),
            of(&[("cookie", "country=fr")])
        );
        assert_eq!(of(&[("cookie", "other=1")]), of(&[]));
    }

    #[test]
    fn a_key_is_shown_as_the_url_and_what_was_chosen() {
        let policy = Policy {
            key_headers: vec!["x-device".parse().unwrap(), "x-none".parse().unwrap()],
            key_cookies: known(&["country"]),
            ..anonymous()
        };
        let mut asked = get(&[("x-device", "phone"), ("cookie", "country=de")]);
        asked.query = Some("a=1&utm_x=2".to_owned());
        let key = Key::of(&asked.head(), "pages", &policy);
        assert_eq!(
            key.with_values().to_string(),
            "https://a.example/page?a=1 route=pages x-device=phone x-none country=de"
        );
        assert_eq!(
            key.to_string(),
            "https://a.example/page?a=1 route=pages x-device=* x-none country=*"
        );
        assert_eq!(Key::read(key.bytes()).page(), "https://a.example/page?a=1");
    }
}
