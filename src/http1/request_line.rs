//! Method, target and version of a request (RFC 9112 3), with exactly one space between.

use std::ops::Range;

use http::{Method, Version};

use super::grammar;
use super::malformed::Malformed;
use crate::target::{Authority, PathRules, Target};

/// No method in use is longer (IANA: `UPDATEREDIRECTREF`, 17).
pub(crate) const LONGEST_METHOD: usize = 32;

/// The form of a request target (RFC 9112 3.2). The authority form does not enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`
    Origin,
    /// `http://host/path?query`
    Absolute,
    /// `*`, with `OPTIONS` only.
    Asterisk,
}

/// A request line that may enter. Ranges are offsets into the buffer it was read from.
#[derive(Clone, Debug)]
pub(crate) struct RequestLine {
    /// Where the line begins.
    pub start: usize,
    pub method: Method,
    pub version: Version,
    pub form: Form,
    pub target: Range<usize>,
    pub path_and_query: Range<usize>,
    /// Of an absolute form; valid by itself.
    pub authority: Option<Range<usize>>,
    /// Of the scheme of an absolute form; otherwise 80.
    pub default_port: u16,
}

impl RequestLine {
    /// Reads the line at `line`, without its line end, already free of controls.
    pub(crate) fn read(
        buf: &[u8],
        line: Range<usize>,
        rules: &PathRules,
    ) -> Result<Self, Malformed> {
        let text = &buf[line.clone()];
        let mut parts = text.split(|&byte| byte == b' ');
        let method = parts.next().unwrap_or_default();
        let (target, version) = match (parts.next(), parts.next(), parts.next()) {
            (Some(target), Some(version), None) if !target.is_empty() && !version.is_empty() => {
                (target, version)
            }
            (Some(target), None, None) if !target.is_empty() => return Err(Malformed::Http09),
            _ => return Err(Malformed::RequestLineSpacing),
        };
        if method == b"PRI" && target == b"*" && version == b"HTTP/2.0" {
            return Err(Malformed::Http2Preface);
        }
        let method = check_method(method)?;
        let version = check_version(version)?;
        let start = line.start + method.as_str().len() + 1;
        let target_range = start..start + target.len();
        let mut read = RequestLine {
            start: line.start,
            method,
            version,
            form: Form::Origin,
            path_and_query: target_range.clone(),
            target: target_range,
            authority: None,
            default_port: 80,
        };
        if target == b"*" {
            if read.method != Method::OPTIONS {
                return Err(Malformed::TargetForm);
            }
            read.form = Form::Asterisk;
            read.path_and_query = start..start;
            return Ok(read);
        }
        if target[0] == b'/' {
            Target::parse(target, rules)?;
            return Ok(read);
        }
        let absolute = AbsoluteForm::read(target)?;
        Authority::parse(absolute.authority)?;
        Target::after_authority(absolute.path_and_query, rules)?;
        let path = read.target.end - absolute.path_and_query.len();
        read.form = Form::Absolute;
        read.authority = Some(path - absolute.authority.len()..path);
        read.path_and_query = path..read.target.end;
        read.default_port = absolute.default_port;
        Ok(read)
    }
}

/// Methods are case-sensitive, and every registered one is upper case: `get` is either a mistake or
/// an attempt to slip past a rule about `GET`.
pub(crate) fn check_method(method: &[u8]) -> Result<Method, Malformed> {
    if !grammar::is_token(method) {
        return Err(Malformed::MethodInvalid);
    }
    match method {
        b"CONNECT" => return Err(Malformed::MethodTunnel),
        b"TRACE" => return Err(Malformed::MethodTrace),
        _ => {}
    }
    if method.len() > LONGEST_METHOD || method.iter().any(u8::is_ascii_lowercase) {
        return Err(Malformed::MethodUnknown);
    }
    Method::from_bytes(method).map_err(|_| Malformed::MethodInvalid)
}

fn check_version(version: &[u8]) -> Result<Version, Malformed> {
    match version {
        b"HTTP/1.1" => Ok(Version::HTTP_11),
        b"HTTP/1.0" => Ok(Version::HTTP_10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Malformed::VersionUnsupported)
        }
        _ => Err(Malformed::VersionInvalid),
    }
}

/// An absolute-form target taken apart (RFC 9112 3.2.2); its parts are not checked yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AbsoluteForm<'a> {
    pub authority: &'a [u8],
    pub path_and_query: &'a [u8],
    pub default_port: u16,
}

impl<'a> AbsoluteForm<'a> {
    pub(crate) fn read(target: &'a [u8]) -> Result<Self, Malformed> {
        for (scheme, default_port) in [(&b"http://"[..], 80), (&b"https://"[..], 443)] {
            let Some((start, rest)) = target.split_at_checked(scheme.len()) else {
                continue;
            };
            if start.eq_ignore_ascii_case(scheme) {
                let path = rest
                    .iter()
                    .position(|byte| matches!(byte, b'/' | b'?' | b'#'))
                    .unwrap_or(rest.len());
                return Ok(AbsoluteForm {
                    authority: &rest[..path],
                    path_and_query: &rest[path..],
                    default_port,
                });
            }
        }
        match memchr::memmem::find(target, b"://") {
            Some(_) => Err(Malformed::TargetScheme),
            None => Err(Malformed::TargetForm),
        }
    }
}
