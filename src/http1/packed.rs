//! A response head in little room, for many of them to be kept: one text, and the lengths in it.

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::ResponseHead;
use super::answer::Field;
use crate::weight;

/// A head of ours that does not change. Some of its lines are kept and not sent.
#[derive(Clone, Debug)]
pub struct PackedHead {
    /// Status line and lines as they are written, the sent ones first. No empty line.
    text: Bytes,
    /// Bytes of each line, its end included.
    lines: Box<[u32]>,
    status: StatusCode,
    reason: u16,
    sent: u16,
}

/// Name and value.
pub type TextLine<'a> = (&'a [u8], &'a [u8]);

const VERSION: &[u8] = b"HTTP/1.1 ";
const END: &[u8] = b"\r\n";
const COLON: &[u8] = b": ";
/// Before the reason.
const STATUS: usize = VERSION.len() + "200 ".len();

impl PackedHead {
    /// A head of the lines that are sent and those that are only kept, each with its name in lower case. `reason`
    /// is one that came, or empty; one that is longer than any is left out.
    pub fn compose(
        status: StatusCode,
        reason: &[u8],
        sent: &[TextLine<'_>],
        kept: &[TextLine<'_>],
    ) -> Self {
        let (reason, reason_bytes) = match u16::try_from(reason.len()) {
            Ok(bytes) => (reason, bytes),
            Err(_) => (&b""[..], 0),
        };
        let lines: Box<[u32]> = sent
            .iter()
            .chain(kept)
            .map(|(name, value)| {
                let bytes = name.len() + COLON.len() + value.len() + END.len();
                u32::try_from(bytes).expect("a head is far from 4 GiB")
            })
            .collect();
        let bytes = lines.iter().sum::<u32>() as usize;
        // Exactly as much: nothing is grown, nothing is left over.
        let mut text = Vec::with_capacity(STATUS + reason.len() + END.len() + bytes);
        for part in [VERSION, status.as_str().as_bytes(), b" ", reason, END] {
            text.extend_from_slice(part);
        }
        for (name, value) in sent.iter().chain(kept) {
            for part in [name, COLON, value, END] {
                text.extend_from_slice(part);
            }
        }
        Self {
            text: text.into(),
            lines,
            status,
            reason: reason_bytes,
            sent: u16::try_from(sent.len()).expect("a map has at most 32,768 fields"),
        }
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// All of it in one piece, those lines included that are not sent.
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    pub fn reason(&self) -> &[u8] {
        &self.text[STATUS..STATUS + usize::from(self.reason)]
    }

    /// Every line, those that are not sent included.
    pub fn lines(&self) -> impl Iterator<Item = TextLine<'_>> {
        self.fields().map(|field| {
            let part =
                |range: std::ops::Range<u32>| &self.text[range.start as usize..range.end as usize];
            (part(field.name), part(field.value))
        })
    }

    /// The lines that are sent.
    pub fn sent(&self) -> impl Iterator<Item = TextLine<'_>> {
        self.lines().take(usize::from(self.sent))
    }

    /// What is sent, ready to be dressed.
    pub fn unpack(&self) -> ResponseHead {
        let reason = STATUS as u32..STATUS as u32 + u32::from(self.reason);
        let sent = self.fields().take(usize::from(self.sent));
        ResponseHead::of_parts(self.text.clone(), self.status, reason, sent)
    }

    /// Bytes of memory that it takes besides itself.
    pub fn weight(&self) -> usize {
        weight::of_bytes(self.text.len()) + weight::of_piece(size_of_val(&*self.lines))
    }

    fn fields(&self) -> impl Iterator<Item = Field> {
        let mut at = STATUS + usize::from(self.reason) + END.len();
        self.lines.iter().map(move |bytes| {
            let line = at..at + *bytes as usize;
            at = line.end;
            let colon = memchr::memchr(b':', &self.text[line.clone()]);
            let name = line.start + colon.expect("no name holds a colon, and one ends it");
            let part = |range: Range<usize>| range.start as u32..range.end as u32;
            Field {
                name: part(line.start..name),
                value: part(name + COLON.len()..line.end - END.len()),
            }
        })
    }
}

/// A field of a map as a line.
pub fn line<'a>((name, value): (&'a HeaderName, &'a HeaderValue)) -> TextLine<'a> {
    (name.as_str().as_bytes(), value.as_bytes())
}

/// Lines of a composed head as a map.
pub fn map<'a>(lines: impl Iterator<Item = TextLine<'a>>) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name).expect("it was a name before");
        let value = HeaderValue::from_bytes(value).expect("it was a value before");
        fields.append(name, value);
    }
    fields
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    fn packed(reason: &str, sent: &[(&str, &str)], kept: &[(&str, &str)]) -> PackedHead {
        let [sent, kept] = [sent, kept].map(|lines| {
            let bytes = lines
                .iter()
                .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            bytes.collect::<Vec<_>>()
        });
        PackedHead::compose(StatusCode::NOT_FOUND, reason.as_bytes(), &sent, &kept)
    }

    fn written(head: &PackedHead) -> String {
        let mut out = BytesMut::new();
        head.unpack().write(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn what_is_sent_is_written_and_what_is_kept_is_not() {
        let head = packed(
            "Nicht da",
            &[("a", "1"), ("b", ""), ("a", "2")],
            &[("tag", "x")],
        );
        assert_eq!(
            written(&head),
            "HTTP/1.1 404 Nicht da\r\na: 1\r\nb: \r\na: 2\r\n"
        );
        let lines: Vec<_> = head.lines().collect();
        let expected: [(&[u8], &[u8]); 4] =
            [(b"a", b"1"), (b"b", b""), (b"a", b"2"), (b"tag", b"x")];
        assert_eq!(lines, expected);
        assert_eq!(head.reason(), b"Nicht da");
        assert_eq!(written(&packed("", &[], &[])), "HTTP/1.1 404 \r\n");
    }

    #[test]
    fn what_is_unpacked_can_be_changed() {
        let head = packed("", &[("a", "1"), ("b", "2"), ("c", "3")], &[]);
        let mut unpacked = head.unpack();
        unpacked.remove(&HeaderName::from_static("b"));
        unpacked.added().extend_from_slice(b"X-D: 4\r\n");
        let mut out = BytesMut::new();
        unpacked.write(&mut out);
        assert_eq!(out, "HTTP/1.1 404 \r\na: 1\r\nc: 3\r\nX-D: 4\r\n");
        assert_eq!(written(&head), "HTTP/1.1 404 \r\na: 1\r\nb: 2\r\nc: 3\r\n");
    }
}
