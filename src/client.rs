//! Who is asking: the client address behind trusted proxies, and the ids that follow a request
//! through every system it touches. Decides what a peer may claim; knows nothing of connections.

pub mod list;
pub mod network_set;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use http::HeaderValue;
use ipnet::{IpNet, Ipv4Net};
use uuid::Uuid;

/// Networks of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Box<[IpNet]>);

impl Networks {
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

    /// No address is in one of them.
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
    trusted: &Networks,
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
        std::str::from_utf8(self.as_bytes()).expect("ids are ASCII")
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }

    /// The id as a field value.
    pub fn to_value(&self) -> HeaderValue {
        HeaderValue::from_bytes(self.as_bytes()).expect("ids have no control bytes")
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

impl TraceParent {
    /// The field value, version `00`.
    pub fn to_value(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.text()).expect("digits are no control bytes")
    }

    fn text(&self) -> [u8; Self::LEN] {
        // By a table: the formatter of integers takes ten times as long, for every request.
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        let mut put = |at: usize, bytes: &[u8]| {
            for (pair, byte) in text[at..].chunks_exact_mut(2).zip(bytes) {
                pair[0] = DIGITS[usize::from(byte >> 4)];
                pair[1] = DIGITS[usize::from(byte & 15)];
            }
        };
        put(3, &self.trace);
        put(36, &self.parent);
        put(53, &[self.flags]);
        text
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trusted(networks: &[&str]) -> Networks {
        Networks::new(networks.iter().map(|text| text.parse().unwrap()))
    }

    fn client(peer: &str, lines: &[&str]) -> String {
        let proxies = trusted(&["10.0.0.0/8", "192.168.1.1/32", "2001:db8:aa::/48"]);
        let lines = lines.iter().map(|line| line.as_bytes());
        client_address(peer.parse().unwrap(), &proxies, lines).to_string()
    }

    #[test]
    fn a_network_holds_its_addresses_in_either_family_and_form() {
        let proxies = trusted(&[
            "10.0.0.0/9",
            "10.128.0.0/9",
            "::ffff:172.16.0.0/108",
            "2001:db8::/32",
        ]);
        let cases = [
            ("10.1.2.3", true),
            ("10.200.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.1", false),
            ("172.16.0.1", true),
            ("172.31.255.255", true),
            ("172.32.0.1", false),
            ("::ffff:172.20.0.1", true),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
            ("::10.1.2.3", false),
        ];
        for (address, expected) in cases {
            assert_eq!(
                proxies.contains(address.parse().unwrap()),
                expected,
                "{address}"
            );
        }
        assert!(!Networks::default().contains("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn the_chain_is_read_from_the_right_while_its_writers_are_trusted() {
        let cases: [(&str, &[&str], &str); 19] = [
            ("203.0.113.9", &["1.1.1.1"], "203.0.113.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1"], "1.1.1.1"),
            ("10.0.0.1", &["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
            ("10.0.0.1", &["6.6.6.6, 1.1.1.1, 10.0.0.2"], "1.1.1.1"),
            ("10.0.0.1", &["6.6.6.6", "1.1.1.1", "10.0.0.2"], "1.1.1.1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["1.1.1.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1, garbage, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &[" , 1.1.1.1 ,, "], "1.1.1.1"),
            ("10.0.0.1", &["1.1.1.1:4711"], "1.1.1.1"),
            ("10.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &["::ffff:1.1.1.1"], "1.1.1.1"),
            ("::ffff:10.0.0.1", &["1.1.1.1, ::ffff:10.0.0.2"], "1.1.1.1"),
            ("2001:db8:aa::1", &["1.1.1.1"], "1.1.1.1"),
            ("10.0.0.1", &["1.1.1.1, 010.0.0.2"], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1, fe80::1%eth0"], "10.0.0.1"),
        ];
        for (peer, lines, expected) in cases {
            assert_eq!(client(peer, lines), expected, "{peer} {lines:?}");
        }
    }

    #[test]
    fn an_id_is_taken_from_a_trusted_peer_only_and_only_if_harmless() {
        let longest = "x".repeat(RequestId::MAX_LEN);
        for good in [
            "a",
            "Root=1-67891233-abcdef012345678912345678",
            "Zm9v+/==",
            "a:b@c_d.e",
            &longest,
        ] {
            assert_eq!(
                RequestId::accept(Some(good.as_bytes()), true).as_str(),
                good
            );
            assert_ne!(
                RequestId::accept(Some(good.as_bytes()), false).as_str(),
                good
            );
        }
        let too_long = "x".repeat(RequestId::MAX_LEN + 1);
        for bad in [
            "", "a b", "a\r\nb", "a\"b", "<b>", "é", "a,b", "a;b", &too_long,
        ] {
            assert_eq!(RequestId::parse(bad.as_bytes()), None, "{bad:?}");
            assert_eq!(
                RequestId::accept(Some(bad.as_bytes()), true).as_str().len(),
                36
            );
        }
    }

    #[test]
    fn made_ids_are_uuids_that_sort_by_time() {
        let ids: Vec<String> = (0..100).map(|_| RequestId::make().to_string()).collect();
        assert!(ids.is_sorted_by(|one, next| one < next));
        let uuid: Uuid = ids[0].parse().unwrap();
        assert_eq!(uuid.get_version_num(), 7);
        assert_eq!(RequestId::make().to_value().len(), 36);
    }

    #[test]
    fn a_traceparent_is_what_w3c_says() {
        const T: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        const P: &str = "00f067aa0ba902b7";
        let cases = [
            (format!("00-{T}-{P}-01"), true),
            (format!("00-{T}-{P}-00"), true),
            (format!("00-{T}-{P}-ff"), true),
            (format!("cc-{T}-{P}-01"), true),
            (format!("cc-{T}-{P}-01-what-the-future-holds"), true),
            (format!("cc-{T}-{P}-01.what"), false),
            (format!("00-{T}-{P}-01-more"), false),
            (format!("ff-{T}-{P}-01"), false),
            (format!("00-{}-{P}-01", "0".repeat(32)), false),
            (format!("00-{T}-{}-01", "0".repeat(16)), false),
            (format!("00-{}-{P}-01", T.to_uppercase()), false),
            (format!("00-{T}-{P}-0g"), false),
            (format!("00_{T}-{P}-01"), false),
            (format!("00-{T}_{P}-01"), false),
            (format!("00-{T}-{P}_01"), false),
            (format!("00-{T}-{P}-0"), false),
            (String::new(), false),
        ];
        for (text, valid) in cases {
            assert_eq!(
                TraceParent::parse(text.as_bytes()).is_some(),
                valid,
                "{text}"
            );
        }
    }

    #[test]
    fn a_new_trace_is_random_and_sampled_only_if_told() {
        let (one, other) = (TraceParent::make(false), TraceParent::make(true));
        assert_ne!(one.trace, other.trace);
        assert_ne!(one.parent, other.parent);
        assert!(!one.is_sampled() && other.is_sampled());
        for trace in [one, other] {
            assert_eq!(TraceParent::parse(trace.to_value().as_bytes()), Some(trace));
        }
    }

    fn element() -> impl Strategy<Value = String> {
        let address = any::<std::net::IpAddr>().prop_map(|address| address.to_string());
        prop_oneof![
            address.clone(),
            address.prop_map(|address| format!("[{address}]:80")),
            "10\\.0\\.0\\.[0-9]",
            "[ -~]{0,20}",
        ]
    }

    proptest! {
        #[test]
        fn an_untrusted_peer_is_always_itself(
            peer in any::<std::net::Ipv4Addr>().prop_filter("untrusted", |peer| peer.octets()[0] != 10),
            lines in proptest::collection::vec(proptest::collection::vec(element(), 0..5), 0..4),
        ) {
            let proxies = trusted(&["10.0.0.0/8"]);
            let lines: Vec<String> = lines.iter().map(|line| line.join(",")).collect();
            let peer = IpAddr::V4(peer);
            let found = client_address(peer, &proxies, lines.iter().map(|line| line.as_bytes()));
            prop_assert_eq!(found, peer);
        }

        #[test]
        fn what_stands_left_of_an_untrusted_hop_changes_nothing(
            forged in proptest::collection::vec(element(), 0..5),
            hop in any::<std::net::Ipv4Addr>().prop_filter("untrusted", |hop| hop.octets()[0] != 10),
        ) {
            let proxies = trusted(&["10.0.0.0/8"]);
            let line = format!("{},{hop}, 10.0.0.7", forged.join(","));
            let peer = "10.0.0.1".parse().unwrap();
            let found = client_address(peer, &proxies, std::iter::once(line.as_bytes()));
            prop_assert_eq!(found, IpAddr::V4(hop));
        }

        #[test]
        fn whatever_is_accepted_as_an_id_is_harmless_and_unchanged(text in proptest::collection::vec(any::<u8>(), 0..140)) {
            if let Some(id) = RequestId::parse(&text) {
                prop_assert_eq!(id.as_str().as_bytes(), &text[..]);
                prop_assert!(id.as_str().bytes().all(|byte| byte.is_ascii_graphic() && !b"\"'<>&,;\\".contains(&byte)));
            }
        }
    }
}
