//! What a request must be to enter, whichever HTTP version brought it: one host, one target, one
//! body length, and fields that mean the same to everyone.
//!
//! Judges requests that are already parsed. The bytes of HTTP/1.x heads were judged before, by
//! [`crate::http1::head`]; repeating the rules here costs little and holds if a parser between
//! disagrees. Knows nothing of routes, clients or how a refusal is written.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, Method, Version};

pub use crate::http1::malformed::Malformed;

use crate::http1::framing::FramingFields;
use crate::http1::grammar;
use crate::http1::head::{AbsoluteForm, check_method};
use crate::target::{Authority, Host, PathRules, Target};

/// A request as a parser hands it over.
#[derive(Clone, Copy, Debug)]
pub struct Parsed<'a> {
    pub version: Version,
    pub method: &'a Method,
    /// `:authority` of HTTP/2, or the authority of an absolute-form target if the parser took it
    /// out.
    pub authority: Option<&'a str>,
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
pub fn check_parsed<'a>(
    request: &Parsed<'a>,
    rules: &PathRules,
) -> Result<Admitted<'a>, Malformed> {
    check_method(request.method.as_str().as_bytes())?;
    check_fields(request.version, request.headers)?;
    let (authority, target, default_port) = split_target(request, rules)?;
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

type Split<'a> = (Option<&'a [u8]>, Option<Target<'a>>, u16);

/// The authority if the target brings one, the canonical target, and the default port.
fn split_target<'a>(request: &Parsed<'a>, rules: &PathRules) -> Result<Split<'a>, Malformed> {
    let authority = request.authority.map(str::as_bytes);
    match request.target {
        b"*" if request.method == Method::OPTIONS => Ok((authority, None, 80)),
        target @ [b'/', ..] => Ok((authority, Some(Target::parse(target, rules)?), 80)),
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

fn check_fields(version: Version, headers: &HeaderMap) -> Result<(), Malformed> {
    let mut framing = FramingFields::default();
    for (name, value) in headers {
        let value = value.as_bytes();
        if !value.iter().all(|&byte| grammar::is_field_byte(byte)) {
            return Err(Malformed::FieldValueInvalid);
        }
        if name == CONTENT_LENGTH {
            framing.length(value)?;
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
