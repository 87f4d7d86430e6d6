//! An absolute URL of a page, as operators write it.

use std::fmt;
use std::str::FromStr;

use http::uri::Authority;
use thiserror::Error;

/// `http://HOST/PATH` or `https://HOST/PATH`, its parts as they were written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Url {
    text: String,
    pub https: bool,
    /// Where the authority begins and ends; the target follows.
    authority: (usize, usize),
}

/// Why a text is no [`Url`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0:?} is no absolute URL; expected http://HOST/PATH or https://HOST/PATH")]
pub struct BadUrl(String);

impl Url {
    /// The host, with its port where one was written.
    pub fn authority(&self) -> &str {
        &self.text[self.authority.0..self.authority.1]
    }

    /// The path and the query; `/` where none was written.
    pub fn target(&self) -> &str {
        match &self.text[self.authority.1..] {
            "" => "/",
            target => target,
        }
    }

    /// The port that the scheme means.
    pub fn default_port(&self) -> u16 {
        if self.https { 443 } else { 80 }
    }
}

impl FromStr for Url {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadUrl(text.to_owned());
        let schemes = [("http://", false), ("https://", true)];
        let (start, https) = schemes
            .iter()
            .find(|(scheme, _)| text.starts_with(scheme))
            .map(|(scheme, https)| (scheme.len(), *https))
            .ok_or_else(bad)?;
        let end = text[start..].find(['/', '?', '#']);
        let end = end.map_or(text.len(), |length| start + length);
        let is_target = matches!(text.as_bytes().get(end), None | Some(b'/'));
        let authority = text[start..end].parse::<Authority>();
        let visible = text.bytes().all(|byte| matches!(byte, b'!'..=b'~'));
        // A fragment stays with whoever reads the page.
        if authority.is_err() || !is_target || !visible || text.contains('#') {
            return Err(bad());
        }
        Ok(Self {
            text: text.to_owned(),
            https,
            authority: (start, end),
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_scheme_an_authority_and_a_target() {
        for (text, https, authority, target) in [
            ("http://a.example", false, "a.example", "/"),
            (
                "https://a.example:8443/a?b=c",
                true,
                "a.example:8443",
                "/a?b=c",
            ),
            ("https://[::1]/", true, "[::1]", "/"),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!(
                (url.https, url.authority(), url.target()),
                (https, authority, target)
            );
            assert_eq!(url.to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_no_url() {
        for text in [
            "",
            "a.example",
            "/a",
            "ftp://a/",
            "http://",
            "http:///a",
            "https://a.example?b",
            "https://a.example/#top",
            "https://a.example/ä",
            "https://a b/",
            "HTTP://a/",
        ] {
            assert!(text.parse::<Url>().is_err(), "{text}");
        }
    }
}
