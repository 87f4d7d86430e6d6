//! What an entry can be purged by: `Surrogate-Key`, `Cache-Tag`, and the `Cache-Groups` of RFC 9875.
//! Bounded, so that no response can make purging dear.

use std::str::FromStr;

use http::HeaderMap;
use http::header::HeaderName;
use sfv::{List, ListEntry, Parser};
use thiserror::Error;

use super::list;

pub const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
pub const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");
pub const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
pub const CACHE_GROUP_INVALIDATION: HeaderName =
    HeaderName::from_static("cache-group-invalidation");

/// Tags of one response, at most.
pub const MOST: usize = 128;
/// Bytes of one tag, at most.
pub const LONGEST: usize = 256;

/// A name that an application has given to related pages. Case counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tag {
    /// Of `Surrogate-Key` or `Cache-Tag`: the same everywhere.
    Key(Box<str>),
    /// Of `Cache-Groups`: of one origin, which is not part of it here (RFC 9875 2.1).
    Group(Box<str>),
}

impl Tag {
    pub fn name(&self) -> &str {
        match self {
            Self::Key(name) | Self::Group(name) => name,
        }
    }
}

/// A response has more or longer tags than fit. Without some of them a purge would miss it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyTags;

/// Why a text is no [`Tag::Key`] that a field could have.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0:?} is no tag; expected 1 to {LONGEST} visible ASCII characters without comma")]
pub struct BadTag(String);

impl FromStr for Tag {
    type Err = BadTag;

    fn from_str(text: &str) -> Result<Self, BadTag> {
        let is_of_tag = |byte: u8| byte.is_ascii_graphic() && byte != b',';
        let is_tag = (1..=LONGEST).contains(&text.len()) && text.bytes().all(is_of_tag);
        match is_tag {
            true => Ok(Self::Key(text.into())),
            false => Err(BadTag(text.to_owned())),
        }
    }
}

/// The tags of a response, each once, in order; `given` are those that all of its kind have.
pub fn of(response: &HeaderMap, given: &[Tag]) -> Result<Box<[Tag]>, TooManyTags> {
    let words = response
        .get_all(SURROGATE_KEY)
        .iter()
        .flat_map(|line| line.as_bytes().split(u8::is_ascii_whitespace));
    let members = list::members(response, CACHE_TAG);
    let keys = words
        .chain(members)
        .filter(|tag| !tag.is_empty())
        .map(|tag| Tag::Key(String::from_utf8_lossy(tag).into()));
    let given = given.iter().cloned();
    bounded(keys.chain(groups(response, &CACHE_GROUPS)).chain(given))
}

/// The groups that the response to an unsafe request declares outdated (RFC 9875 3). With
/// [`TooManyTags`] everything of the origin is.
pub fn invalidated(response: &HeaderMap) -> Result<Box<[Tag]>, TooManyTags> {
    bounded(groups(response, &CACHE_GROUP_INVALIDATION))
}

/// A List of Strings; other members say nothing, and a field that is no List says nothing at all.
fn groups(response: &HeaderMap, name: &HeaderName) -> impl Iterator<Item = Tag> {
    let lines: Vec<_> = response
        .get_all(name)
        .iter()
        .map(|v| v.as_bytes())
        .collect();
    let list: List = Parser::new(&lines.join(&b", "[..]))
        .parse()
        .unwrap_or_default();
    list.into_iter().filter_map(|member| match member {
        ListEntry::Item(item) => {
            let name = item.bare_item.as_string()?;
            Some(Tag::Group(name.as_str().into()))
        }
        ListEntry::InnerList(_) => None,
    })
}

fn bounded(tags: impl Iterator<Item = Tag>) -> Result<Box<[Tag]>, TooManyTags> {
    let mut tags: Vec<_> = tags.take(MOST + 1).collect();
    if tags.len() > MOST || tags.iter().any(|tag| tag.name().len() > LONGEST) {
        return Err(TooManyTags);
    }
    tags.sort_unstable();
    tags.dedup();
    Ok(tags.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::testing::fields;

    fn key(name: &str) -> Tag {
        Tag::Key(name.into())
    }

    fn group(name: &str) -> Tag {
        Tag::Group(name.into())
    }

    #[test]
    fn tags_come_from_every_field_and_line() {
        let response = fields(&[
            ("surrogate-key", "product-1  list"),
            ("surrogate-key", "list"),
            ("cache-tag", "a, product-1,,b"),
            ("cache-groups", "\"shop\", \"news\";x=1, token, 3"),
        ]);
        let expected = [
            key("a"),
            key("b"),
            key("list"),
            key("product-1"),
            group("news"),
            group("shop"),
        ];
        assert_eq!(of(&response, &[]).unwrap()[..], expected);
        assert!(of(&HeaderMap::new(), &[]).unwrap().is_empty());
        let given = [key("list"), key("shop")];
        assert_eq!(of(&response, &given).unwrap().len(), expected.len() + 1);
        assert_eq!(of(&HeaderMap::new(), &given).unwrap()[..], given);
    }

    #[test]
    fn a_list_of_groups_that_is_none_says_nothing() {
        let response = fields(&[("cache-groups", "\"a\", \"b")]);
        assert!(of(&response, &[]).unwrap().is_empty());
    }

    #[test]
    fn groups_may_be_declared_outdated() {
        let response = fields(&[("cache-group-invalidation", "\"shop\"")]);
        assert_eq!(invalidated(&response).unwrap()[..], [group("shop")]);
    }

    #[test]
    fn more_or_longer_tags_than_fit_are_not_cut() {
        let words = |count| vec!["x"; count].join(" ");
        let of = |value: String| of(&fields(&[("surrogate-key", value)]), &[]);
        assert!(of(words(MOST)).is_ok());
        assert_eq!(of(words(MOST + 1)), Err(TooManyTags));
        assert!(of("x".repeat(LONGEST)).is_ok());
        assert_eq!(of("x".repeat(LONGEST + 1)), Err(TooManyTags));
    }
}
