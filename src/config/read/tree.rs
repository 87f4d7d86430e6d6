//! The spanned tree of a TOML document: values under their keys, each with where it stands.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::DeValue;

use crate::config::problem::Place;

/// Where a node of the tree stands: in the text, or, for a default, where its table is.
#[derive(Debug, Clone, Copy)]
pub(super) enum At {
    Text { start: usize, end: usize },
    Place(Place),
}

/// One value of the tree under the key it is written behind.
#[derive(Debug, Clone, Copy)]
pub struct Node<'t> {
    pub key: &'t str,
    pub(super) value: &'t DeValue<'t>,
    pub(super) at: At,
    pub(super) bounds: Option<(&'static str, &'static str)>,
}

impl<'t> Node<'t> {
    /// A value that is not written in the file and stands at `place` in its stead.
    pub fn implied(key: &'t str, value: &'t DeValue<'t>, place: Place) -> Self {
        Self {
            key,
            value,
            at: At::Place(place),
            bounds: None,
        }
    }

    pub(super) fn child(&self, key: &'t str, value: &'t Spanned<DeValue<'t>>) -> Self {
        let at = match self.at {
            At::Text { .. } => At::Text {
                start: value.span().start,
                end: value.span().end,
            },
            place => place,
        };
        Self {
            key,
            value: value.get_ref(),
            at,
            bounds: None,
        }
    }

    /// The same node, whose value must lie between two values written as TOML.
    pub fn bounded(self, least: &'static str, most: &'static str) -> Self {
        Self {
            bounds: Some((least, most)),
            ..self
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        self.value.as_bool()
    }

    pub fn is_str(&self) -> bool {
        self.value.is_str()
    }

    pub fn is_integer(&self) -> bool {
        self.value.is_integer()
    }
}

/// The keys of one table.
pub struct Fields<'t> {
    pub place: Place,
    pub(super) entries: BTreeMap<&'t str, (Place, Node<'t>)>,
    /// Known keys that an unknown key was probably meant to be: not reported as missing as well.
    pub(super) meant: Vec<&'static str>,
    pub(super) problems_before: usize,
}

impl<'t> Fields<'t> {
    pub fn get(&self, key: &str) -> Option<Node<'t>> {
        self.entries.get(key).map(|(_, node)| *node)
    }

    /// Where the key itself stands, or its table when it is absent.
    pub fn key_place(&self, key: &str) -> Place {
        self.entries
            .get(key)
            .map_or(self.place, |(place, _)| *place)
    }

    /// Whether an unknown key was probably meant to be this one.
    pub fn was_meant(&self, key: &str) -> bool {
        self.meant.contains(&key)
    }

    /// In file order.
    pub fn in_order(&self) -> Vec<(&'t str, Place, Node<'t>)> {
        let mut all: Vec<_> = self
            .entries
            .iter()
            .map(|(key, (place, node))| (*key, *place, *node))
            .collect();
        all.sort_by_key(|(_, place, _)| *place);
        all
    }
}

/// The text of a document and where its lines begin.
pub(super) struct Source<'a> {
    text: &'a str,
    lines: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let lines = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(index, _)| index + 1))
            .collect();
        Self { text, lines }
    }

    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    /// The place of a byte.
    pub(super) fn place(&self, offset: usize) -> Place {
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines[line - 1];
        let before = self.text.get(start..offset);
        let column = before.map_or(offset - start, |before| before.chars().count()) + 1;
        Place::new(
            line.try_into().unwrap_or(u32::MAX),
            column.try_into().unwrap_or(u32::MAX),
        )
    }

    pub(super) fn place_at(&self, at: At) -> Place {
        match at {
            At::Text { start, .. } => self.place(start),
            At::Place(place) => place,
        }
    }

    /// Where `part` stands inside the written value, or the value when escapes hide it.
    pub(super) fn place_within(&self, at: At, part: &str) -> Place {
        match at {
            At::Text { start, end } => {
                let offset = self
                    .text
                    .get(start..end)
                    .and_then(|written| written.find(part));
                self.place(start + offset.unwrap_or(0))
            }
            At::Place(place) => place,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_the_end_has_a_place() {
        let source = Source::new("a = \"ü\" # x\n\nb");
        assert_eq!(source.place(0), Place::new(1, 1));
        assert_eq!(source.place("a = \"ü\" ".len()), Place::new(1, 9));
        assert_eq!(source.place(13), Place::new(2, 1));
        assert_eq!(source.place(source.text().len()), Place::new(3, 2));
    }
}
