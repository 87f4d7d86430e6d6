//! Cuts a head into its lines as it arrives, and refuses bytes that no line may hold.
//!
//! Every byte is looked at a bounded number of times, however small the reads are: an attacker who
//! sends one byte at a time pays more than we do. Knows lines, not what they mean.

use std::ops::Range;

use super::grammar::{all, is_field_byte};

/// The sizes a head may have. Values below [`Bounds::LEAST`] are raised to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of the first line, without its line end.
    pub first_line: usize,
    /// Bytes of the whole head, from the first byte received to the empty line that ends it.
    pub head: usize,
    pub fields: usize,
}

impl Bounds {
    /// Below this the answers could depend on how a head was cut into reads.
    pub const LEAST: usize = 64;
}

/// What a line may not hold or exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadLine {
    LineFeed,
    CarriageReturn,
    Control,
    /// A byte above 0x7F in the first line.
    NotAscii,
    FirstLineTooLong,
    HeadTooLarge,
    TooManyFields,
}

/// What the bytes so far amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// No further line is complete.
    Partial,
    /// A first line, without its line end; possibly empty.
    First(Range<usize>),
    /// A field line, without its line end.
    Field(Range<usize>),
    /// The head ends before this offset.
    End(usize),
}

/// Whether 8-bit bytes may stand in the first line: in a reason phrase, but not in a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstLine {
    Ascii,
    Text,
}

/// The position within one head. Offsets count from the first byte of the buffer, which must only
/// grow between calls.
#[derive(Clone, Debug)]
pub struct Lines {
    bounds: Bounds,
    kind: FirstLine,
    position: usize,
    start: usize,
    fields: usize,
    in_first: bool,
    after_cr: bool,
}

impl Lines {
    pub fn new(kind: FirstLine, bounds: Bounds) -> Self {
        Lines {
            bounds: Bounds {
                first_line: bounds.first_line.max(Bounds::LEAST),
                head: bounds.head.max(2 * Bounds::LEAST),
                fields: bounds.fields.max(1),
            },
            kind,
            position: 0,
            start: 0,
            fields: 0,
            in_first: true,
            after_cr: false,
        }
    }

    /// Where the line that is not complete yet begins.
    pub fn line_start(&self) -> usize {
        self.start
    }

    /// How many field lines were seen.
    pub fn fields(&self) -> usize {
        self.fields
    }

    /// Takes the next line as a first line again: an empty one came before it.
    pub fn expect_first_again(&mut self) {
        self.in_first = true;
    }

    /// The next complete line, or the first fault in byte order.
    pub fn next(&mut self, buf: &[u8]) -> Result<Line, BadLine> {
        if let Some(line) = self.whole_clean_line(buf) {
            return Ok(line);
        }
        while self.position < buf.len() {
            let byte = buf[self.position];
            if self.position >= self.bounds.head {
                return Err(BadLine::HeadTooLarge);
            }
            if self.after_cr {
                if byte != b'\n' {
                    return Err(BadLine::CarriageReturn);
                }
                let line = self.start..self.position - 1;
                return Ok(self.complete(line));
            }
            match byte {
                b'\n' => return Err(BadLine::LineFeed),
                b'\r' => self.after_cr = true,
                _ => self.admit(byte)?,
            }
            self.position += 1;
        }
        Ok(Line::Partial)
    }

    /// The usual case at the speed of `memchr`: a line that is complete and has no fault. Anything
    /// else is left to the loop that finds the first fault.
    fn whole_clean_line(&mut self, buf: &[u8]) -> Option<Line> {
        if self.after_cr || self.position != self.start {
            return None;
        }
        let rest = buf.get(self.start..)?;
        let feed = self.start + memchr::memchr(b'\n', rest)?;
        if feed >= self.bounds.head || feed == self.start || buf[feed - 1] != b'\r' {
            return None;
        }
        let line = self.start..feed - 1;
        let text = &buf[line.clone()];
        let fits = if self.in_first {
            text.len() <= self.bounds.first_line
        } else {
            text.is_empty() || self.fields < self.bounds.fields
        };
        if !fits || !self.is_clean(text) {
            return None;
        }
        self.position = feed;
        Some(self.complete(line))
    }

    fn is_clean(&self, text: &[u8]) -> bool {
        if self.in_first && self.kind == FirstLine::Ascii {
            all(text, |byte| matches!(byte, 0x20..=0x7e))
        } else {
            all(text, is_field_byte)
        }
    }

    fn admit(&self, byte: u8) -> Result<(), BadLine> {
        if self.in_first {
            if self.kind == FirstLine::Ascii {
                match byte {
                    0x20..=0x7e => {}
                    0x80.. => return Err(BadLine::NotAscii),
                    _ => return Err(BadLine::Control),
                }
            } else if !is_field_byte(byte) {
                return Err(BadLine::Control);
            }
            if self.position - self.start >= self.bounds.first_line {
                return Err(BadLine::FirstLineTooLong);
            }
            return Ok(());
        }
        if self.position == self.start && self.fields == self.bounds.fields {
            return Err(BadLine::TooManyFields);
        }
        if is_field_byte(byte) {
            Ok(())
        } else {
            Err(BadLine::Control)
        }
    }

    /// `self.position` stands on the line feed.
    fn complete(&mut self, line: Range<usize>) -> Line {
        self.position += 1;
        self.start = self.position;
        self.after_cr = false;
        if self.in_first {
            self.in_first = false;
            return Line::First(line);
        }
        if line.is_empty() {
            return Line::End(self.position);
        }
        self.fields += 1;
        Line::Field(line)
    }
}
