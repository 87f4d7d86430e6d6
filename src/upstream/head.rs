//! Where a response head ends, in bytes that arrive in pieces. Judges nothing but its length.

use thiserror::Error;

/// Finds the end of a final response head in pieces of any size.
#[derive(Debug, Default)]
pub(super) struct HeadEnd {
    /// The status line so far, as far as its code: `HTTP/1.1 200`.
    start: [u8; 12],
    length: usize,
    /// The length of the line being read, without its end.
    line: usize,
    /// Bytes of all heads so far.
    size: usize,
}

impl HeadEnd {
    /// The status once its head is whole. Interim heads (1xx, but 101) are passed over, and count towards `limit` bytes.
    pub fn feed(&mut self, bytes: &[u8], limit: usize) -> Result<Option<u16>, HeadTooLong> {
        for &byte in bytes {
            self.size += 1;
            if self.size > limit {
                return Err(HeadTooLong(limit));
            }
            if self.length < self.start.len() {
                self.start[self.length] = byte;
                self.length += 1;
            }
            match byte {
                b'\r' => {}
                b'\n' if self.line > 0 => self.line = 0,
                b'\n' => {
                    let status = self.status();
                    if status == 101 || !(100..200).contains(&status) {
                        return Ok(Some(status));
                    }
                    *self = Self {
                        size: self.size,
                        ..Self::default()
                    };
                }
                _ => self.line += 1,
            }
        }
        Ok(None)
    }

    /// 0 if there is none; pingora refuses that response.
    fn status(&self) -> u16 {
        std::str::from_utf8(&self.start[9..])
            .ok()
            .and_then(|digits| digits.parse().ok())
            .unwrap_or(0)
    }
}

/// The backend's response head, interim ones included, is over the upstream's limit; inside a stream's [`std::io::Error`].
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the response head is longer than {0} bytes")]
pub struct HeadTooLong(usize);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_end_of_a_head_is_found_in_pieces_of_any_size(cuts in prop::collection::vec(1_usize..20, 1..40)) {
            let heads = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 404 Not Found\r\nA: b\r\n\r\nbody";
            let mut head = HeadEnd::default();
            let mut found = None;
            let mut fed = 0;
            for cut in cuts.into_iter().cycle() {
                let end = (fed + cut).min(heads.len());
                found = head.feed(&heads[fed..end], usize::MAX).unwrap();
                fed = end;
                if found.is_some() || fed == heads.len() {
                    break;
                }
            }
            prop_assert_eq!(found, Some(404));
            prop_assert!(fed + 4 >= heads.len());
        }
    }
}
