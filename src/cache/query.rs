//! The part of a query that decides what is answered. Knows parameters as text, never what they mean.

use std::borrow::Cow;

use super::pattern::{Pattern, any_matches};
use crate::target::query::decoded;

/// Which parameters count, and whether their order does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryRules {
    /// Parameters that do not count.
    pub ignore: Vec<Pattern>,
    /// If set, no others count.
    pub keep: Option<Vec<Pattern>>,
    /// Whether parameters in another order are the same, except that those of one name keep theirs.
    pub sort: bool,
}

impl QueryRules {
    /// The query in the form that two requests are compared by; `None` if nothing of it is left.
    ///
    /// A cache that leaves parameters out of its key should leave them out of its question to the
    /// application too: this text is what it should ask with.
    pub fn normal<'q>(&self, query: Option<&'q str>) -> Option<Cow<'q, str>> {
        let query = query?;
        if self.ignore.is_empty() && self.keep.is_none() && !self.sort {
            return Some(Cow::Borrowed(query));
        }
        let all = || query.split('&');
        let is_sorted = !self.sort || all().is_sorted_by_key(name);
        if is_sorted && all().all(|parameter| self.counts(parameter)) {
            return Some(Cow::Borrowed(query));
        }
        let mut left: Vec<_> = all().filter(|parameter| self.counts(parameter)).collect();
        if self.sort {
            left.sort_by_key(|parameter| name(parameter));
        }
        (!left.is_empty()).then(|| Cow::Owned(left.join("&")))
    }

    fn counts(&self, parameter: &str) -> bool {
        // To some applications `;` separates parameters too: what looks like the value of one that
        // is left out may be another one that is not.
        if parameter.contains(';') {
            return true;
        }
        let name = decoded(name(parameter));
        let kept = match &self.keep {
            Some(keep) => any_matches(keep, &name),
            None => true,
        };
        kept && !any_matches(&self.ignore, &name)
    }
}

fn name(parameter: &str) -> &str {
    parameter
        .split_once('=')
        .map_or(parameter, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cache::pattern::known;

    fn ignoring(patterns: &[&str]) -> QueryRules {
        QueryRules {
            ignore: known(patterns),
            ..QueryRules::default()
        }
    }

    fn keeping(patterns: &[&str]) -> QueryRules {
        QueryRules {
            keep: Some(known(patterns)),
            ..QueryRules::default()
        }
    }

    fn sorting() -> QueryRules {
        QueryRules {
            sort: true,
            ..QueryRules::default()
        }
    }

    #[test]
    fn the_query_is_normalised_by_the_rules() {
        for (rules, query, expected) in [
            (QueryRules::default(), "b=1&a=2&&", Some("b=1&a=2&&")),
            (QueryRules::default(), "", Some("")),
            (
                ignoring(&["utm_*"]),
                "a=1&utm_source=x&b=2",
                Some("a=1&b=2"),
            ),
            (ignoring(&["utm_*"]), "utm_source=x&utm_medium", None),
            (ignoring(&["utm_*"]), "%75tm_source=x&a", Some("a")),
            (ignoring(&["a*"]), "a+b=1&c", Some("c")),
            (ignoring(&["utm_*"]), "UTM_source=x", Some("UTM_source=x")),
            (keeping(&["page"]), "x=1&page=2&y", Some("page=2")),
            (keeping(&["page"]), "%70age=2&x=1", Some("%70age=2")),
            (keeping(&["page"]), "x=1", None),
            (keeping(&[]), "x=1", None),
            (sorting(), "b=1&a=2&a=1&c", Some("a=2&a=1&b=1&c")),
            (sorting(), "a=2&a=1&b", Some("a=2&a=1&b")),
        ] {
            let normal = rules.normal(Some(query));
            assert_eq!(normal.as_deref(), expected, "{query}");
        }
        assert_eq!(sorting().normal(None), None);
    }

    #[test]
    fn a_parameter_hidden_behind_a_semicolon_is_not_left_out() {
        let query = "utm_source=x;admin=1";
        for rules in [ignoring(&["utm_*"]), keeping(&["page"])] {
            assert_eq!(rules.normal(Some(query)).as_deref(), Some(query));
        }
    }

    proptest! {
        #[test]
        fn a_normal_query_stays_as_it_is(query in "[ab=&;%6u+]{0,20}", sort: bool) {
            let rules = QueryRules { sort, ..ignoring(&["a*"]) };
            let once = rules.normal(Some(&query)).map(Cow::into_owned);
            let twice = rules.normal(once.as_deref()).map(Cow::into_owned);
            prop_assert_eq!(&once, &twice);
        }

        #[test]
        fn the_order_of_different_parameters_does_not_matter_where_it_is_sorted(
            mut names in proptest::collection::hash_set("[a-z]{1,3}", 1..6)
                .prop_map(Vec::from_iter),
        ) {
            let forward = names.join("&");
            names.reverse();
            let backward = names.join("&");
            prop_assert_eq!(sorting().normal(Some(&forward)), sorting().normal(Some(&backward)));
        }
    }
}
