//! HTTP/2 frame by frame, for requests that a proper client would not send.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::client::connect;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// One connection in cleartext; streams are numbered by the order of their requests.
pub struct Frames {
    socket: TcpStream,
    next_stream: u32,
}

/// What became of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Answered {
        status: u16,
        body: Vec<u8>,
    },
    Reset {
        code: u32,
    },
    /// The connection ended with it.
    Closed,
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frames {
    pub fn open(address: SocketAddr) -> Self {
        let mut frames = Self {
            socket: connect(address),
            next_stream: 1,
        };
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        frames.socket.write_all(preface).expect("the gateway reads");
        // HEADER_TABLE_SIZE 0: every answer can be read without those before it.
        frames.send(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]);
        frames
    }

    /// Sends a request as these fields, in this order, and its body; waits for what comes of it.
    pub fn request(&mut self, fields: &[(&str, &str)], body: &[u8]) -> Outcome {
        let stream = self.begin(fields, body, END_STREAM);
        self.outcome(stream)
    }

    /// As [`Frames::request`], with a body of which no more than this part ever comes.
    pub fn unfinished(&mut self, fields: &[(&str, &str)], part: &[u8]) -> Outcome {
        let stream = self.begin(fields, part, 0);
        self.outcome(stream)
    }

    /// Sends a request and this part of its body, and does not wait; its stream, for [`Frames::outcome`].
    pub fn ask_with(&mut self, fields: &[(&str, &str)], part: &[u8]) -> u32 {
        self.begin(fields, part, 0)
    }

    /// Sends the rest of the body of a stream; whether the stream was reset before that was read.
    pub fn ends_in_a_reset(&mut self, stream: u32, rest: &[u8]) -> bool {
        self.send(DATA, END_STREAM, stream, rest);
        self.send(PING, 0, 0, b"all read");
        while let Some(frame) = self.receive() {
            match frame.kind {
                RST_STREAM if frame.stream == stream => return true,
                PING if frame.flags & ACK != 0 => return false,
                _ => {}
            }
        }
        true
    }

    /// Sends a request without a body and does not wait; its stream, for [`Frames::outcome`].
    pub fn ask(&mut self, fields: &[(&str, &str)]) -> u32 {
        self.begin(fields, &[], END_STREAM)
    }

    fn begin(&mut self, fields: &[(&str, &str)], body: &[u8], last: u8) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        let mut block = Vec::new();
        for (name, value) in fields {
            // A literal that is never indexed, with a new name.
            block.push(0x10);
            for text in [name, value] {
                length(&mut block, text.len());
                block.extend_from_slice(text.as_bytes());
            }
        }
        let end = if body.is_empty() { END_STREAM } else { 0 };
        self.send(HEADERS, END_HEADERS | end, stream, &block);
        if !body.is_empty() {
            self.send(DATA, last, stream, body);
        }
        stream
    }

    /// Waits for what comes of a stream; frames of others are passed over.
    pub fn outcome(&mut self, stream: u32) -> Outcome {
        let mut status = 0;
        let mut body = Vec::new();
        while let Some(frame) = self.receive() {
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]),
                PING if frame.flags & ACK == 0 => self.send(PING, ACK, 0, &frame.payload),
                GOAWAY => return Outcome::Closed,
                HEADERS if frame.stream == stream => status = status_of(&frame.payload),
                DATA if frame.stream == stream => body.extend_from_slice(&frame.payload),
                RST_STREAM if frame.stream == stream => {
                    let code = frame.payload.try_into().expect("four bytes");
                    let code = u32::from_be_bytes(code);
                    return Outcome::Reset { code };
                }
                _ => continue,
            }
            if frame.stream == stream && frame.flags & END_STREAM != 0 {
                return Outcome::Answered { status, body };
            }
        }
        Outcome::Closed
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let size = u32::try_from(payload.len())
            .expect("a small frame")
            .to_be_bytes();
        let mut frame = vec![size[1], size[2], size[3], kind, flags];
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        // A connection that has ended is seen when it is read.
        let _ = self.socket.write_all(&frame);
    }

    fn receive(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.socket.read_exact(&mut head).ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.socket.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes(stream);
        Some(Frame {
            kind,
            flags,
            stream,
            payload,
        })
    }
}

/// An integer of HPACK with a prefix of seven bits (RFC 7541 5.1).
fn length(block: &mut Vec<u8>, length: usize) {
    if length < 127 {
        block.push(length as u8);
        return;
    }
    block.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        block.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
}

/// `:status`, the first field of every response.
fn status_of(block: &[u8]) -> u16 {
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    let mut block = block;
    // Updates of the size of the table come first.
    while block[0] & 0xe0 == 0x20 {
        block = &block[1..];
    }
    match block {
        [index @ 0x88..=0x8e, ..] => STATIC[usize::from(index - 0x88)],
        [0x48 | 0x08 | 0x18, length, value @ ..] if length & 0x80 == 0 => {
            let digits = std::str::from_utf8(&value[..usize::from(*length)]).expect("digits");
            digits.parse().expect("a status")
        }
        [0x48 | 0x08 | 0x18, length, value @ ..] => {
            let bytes = &value[..usize::from(length & 0x7f)];
            let mut bits = bytes
                .iter()
                .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
            let mut bit = || u16::from(bits.next().unwrap_or(1));
            (0..3).fold(0, |status, _| {
                // RFC 7541 B: 0 to 2 have five bits, the others six.
                let five = (0..5).fold(0, |code, _| code << 1 | bit());
                let digit = if five < 3 {
                    five
                } else {
                    (five << 1 | bit()) - 0x19 + 3
                };
                status * 10 + digit
            })
        }
        other => panic!("no :status in {other:02x?}"),
    }
}
