//! What a request must be to enter, whichever HTTP version brought it: one host, one target, one
//! body length, and fields that mean the same to everyone.
//!
//! Judges requests that are already parsed. The bytes of HTTP/1.x heads were judged before, by
//! [`crate::http1::head`]; repeating the rules here costs little and holds if a parser between
//! disagrees. Knows nothing of routes, clients or how a refusal is written.

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, Method, Version};

pub use crate::http1::malformed::Malformed;

use crate::http1::framing::FramingFields;
use crate::http1::grammar;
use crate::http1::head::Limits;
use crate::http1::request_line::{AbsoluteForm, check_method};
use crate::target::{Authority, Host, PathRules, Target};

/// A request as a parser hands it over.
#[derive(Clone, Copy, Debug)]
pub struct Parsed<'a> {
    pub version: Version,
    pub method: &'a Method,
    /// `:authority` of HTTP/2, or the authority of an absolute-form target if the parser took it
    /// out.
    pub authority: Option<&'a str>,
    /// What a missing port means: 443 if the request came by TLS, else 80. An absolute-form target
    /// says it itself.
    pub default_port: u16,
    /// `:path`, or the raw request target: a path, an absolute URL, or `*`.
    pub target: &'a [u8],
    pub headers: &'a HeaderMap,
}

/// What every later decision goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted<'a> {
    /// `None` only in HTTP/1.0 without `Host`.
    pub host: Option<Host>,
    /// `None` only for `OPTIONS *`.
    pub target: Option<Target<'a>>,
}

/// Judges a parsed request and gives its canonical host and target.
///
/// The limits count what the request would be as an HTTP/1.1 head: where HTTP/2 compressed it, its
/// size is what an application would have to read.
pub fn check_parsed<'a>(request: &Parsed<'a>, limits: &Limits) -> Result<Admitted<'a>, Malformed> {
    check_method(request.method.as_str().as_bytes())?;
    check_size(request, limits)?;
    check_fields(request.version, request.headers)?;
    let (authority, target, default_port) = split_target(request, &limits.path)?;
    let host = one_host(request, authority, default_port)?;
    Ok(Admitted { host, target })
}

/// The names of fields that must not reach an application.
///
/// `Proxy` always: CGI-like servers turn it into `HTTP_PROXY`, a setting of many HTTP clients. With
/// `strict` also every name that has anything but letters, digits and `-`: those servers turn `-`
/// and the rest into `_` alike, so that `X_Real_IP` would pass for `X-Real-IP`.
pub fn unsafe_fields(headers: &HeaderMap, strict: bool) -> Vec<HeaderName> {
    headers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            name == "proxy"
                || strict
                    && !name
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
        .cloned()
        .collect()
}

/// Whether the request asks for another protocol: `Upgrade` is there and `Connection` names it
/// (RFC 9110 7.8), in HTTP/1.1. Otherwise `Upgrade` means nothing.
pub fn asks_to_upgrade(version: Version, headers: &HeaderMap) -> bool {
    version == Version::HTTP_11
        && headers.contains_key(UPGRADE)
        && headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|line| grammar::list(line.as_bytes()))
            .any(|option| option.eq_ignore_ascii_case(b"upgrade"))
}

type Split<'a> = (Option<&'a [u8]>, Option<Target<'a>>, u16);

/// The authority if the target brings one, the canonical target, and the default port.
fn split_target<'a>(request: &Parsed<'a>, rules: &PathRules) -> Result<Split<'a>, Malformed> {
    let authority = request.authority.map(str::as_bytes);
    match request.target {
        b"*" if request.method == Method::OPTIONS => Ok((authority, None, request.default_port)),
        target @ [b'/', ..] => {
            let target = Target::parse(target, rules)?;
            Ok((authority, Some(target), request.default_port))
        }
        target if request.version < Version::HTTP_2 => {
            let absolute = AbsoluteForm::read(target)?;
            let target = Target::after_authority(absolute.path_and_query, rules)?;
            Ok((
                Some(absolute.authority),
                Some(target),
                absolute.default_port,
            ))
        }
        _ => Err(Malformed::TargetForm),
    }
}

/// `Host` and the authority of the target, when both are there, name the same.
fn one_host(
    request: &Parsed<'_>,
    authority: Option<&[u8]>,
    default_port: u16,
) -> Result<Option<Host>, Malformed> {
    let mut hosts = request.headers.get_all(HOST).iter();
    let field = hosts.next();
    if hosts.next().is_some() {
        return Err(Malformed::HostRepeated);
    }
    let field = field
        .map(|value| Authority::parse(value.as_bytes()))
        .transpose()?;
    let authority = authority.map(Authority::parse).transpose()?;
    match (authority, field) {
        (Some(authority), Some(field)) if !authority.same_as(&field, default_port) => {
            Err(Malformed::HostDisagrees)
        }
        (Some(authority), _) => Ok(Some(authority.into())),
        (None, Some(field)) => Ok(Some(field.into())),
        (None, None) if request.version == Version::HTTP_10 => Ok(None),
        (None, None) => Err(Malformed::HostMissing),
    }
}

fn check_size(request: &Parsed<'_>, limits: &Limits) -> Result<(), Malformed> {
    let line = request.method.as_str().len() + request.target.len() + "  HTTP/1.1".len();
    if line > limits.request_line {
        return Err(Malformed::RequestLineTooLong);
    }
    if request.headers.len() > limits.fields {
        return Err(Malformed::TooManyFields);
    }
    let fields = request.headers.iter();
    let fields: usize = fields
        .map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len())
        .sum();
    if line + fields + "\r\n\r\n".len() > limits.head_bytes {
        return Err(Malformed::HeadTooLarge);
    }
    Ok(())
}

fn check_fields(version: Version, headers: &HeaderMap) -> Result<(), Malformed> {
    let mut framing = FramingFields::default();
    let mut expects = false;
    for (name, value) in headers {
        let value = value.as_bytes();
        if !grammar::all(value, grammar::is_field_byte) {
            return Err(Malformed::FieldValueInvalid);
        }
        if name == CONTENT_LENGTH {
            framing.request_length(value)?;
        } else if name == EXPECT {
            if expects || !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(Malformed::ExpectationUnknown);
            }
            expects = true;
        } else if version < Version::HTTP_2 {
            if name == TRANSFER_ENCODING {
                framing.coding(value)?;
            }
        } else {
            check_http2_field(name, value)?;
        }
    }
    framing.framing(version != Version::HTTP_10)?;
    Ok(())
}

/// RFC 9113 8.2.1 and 8.2.2.
fn check_http2_field(name: &HeaderName, value: &[u8]) -> Result<(), Malformed> {
    if name == TE && !value.eq_ignore_ascii_case(b"trailers") {
        return Err(Malformed::TeInHttp2);
    }
    if name == CONNECTION
        || name == TRANSFER_ENCODING
        || name == UPGRADE
        || matches!(
            name.as_str(),
            "keep-alive" | "proxy-connection" | "http2-settings"
        )
    {
        return Err(Malformed::ConnectionFieldInHttp2);
    }
    if grammar::trim(value).len() != value.len() {
        return Err(Malformed::FieldValueInvalid);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::target::{BadHost, BadPath};

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let value = HeaderValue::from_str(value).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        headers
    }

    /// Host and path, or the fault.
    fn check(
        version: Version,
        authority: Option<&str>,
        target: &str,
        fields: &[(&'static str, &str)],
    ) -> Result<(Option<String>, Option<String>), Malformed> {
        let request = Parsed {
            version,
            method: &Method::GET,
            authority,
            default_port: 443,
            target: target.as_bytes(),
            headers: &headers(fields),
        };
        let admitted = check_parsed(&request, &Limits::default())?;
        Ok((
            admitted.host.map(|host| host.to_string()),
            admitted.target.map(|target| target.path().to_owned()),
        ))
    }

    fn h2(authority: &str, fields: &[(&'static str, &str)]) -> Result<Option<String>, Malformed> {
        check(Version::HTTP_2, Some(authority), "/", fields).map(|(host, _)| host)
    }

    #[test]
    fn the_authority_of_http2_is_the_host() {
        let found = check(Version::HTTP_2, Some("Shop.Example:8443"), "/a/../b?c", &[]);
        let host = Some("shop.example:8443".to_owned());
        assert_eq!(found, Ok((host, Some("/b".to_owned()))));
    }

    #[test]
    fn in_http2_host_may_stand_for_the_authority() {
        let found = check(Version::HTTP_2, None, "/", &[("host", "a")]);
        assert_eq!(found.unwrap().0.as_deref(), Some("a"));
        assert_eq!(
            check(Version::HTTP_2, None, "/", &[]),
            Err(Malformed::HostMissing)
        );
    }

    #[test]
    fn host_and_authority_must_name_the_same() {
        assert!(h2("a", &[("host", "A.:443")]).is_ok());
        assert_eq!(h2("a", &[("host", "b")]), Err(Malformed::HostDisagrees));
        assert_eq!(h2("a", &[("host", "a:80")]), Err(Malformed::HostDisagrees));
        let twice = [("host", "a"), ("host", "a")];
        assert_eq!(h2("a", &twice), Err(Malformed::HostRepeated));
        assert_eq!(h2("u@a", &[]), Err(Malformed::Host(BadHost::UserInfo)));
        assert_eq!(
            h2("a", &[("host", "")]),
            Err(Malformed::Host(BadHost::Empty))
        );
    }

    #[test]
    fn http2_has_no_connection_fields() {
        for (name, value) in [
            ("connection", "close"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("http2-settings", "AAMAAABk"),
        ] {
            let found = h2("a", &[(name, value)]);
            assert_eq!(found, Err(Malformed::ConnectionFieldInHttp2), "{name}");
        }
        assert_eq!(h2("a", &[("te", "gzip")]), Err(Malformed::TeInHttp2));
        assert!(h2("a", &[("te", "trailers")]).is_ok());
    }

    #[test]
    fn http2_has_one_plain_content_length() {
        assert!(h2("a", &[("content-length", "3")]).is_ok());
        let twice = [("content-length", "3"), ("content-length", "3")];
        assert_eq!(h2("a", &twice), Err(Malformed::ContentLengthRepeated));
        for value in ["3, 3", "+3", "", "0x3"] {
            let found = h2("a", &[("content-length", value)]);
            assert_eq!(found, Err(Malformed::ContentLengthInvalid), "{value}");
        }
    }

    #[test]
    fn http2_values_have_no_white_space_around_them() {
        assert_eq!(h2("a", &[("x", " b")]), Err(Malformed::FieldValueInvalid));
        assert_eq!(h2("a", &[("x", "b\t")]), Err(Malformed::FieldValueInvalid));
    }

    #[test]
    fn an_http2_path_is_judged_like_any_other() {
        let path = |path| check(Version::HTTP_2, Some("a"), path, &[]);
        assert_eq!(path("/../a"), Err(Malformed::Path(BadPath::AboveRoot)));
        assert_eq!(path("http://a/"), Err(Malformed::TargetForm));
        assert_eq!(path("*"), Err(Malformed::TargetForm));
        assert_eq!(path(""), Err(Malformed::TargetForm));
    }

    #[test]
    fn methods_that_open_tunnels_or_echo_are_refused() {
        for (method, why) in [
            (Method::CONNECT, Malformed::MethodTunnel),
            (Method::TRACE, Malformed::MethodTrace),
        ] {
            let request = Parsed {
                version: Version::HTTP_2,
                method: &method,
                authority: Some("a"),
                default_port: 443,
                target: b"/",
                headers: &HeaderMap::new(),
            };
            assert_eq!(check_parsed(&request, &Limits::default()), Err(why));
        }
    }

    #[test]
    fn an_absolute_form_brings_its_own_default_port() {
        let get = |target, host| check(Version::HTTP_11, None, target, &[("host", host)]);
        assert!(get("http://a/x", "a:80").is_ok());
        assert_eq!(get("http://a/x", "a:443"), Err(Malformed::HostDisagrees));
        let (host, path) = get("https://a?b", "a").unwrap();
        assert_eq!((host.as_deref(), path.as_deref()), (Some("a"), Some("/")));
    }

    #[test]
    fn only_http10_may_do_without_a_host() {
        assert_eq!(
            check(Version::HTTP_11, None, "/", &[]),
            Err(Malformed::HostMissing)
        );
        assert_eq!(check(Version::HTTP_10, None, "/", &[]).unwrap().0, None);
    }

    #[test]
    fn http2_requests_have_the_same_limits() {
        let limits = Limits {
            request_line: 64,
            head_bytes: 128,
            fields: 2,
            ..Limits::default()
        };
        let check = |target: &str, fields: &[(&'static str, &str)]| {
            let request = Parsed {
                version: Version::HTTP_2,
                method: &Method::GET,
                authority: Some("a"),
                default_port: 443,
                target: target.as_bytes(),
                headers: &headers(fields),
            };
            check_parsed(&request, &limits).map(drop)
        };
        assert_eq!(
            check(&format!("/{:050}", 0), &[("a", "b"), ("a", "c")]),
            Ok(())
        );
        assert_eq!(
            check(&format!("/{:051}", 0), &[]),
            Err(Malformed::RequestLineTooLong)
        );
        let three = [("a", "b"), ("a", "c"), ("a", "d")];
        assert_eq!(check("/", &three), Err(Malformed::TooManyFields));
        assert_eq!(
            check("/", &[("a", &"b".repeat(128))]),
            Err(Malformed::HeadTooLarge)
        );
    }

    #[test]
    fn the_only_expectation_in_either_version_is_100_continue() {
        assert!(h2("a", &[("expect", "100-Continue")]).is_ok());
        let twice = [("expect", "100-continue"), ("expect", "100-continue")];
        assert_eq!(h2("a", &twice), Err(Malformed::ExpectationUnknown));
        assert_eq!(
            h2("a", &[("expect", "x")]),
            Err(Malformed::ExpectationUnknown)
        );
    }

    #[test]
    fn http1_framing_is_judged_again() {
        let post = |fields| check(Version::HTTP_11, None, "/", fields);
        let both = [
            ("host", "a"),
            ("content-length", "1"),
            ("transfer-encoding", "chunked"),
        ];
        assert_eq!(post(&both), Err(Malformed::FramingConflict));
        let gzip = [("host", "a"), ("transfer-encoding", "gzip, chunked")];
        assert_eq!(post(&gzip), Err(Malformed::TransferEncodingUnsupported));
    }

    #[test]
    fn names_that_pass_for_others_are_found() {
        let headers = headers(&[
            ("proxy", "evil"),
            ("x_real_ip", "::1"),
            ("x.real.ip", "::1"),
            ("x-real-ip", "::1"),
            ("accept", "*/*"),
        ]);
        let names = |strict| {
            let mut names: Vec<String> = unsafe_fields(&headers, strict)
                .iter()
                .map(|name| name.as_str().to_owned())
                .collect();
            names.sort();
            names
        };
        assert_eq!(names(true), ["proxy", "x.real.ip", "x_real_ip"]);
        assert_eq!(names(false), ["proxy"]);
    }
}
