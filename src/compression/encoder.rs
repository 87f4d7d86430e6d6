//! A body encoded as it comes, or whole. What comes out decodes to what went in.
//!
//! Memory, of one body on its way: about 1 MiB for br and zstd, whose windows are held to `WINDOW`, and 300 KiB for gzip.
//! Time, at the default levels: 1 ns a byte for zstd, some 10 for br and gzip, so a piece of 64 KiB takes less than a millisecond.

use std::io::{self, Write};
use std::mem;

use brotli::CompressorWriter;
use bytes::Bytes;
use flate2::write::GzEncoder;
use zstd::zstd_safe::CParameter;

use super::Coding;

/// How far back a body on its way is remembered, as a power of two: 256 KiB.
const WINDOW: u32 = 18;
/// The same of a whole body, for br: 4 MiB.
const WHOLE_WINDOW: u32 = 22;
const BUFFER: usize = 16 << 10;

/// Encodes one body on its way.
pub struct Encoder {
    writer: Writer,
    /// Something went in since the last flush.
    holds: bool,
}

enum Writer {
    Br(Box<CompressorWriter<Vec<u8>>>),
    Zstd(zstd::Encoder<'static, Vec<u8>>),
    Gzip(GzEncoder<Vec<u8>>),
}

/// Nothing of an encoder fails but its writer.
const TAKES_ALL: &str = "a vector takes every write";

impl Encoder {
    /// `level` is one of [`super::Levels`].
    pub fn new(coding: Coding, level: u16) -> Self {
        let writer = match coding {
            Coding::Br => {
                let writer = CompressorWriter::new(Vec::new(), BUFFER, level.into(), WINDOW);
                Writer::Br(Box::new(writer))
            }
            Coding::Zstd => {
                Writer::Zstd(zstd_encoder(level).expect("levels and windows are bounded"))
            }
            Coding::Gzip => {
                let level = flate2::Compression::new(level.into());
                Writer::Gzip(GzEncoder::new(Vec::new(), level))
            }
        };
        Self {
            writer,
            holds: false,
        }
    }

    /// Takes a piece; returns what is ready to be sent, which may be nothing.
    pub fn push(&mut self, piece: &[u8]) -> Bytes {
        self.holds |= !piece.is_empty();
        self.writer.write_all(piece).expect(TAKES_ALL);
        self.writer.taken()
    }

    /// Whether [`Self::flush`] would return something.
    pub fn holds(&self) -> bool {
        self.holds
    }

    /// What a client needs to decode all that went in until now. Costs a few bytes.
    pub fn flush(&mut self) -> Bytes {
        if mem::take(&mut self.holds) {
            self.writer.flush().expect(TAKES_ALL);
        }
        self.writer.taken()
    }

    /// The rest.
    pub fn finish(self) -> Bytes {
        match self.writer {
            Writer::Br(writer) => writer.into_inner(),
            Writer::Zstd(writer) => writer.finish().expect(TAKES_ALL),
            Writer::Gzip(writer) => writer.finish().expect(TAKES_ALL),
        }
        .into()
    }
}

fn zstd_encoder(level: u16) -> io::Result<zstd::Encoder<'static, Vec<u8>>> {
    let mut encoder = zstd::Encoder::new(Vec::new(), level.into())?;
    encoder.set_parameter(CParameter::WindowLog(WINDOW))?;
    Ok(encoder)
}

impl Writer {
    fn inner(&mut self) -> &mut dyn Write {
        match self {
            Self::Br(writer) => writer,
            Self::Zstd(writer) => writer,
            Self::Gzip(writer) => writer,
        }
    }

    fn taken(&mut self) -> Bytes {
        let written = match self {
            Self::Br(writer) => writer.get_mut(),
            Self::Zstd(writer) => writer.get_mut(),
            Self::Gzip(writer) => writer.get_mut(),
        };
        mem::take(written).into()
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner().flush()
    }
}

/// A whole body encoded; `None` if that does not make it smaller.
pub fn whole(body: &[u8], coding: Coding, level: u16) -> Option<Bytes> {
    let encoded = match coding {
        Coding::Br => {
            let mut writer = CompressorWriter::new(Vec::new(), BUFFER, level.into(), WHOLE_WINDOW);
            writer.write_all(body).expect(TAKES_ALL);
            writer.into_inner()
        }
        Coding::Zstd => zstd::bulk::compress(body, level.into()).expect("levels are bounded"),
        Coding::Gzip => {
            let level = flate2::Compression::new(level.into());
            let mut writer = GzEncoder::new(Vec::new(), level);
            writer.write_all(body).expect(TAKES_ALL);
            writer.finish().expect(TAKES_ALL)
        }
    };
    // Of its own size: it is kept.
    (encoded.len() < body.len()).then(|| encoded.into_boxed_slice().into())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    const ALL: [Coding; Coding::COUNT] = [Coding::Br, Coding::Zstd, Coding::Gzip];

    /// What a client makes of these bytes, of a body that is still arriving too.
    fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        let mut block = [0; 1024];
        let mut reader: Box<dyn Read> = match coding {
            Coding::Br => Box::new(brotli::Decompressor::new(bytes, 4096)),
            Coding::Zstd => Box::new(zstd::Decoder::new(bytes).unwrap()),
            Coding::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
        };
        while let Ok(length @ 1..) = reader.read(&mut block) {
            body.extend_from_slice(&block[..length]);
        }
        body
    }

    #[test]
    fn what_was_flushed_can_be_read_before_the_rest_is_there() {
        for coding in ALL {
            let mut encoder = Encoder::new(coding, 4);
            let mut sent = Vec::new();
            for (piece, so_far) in [("one, ", "one, "), ("two", "one, two")] {
                sent.extend(encoder.push(piece.as_bytes()));
                assert!(encoder.holds());
                sent.extend(encoder.flush());
                assert!(!encoder.holds());
                assert_eq!(decoded(coding, &sent), so_far.as_bytes(), "{coding}");
            }
            assert!(encoder.flush().is_empty(), "{coding}: nothing new");
            sent.extend(encoder.finish());
            assert_eq!(decoded(coding, &sent), b"one, two", "{coding}");
        }
    }

    #[test]
    fn what_does_not_shrink_is_not_kept() {
        for coding in ALL {
            assert_eq!(whole(b"short", coding, 4), None, "{coding}");
            let page = b"<p>all the same</p>".repeat(99);
            let encoded = whole(&page, coding, 4).unwrap();
            assert_eq!(decoded(coding, &encoded), page, "{coding}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn a_body_in_any_pieces_decodes_to_itself(
            pieces in proptest::collection::vec((proptest::collection::vec(0u8..8, 0..3000), any::<bool>()), 0..8),
            level in 1u16..=9,
        ) {
            let body: Vec<u8> = pieces.iter().flat_map(|(piece, _)| piece.clone()).collect();
            for coding in ALL {
                let mut encoder = Encoder::new(coding, level);
                let mut sent = Vec::new();
                for (piece, flushes) in &pieces {
                    sent.extend(encoder.push(piece));
                    if *flushes {
                        sent.extend(encoder.flush());
                    }
                }
                sent.extend(encoder.finish());
                prop_assert_eq!(&decoded(coding, &sent), &body);
                if let Some(encoded) = whole(&body, coding, level) {
                    prop_assert_eq!(&decoded(coding, &encoded), &body);
                }
            }
        }
    }
}
