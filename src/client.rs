//! Who is asking: the client address behind trusted proxies, and the ids that follow a request
//! through every system it touches. Decides what a peer may claim; knows nothing of connections.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use http::HeaderValue;
use ipnet::{IpNet, Ipv4Net};
use uuid::Uuid;

/// The networks whose claims about the client are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Box<[IpNet]>);

impl TrustedProxies {
    /// Networks in any order; overlapping ones are merged, and an IPv4-mapped IPv6 network
    /// (`::ffff:10.0.0.0/104`) is the IPv4 network it maps.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let networks: Vec<IpNet> = networks.into_iter().map(unmap_network).collect();
        Self(IpNet::aggregate(&networks).into())
    }

    /// Whether `address` is in one of the networks. `::ffff:10.0.0.1` is 10.0.0.1.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Nobody is trusted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn unmap_network(network: IpNet) -> IpNet {
    const MAPPED_BITS: u8 = 96;
    match network {
        IpNet::V6(six) if six.prefix_len() >= MAPPED_BITS => match six.addr().to_ipv4_mapped() {
            Some(four) => Ipv4Net::new_assert(four, six.prefix_len() - MAPPED_BITS)
                .trunc()
                .into(),
            None => network.trunc(),
        },
        _ => network.trunc(),
    }
}

/// The address of the client: `peer`, or what trusted proxies say stands behind it.
///
/// `forwarded_for` is the `X-Forwarded-For` field lines in the order received. The chain is read
/// from its right end, where the nearest proxy wrote, and only as long as the hop that wrote an
/// element is trusted; the first untrusted address is the client. An element that is no address
/// (`unknown`, a name, an obfuscated id) ends the walk at the hop that wrote it. Ports and brackets
/// are tolerated: `192.0.2.1:4711`, `[2001:db8::1]:4711`, `[2001:db8::1]`. If every element is
/// trusted the leftmost one is the client. An untrusted `peer` is always the client itself.
pub fn client_address<'a>(
    peer: IpAddr,
    trusted: &TrustedProxies,
    forwarded_for: impl DoubleEndedIterator<Item = &'a [u8]>,
) -> IpAddr {
    let mut client = peer.to_canonical();
    let hops = forwarded_for
        .rev()
        .flat_map(|line| line.rsplit(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        // RFC 9110 5.6.1: empty list elements do not count.
        .filter(|element| !element.is_empty());
    for hop in hops {
        if !trusted.contains(client) {
            break;
        }
        match parse_hop(hop) {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

fn parse_hop(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address.ip().to_canonical());
    }
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let address = inner.parse::<std::net::Ipv6Addr>().ok()?;
    Some(IpAddr::V6(address).to_canonical())
}

/// The name of one request in every log, field and answer. Lives on the stack.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    text: [u8; RequestId::MAX_LEN],
    len: u8,
}

impl RequestId {
    /// Longest id accepted from a peer, in bytes.
    pub const MAX_LEN: usize = 128;

    /// A new UUIDv7 (RFC 9562 5.7) in its usual form: ids of one process sort by their time.
    pub fn make() -> Self {
        let mut text = [0; Self::MAX_LEN];
        let len = Uuid::now_v7().hyphenated().encode_lower(&mut text).len();
        Self {
            text,
            len: len as u8,
        }
    }

    /// An id as another system writes it: 1 to 128 of `A-Z a-z 0-9 . _ - + / = : @`, which covers
    /// UUIDs, ULIDs, base64, W3C trace ids and load balancers' ids, and cannot break a log line, a
    /// field or a page. `None` for anything else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-+/=:@".contains(byte);
        if text.is_empty() || text.len() > Self::MAX_LEN || !text.iter().all(allowed) {
            return None;
        }
        let mut id = Self {
            text: [0; Self::MAX_LEN],
            len: text.len() as u8,
        };
        id.text[..text.len()].copy_from_slice(text);
        Some(id)
    }

    /// The id a trusted peer sent, or else a new one. A malformed id is replaced, not repaired.
    pub fn accept(received: Option<&[u8]>, peer_is_trusted: bool) -> Self {
        received
            .filter(|_| peer_is_trusted)
            .and_then(Self::parse)
            .unwrap_or_else(Self::make)
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..usize::from(self.len)]).expect("ids are ASCII")
    }

    /// The id as a field value.
    pub fn to_value(&self) -> HeaderValue {
        HeaderValue::from_str(self.as_str()).expect("ids have no control bytes")
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({self})")
    }
}

/// Where a request stands in a distributed trace (W3C Trace Context, `traceparent`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    trace: [u8; 16],
    parent: [u8; 8],
    flags: u8,
}

impl TraceParent {
    const LEN: usize = 55;
    const SAMPLED: u8 = 1;

    /// A new trace with random ids. `sampled` asks the systems behind us to record it.
    pub fn make(sampled: bool) -> Self {
        // The version bits of a UUIDv4 are never zero, so neither id can be the invalid one.
        let trace = Uuid::new_v4().into_bytes();
        let other = Uuid::new_v4().into_bytes();
        let mut parent = [0; 8];
        parent.copy_from_slice(&other[..8]);
        let flags = if sampled { Self::SAMPLED } else { 0 };
        Self {
            trace,
            parent,
            flags,
        }
    }

    /// Reads a field value as W3C Trace Context 3.2 says: lower-case hex, version not `ff`, no id
    /// all zero. A later version may carry more after another `-`; version `00` may not.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (head, rest) = text.split_at_checked(Self::LEN)?;
        let &[v0, v1, b'-', ..] = head else {
            return None;
        };
        if head[35] != b'-' || head[52] != b'-' {
            return None;
        }
        let [version] = hex::<1>(&[v0, v1])?;
        let more_is_right = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest[0] == b'-',
        };
        let trace = hex::<16>(&head[3..35])?;
        let parent = hex::<8>(&head[36..52])?;
        let [flags] = hex::<1>(&head[53..])?;
        let valid = more_is_right && trace != [0; 16] && parent != [0; 8];
        valid.then_some(Self {
            trace,
            parent,
            flags,
        })
    }

    /// Someone upstream of us asked for this trace to be recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags & Self::SAMPLED != 0
    }
}

/// The field value, version `00`.
impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trace = u128::from_be_bytes(self.trace);
        let parent = u64::from_be_bytes(self.parent);
        write!(f, "00-{trace:032x}-{parent:016x}-{:02x}", self.flags)
    }
}

/// `N` bytes from `2 N` lower-case hex digits.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}
