//! Encoded bodies, as clients read them.

use std::io::Read;

/// What a client makes of these bytes, of a body that is still arriving too.
pub fn decoded(coding: Option<&str>, bytes: &[u8]) -> Vec<u8> {
    let mut reader: Box<dyn Read + '_> = match coding {
        None => Box::new(bytes),
        Some("br") => Box::new(brotli::Decompressor::new(bytes, 4096)),
        Some("zstd") => Box::new(zstd::Decoder::new(bytes).expect("a context of zstd")),
        Some("gzip") => Box::new(flate2::read::GzDecoder::new(bytes)),
        Some(other) => panic!("nobody asked for the coding {other:?}"),
    };
    let mut body = Vec::new();
    let mut block = [0; 4096];
    while let Ok(length @ 1..) = reader.read(&mut block) {
        body.extend_from_slice(&block[..length]);
    }
    body
}
