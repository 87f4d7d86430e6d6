//! Host, method and longest path prefix to one route.
//!
//! Works on canonical values only ([`crate::target`]), so that what is matched here is what is
//! forwarded. Knows nothing of what a route does.

pub mod pattern;
pub mod rewrite;

use std::collections::HashMap;

use http::Method;

pub use pattern::{BadHostPattern, HostPattern};

use crate::target::PathPrefix;

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

/// The routes of one host pattern: their indices by path prefix.
#[derive(Debug, Default)]
struct Table {
    by_prefix: HashMap<Box<str>, Vec<usize>>,
    /// Bytes of the longest prefix: no more of a path is looked at, so that a path of eight
    /// thousand slashes costs no more than another.
    longest: usize,
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
            table.insert(route.path.as_str(), index);
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

    /// Finds the route of a request. `host` is [`crate::target::Host::name`], `path` is [`crate::target::Target::path`]; both
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
    fn insert(&mut self, prefix: &str, route: usize) {
        self.longest = self.longest.max(prefix.len());
        self.by_prefix.entry(prefix.into()).or_default().push(route);
    }

    /// Tries the path and each of its parents, longest first. Before `/a` comes `/a/`, which may be
    /// a prefix of its own.
    fn find(&self, path: &str) -> Option<&[usize]> {
        if path.len() <= self.longest
            && let Some(found) = self.by_prefix.get(path)
        {
            return Some(found);
        }
        let reach = path.len().min(self.longest + 1);
        for slash in memchr::memrchr_iter(b'/', &path.as_bytes()[..reach]) {
            for end in [slash + 1, slash] {
                if let Some(found) = self.by_prefix.get(&path[..end]) {
                    return Some(found);
                }
            }
        }
        None
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn route(host: &str, path: &str, methods: &[Method], value: usize) -> Route<usize> {
        Route {
            host: match host {
                "*" => HostPattern::Any,
                host => host.parse().unwrap(),
            },
            path: path.parse().unwrap(),
            methods: methods.to_vec(),
            value,
        }
    }

    fn routes(list: &[(&str, &str)]) -> Routes<usize> {
        let routes = list.iter().enumerate();
        Routes::new(
            routes
                .map(|(i, (host, path))| route(host, path, &[], i))
                .collect(),
        )
    }

    fn get(routes: &Routes<usize>, host: &str, path: &str) -> Option<usize> {
        match routes.lookup(Some(host), &Method::GET, path) {
            Found::Route(route) => Some(route.value),
            _ => None,
        }
    }

    #[test]
    fn a_prefix_matches_whole_segments() {
        let routes = routes(&[("*", "/api"), ("*", "/files/")]);
        for (path, expected) in [
            ("/api", Some(0)),
            ("/api/", Some(0)),
            ("/api/x", Some(0)),
            ("/apix", None),
            ("/ap", None),
            ("/", None),
            ("/files", None),
            ("/files/", Some(1)),
            ("/files/x/y", Some(1)),
        ] {
            assert_eq!(get(&routes, "a", path), expected, "{path}");
        }
    }

    #[test]
    fn the_longest_prefix_wins() {
        let routes = routes(&[
            ("*", "/"),
            ("*", "/a"),
            ("*", "/a/"),
            ("*", "/a/b"),
            ("*", "/a/b/c/d"),
        ]);
        for (path, expected) in [
            ("/", 0),
            ("/x", 0),
            ("/a", 1),
            ("/a/", 2),
            ("/a/x", 2),
            ("/a/b", 3),
            ("/a/b/c", 3),
            ("/a/b/c/d/e", 4),
            ("/a/bc", 2),
        ] {
            assert_eq!(get(&routes, "a", path), Some(expected), "{path}");
        }
    }

    #[test]
    fn the_most_specific_host_wins() {
        let routes = routes(&[
            ("*", "/"),
            ("*.example", "/"),
            ("*.shop.example", "/"),
            ("a.shop.example", "/"),
        ]);
        for (host, expected) in [
            ("a.shop.example", 3),
            ("b.shop.example", 2),
            ("a.b.shop.example", 2),
            ("shop.example", 1),
            ("example", 0),
            ("other", 0),
        ] {
            assert_eq!(get(&routes, host, "/"), Some(expected), "{host}");
        }
    }

    #[test]
    fn a_host_without_the_path_leaves_it_to_a_less_specific_host() {
        let routes = routes(&[
            ("*", "/.well-known"),
            ("*.example", "/b"),
            ("a.example", "/a"),
        ]);
        assert_eq!(get(&routes, "a.example", "/a"), Some(2));
        assert_eq!(get(&routes, "a.example", "/b"), Some(1));
        assert_eq!(get(&routes, "a.example", "/.well-known/x"), Some(0));
        assert_eq!(get(&routes, "a.example", "/c"), None);
    }

    #[test]
    fn a_request_without_a_host_meets_only_routes_for_any() {
        let routes = routes(&[("a", "/"), ("*", "/x")]);
        let find = |path| match routes.lookup(None, &Method::GET, path) {
            Found::Route(route) => Some(route.value),
            _ => None,
        };
        assert_eq!(find("/"), None);
        assert_eq!(find("/x"), Some(1));
    }

    #[test]
    fn methods_choose_among_routes_of_one_place() {
        let routes = Routes::new(vec![
            route("*", "/a", &[Method::GET], 0),
            route("*", "/a", &[Method::POST, Method::PUT], 1),
            route("*", "/", &[], 2),
        ]);
        let find = |method: Method, path| match routes.lookup(Some("a"), &method, path) {
            Found::Route(route) => Ok(route.value),
            Found::MethodNotAllowed { allow } => Err(allow),
            Found::NotFound => panic!("not found"),
        };
        assert_eq!(find(Method::GET, "/a"), Ok(0));
        assert_eq!(find(Method::HEAD, "/a"), Ok(0));
        assert_eq!(find(Method::PUT, "/a/x"), Ok(1));
        let refused = find(Method::DELETE, "/a");
        assert_eq!(refused, Err("GET, HEAD, POST, PUT".to_owned()));
        assert_eq!(find(Method::DELETE, "/b"), Ok(2));
    }

    proptest! {
        #[test]
        fn lookup_finds_what_trying_every_route_finds(
            list in proptest::collection::vec(("(/[ab]{0,2}){1,3}/?", 0..4usize), 1..12),
            host in "[ab]([.][ab]){0,2}", path in "(/[ab]{0,2}){1,4}/?",
        ) {
            let patterns = ["*", "a.b", "*.b", "*.a.b"];
            let list: Vec<(&str, &str)> = list
                .iter()
                .map(|(path, host)| (patterns[*host], path.as_str()))
                .collect();
            let rank = |pattern: &str| match pattern {
                "*" => Some(0),
                exact if !exact.starts_with('*') => (host == exact).then_some(100),
                wild => host.ends_with(&wild[1..]).then_some(wild.len()),
            };
            let expected = list
                .iter()
                .enumerate()
                .filter_map(|(i, (pattern, prefix))| {
                    let prefix: PathPrefix = prefix.parse().unwrap();
                    prefix.rest(&path)?;
                    Some((rank(pattern)?, prefix.as_str().len(), usize::MAX - i))
                })
                .max()
                .map(|(_, _, i)| usize::MAX - i);
            prop_assert_eq!(get(&routes(&list), &host, &path), expected);
        }
    }
}
