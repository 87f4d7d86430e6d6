//! `Cache-Control`, of responses (RFC 9111 5.2.2, RFC 5861) and of requests (5.2.1). Knows what was
//! said, not what follows from it.
//!
//! `Pragma` is not read at all: RFC 9111 5.4 has retired it, and clients that mean something send
//! `Cache-Control` too.

use std::time::Duration;

use http::HeaderMap;
use http::header::{CACHE_CONTROL, HeaderName};

use super::policy::Honoured;
use super::{digits, list};
use crate::http1::grammar::is_token;

/// As long as any lifetime gets: 2^31 seconds (RFC 9111 1.2.2).
pub const LONGEST: Duration = Duration::from_secs(1 << 31);

/// `delta-seconds`: digits, saturating at [`LONGEST`]; `None` for anything else.
pub fn delta_seconds(digits: &[u8]) -> Option<Duration> {
    let seconds = digits::saturating(digits)?;
    Some(Duration::from_secs(seconds).min(LONGEST))
}

/// What a directive with an optional list of fields, `no-cache` or `private`, applies to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// It was not said.
    #[default]
    Nothing,
    /// Only these fields.
    Fields(Vec<HeaderName>),
    Everything,
}

impl Scope {
    /// Reads the argument of the directive. One that is no list of fields names none: then the whole
    /// response is meant.
    pub fn of(argument: Option<&[u8]>) -> Self {
        let Some(text) = argument else {
            return Self::Everything;
        };
        let fields: Result<Vec<_>, _> = list::split(text)
            .filter(|member| !member.is_empty())
            .map(HeaderName::from_bytes)
            .collect();
        match fields {
            Ok(fields) if !fields.is_empty() => Self::Fields(fields),
            _ => Self::Everything,
        }
    }

    pub fn add(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Everything, _) | (_, Self::Nothing) => {}
            (Self::Fields(mine), Self::Fields(others)) => mine.extend(others),
            (_, other) => *self = other,
        }
    }

    pub fn is_everything(&self) -> bool {
        *self == Self::Everything
    }

    /// The fields it is limited to; none if it applies to nothing or to everything.
    pub fn fields(&self) -> &[HeaderName] {
        match self {
            Self::Fields(fields) => fields,
            Self::Nothing | Self::Everything => &[],
        }
    }
}

/// What the directives of a response say.
///
/// A lifetime that is no number is zero: stale (RFC 9111 4.2.1). A stale window that is no number was
/// not said. Of two values of one directive the first counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    pub max_age: Option<Duration>,
    pub s_maxage: Option<Duration>,
    pub stale_while_revalidate: Option<Duration>,
    pub stale_if_error: Option<Duration>,
    pub no_cache: Scope,
    pub private: Scope,
    pub no_store: bool,
    pub public: bool,
    pub must_revalidate: bool,
    pub proxy_revalidate: bool,
    pub must_understand: bool,
    pub no_transform: bool,
}

impl ResponseDirectives {
    /// Reads every `Cache-Control` line. Unknown directives are passed over.
    pub fn parse(fields: &HeaderMap) -> Self {
        let mut said = Self::default();
        for member in list::members(fields, CACHE_CONTROL) {
            let (name, argument) = directive(member);
            said.add(name, argument.as_ref());
        }
        said
    }

    fn add(&mut self, name: &[u8], argument: Option<&Argument<'_>>) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let seconds = || argument.and_then(Argument::seconds);
        if is("max-age") {
            self.max_age.get_or_insert(seconds().unwrap_or_default());
        } else if is("s-maxage") {
            self.s_maxage.get_or_insert(seconds().unwrap_or_default());
        } else if is("stale-while-revalidate") {
            self.stale_while_revalidate = self.stale_while_revalidate.or_else(seconds);
        } else if is("stale-if-error") {
            self.stale_if_error = self.stale_if_error.or_else(seconds);
        } else if is("no-cache") {
            self.no_cache.add(scope(argument));
        } else if is("private") {
            self.private.add(scope(argument));
        } else if let Some(flag) = self.flag(name) {
            *flag = true;
        }
    }

    /// The directive of this name that has no argument.
    pub fn flag(&mut self, name: &[u8]) -> Option<&mut bool> {
        let flags = [
            ("no-store", &mut self.no_store),
            ("public", &mut self.public),
            ("must-revalidate", &mut self.must_revalidate),
            ("proxy-revalidate", &mut self.proxy_revalidate),
            ("must-understand", &mut self.must_understand),
            ("no-transform", &mut self.no_transform),
        ];
        let mut known = flags.into_iter();
        known
            .find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes()))
            .map(|(_, flag)| flag)
    }

    /// The lifetime in a shared cache.
    pub fn lifetime(&self) -> Option<Duration> {
        self.s_maxage.or(self.max_age)
    }

    /// Whether nobody but this one visitor may have it, or nobody again without a question: what no
    /// setting of ours overrides.
    pub fn forbids_reuse(&self) -> bool {
        self.no_store || self.private.is_everything() || self.no_cache.is_everything()
    }

    /// Whether it must not be reused stale (RFC 9111 4.2.4).
    pub fn forbids_stale(&self) -> bool {
        self.must_revalidate
            || self.proxy_revalidate
            || self.s_maxage.is_some()
            || self.no_cache.is_everything()
    }
}

/// What the directives of a request ask for. One whose argument is no number was not said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    pub no_cache: bool,
    pub no_store: bool,
    pub only_if_cached: bool,
    pub max_age: Option<Duration>,
    pub min_fresh: Option<Duration>,
    /// [`Duration::MAX`] if any staleness will do.
    pub max_stale: Option<Duration>,
}

impl RequestDirectives {
    /// Reads what is honoured of every `Cache-Control` line. Allocates only for quoted arguments.
    pub fn parse(fields: &HeaderMap, honoured: &Honoured) -> Self {
        let mut asked = Self::default();
        if *honoured == Honoured::NONE {
            return asked;
        }
        for member in list::members(fields, CACHE_CONTROL) {
            let (name, argument) = directive(member);
            asked.add(name, argument.as_ref(), honoured);
        }
        asked
    }

    fn add(&mut self, name: &[u8], argument: Option<&Argument<'_>>, honoured: &Honoured) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let seconds = || argument.and_then(Argument::seconds);
        if is("no-cache") {
            self.no_cache |= honoured.no_cache;
        } else if is("no-store") {
            self.no_store |= honoured.no_store;
        } else if is("only-if-cached") {
            self.only_if_cached |= honoured.only_if_cached;
        } else if is("max-age") && honoured.max_age {
            self.max_age = self.max_age.or_else(seconds);
        } else if is("min-fresh") && honoured.min_fresh {
            self.min_fresh = self.min_fresh.or_else(seconds);
        } else if is("max-stale") && honoured.max_stale {
            let allowed = match argument {
                None => Some(Duration::MAX),
                Some(argument) => argument.seconds(),
            };
            self.max_stale = self.max_stale.or(allowed);
        }
    }
}

/// What stands behind the `=` of a directive.
enum Argument<'a> {
    Token(&'a [u8]),
    Quoted(Vec<u8>),
    /// Neither token nor quoted string.
    Malformed,
}

impl Argument<'_> {
    fn seconds(&self) -> Option<Duration> {
        match self {
            Self::Token(digits) => delta_seconds(digits),
            // RFC 9111 5.2: recipients accept both forms of an argument.
            Self::Quoted(digits) => delta_seconds(digits),
            Self::Malformed => None,
        }
    }
}

fn scope(argument: Option<&Argument<'_>>) -> Scope {
    match argument {
        None => Scope::Everything,
        Some(Argument::Token(text)) => Scope::of(Some(text)),
        Some(Argument::Quoted(text)) => Scope::of(Some(text)),
        Some(Argument::Malformed) => Scope::Everything,
    }
}

/// Splits `name=argument`. White space around the `=`, which the grammar does not have, spoils the
/// argument but does not hide the name.
fn directive(member: &[u8]) -> (&[u8], Option<Argument<'_>>) {
    let Some(equals) = memchr::memchr(b'=', member) else {
        return (member, None);
    };
    let (name, argument) = (&member[..equals], &member[equals + 1..]);
    let trimmed = name.trim_ascii_end();
    let argument = if trimmed.len() < name.len() {
        Argument::Malformed
    } else if is_token(argument) {
        Argument::Token(argument)
    } else {
        list::unquote(argument).map_or(Argument::Malformed, Argument::Quoted)
    };
    (trimmed, Some(argument))
}

#[cfg(test)]
mod tests;
