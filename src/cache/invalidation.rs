//! What a change made through the gateway removes (RFC 9111 4.4).

use http::header::{CONTENT_LOCATION, HeaderName, LOCATION};
use http::{HeaderMap, Method, StatusCode};
use smallvec::SmallVec;

use super::tags::{self, Tag, TooManyTags};
use super::{Request, Response};
use crate::target::{Authority, Target};

/// Whether a method may change something. One that nobody has declared safe may.
pub fn is_unsafe(method: &Method) -> bool {
    const SAFE: [&str; 8] = [
        "GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "QUERY", "REPORT", "SEARCH",
    ];
    !SAFE.contains(&method.as_str())
}

/// Whether what is stored under the URL is removed: the method may have changed something, and the
/// response is no error. Nothing was changed by what the origin refused.
pub fn invalidates(method: &Method, status: StatusCode) -> bool {
    is_unsafe(method) && (status.is_success() || status.is_redirection())
}

/// The places whose entries are removed: the URL itself, then what `Location` and `Content-Location`
/// name of the same origin. None if nothing is.
pub fn places(request: &Request<'_>, response: &Response<'_>) -> SmallVec<[Place; 3]> {
    let mut places = SmallVec::new();
    if invalidates(request.method, response.status) {
        places.push(Place::of(request));
        for name in [LOCATION, CONTENT_LOCATION] {
            let named = Place::named_by(name, response.fields, request);
            places.extend(named.filter(|place| !place.is_target_of(request)));
        }
        places.dedup();
    }
    places
}

/// The groups whose entries are removed, within the origin of the request. The application names them,
/// so it may do so in an error too; but not in response to a safe method (RFC 9875 3).
pub fn groups(request: &Request<'_>, response: &Response<'_>) -> Result<Box<[Tag]>, TooManyTags> {
    match is_unsafe(request.method) {
        true => tags::invalidated(response.fields),
        false => Ok(Box::default()),
    }
}

/// A target on the origin of a request, canonical.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub path: String,
    pub query: Option<String>,
}

impl Place {
    fn of(request: &Request<'_>) -> Self {
        Self {
            path: request.path.to_owned(),
            query: request.query.map(str::to_owned),
        }
    }

    pub fn is_target_of(&self, request: &Request<'_>) -> bool {
        self.path == request.path && self.query.as_deref() == request.query
    }

    /// What a field names by one URI reference. `None` if it is of another origin, or nothing that
    /// could have been requested.
    pub fn named_by(name: HeaderName, response: &HeaderMap, request: &Request<'_>) -> Option<Self> {
        let mut lines = response.get_all(name).iter();
        let line = lines.next().filter(|_| lines.next().is_none())?;
        Self::resolve(line.as_bytes(), request)
    }

    /// RFC 3986 5.2.
    fn resolve(reference: &[u8], request: &Request<'_>) -> Option<Self> {
        let reference = reference.split(|&byte| byte == b'#').next()?;
        let after_scheme = match scheme(reference) {
            None => reference,
            Some(scheme) if scheme.eq_ignore_ascii_case(request.scheme.as_bytes()) => {
                let rest = &reference[scheme.len() + 1..];
                // `https:path` means different things to different readers.
                rest.starts_with(b"//").then_some(rest)?
            }
            Some(_) => return None,
        };
        if let Some(rest) = after_scheme.strip_prefix(b"//") {
            let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
            let (authority, target) = rest.split_at(end.unwrap_or(rest.len()));
            is_host_of(authority, request).then_some(())?;
            let target = Target::after_authority(target, &request.path_rules);
            return target.ok().map(Self::from);
        }
        let base = match after_scheme.first() {
            None => return Some(Self::of(request)),
            Some(b'/') => "",
            Some(b'?') => request.path,
            Some(_) => directory(request.path),
        };
        let target = [base.as_bytes(), after_scheme].concat();
        let target = Target::parse(&target, &request.path_rules);
        target.ok().map(Self::from)
    }
}

impl From<Target<'_>> for Place {
    fn from(target: Target<'_>) -> Self {
        Self {
            path: target.path().to_owned(),
            query: target.query().map(str::to_owned),
        }
    }
}

/// Up to the last slash, with it.
fn directory(path: &str) -> &str {
    &path[..path.rfind('/').map_or(0, |slash| slash + 1)]
}

/// What stands before a colon, where no path has begun.
fn scheme(reference: &[u8]) -> Option<&[u8]> {
    let end = reference
        .iter()
        .position(|byte| matches!(byte, b':' | b'/' | b'?'))?;
    (reference[end] == b':').then_some(&reference[..end])
}

fn is_host_of(authority: &[u8], request: &Request<'_>) -> bool {
    let default_port = match request.scheme {
        "https" => 443,
        _ => 80,
    };
    let named = Authority::parse(authority);
    let own = Authority::parse(request.host.as_bytes());
    named.is_ok_and(|named| own.is_ok_and(|own| named.same_as(&own, default_port)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::testing::{fields, get, request, response};

    fn removed(method: &str, status: u16, lines: &[(&str, &str)]) -> Vec<String> {
        let asked = request(method, &[]);
        places(&asked.head(), &response(status, lines).head())
            .into_iter()
            .map(|place| match place.query {
                Some(query) => format!("{}?{query}", place.path),
                None => place.path,
            })
            .collect()
    }

    #[test]
    fn a_successful_change_removes_the_url() {
        for method in [
            "POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "UNKNOWN", "get",
        ] {
            for status in [200, 201, 204, 299, 301, 303, 399] {
                assert_eq!(removed(method, status, &[]), ["/page"], "{method} {status}");
            }
        }
    }

    #[test]
    fn an_error_or_a_safe_method_removes_nothing() {
        let named = [("location", "/a"), ("content-location", "/b")];
        for status in [400, 404, 499, 500, 503, 599] {
            assert!(removed("POST", status, &named).is_empty(), "{status}");
        }
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "QUERY"] {
            assert!(removed(method, 200, &named).is_empty(), "{method}");
        }
    }

    #[test]
    fn what_location_and_content_location_name_is_removed_too() {
        let named = [("location", "/a"), ("content-location", "b?c=1")];
        assert_eq!(removed("POST", 201, &named), ["/page", "/a", "/b?c=1"]);
        let same = [("location", "/page"), ("content-location", "/page")];
        assert_eq!(removed("POST", 201, &same), ["/page"]);
    }

    #[test]
    fn a_change_may_name_groups_that_are_outdated() {
        let answered = response(204, &[("cache-group-invalidation", "\"shop\", \"news\"")]);
        let groups = |method| groups(&request(method, &[]).head(), &answered.head()).unwrap();
        let expected = ["news", "shop"].map(|name| Tag::Group(name.into()));
        assert_eq!(groups("POST")[..], expected);
        assert!(groups("GET").is_empty());
    }

    #[test]
    fn a_reference_is_resolved_against_the_url_within_its_origin() {
        let mut asked = get(&[]);
        asked.path = "/dir/page".to_owned();
        asked.query = Some("q=1".to_owned());
        for (reference, expected) in [
            ("/a", Some("/a")),
            ("a", Some("/dir/a")),
            ("./a", Some("/dir/a")),
            ("../a", Some("/a")),
            ("/a/./b/../%7Ec", Some("/a/~c")),
            ("?x", Some("/dir/page?x")),
            ("", Some("/dir/page?q=1")),
            ("#top", Some("/dir/page?q=1")),
            ("/a#top", Some("/a")),
            ("https://a.example/a", Some("/a")),
            ("HTTPS://A.Example:443/a?b", Some("/a?b")),
            ("https://a.example", Some("/")),
            ("https://a.example?b", Some("/?b")),
            ("//a.example/a", Some("/a")),
            ("a/b:c", Some("/dir/a/b:c")),
            ("http://a.example/a", None),
            ("https://b.example/a", None),
            ("https://a.example:8443/a", None),
            ("https://user@a.example/a", None),
            ("//b.example/a", None),
            ("https:/a", None),
            ("https:a", None),
            ("mailto:a@b", None),
            ("../../a", None),
            ("/%00", None),
        ] {
            let response = fields(&[("location", reference)]);
            let place = Place::named_by(LOCATION, &response, &asked.head());
            let found = place.map(|place| match place.query {
                Some(query) => format!("{}?{query}", place.path),
                None => place.path,
            });
            assert_eq!(found.as_deref(), expected, "{reference}");
        }
        let twice = fields(&[("location", "/a"), ("location", "/b")]);
        assert_eq!(Place::named_by(LOCATION, &twice, &asked.head()), None);
    }
}
