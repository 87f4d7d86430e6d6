//! Host, method and longest path prefix to one route.
//!
//! Works on canonical values only ([`crate::target`]), so that what is matched here is what is
//! forwarded. Knows nothing of what a route does.

pub mod rewrite;

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use http::Method;
use thiserror::Error;

use crate::target::{BadHost, BadPath, Host, PathRules, Target};

/// Which hosts a route answers for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Every host, also none.
    Any,
    /// One canonical name, without port.
    Exact(Box<str>),
    /// `*.example`: any name that ends in `.example`, of one label or more before it. Held without
    /// the star and its dot.
    Under(Box<str>),
}

/// Why a text is not a [`HostPattern`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadHostPattern {
    #[error("invalid host \"{text}\"; expected a name such as shop.example or *.example")]
    Host {
        text: String,
        #[source]
        source: BadHost,
    },
    #[error("host \"{0}\" has a port; a route answers on every port")]
    Port(String),
}

impl FromStr for HostPattern {
    type Err = BadHostPattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, wildcard) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let host = Host::parse(name.as_bytes()).map_err(|source| BadHostPattern::Host {
            text: text.to_owned(),
            source,
        })?;
        if host.port().is_some() {
            return Err(BadHostPattern::Port(text.to_owned()));
        }
        Ok(if wildcard {
            HostPattern::Under(host.name().into())
        } else {
            HostPattern::Exact(host.name().into())
        })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Any => f.write_str("*"),
            HostPattern::Exact(name) => f.write_str(name),
            HostPattern::Under(name) => write!(f, "*.{name}"),
        }
    }
}

/// A path prefix of whole segments, canonical as request paths are.
///
/// `/api` matches `/api` and `/api/x`, not `/apix`. `/api/` matches only what is below it: `/api/`
/// and `/api/x`, not `/api`. `/` matches everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPrefix(Box<str>);

/// Why a text is not a [`PathPrefix`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadPathPrefix {
    #[error("invalid path \"{text}\"; expected one that begins with / such as /api")]
    Path {
        text: String,
        #[source]
        source: BadPath,
    },
    #[error("path \"{text}\" could never match; requests have it as \"{canonical}\"")]
    NotCanonical { text: String, canonical: String },
    #[error("path \"{0}\" has a query; routes are chosen by path alone")]
    Query(String),
}

impl PathPrefix {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What of `path` follows this prefix, if it matches; empty or with its leading `/`.
    pub fn rest<'p>(&self, path: &'p str) -> Option<&'p str> {
        let bare = self.0.strip_suffix('/').unwrap_or(&self.0);
        let rest = path.strip_prefix(bare)?;
        let matches = if bare.len() < self.0.len() {
            rest.starts_with('/')
        } else {
            rest.is_empty() || rest.starts_with('/')
        };
        matches.then_some(rest)
    }
}

impl FromStr for PathPrefix {
    type Err = BadPathPrefix;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let target = Target::parse(text.as_bytes(), &PathRules::default()).map_err(|source| {
            BadPathPrefix::Path {
                text: text.to_owned(),
                source,
            }
        })?;
        if target.query().is_some() {
            return Err(BadPathPrefix::Query(text.to_owned()));
        }
        if !target.is_as_sent() {
            return Err(BadPathPrefix::NotCanonical {
                text: text.to_owned(),
                canonical: target.path().to_owned(),
            });
        }
        Ok(PathPrefix(text.into()))
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a route answers for, and what it is.
#[derive(Clone, Debug)]
pub struct Route<T> {
    pub host: HostPattern,
    pub path: PathPrefix,
    /// Empty means every method.
    pub methods: Vec<Method>,
    pub value: T,
}

impl<T> Route<T> {
    /// Whether the method is answered; `HEAD` is wherever `GET` is (RFC 9110 9.1).
    pub fn allows(&self, method: &Method) -> bool {
        self.methods.is_empty()
            || self.methods.contains(method)
            || *method == Method::HEAD && self.methods.contains(&Method::GET)
    }
}

/// What a lookup gives.
#[derive(Debug)]
pub enum Found<'r, T> {
    Route(&'r Route<T>),
    /// The host and path are known, but no route there answers this method; `allow` is the value of
    /// an `Allow` field.
    MethodNotAllowed {
        allow: String,
    },
    NotFound,
}

/// All routes, compiled for lookup.
///
/// The most specific host comes first: exact, then `*.` patterns by length, then any. Within a host
/// the longest path prefix wins; among equal ones the first that was given. If no path of a host
/// matches, the next less specific host is asked: a route for any host with path
/// `/.well-known/acme-challenge` serves every host that does not claim that path itself.
/// A method filter never falls through to a shorter prefix or another host: that would let a
/// request reach a route whose owner thought the path was taken.
#[derive(Debug)]
pub struct Routes<T> {
    routes: Vec<Route<T>>,
    exact: HashMap<Box<str>, Table>,
    under: HashMap<Box<str>, Table>,
    any: Table,
}

/// The routes of one host pattern: indices, longest prefix first.
#[derive(Debug, Default)]
struct Table {
    by_prefix: HashMap<Box<str>, Vec<usize>>,
}

impl<T> Routes<T> {
    /// Compiles the table. Several routes may share host and path if their methods differ; the
    /// first that allows a method gets it.
    pub fn new(routes: Vec<Route<T>>) -> Self {
        let mut exact: HashMap<Box<str>, Table> = HashMap::new();
        let mut under: HashMap<Box<str>, Table> = HashMap::new();
        let mut any = Table::default();
        for (index, route) in routes.iter().enumerate() {
            let table = match &route.host {
                HostPattern::Any => &mut any,
                HostPattern::Exact(name) => exact.entry(name.clone()).or_default(),
                HostPattern::Under(name) => under.entry(name.clone()).or_default(),
            };
            table
                .by_prefix
                .entry(route.path.as_str().into())
                .or_default()
                .push(index);
        }
        Routes {
            routes,
            exact,
            under,
            any,
        }
    }

    pub fn len(&self) -> usize {
        self.routes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// In the order they were written.
    pub fn iter(&self) -> impl Iterator<Item = &Route<T>> {
        self.routes.iter()
    }

    /// Finds the route of a request. `host` is [`Host::name`], `path` is [`Target::path`]; both
    /// canonical.
    pub fn lookup(&self, host: Option<&str>, method: &Method, path: &str) -> Found<'_, T> {
        let Some(candidates) = self.candidates(host, path) else {
            return Found::NotFound;
        };
        let mut candidates = candidates.iter().map(|&index| &self.routes[index]);
        match candidates.clone().find(|route| route.allows(method)) {
            Some(route) => Found::Route(route),
            None => Found::MethodNotAllowed {
                allow: allow(&mut candidates),
            },
        }
    }

    fn candidates(&self, host: Option<&str>, path: &str) -> Option<&[usize]> {
        if let Some(host) = host {
            if let Some(found) = self.exact.get(host).and_then(|table| table.find(path)) {
                return Some(found);
            }
            if !self.under.is_empty() {
                let mut rest = host;
                while let Some((_, parent)) = rest.split_once('.') {
                    if let Some(found) = self.under.get(parent).and_then(|table| table.find(path)) {
                        return Some(found);
                    }
                    rest = parent;
                }
            }
        }
        self.any.find(path)
    }
}

impl Table {
    /// Tries the path and each of its parents, longest first.
    fn find(&self, path: &str) -> Option<&[usize]> {
        let mut end = path.len();
        loop {
            if let Some(found) = self.by_prefix.get(&path[..end]) {
                return Some(found);
            }
            end = match path[..end].rfind('/')? {
                // "/a/" may be a prefix of its own before "/a" is tried.
                slash if slash + 1 < end => slash + 1,
                slash => slash,
            };
        }
    }
}

fn allow<'r, T: 'r>(routes: &mut dyn Iterator<Item = &'r Route<T>>) -> String {
    let mut methods: Vec<&str> = Vec::new();
    for route in routes {
        for method in &route.methods {
            if !methods.contains(&method.as_str()) {
                methods.push(method.as_str());
            }
            if *method == Method::GET && !methods.contains(&"HEAD") {
                methods.push("HEAD");
            }
        }
    }
    methods.join(", ")
}
