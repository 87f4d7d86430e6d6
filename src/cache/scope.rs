//! What a purge covers: digests that the places and tags of an entry are looked up by, so that
//! nothing that is stored has to be searched.

mod id;

use std::fmt;

use super::frame::{Digest, Frame};
use super::key::Url;
use super::tags::Tag;

pub use self::id::{Kind, ScopeId};

/// How many segments of a path a prefix may have. What lies deeper is covered by what it lies below.
pub const DEEPEST_PREFIX: usize = 64;

/// A set of entries. Hosts are canonical names without ports; but for groups the scheme does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    Everything,
    Host(&'a str),
    /// Whole segments, as in a route: `/a` covers `/a` and `/a/b`, `/a/` only what is below it.
    Prefix {
        host: &'a str,
        path: &'a str,
    },
    /// One path with any query.
    Path {
        host: &'a str,
        path: &'a str,
    },
    /// One path with this query, in the normal form of the policy that it is stored by.
    Url {
        host: &'a str,
        path: &'a str,
        query: Option<&'a str>,
    },
    /// A `Surrogate-Key` or `Cache-Tag`, on whatever host.
    Tag(&'a str),
    /// A group of RFC 9875, of one origin.
    Group {
        scheme: &'a str,
        host: &'a str,
        name: &'a str,
    },
}

impl Scope<'_> {
    pub fn id(&self) -> ScopeId {
        ScopeId::One(self.kind(), self.digest())
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Everything | Self::Host(_) | Self::Prefix { .. } => Kind::Place,
            Self::Path { .. } | Self::Url { .. } => Kind::Url,
            Self::Tag(_) | Self::Group { .. } => Kind::Tag,
        }
    }

    fn digest(&self) -> Digest {
        let framed = |parts: &[(u8, &str)]| {
            let mut frame = Frame::default();
            for (tag, part) in parts {
                frame.part(*tag, part.as_bytes());
            }
            frame.finish().digest()
        };
        match *self {
            Self::Everything => framed(&[(b'*', "")]),
            Self::Host(host) => framed(&[(b'h', host)]),
            Self::Prefix { host, path } => framed(&[(b'h', host), (b'^', path)]),
            Self::Path { host, path } => framed(&[(b'h', host), (b'/', path)]),
            Self::Url { host, path, query } => {
                let place = [(b'h', host), (b'/', path), (b'u', "")];
                match query {
                    None => framed(&place),
                    Some(query) => framed(&[&place[..], &[(b'?', query)]].concat()),
                }
            }
            Self::Tag(name) => framed(&[(b't', name)]),
            Self::Group { scheme, host, name } => {
                framed(&[(b's', scheme), (b'h', host), (b'g', name)])
            }
        }
    }

    /// The tag of a response from this origin.
    pub fn of_tag<'a>(tag: &'a Tag, scheme: &'a str, host: &'a str) -> Scope<'a> {
        match tag {
            Tag::Key(name) => Scope::Tag(name),
            Tag::Group(name) => Scope::Group { scheme, host, name },
        }
    }
}

/// For humans.
impl fmt::Display for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Everything => f.write_str("everything"),
            Self::Host(host) => write!(f, "host {host}"),
            Self::Prefix { host, path } => write!(f, "prefix {host}{path}"),
            Self::Path { host, path } => write!(f, "{host}{path} with any query"),
            Self::Url { host, path, query } => match query {
                None => write!(f, "{host}{path}"),
                Some(query) => write!(f, "{host}{path}?{query}"),
            },
            Self::Tag(name) => write!(f, "tag {name}"),
            Self::Group { scheme, host, name } => write!(f, "group {name} of {scheme}://{host}"),
        }
    }
}

/// Every scope that covers an entry, but for prefixes.
pub fn covering<'a>(url: &Url<'a>, tags: &'a [Tag]) -> impl Iterator<Item = Scope<'a>> {
    let Url {
        scheme,
        host,
        path,
        query,
    } = *url;
    let places = [
        Scope::Everything,
        Scope::Host(host),
        Scope::Path { host, path },
        Scope::Url { host, path, query },
    ];
    let tags = tags.iter().map(move |tag| Scope::of_tag(tag, scheme, host));
    places.into_iter().chain(tags)
}

/// Every prefix that covers a URL.
pub fn prefixes<'a>(url: &Url<'a>) -> impl Iterator<Item = Scope<'a>> {
    let Url { host, path, .. } = *url;
    let slashes = path.match_indices('/').map(|(at, _)| at);
    let ends = slashes.flat_map(|slash| [slash, slash + 1]);
    let ends = ends.skip(1).chain([path.len()]);
    ends.take(2 * DEEPEST_PREFIX).map(move |end| Scope::Prefix {
        host,
        path: &path[..end],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "a.example";

    fn url(path: &str) -> Url<'_> {
        Url {
            scheme: "https",
            host: HOST,
            path,
            query: None,
        }
    }

    fn is_below(path: &str, prefix: &str) -> bool {
        prefixes(&url(path)).any(|scope| {
            scope
                == Scope::Prefix {
                    host: HOST,
                    path: prefix,
                }
        })
    }

    #[test]
    fn a_prefix_covers_whole_segments() {
        for (path, prefix, covers) in [
            ("/api", "/api", true),
            ("/api/x", "/api", true),
            ("/api/", "/api", true),
            ("/apix", "/api", false),
            ("/api", "/api/", false),
            ("/api/", "/api/", true),
            ("/api/x/y", "/api/", true),
            ("/api/x/y", "/api/x", true),
            ("/api/x/y", "/api/x/y/z", false),
            ("/", "/", true),
            ("/x", "/", true),
        ] {
            assert_eq!(is_below(path, prefix), covers, "{path} below {prefix}");
        }
    }

    #[test]
    fn no_two_scopes_have_one_digest() {
        let (host, path) = (HOST, "/a");
        let query = Some("");
        let mut digests = [
            Scope::Everything,
            Scope::Host(host),
            Scope::Prefix { host, path },
            Scope::Path { host, path },
            Scope::Url { host, path, query },
            Scope::Url {
                host,
                path,
                query: None,
            },
            Scope::Tag(host),
            Scope::Group {
                scheme: "https",
                host,
                name: path,
            },
            Scope::Group {
                scheme: "http",
                host,
                name: path,
            },
        ]
        .map(|scope| scope.digest());
        digests.sort_unstable();
        assert!(digests.is_sorted_by(|one, next| one < next));
    }
}
