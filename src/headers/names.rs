//! A set of field names, made for messages that hold none of them: most fields are told apart by
//! a few bits. Knows names; knows nothing of what they are looked for.

use http::HeaderName;
use smallvec::SmallVec;

/// Names in the order they were given.
#[derive(Clone, Debug)]
pub struct Names {
    names: Box<[HeaderName]>,
    /// The bit of each name is set.
    bits: u64,
}

/// Places in a [`Names`].
pub type Places = SmallVec<[usize; 8]>;

impl Names {
    pub fn new(names: impl IntoIterator<Item = HeaderName>) -> Self {
        let names: Box<[HeaderName]> = names.into_iter().collect();
        let bits = names.iter().fold(0, |bits, name| bits | bit(name));
        Self { names, bits }
    }

    /// The first place of each of `fields` that is in the set.
    pub fn among<'a>(&self, fields: impl Iterator<Item = &'a HeaderName>) -> Places {
        fields.filter_map(|field| self.place(field)).collect()
    }

    fn place(&self, field: &HeaderName) -> Option<usize> {
        if self.bits & bit(field) == 0 {
            return None;
        }
        self.names.iter().position(|name| name == field)
    }
}

impl std::ops::Index<usize> for Names {
    type Output = HeaderName;

    fn index(&self, place: usize) -> &HeaderName {
        &self.names[place]
    }
}

/// One of 64 bits, by the ends and the length of a name.
fn bit(name: &HeaderName) -> u64 {
    let bytes = name.as_str().as_bytes();
    let (first, last) = match bytes {
        [first, .., last] => (*first, *last),
        _ => (0, 0),
    };
    let mixed = first.wrapping_mul(31) ^ last.wrapping_mul(7) ^ bytes.len() as u8;
    1 << (mixed & 63)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_set_is_found_where_it_is() {
        let names = ["server", "x", "x-powered-by", "server"];
        let names = Names::new(names.map(HeaderName::from_static));
        let fields = ["date", "x-powered-by", "y", "server", "x", "x-generator"];
        let fields = fields.map(HeaderName::from_static);
        assert_eq!(names.among(fields.iter())[..], [2, 0, 1]);
        assert_eq!(names[2], "x-powered-by");
        assert!(Names::new([]).among(fields.iter()).is_empty());
    }
}
