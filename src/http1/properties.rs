//! What holds for any bytes: the answer does not depend on the reads, nothing panics, and what we
//! accept another parser reads in the same way.

use http::Version;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Text that is often nearly HTTP.
fn fragments() -> impl Strategy<Value = Vec<u8>> {
    let known: Vec<&'static [u8]> = vec![
        b"GET ",
        b"POST ",
        b"HEAD ",
        b"OPTIONS * ",
        b"/ ",
        b"/a/../b?c=%20 ",
        b"http://a/ ",
        b"HTTP/1.1\r\n",
        b"HTTP/1.0\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n",
        b"HTTP/1.1 101 Switching\r\n",
        b"Host: a\r\n",
        b"Content-Length: 3\r\n",
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"Connection: upgrade\r\nUpgrade: x\r\n",
        b"X-A: b\r\n",
        b"Expect: 100-continue\r\n",
        b"\r\n",
        b"\r",
        b"\n",
        b" ",
        b"\t",
        b":",
        b"abc",
        b"3\r\nabc\r\n",
        b"1;a=b\r\nx\r\n",
        b"1;a=\"b\"\r\nx\r\n",
        b"0\r\n",
        b"0\r\n\r\n",
        b"X: y\r\n",
        b"\x00",
        b"\xff",
        b"%2e",
        b"..",
        b";",
        b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ];
    let piece = prop_oneof![
        9 => prop::sample::select(known).prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 0..6),
    ];
    vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

/// A head that is mostly right.
fn likely_head() -> impl Strategy<Value = Vec<u8>> {
    let fields = vec("[A-Za-z-]{1,12}: ?[ -~]{0,20}\r\n", 0..6);
    (
        "(\r\n){0,2}(GET|POST|PUT|HEAD|DELETE) (/[!-~]{0,20}|http://[a-z.]{1,9}(/[a-z%2e.]{0,9})?)",
        prop_oneof![Just(" HTTP/1.1\r\n"), Just(" HTTP/1.0\r\n")],
        prop_oneof![
            4 => Just("Host: a\r\n"),
            1 => Just("")
        ],
        fields,
        fragments(),
    )
        .prop_map(|(line, version, host, fields, rest)| {
            let mut head = format!("{line}{version}{host}{}\r\n", fields.concat()).into_bytes();
            head.extend(rest);
            head
        })
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![fragments(), likely_head()]
}

fn small() -> Limits {
    Limits {
        request_line: 64,
        head_bytes: 160,
        fields: 4,
        ..Limits::default()
    }
}

/// Cut points within `length` bytes, in order, the end included.
fn cuts(length: usize, seeds: &[prop::sample::Index]) -> Vec<usize> {
    let mut cuts: Vec<usize> = seeds.iter().map(|seed| seed.index(length + 1)).collect();
    cuts.push(length);
    cuts.sort_unstable();
    cuts
}

/// Like a connection: the scanner sees the buffer after each read until it has an answer.
fn scan(bytes: &[u8], cuts: &[usize], limits: Limits) -> Result<Option<RequestHead>, Malformed> {
    let mut scanner = HeadScanner::new(limits);
    for &cut in cuts {
        match scanner.scan(&bytes[..cut]) {
            Ok(None) => {}
            answer => return answer,
        }
    }
    Ok(None)
}

/// Bytes taken, and whether the body was done, or the fault.
fn follow(framing: Framing, bytes: &[u8], cuts: &[usize]) -> Result<(usize, bool), Malformed> {
    let mut body = BodyScanner::new(framing);
    let (mut taken, mut start) = (0, 0);
    for &cut in cuts {
        taken += body.feed(&bytes[start..cut])?;
        start = cut;
    }
    Ok((taken, body.done()))
}

fn judge(request: &[u8], bytes: &[u8], cuts: &[usize]) -> (Result<(), BadResponse>, bool) {
    let mut gate = ResponseGate::new(ResponseLimits {
        head_bytes: 160,
        fields: 4,
        interim: 2,
    });
    gate.request_started(request);
    let mut start = 0;
    for &cut in cuts {
        if let Err(why) = gate.feed(&bytes[start..cut]) {
            return (Err(why), false);
        }
        start = cut;
    }
    (gate.eof(), gate.is_idle())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_head_reads_the_same_however_it_is_cut(
        bytes in message(), seeds in vec(any::<prop::sample::Index>(), 0..6), tight in any::<bool>(),
    ) {
        let limits = if tight { small() } else { Limits::default() };
        let whole = scan(&bytes, &[bytes.len()], limits);
        let every: Vec<usize> = (0..=bytes.len()).collect();
        prop_assert_eq!(&whole, &scan(&bytes, &cuts(bytes.len(), &seeds), limits));
        prop_assert_eq!(&whole, &scan(&bytes, &every, limits));
    }

    #[test]
    fn a_body_ends_at_the_same_byte_however_it_is_cut(
        bytes in fragments(), seeds in vec(any::<prop::sample::Index>(), 0..6),
        framing in prop_oneof![
            4 => Just(Framing::Chunked), 1 => (0u64..40).prop_map(Framing::Length), 1 => Just(Framing::None)
        ],
    ) {
        let whole = follow(framing, &bytes, &[bytes.len()]);
        let every: Vec<usize> = (0..=bytes.len()).collect();
        prop_assert_eq!(whole, follow(framing, &bytes, &cuts(bytes.len(), &seeds)));
        prop_assert_eq!(whole, follow(framing, &bytes, &every));
    }

    #[test]
    fn a_chunked_body_of_any_chunks_is_taken_exactly(
        chunks in vec(vec(any::<u8>(), 1..40), 0..6), next in vec(any::<u8>(), 0..20),
    ) {
        let mut wire = Vec::new();
        for chunk in &chunks {
            wire.extend(format!("{:x}\r\n", chunk.len()).bytes());
            wire.extend(chunk);
            wire.extend(b"\r\n");
        }
        wire.extend(b"0\r\n\r\n");
        let length = wire.len();
        wire.extend(next);
        prop_assert_eq!(follow(Framing::Chunked, &wire, &[wire.len()]), Ok((length, true)));
    }

    #[test]
    fn httparse_reads_every_accepted_chunk_the_same(
        heads in vec("0{0,3}[0-9a-fA-F]{1,2}(;[a-z]{1,3}(=([!-~]{1,3}|\"[ -~]{0,6}\"))?){0,2}", 0..5),
        trailers in vec("[A-Za-z-]{1,8}: [ -~]{0,9}\r\n", 0..3),
    ) {
        let size_of = |head: &str| {
            let digits = head.split(';').next().unwrap_or_default();
            usize::from_str_radix(digits, 16).unwrap()
        };
        let mut wire = Vec::new();
        let mut chunks = Vec::new();
        for head in heads.iter().filter(|head| size_of(head) > 0) {
            chunks.push(size_of(head) as u64);
            wire.extend(format!("{head}\r\n{}\r\n", "x".repeat(size_of(head))).bytes());
        }
        wire.extend(b"0\r\n");
        let trailers_at = wire.len();
        wire.extend(format!("{}\r\n", trailers.concat()).bytes());
        if follow(Framing::Chunked, &wire, &[wire.len()]) != Ok((wire.len(), true)) {
            return Ok(());
        }
        let (mut at, mut found) = (0, Vec::new());
        loop {
            let parsed = httparse::parse_chunk_size(&wire[at..]).expect("a chunk we accept");
            let httparse::Status::Complete((length, size)) = parsed else {
                panic!("a whole chunk head");
            };
            at += length;
            if size == 0 {
                break;
            }
            found.push(size);
            at += usize::try_from(size).unwrap() + 2;
        }
        prop_assert_eq!(found, chunks);
        prop_assert_eq!(at, trailers_at);
        let mut read = [httparse::EMPTY_HEADER; 8];
        let parsed = httparse::parse_headers(&wire[at..], &mut read).expect("trailers we accept");
        let httparse::Status::Complete((_, read)) = parsed else {
            panic!("whole trailers");
        };
        prop_assert_eq!(read.len(), trailers.len());
    }

    #[test]
    fn a_response_is_judged_the_same_however_it_is_cut(
        bytes in fragments().prop_map(|rest| [b"HTTP/1.1 200 OK\r\n".as_slice(), &rest].concat()),
        raw in any::<bool>(), seeds in vec(any::<prop::sample::Index>(), 0..6),
        request in prop::sample::select(vec![
            "GET / HTTP/1.1\r\n\r\n", "HEAD / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n",
        ]),
    ) {
        let bytes = if raw { &bytes[17..] } else { &bytes[..] };
        let whole = judge(request.as_bytes(), bytes, &[bytes.len()]);
        let every: Vec<usize> = (0..=bytes.len()).collect();
        prop_assert_eq!(whole, judge(request.as_bytes(), bytes, &cuts(bytes.len(), &seeds)));
        prop_assert_eq!(whole, judge(request.as_bytes(), bytes, &every));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = RequestHead::check(&bytes, &Limits::default());
        let _ = follow(Framing::Chunked, &bytes, &[bytes.len()]);
        let _ = judge(b"GET / HTTP/1.1\r\n\r\n", &bytes, &[bytes.len()]);
    }

    #[test]
    fn httparse_reads_every_accepted_head_the_same(bytes in message()) {
        let Ok(Some(head)) = RequestHead::check(&bytes, &Limits::default()) else {
            return Ok(());
        };
        let mut fields = [httparse::EMPTY_HEADER; 128];
        let mut other = httparse::Request::new(&mut fields);
        let status = other.parse(&bytes).expect("httparse accepts what we accept");
        prop_assert_eq!(status, httparse::Status::Complete(head.bytes.end));
        prop_assert_eq!(other.method, Some(head.method.as_str()));
        prop_assert_eq!(other.path.map(str::as_bytes), Some(&bytes[head.target.clone()]));
        prop_assert_eq!(other.version, Some(u8::from(head.version == Version::HTTP_11)));
        prop_assert_eq!(other.headers.len(), head.fields);
        let host = other.headers.iter().find(|field| field.name.eq_ignore_ascii_case("host"));
        if let Some(host) = host {
            prop_assert_eq!(host.value, &bytes[head.host]);
        }
    }

    #[test]
    fn httparse_reads_every_accepted_response_head_the_same(
        status in "[1-5][0-9][0-9]( [ -~]{0,9})?",
        fields in vec("[A-Za-z-]{1,12}: ?[ -~]{0,20}\r\n", 0..4), rest in fragments(),
    ) {
        let head = format!("HTTP/1.1 {status}\r\n{}\r\n", fields.concat());
        let bytes = [head.as_bytes(), &rest].concat();
        let mut gate = ResponseGate::new(ResponseLimits::default());
        gate.request_started(b"GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n");
        if gate.feed(&bytes).is_err() {
            return Ok(());
        }
        let mut read = [httparse::EMPTY_HEADER; 64];
        let mut other = httparse::Response::new(&mut read);
        let parsed = other.parse(&bytes).expect("httparse accepts what we accept");
        prop_assert_eq!(parsed, httparse::Status::Complete(head.len()));
        prop_assert_eq!(other.code, status[..3].parse().ok());
        prop_assert_eq!(other.headers.len(), fields.len());
    }
}

#[test]
fn a_head_that_comes_byte_by_byte_costs_time_in_proportion_to_its_length() {
    let mut head = b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
    head.resize((1 << 20) - 4, b'x');
    head.extend(b"\r\n\r\n");
    let limits = Limits {
        head_bytes: 1 << 20,
        ..Limits::default()
    };
    let mut scanner = HeadScanner::new(limits);
    for end in 1..head.len() {
        assert_eq!(scanner.scan(&head[..end]), Ok(None));
    }
    // Quadratic work would be 2^39 bytes: this test would not end.
    let found = scanner.scan(&head).unwrap().unwrap();
    assert_eq!(found.bytes, 0..head.len());
}
