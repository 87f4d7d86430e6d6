//! Cache control for one kind of cache (RFC 9213), as Structured Field Dictionaries: first ours,
//! then that of every CDN. Knows which field decides, not what follows from it.

use std::time::Duration;

use http::HeaderMap;
use http::header::HeaderName;
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use super::directives::{LONGEST, ResponseDirectives, Scope};

pub const TOLLGATE_CACHE_CONTROL: HeaderName = HeaderName::from_static("tollgate-cache-control");
pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// What the first targeted field says that is valid and not empty. It alone decides then:
/// `Cache-Control` and `Expires` are not asked.
pub fn directives(fields: &HeaderMap) -> Option<ResponseDirectives> {
    [TOLLGATE_CACHE_CONTROL, CDN_CACHE_CONTROL]
        .iter()
        .find_map(|name| dictionary(fields, name))
        .map(|dictionary| said(&dictionary))
}

fn dictionary(fields: &HeaderMap, name: &HeaderName) -> Option<Dictionary> {
    let lines: Vec<_> = fields.get_all(name).iter().map(|v| v.as_bytes()).collect();
    let dictionary: Dictionary = Parser::new(&lines.join(&b", "[..])).parse().ok()?;
    (!dictionary.is_empty()).then_some(dictionary)
}

/// A lifetime of the wrong type was not said (RFC 9213 2.1). A prohibition is obeyed unless it is
/// `?0`: an origin that writes `no-store=1` does not mean to be stored.
fn said(dictionary: &Dictionary) -> ResponseDirectives {
    let mut said = ResponseDirectives {
        max_age: seconds(dictionary, "max-age"),
        s_maxage: seconds(dictionary, "s-maxage"),
        stale_while_revalidate: seconds(dictionary, "stale-while-revalidate"),
        stale_if_error: seconds(dictionary, "stale-if-error"),
        no_cache: scope(dictionary, "no-cache"),
        private: scope(dictionary, "private"),
        ..ResponseDirectives::default()
    };
    for (key, value) in dictionary {
        if let Some(flag) = said.flag(key.as_str().as_bytes()) {
            *flag = !is_false(value);
        }
    }
    // A permission, unlike the others: of the wrong type it was not given.
    said.public = dictionary.get("public").and_then(boolean) == Some(true);
    said
}

fn item(entry: &ListEntry) -> Option<&BareItem> {
    match entry {
        ListEntry::Item(item) => Some(&item.bare_item),
        ListEntry::InnerList(_) => None,
    }
}

fn boolean(entry: &ListEntry) -> Option<bool> {
    item(entry)?.as_boolean()
}

fn is_false(entry: &ListEntry) -> bool {
    boolean(entry) == Some(false)
}

/// A negative lifetime is of the right type: stale.
fn seconds(dictionary: &Dictionary, name: &str) -> Option<Duration> {
    let seconds = i64::from(item(dictionary.get(name)?)?.as_integer()?).max(0);
    Some(Duration::from_secs(seconds.unsigned_abs()).min(LONGEST))
}

fn scope(dictionary: &Dictionary, name: &str) -> Scope {
    match dictionary.get(name) {
        None => Scope::Nothing,
        Some(entry) if is_false(entry) => Scope::Nothing,
        Some(entry) => {
            let fields = item(entry).and_then(BareItem::as_string);
            Scope::of(fields.map(|fields| fields.as_str().as_bytes()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::testing::fields;

    fn cdn(lines: &[&str]) -> Option<ResponseDirectives> {
        let lines: Vec<_> = lines
            .iter()
            .map(|line| ("cdn-cache-control", *line))
            .collect();
        directives(&fields(&lines))
    }

    fn max_age(seconds: u64) -> ResponseDirectives {
        ResponseDirectives {
            max_age: Some(Duration::from_secs(seconds)),
            ..Default::default()
        }
    }

    #[test]
    fn a_field_that_is_absent_empty_or_unparsable_does_not_decide() {
        assert_eq!(directives(&HeaderMap::new()), None);
        for line in [
            "",
            " ",
            "max-age=10000, &&&&&",
            "MaX-aGe=3600",
            "max-age =100",
            "max-age= 100",
            "max-age=1,",
            "\"x\"",
        ] {
            assert_eq!(cdn(&[line]), None, "{line}");
        }
    }

    #[test]
    fn lifetimes_are_integers_and_saturate() {
        for (line, seconds) in [
            ("max-age=3600", 3600),
            ("max-age=0", 0),
            ("max-age=-5", 0),
            ("foobar, max-age=3600", 3600),
            ("max-age=3600;x=1", 3600),
            ("max-age=1, max-age=2", 2),
            ("max-age=2147483648", 1 << 31),
            ("max-age=99999999999", 1 << 31),
        ] {
            assert_eq!(cdn(&[line]), Some(max_age(seconds)), "{line}");
        }
    }

    #[test]
    fn a_lifetime_of_the_wrong_type_was_not_said() {
        for line in [
            r#"max-age="10000""#,
            "max-age=10.5",
            "max-age",
            "max-age=x",
            "max-age=(1)",
            "public=1",
            "foo",
        ] {
            assert_eq!(cdn(&[line]), Some(Default::default()), "{line}");
        }
    }

    #[test]
    fn prohibitions_are_obeyed_unless_they_are_false() {
        let no_store = ResponseDirectives {
            no_store: true,
            ..Default::default()
        };
        for line in ["no-store", "no-store=?1", "no-store=1", "no-store=(1 2)"] {
            assert_eq!(cdn(&[line]), Some(no_store.clone()), "{line}");
        }
        for line in ["no-store=?0", "private=?0", "no-cache=?0", "public=?0"] {
            assert_eq!(cdn(&[line]), Some(Default::default()), "{line}");
        }
        assert!(cdn(&["private"]).unwrap().private.is_everything());
        assert!(cdn(&["no-cache"]).unwrap().no_cache.is_everything());
        let named = cdn(&[r#"private="a, b""#]).unwrap().private;
        assert_eq!(named.fields(), ["a", "b"]);
    }

    #[test]
    fn lines_are_one_dictionary() {
        let said = cdn(&["max-age=5", "must-revalidate, stale-if-error=9"]).unwrap();
        assert_eq!(said.max_age, Some(Duration::from_secs(5)));
        assert_eq!(said.stale_if_error, Some(Duration::from_secs(9)));
        assert!(said.must_revalidate);
    }

    #[test]
    fn our_own_field_comes_before_that_of_every_cdn() {
        let both = |ours| {
            let fields = fields(&[
                ("cdn-cache-control", "max-age=1"),
                ("tollgate-cache-control", ours),
            ]);
            directives(&fields)
        };
        assert_eq!(both("max-age=2"), Some(max_age(2)));
        assert_eq!(both("not valid"), Some(max_age(1)));
        assert_eq!(both(""), Some(max_age(1)));
    }
}
