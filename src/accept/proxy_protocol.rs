//! Reads the PROXY protocol header, versions 1 and 2, from the first bytes of a connection.
//! A pure function of bytes; who may send one, and how long to wait for it, is the listener's business.
//!
//! The format is HAProxy's `proxy-protocol.txt` (2.0 and later), cited here by section.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Signature of version 2 (section 2.2). No version 1 header and no HTTP request begins so.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const V1_PREFIX: &[u8] = b"PROXY ";
/// The longest version 1 line, its CR LF included (section 2.1).
const V1_LONGEST: usize = 107;
/// Signature, version and command, family, length.
const V2_FIXED: usize = 16;
/// What may follow the fixed part of version 2: addresses and TLVs. The field could say 65,535;
/// real senders stay below 1 KiB, and this is held in memory before anything is known of the peer.
pub const V2_LONGEST_BODY: usize = 4096;
/// The longest header this parser can ask for: a buffer of this many bytes always suffices.
pub const LONGEST_HEADER: usize = V2_FIXED + V2_LONGEST_BODY;

const TLV_CRC32C: u8 = 0x03;

/// Who the sender says the connection is from and was made to.
///
/// Both are `None` where it names nobody: `UNKNOWN` in version 1; `LOCAL` (a health probe of the
/// proxy itself), an unspecified family or a Unix socket in version 2. The addresses of the
/// TCP connection itself then stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The client.
    pub source: Option<SocketAddr>,
    /// The address the client connected to.
    pub destination: Option<SocketAddr>,
}

impl Header {
    const NOBODY: Header = Header {
        source: None,
        destination: None,
    };
}

/// Why the connection is to be closed: the sender does not speak the protocol, or speaks it wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyProtocolError {
    /// Neither version's signature, for example an HTTP request or a TLS hello sent directly.
    #[error("the connection does not begin with a PROXY protocol header")]
    Absent,
    /// No CR LF within 107 bytes.
    #[error("the PROXY line is longer than 107 bytes")]
    LineTooLong,
    /// Fields, spacing or characters other than section 2.1 defines.
    #[error("the PROXY line is malformed")]
    Line,
    /// Not an address of the line's family in its usual notation.
    #[error("the PROXY line holds a malformed address")]
    Address,
    /// Not 0..=65535 in plain digits without leading zeros.
    #[error("the PROXY line holds a malformed port")]
    Port,
    /// A version other than 2 after the binary signature.
    #[error("PROXY protocol version {0} is not known")]
    Version(u8),
    /// A command other than LOCAL and PROXY.
    #[error("PROXY protocol command {0} is not known")]
    Command(u8),
    /// An address family or transport that section 2.2 does not define.
    #[error("PROXY protocol family 0x{0:02x} is not known")]
    Family(u8),
    /// More than [`V2_LONGEST_BODY`] bytes announced.
    #[error("the PROXY header announces {0} bytes; at most 4096 are accepted")]
    TooLong(u16),
    /// Fewer bytes than the addresses of the family take.
    #[error("the PROXY header is too short for its addresses")]
    TooShort,
    /// A TLV reaches beyond the header.
    #[error("a field of the PROXY header reaches beyond its end")]
    Tlv,
    /// The CRC32C TLV is there and does not match.
    #[error("the checksum of the PROXY header is wrong")]
    Checksum,
}

/// Reads one header from the start of `buf`.
///
/// `Ok(None)`: what is there is the beginning of a header; call again with more bytes, never more than
/// [`LONGEST_HEADER`]. `Ok(Some((header, length)))`: the first `length` bytes were the header, what
/// follows belongs to the connection. The answer does not depend on how the bytes were split.
pub fn parse(buf: &[u8]) -> Result<Option<(Header, usize)>, ProxyProtocolError> {
    if starts_alike(buf, &SIGNATURE) {
        parse_v2(buf)
    } else if starts_alike(buf, V1_PREFIX) {
        parse_v1(buf)
    } else {
        Err(ProxyProtocolError::Absent)
    }
}

/// True while `buf` could still become something that begins with `prefix`.
fn starts_alike(buf: &[u8], prefix: &[u8]) -> bool {
    buf.iter().zip(prefix).all(|(a, b)| a == b)
}

fn parse_v1(buf: &[u8]) -> Result<Option<(Header, usize)>, ProxyProtocolError> {
    let window = &buf[..buf.len().min(V1_LONGEST)];
    let Some(end) = memchr::memchr2(b'\r', b'\n', window) else {
        return match buf.len() {
            V1_LONGEST.. => Err(ProxyProtocolError::LineTooLong),
            _ => Ok(None),
        };
    };
    if window[end] == b'\n' {
        return Err(ProxyProtocolError::Line);
    }
    match window.get(end + 1) {
        Some(b'\n') => {}
        Some(_) => return Err(ProxyProtocolError::Line),
        None if end + 1 == V1_LONGEST => return Err(ProxyProtocolError::LineTooLong),
        None => return Ok(None),
    }
    // "UNKNOWN" may be followed by anything, which section 2.1 tells receivers to ignore.
    let line = &window[V1_PREFIX.len()..end];
    let header = match line {
        b"UNKNOWN" => Header::NOBODY,
        _ if line.starts_with(b"UNKNOWN ") => Header::NOBODY,
        _ => v1_addresses(line)?,
    };
    Ok(Some((header, end + 2)))
}

fn v1_addresses(line: &[u8]) -> Result<Header, ProxyProtocolError> {
    let line = str::from_utf8(line).map_err(|_| ProxyProtocolError::Line)?;
    let mut words = line.split(' ');
    let mut word = || words.next().ok_or(ProxyProtocolError::Line);
    let (family, source, destination, source_port, destination_port) =
        (word()?, word()?, word()?, word()?, word()?);
    if words.next().is_some() {
        return Err(ProxyProtocolError::Line);
    }
    let (source, destination) = match family {
        "TCP4" => (v1_ip::<Ipv4Addr>(source)?, v1_ip::<Ipv4Addr>(destination)?),
        "TCP6" => (v1_ip::<Ipv6Addr>(source)?, v1_ip::<Ipv6Addr>(destination)?),
        _ => return Err(ProxyProtocolError::Line),
    };
    Ok(Header {
        source: Some(SocketAddr::new(source, v1_port(source_port)?)),
        destination: Some(SocketAddr::new(destination, v1_port(destination_port)?)),
    })
}

fn v1_ip<A: FromStr + Into<IpAddr>>(word: &str) -> Result<IpAddr, ProxyProtocolError> {
    let address: A = word.parse().map_err(|_| ProxyProtocolError::Address)?;
    Ok(address.into())
}

fn v1_port(word: &str) -> Result<u16, ProxyProtocolError> {
    // `u16::from_str` would also take "+80" and "0080".
    let canonical =
        word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    match word.parse() {
        Ok(port) if canonical => Ok(port),
        _ => Err(ProxyProtocolError::Port),
    }
}

fn parse_v2(buf: &[u8]) -> Result<Option<(Header, usize)>, ProxyProtocolError> {
    // Each byte is judged as soon as it is there: a wrong one is not waited upon.
    if let Some(&byte) = buf.get(12) {
        if byte >> 4 != 2 {
            return Err(ProxyProtocolError::Version(byte >> 4));
        }
        if byte & 0x0f > 1 {
            return Err(ProxyProtocolError::Command(byte & 0x0f));
        }
    }
    if let Some(&family) = buf.get(13)
        && (family >> 4 > 3 || family & 0x0f > 2)
    {
        return Err(ProxyProtocolError::Family(family));
    }
    let Some(fixed) = buf.first_chunk::<V2_FIXED>() else {
        return Ok(None);
    };
    let announced = u16::from_be_bytes([fixed[14], fixed[15]]);
    if usize::from(announced) > V2_LONGEST_BODY {
        return Err(ProxyProtocolError::TooLong(announced));
    }
    let length = V2_FIXED + usize::from(announced);
    let Some(header) = buf.get(..length) else {
        return Ok(None);
    };
    let is_local = fixed[12] & 0x0f == 0;
    let (addresses, tlvs_at) = v2_addresses(fixed[13], &header[V2_FIXED..])?;
    check_tlvs(header, V2_FIXED + tlvs_at)?;
    let said = if is_local { Header::NOBODY } else { addresses };
    Ok(Some((said, length)))
}

/// The addresses of a version 2 body, and where its TLVs begin.
fn v2_addresses(family: u8, body: &[u8]) -> Result<(Header, usize), ProxyProtocolError> {
    let room = match family >> 4 {
        0x1 => 12,
        0x2 => 36,
        0x3 => 216,
        // Unspecified: whatever follows is to be ignored, so there are no TLVs to check either.
        _ => return Ok((Header::NOBODY, body.len())),
    };
    let bytes = body.get(..room).ok_or(ProxyProtocolError::TooShort)?;
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let header = match family >> 4 {
        // Only a stream is what we accepted; a datagram's addresses name no peer of this connection.
        _ if family & 0x0f != 1 => Header::NOBODY,
        0x1 => {
            let ip = |at: usize| {
                let octets: [u8; 4] = bytes[at..at + 4].try_into().expect("four bytes");
                IpAddr::from(octets)
            };
            Header {
                source: Some(SocketAddr::new(ip(0), port(8))),
                destination: Some(SocketAddr::new(ip(4), port(10))),
            }
        }
        0x2 => {
            let ip = |at: usize| {
                let octets: [u8; 16] = bytes[at..at + 16].try_into().expect("sixteen bytes");
                IpAddr::from(octets)
            };
            Header {
                source: Some(SocketAddr::new(ip(0), port(32))),
                destination: Some(SocketAddr::new(ip(16), port(34))),
            }
        }
        _ => Header::NOBODY,
    };
    Ok((header, room))
}

/// Walks the TLVs of `header` from `at`: each must lie within it, and a checksum must be right.
fn check_tlvs(header: &[u8], mut at: usize) -> Result<(), ProxyProtocolError> {
    while at < header.len() {
        let [kind, high, low] = *header[at..]
            .first_chunk::<3>()
            .ok_or(ProxyProtocolError::Tlv)?;
        let value = at + 3..at + 3 + usize::from(u16::from_be_bytes([high, low]));
        let bytes = header.get(value.clone()).ok_or(ProxyProtocolError::Tlv)?;
        if kind == TLV_CRC32C {
            let sent: [u8; 4] = bytes.try_into().map_err(|_| ProxyProtocolError::Checksum)?;
            if u32::from_be_bytes(sent) != crc32c_without(header, value.start) {
                return Err(ProxyProtocolError::Checksum);
            }
        }
        at = value.end;
    }
    Ok(())
}

/// CRC32C (RFC 4960 appendix B) of `bytes` with the four at `hole` taken as zero (section 2.2.3).
fn crc32c_without(bytes: &[u8], hole: usize) -> u32 {
    let hole = hole..hole + 4;
    let folded = bytes.iter().enumerate().fold(!0u32, |crc, (at, &byte)| {
        let byte = if hole.contains(&at) { 0 } else { byte };
        CRC32C_TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8)
    });
    !folded
}

/// The reflected polynomial 0x82f63b78, one entry for each byte.
const CRC32C_TABLE: [u32; 256] = {
    let mut table = [0u32; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests;
