//! The names under which things stand in Redis. What is in braces decides about the slot of a cluster:
//! all that belongs to one key of the cache lies in one slot.

use super::record::SCHEMA;
use crate::cache::frame::Digest;

/// Where the entries of one key stand.
pub(super) struct Place(String);

impl Place {
    pub fn of(prefix: &str, key: Digest) -> Self {
        Self(format!("{prefix}{SCHEMA}:{{{key}}}"))
    }

    /// Where every look-up begins: the entry, or by which fields its variants differ.
    pub fn first(&self) -> &str {
        &self.0
    }

    pub fn variant(&self, variant: Digest) -> String {
        format!("{}:{variant}", self.0)
    }

    /// Who fills it; of one variant where that is known.
    pub fn lock(&self, variant: Option<Digest>) -> String {
        match variant {
            Some(variant) => format!("{}:{variant}:lock", self.0),
            None => format!("{}:lock", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::Key;
    use crate::cache::testing::{anonymous, get};

    #[test]
    fn all_of_one_key_lies_in_one_slot_under_its_prefix_and_schema() {
        let digest = |route| Key::of(&get(&[]).head(), route, &anonymous()).digest();
        let (key, variant) = (digest("a"), digest("b"));
        let place = Place::of("shop:", key);
        assert_eq!(place.first(), format!("shop:c1:{{{key}}}"));
        assert_eq!(
            place.variant(variant),
            format!("shop:c1:{{{key}}}:{variant}")
        );
        assert_eq!(place.lock(None), format!("shop:c1:{{{key}}}:lock"));
        let of_variant = format!("shop:c1:{{{key}}}:{variant}:lock");
        assert_eq!(place.lock(Some(variant)), of_variant);
    }
}
