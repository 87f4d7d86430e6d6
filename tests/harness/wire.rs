//! Cuts a byte stream into HTTP/1 messages, for the client and for the origin alike.

use std::io::{self, Read, Write};

use super::response::{Broken, Framing, parse_fields};

pub struct Wire<S> {
    stream: S,
    /// Received and not yet consumed.
    ahead: Vec<u8>,
}

/// What came after a head.
#[derive(Debug)]
pub struct Body {
    /// Without the framing.
    pub bytes: u64,
    pub trailers: Vec<(String, String)>,
}

impl<S: Read + Write> Wire<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            ahead: Vec::new(),
        }
    }

    pub fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The next head with its empty line; [`Broken::Closed`] when the peer is done.
    pub fn head(&mut self) -> Result<Vec<u8>, Broken> {
        loop {
            if let Some(at) = find(&self.ahead, b"\r\n\r\n") {
                return Ok(self.ahead.drain(..at + 4).collect());
            }
            if self.fill()? == 0 {
                return Err(if self.ahead.is_empty() {
                    Broken::Closed
                } else {
                    Broken::Truncated
                });
            }
        }
    }

    /// Hands the body to `sink` as it arrives.
    pub fn body(&mut self, framing: Framing, mut sink: impl FnMut(&[u8])) -> Result<Body, Broken> {
        match framing {
            Framing::Length(bytes) => {
                self.exactly(bytes, &mut sink)?;
                Ok(Body {
                    bytes,
                    trailers: Vec::new(),
                })
            }
            Framing::Chunked => self.chunks(&mut sink),
            Framing::UntilClose => {
                let bytes = self.rest(&mut sink)?;
                Ok(Body {
                    bytes,
                    trailers: Vec::new(),
                })
            }
        }
    }

    /// Whatever has arrived, at least one byte; nothing at the end of the stream.
    pub fn some(&mut self) -> Result<Vec<u8>, Broken> {
        if self.ahead.is_empty() {
            self.fill()?;
        }
        Ok(std::mem::take(&mut self.ahead))
    }

    /// The next chunk of a body; its length, which is 0 for the last one.
    pub fn chunk(&mut self, sink: &mut impl FnMut(&[u8])) -> Result<u64, Broken> {
        let line = self.line()?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(digits, 16)
            .map_err(|_| Broken::Malformed(format!("chunk size {line:?}")))?;
        if size > 0 {
            self.exactly(size, sink)?;
            if !self.line()?.is_empty() {
                return Err(Broken::Malformed(
                    "a chunk without its end of line".to_owned(),
                ));
            }
        }
        Ok(size)
    }

    fn chunks(&mut self, sink: &mut impl FnMut(&[u8])) -> Result<Body, Broken> {
        let mut bytes = 0;
        loop {
            match self.chunk(sink)? {
                0 => break,
                size => bytes += size,
            }
        }
        let mut trailers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(Body { bytes, trailers });
            }
            trailers.extend(parse_fields(std::iter::once(line.as_str()))?);
        }
    }

    fn exactly(&mut self, bytes: u64, sink: &mut impl FnMut(&[u8])) -> Result<(), Broken> {
        let mut left = bytes;
        while left > 0 {
            if self.ahead.is_empty() && self.fill()? == 0 {
                return Err(Broken::Truncated);
            }
            let usable = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(self.ahead.len());
            sink(&self.ahead[..usable]);
            self.ahead.drain(..usable);
            left -= usable as u64;
        }
        Ok(())
    }

    fn rest(&mut self, sink: &mut impl FnMut(&[u8])) -> Result<u64, Broken> {
        let mut bytes = 0;
        loop {
            let some = self.some()?;
            if some.is_empty() {
                return Ok(bytes);
            }
            bytes += some.len() as u64;
            sink(&some);
        }
    }

    fn line(&mut self) -> Result<String, Broken> {
        loop {
            if let Some(at) = find(&self.ahead, b"\r\n") {
                let line = self.ahead.drain(..at + 2).collect::<Vec<_>>();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            if self.fill()? == 0 {
                return Err(Broken::Truncated);
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut block = [0; 64 * 1024];
        let length = self.stream.read(&mut block)?;
        self.ahead.extend_from_slice(&block[..length]);
        Ok(length)
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
