use proptest::prelude::*;

use super::*;

fn named(source: &str, destination: &str) -> Header {
    Header {
        source: Some(source.parse().unwrap()),
        destination: Some(destination.parse().unwrap()),
    }
}

/// A version 2 header: command and family bytes as given, the length filled in.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([command, family]);
    bytes.extend((body.len() as u16).to_be_bytes());
    bytes.extend(body);
    bytes
}

const V4_BODY: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0xd9, 0x03, 0x01, 0xbb];

fn with_tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut body = V4_BODY.to_vec();
    body.push(kind);
    body.extend((value.len() as u16).to_be_bytes());
    body.extend(value);
    body
}

#[test]
fn a_version_1_line_names_both_ends() {
    let line = b"PROXY TCP4 192.0.2.1 198.51.100.2 55555 443\r\nGET / HTTP/1.1\r\n";
    let header = named("192.0.2.1:55555", "198.51.100.2:443");
    assert_eq!(parse(line), Ok(Some((header, 45))));

    let line = b"PROXY TCP6 2001:db8::1 2001:db8::2 0 65535\r\n";
    let header = named("[2001:db8::1]:0", "[2001:db8::2]:65535");
    assert_eq!(parse(line), Ok(Some((header, line.len()))));
}

#[test]
fn an_unknown_version_1_sender_names_nobody_and_its_rest_is_ignored() {
    for line in [
        "PROXY UNKNOWN\r\n",
        "PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
        "PROXY UNKNOWN \r\n",
    ] {
        assert_eq!(
            parse(line.as_bytes()),
            Ok(Some((Header::NOBODY, line.len()))),
            "{line:?}"
        );
    }
}

#[test]
fn a_version_1_line_that_is_not_exactly_as_defined_is_refused() {
    use ProxyProtocolError::*;
    let cases = [
        ("PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n", Line),
        ("PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n", Line),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", Line),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", Line),
        ("PROXY TCP4 192.0.2.1\t192.0.2.2 1 2\r\n", Line),
        ("PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n", Line),
        ("PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n", Line),
        ("PROXY UNKNOWNS 192.0.2.1 192.0.2.2 1 2\r\n", Line),
        ("PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n", Address),
        ("PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n", Address),
        ("PROXY TCP4 ::1 ::1 1 2\r\n", Address),
        ("PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", Address),
        ("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", Address),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n", Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 -2\r\n", Port),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", Line),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\rX", Line),
        ("GET / HTTP/1.1\r\n", Absent),
        ("proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n", Absent),
        ("\x16\x03\x01", Absent),
    ];
    for (line, expected) in cases {
        assert_eq!(parse(line.as_bytes()), Err(expected), "{line:?}");
    }
}

#[test]
fn a_version_1_line_may_be_107_bytes_long_and_no_longer() {
    let fill = |length: usize| {
        let mut line = b"PROXY UNKNOWN ".to_vec();
        line.resize(length - 2, b'x');
        line.extend(b"\r\n");
        line
    };
    assert_eq!(parse(&fill(107)), Ok(Some((Header::NOBODY, 107))));
    assert_eq!(parse(&fill(108)), Err(ProxyProtocolError::LineTooLong));
    assert_eq!(
        parse(&fill(200)[..107]),
        Err(ProxyProtocolError::LineTooLong)
    );
    assert_eq!(parse(&fill(200)[..106]), Ok(None));
}

#[test]
fn a_version_2_header_names_both_ends() {
    let bytes = v2(0x21, 0x11, &V4_BODY);
    let header = named("192.0.2.1:55555", "198.51.100.2:443");
    assert_eq!(parse(&bytes), Ok(Some((header, 28))));

    let mut body = [0u8; 36];
    body[15] = 1;
    body[31] = 2;
    body[32..].copy_from_slice(&[0, 80, 1, 187]);
    let header = named("[::1]:80", "[::2]:443");
    assert_eq!(parse(&v2(0x21, 0x21, &body)), Ok(Some((header, 52))));
}

#[test]
fn local_unspecified_unix_and_datagram_headers_name_nobody() {
    for (command, family, body) in [
        (0x20, 0x00, vec![]),
        (0x20, 0x11, V4_BODY.to_vec()),
        (0x21, 0x00, vec![1, 2, 3]),
        (0x21, 0x31, vec![0; 216]),
        (0x21, 0x12, V4_BODY.to_vec()),
    ] {
        let bytes = v2(command, family, &body);
        let length = bytes.len();
        assert_eq!(parse(&bytes), Ok(Some((Header::NOBODY, length))));
    }
}

#[test]
fn a_version_2_header_that_is_not_as_defined_is_refused() {
    use ProxyProtocolError::*;
    let cases = [
        (v2(0x11, 0x11, &V4_BODY), Version(1)),
        (v2(0x22, 0x11, &V4_BODY), Command(2)),
        (v2(0x21, 0x41, &V4_BODY), Family(0x41)),
        (v2(0x21, 0x13, &V4_BODY), Family(0x13)),
        (v2(0x21, 0x11, &V4_BODY[..11]), TooShort),
        (v2(0x21, 0x21, &V4_BODY), TooShort),
        (v2(0x21, 0x11, &vec![0; 4097]), TooLong(4097)),
        (v2(0x21, 0x11, &[&V4_BODY[..], &[4, 0]].concat()), Tlv),
        (v2(0x21, 0x11, &[&V4_BODY[..], &[4, 0, 1]].concat()), Tlv),
        (v2(0x21, 0x11, &with_tlv(TLV_CRC32C, &[0; 3])), Checksum),
        (v2(0x21, 0x11, &with_tlv(TLV_CRC32C, &[0; 4])), Checksum),
    ];
    for (bytes, expected) in cases {
        assert_eq!(parse(&bytes), Err(expected), "{bytes:?}");
    }
}

#[test]
fn fields_after_the_addresses_are_skipped_and_a_right_checksum_is_accepted() {
    let bytes = v2(0x21, 0x11, &with_tlv(0x02, b"shop.example"));
    assert!(matches!(parse(&bytes), Ok(Some((_, 43)))));

    let mut bytes = v2(0x21, 0x11, &with_tlv(TLV_CRC32C, &[0; 4]));
    let at = bytes.len() - 4;
    let sum = crc32c_without(&bytes, at);
    bytes[at..].copy_from_slice(&sum.to_be_bytes());
    assert!(matches!(parse(&bytes), Ok(Some((_, 35)))));
    bytes[20] ^= 1;
    assert_eq!(parse(&bytes), Err(ProxyProtocolError::Checksum));
}

#[test]
fn the_checksum_is_the_published_one() {
    // The check value of CRC-32C: "123456789". The hole lies beyond the text.
    assert_eq!(crc32c_without(b"123456789", 100), 0xe306_9283);
    // RFC 3720 appendix B.4: 32 bytes of 0xff.
    assert_eq!(crc32c_without(&[0xff; 32], 100), 0x62a8_ab43);
}

/// Headers of both versions, whole or damaged in one byte, followed by other bytes.
fn almost_header() -> impl Strategy<Value = Vec<u8>> {
    let good = prop_oneof![
        Just(b"PROXY TCP4 192.0.2.1 198.51.100.2 55555 443\r\n".to_vec()),
        Just(b"PROXY TCP6 2001:db8::1 2001:db8::2 0 65535\r\n".to_vec()),
        Just(b"PROXY UNKNOWN and more\r\n".to_vec()),
        Just(v2(0x21, 0x11, &with_tlv(0x02, b"shop.example"))),
        Just(v2(0x20, 0x21, &[7; 36])),
        (0u8.., 0u8.., prop::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(command, family, body)| v2(command, family, &body)),
    ];
    let damage = prop::option::of((any::<prop::sample::Index>(), any::<u8>()));
    (good, damage, prop::collection::vec(any::<u8>(), 0..40)).prop_map(
        |(mut bytes, damage, rest)| {
            if let Some((at, byte)) = damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.extend(rest);
            bytes
        },
    )
}

proptest! {
    #[test]
    fn any_bytes_get_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes);
        let _ = parse(&[&SIGNATURE, &bytes[..]].concat());
        let _ = parse(&[V1_PREFIX, &bytes[..]].concat());
    }

    #[test]
    fn the_answer_does_not_depend_on_how_the_bytes_arrive(bytes in almost_header()) {
        let whole = parse(&bytes);
        let first = (0..=bytes.len())
            .map(|length| parse(&bytes[..length]))
            .find(|answer| *answer != Ok(None));
        prop_assert_eq!(first.unwrap_or(Ok(None)), whole);
    }

    #[test]
    fn no_answer_claims_more_bytes_than_there_are(bytes in almost_header()) {
        if let Ok(Some((_, length))) = parse(&bytes) {
            prop_assert!(length <= bytes.len() && length <= LONGEST_HEADER);
        }
    }

    #[test]
    fn what_is_written_is_what_is_read(source: SocketAddr, port: u16) {
        let destination = SocketAddr::new(source.ip(), port);
        let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        let line = format!(
            "PROXY {family} {} {} {} {port}\r\n", source.ip(), source.ip(), source.port(),
        );
        let (read, _) = parse(line.as_bytes()).unwrap().unwrap();
        prop_assert_eq!(read.source, Some(SocketAddr::new(source.ip(), source.port())));
        prop_assert_eq!(read.destination.map(|to| to.port()), Some(destination.port()));
    }
}
