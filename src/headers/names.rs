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
        let bits = names
            .iter()
            .fold(0, |bits, name| bits | bit(name.as_str().as_bytes()));
        Self { names, bits }
    }

    /// The first place of this name, in whatever case it is written.
    pub fn place(&self, field: &[u8]) -> Option<usize> {
        if self.bits & bit(field) == 0 {
            return None;
        }
        let is_field = |name: &HeaderName| name.as_str().as_bytes().eq_ignore_ascii_case(field);
        self.names.iter().position(is_field)
    }
}

impl std::ops::Index<usize> for Names {
    type Output = HeaderName;

    fn index(&self, place: usize) -> &HeaderName {
        &self.names[place]
    }
}

/// One of 64 bits, by the ends and the length of a name in either case.
fn bit(name: &[u8]) -> u64 {
    const LOWER: u8 = 0x20;
    let (first, last) = match name {
        [first, .., last] => (first | LOWER, last | LOWER),
        _ => (0, 0),
    };
    let mixed = first.wrapping_mul(31) ^ last.wrapping_mul(7) ^ name.len() as u8;
    1 << (mixed & 63)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_set_is_found_where_it_is_in_either_case() {
        let names = ["server", "x", "x-powered-by", "server", "x_y-9"];
        let names = Names::new(names.map(HeaderName::from_static));
        for (field, place) in [
            ("server", Some(0)),
            ("Server", Some(0)),
            ("X", Some(1)),
            ("X-POWERED-BY", Some(2)),
            ("X_y-9", Some(4)),
            ("date", None),
            ("y", None),
            ("", None),
            ("servers", None),
            ("setver", None),
        ] {
            assert_eq!(names.place(field.as_bytes()), place, "{field}");
        }
        assert_eq!(names[2], "x-powered-by");
        assert_eq!(Names::new([]).place(b"server"), None);
    }
}
