//! What an operator names to be purged, and what that covers. The form is that of the interface for
//! administration; nothing is sent or stored here.

use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::cache::scope::{DEEPEST_PREFIX, Scope, ScopeId};
use crate::cache::tags;
use crate::cache::tombstones::{Purge, Strength};
use crate::exchange::{Asked, caching};
use crate::plan::Plan;
use crate::target::{BadHost, BadPath, BadUrl, Host, Target, Url};

/// What one order may name.
pub const MOST: usize = 1000;

/// What to purge: everything that any of it covers. One or a list of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Order {
    /// Absolute URLs, each with all that is stored of it. Neither scheme nor port count.
    #[serde(deserialize_with = "one_or_many")]
    pub url: Vec<String>,
    /// Values of `Surrogate-Key` or `Cache-Tag`, on any host.
    #[serde(deserialize_with = "one_or_many")]
    pub tag: Vec<String>,
    /// Absolute URLs that others lie below, by whole segments of the path.
    #[serde(deserialize_with = "one_or_many")]
    pub prefix: Vec<String>,
    #[serde(deserialize_with = "one_or_many")]
    pub host: Vec<String>,
    pub everything: bool,
    /// Give it as stale while it is fetched anew, where its policy allows that.
    pub soft: bool,
    /// URLs with whatever query.
    pub any_query: bool,
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a string or a list of strings")]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}

/// Why an order is none.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum BadOrder {
    #[error("it names nothing; expected url, tag, prefix, host or everything")]
    Empty,
    #[error("it names {0} things; expected at most {MOST}")]
    TooMany(usize),
    #[error(transparent)]
    Url(#[from] BadUrl),
    #[error("{url:?} could not be requested: {why}")]
    Path { url: String, why: BadPath },
    #[error("{host:?} is no host: {why}")]
    Host { host: String, why: BadHost },
    #[error("prefix {0:?} has a query; expected only a path")]
    Query(String),
    #[error("prefix {0:?} has more than {DEEPEST_PREFIX} segments")]
    Deep(String),
    #[error("a tag has {0} bytes; expected 1 to {most}", most = tags::LONGEST)]
    Tag(usize),
}

impl Order {
    /// What it covers, of what is stored by the policies of this plan.
    pub fn purge(&self, plan: &Plan) -> Result<Purge, BadOrder> {
        let lists = [&self.url, &self.tag, &self.prefix, &self.host];
        let count = lists.iter().map(|list| list.len()).sum();
        if count > MOST {
            return Err(BadOrder::TooMany(count));
        }
        let urls = self.url.iter().map(|url| self.url_scope(url, plan));
        let tags = self.tag.iter().map(|tag| tag_scope(tag));
        let prefixes = self.prefix.iter().map(|url| prefix_scope(url, plan));
        let hosts = self.host.iter().map(|host| host_scope(host));
        let everything = self.everything.then(|| Ok(Scope::Everything.id()));
        let scopes = urls.chain(tags).chain(prefixes).chain(hosts);
        let scopes: Vec<_> = scopes.chain(everything).collect::<Result<_, _>>()?;
        if scopes.is_empty() {
            return Err(BadOrder::Empty);
        }
        let strength = match self.soft {
            true => Strength::Soft,
            false => Strength::Hard,
        };
        Ok(Purge { scopes, strength })
    }

    fn url_scope(&self, url: &str, plan: &Plan) -> Result<ScopeId, BadOrder> {
        let asked = asked(url, plan)?;
        let host = asked.host.as_ref().map_or("", Host::name);
        let path = &asked.path;
        Ok(match self.any_query {
            true => Scope::Path { host, path }.id(),
            false => caching::url_scope(plan, &asked),
        })
    }
}

fn prefix_scope(url: &str, plan: &Plan) -> Result<ScopeId, BadOrder> {
    let asked = asked(url, plan)?;
    let path = &asked.path;
    if asked.query.is_some() {
        return Err(BadOrder::Query(url.to_owned()));
    }
    if path.matches('/').count() > DEEPEST_PREFIX {
        return Err(BadOrder::Deep(url.to_owned()));
    }
    let host = asked.host.as_ref().map_or("", Host::name);
    Ok(Scope::Prefix { host, path }.id())
}

fn host_scope(host: &str) -> Result<ScopeId, BadOrder> {
    Ok(Scope::Host(parse_host(host)?.name()).id())
}

fn tag_scope(tag: &str) -> Result<ScopeId, BadOrder> {
    match tag.len() {
        1..=tags::LONGEST => Ok(Scope::Tag(tag).id()),
        length => Err(BadOrder::Tag(length)),
    }
}

fn parse_host(host: &str) -> Result<Host, BadOrder> {
    Host::parse(host.as_bytes()).map_err(|why| BadOrder::Host {
        host: host.to_owned(),
        why,
    })
}

/// An absolute URL as a request for it would be read.
fn asked(url: &str, plan: &Plan) -> Result<Asked, BadOrder> {
    let written: Url = url.parse()?;
    let target = Target::parse(written.target().as_bytes(), &plan.limits.path);
    let target = target.map_err(|why| BadOrder::Path {
        url: url.to_owned(),
        why,
    })?;
    Ok(Asked {
        host: Some(parse_host(written.authority())?),
        query: target.query().map(Into::into),
        path: target.into_path().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::config::problem::Problems;

    fn plan() -> Plan {
        let text = r#"
            server = { listen = ["127.0.0.1:0"] }
            upstream.app = { backends = ["127.0.0.1:1"] }
            cache.policy.pages = { ignore_query = ["utm_*"] }
            [[route]]
            upstream = "app"
            cache = "pages"
        "#;
        let config = config::parse(text, "gateway.toml", &|_| None).unwrap();
        Plan::compile(&config, None, &mut Problems::new("gateway.toml")).unwrap()
    }

    fn scopes(json: &str) -> Result<Vec<ScopeId>, BadOrder> {
        let order: Order = serde_json::from_str(json).unwrap();
        Ok(order.purge(&plan())?.scopes)
    }

    const HOST: &str = "a.example";

    #[test]
    fn what_is_named_is_what_requests_are_stored_under() {
        let path = "/a";
        let url = |query| {
            Scope::Url {
                host: HOST,
                path,
                query,
            }
            .id()
        };
        for (json, expected) in [
            (r#"{"url": "https://a.example/a"}"#, url(None)),
            (r#"{"url": "http://A.Example:8080/b/../%61"}"#, url(None)),
            (
                r#"{"url": "https://a.example/a?x=1&utm_a=2"}"#,
                url(Some("x=1")),
            ),
            (
                r#"{"url": "https://a.example/a?x=1", "any_query": true}"#,
                Scope::Path { host: HOST, path }.id(),
            ),
            (r#"{"tag": "news"}"#, Scope::Tag("news").id()),
            (
                r#"{"prefix": "https://a.example/a"}"#,
                Scope::Prefix { host: HOST, path }.id(),
            ),
            (r#"{"host": "a.example:443"}"#, Scope::Host(HOST).id()),
            (r#"{"everything": true}"#, Scope::Everything.id()),
        ] {
            assert_eq!(scopes(json), Ok(vec![expected]), "{json}");
        }
        let several = scopes(r#"{"tag": ["a", "b"], "host": ["c", "d"]}"#);
        assert_eq!(several.map(|scopes| scopes.len()), Ok(4));
    }

    #[test]
    fn what_could_cover_nothing_is_refused() {
        for (json, why) in [
            ("{}", "it names nothing"),
            (r#"{"soft": true}"#, "it names nothing"),
            (r#"{"url": "/a"}"#, "is no absolute URL"),
            (r#"{"url": "https:///a"}"#, "is no absolute URL"),
            (r#"{"url": "https://a@b/"}"#, "is no host"),
            (r#"{"url": "https://a/%00"}"#, "could not be requested"),
            (r#"{"host": "a b"}"#, "is no host"),
            (r#"{"prefix": "https://a/b?c"}"#, "has a query"),
            (r#"{"tag": ""}"#, "a tag has 0 bytes"),
        ] {
            let error = scopes(json).unwrap_err().to_string();
            assert!(error.contains(why), "{json}: {error}");
        }
        let deep = format!(r#"{{"prefix": "https://a{}"}}"#, "/x".repeat(65));
        assert!(matches!(scopes(&deep), Err(BadOrder::Deep(_))));
        let many = format!(r#"{{"tag": ["a"{}]}}"#, r#", "a""#.repeat(MOST));
        assert_eq!(scopes(&many), Err(BadOrder::TooMany(MOST + 1)));
        for unknown in [r#"{"urls": []}"#, r#"{"url": 1}"#, r#"{"soft": "no"}"#] {
            assert!(serde_json::from_str::<Order>(unknown).is_err(), "{unknown}");
        }
    }
}
