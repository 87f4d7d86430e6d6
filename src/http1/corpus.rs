//! Runs the messages of `tests/corpus/http1`, whole and byte by byte.

use std::fmt::Write as _;

use super::{BodyScanner, Framing, HeadScanner, Limits, Malformed, ResponseGate, ResponseLimits};

// The integration tests send the same messages to the running gateway.
#[path = "../../tests/harness/corpus.rs"]
mod reader;

use reader::{cases, unescape};

/// The buffer after each read: whole, or growing by one byte.
fn steps(bytes: &[u8], one_by_one: bool) -> Vec<usize> {
    if one_by_one {
        (1..=bytes.len()).collect()
    } else {
        vec![bytes.len()]
    }
}

fn read_request(bytes: &[u8], one_by_one: bool) -> String {
    try_request(bytes, one_by_one).unwrap_or_else(|why| why.reason().to_owned())
}

fn try_request(bytes: &[u8], one_by_one: bool) -> Result<String, Malformed> {
    let limits = Limits {
        request_line: 256,
        head_bytes: 1024,
        fields: 16,
        ..Limits::default()
    };
    let mut scanner = HeadScanner::new(limits);
    let mut head = None;
    for end in steps(bytes, one_by_one) {
        head = scanner.scan(&bytes[..end])?;
        if head.is_some() {
            break;
        }
    }
    let Some(head) = head else {
        return Ok("incomplete".to_owned());
    };
    let mut body = BodyScanner::new(head.framing);
    let rest = &bytes[head.bytes.end..];
    let mut taken = 0;
    if one_by_one {
        for byte in rest.chunks(1) {
            taken += body.feed(byte)?;
        }
    } else {
        taken = body.feed(rest)?;
    }
    let mut outcome = format!("ok {} ", head.method);
    match head.framing {
        Framing::None => outcome.push_str("none"),
        Framing::Length(length) => write!(outcome, "length:{length}").unwrap(),
        Framing::Chunked => outcome.push_str("chunked"),
    }
    outcome.push_str(if head.keep_alive { " keep" } else { " close" });
    let flags = [
        (head.expect_continue, " expect"),
        (head.upgrade, " upgrade"),
        (!body.done(), " body-incomplete"),
    ];
    for (_, word) in flags.iter().filter(|(holds, _)| *holds) {
        outcome.push_str(word);
    }
    if taken < rest.len() {
        write!(outcome, " rest={}", rest.len() - taken).unwrap();
    }
    Ok(outcome)
}

fn read_response(asked: &str, bytes: &[u8], one_by_one: bool) -> String {
    let mut gate = ResponseGate::new(ResponseLimits {
        head_bytes: 1024,
        fields: 16,
        interim: 8,
    });
    match asked {
        "" => {}
        "UPGRADE" => gate.request_started(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\n\r\nrest"),
        method => {
            gate.request_started(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
        }
    }
    let size = if one_by_one { 1 } else { bytes.len().max(1) };
    for piece in bytes.chunks(size) {
        if let Err(why) = gate.feed(piece) {
            assert_eq!(gate.feed(b"x"), Err(why), "a fault stays");
            assert_eq!(gate.eof(), Err(why), "a fault stays");
            return why.reason().to_owned();
        }
    }
    let end = gate.eof().map_or_else(|why| why.reason(), |()| "whole");
    let idle = if gate.is_idle() { " idle" } else { "" };
    format!("ok {end}{idle}")
}

fn run_requests(files: &[(&str, &str)]) -> usize {
    let mut count = 0;
    let mut wrong = String::new();
    for (file, text) in files {
        for case in cases(text) {
            count += 1;
            let bytes = unescape(case.text);
            for one_by_one in [false, true] {
                let found = read_request(&bytes, one_by_one);
                if found != case.outcome {
                    writeln!(
                        wrong,
                        "{file}: {} (one by one: {one_by_one}): {found}, not {}",
                        case.name, case.outcome
                    )
                    .unwrap();
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    count
}

fn run_responses(text: &str) -> usize {
    let mut wrong = String::new();
    let cases = cases(text);
    for case in &cases {
        let (asked, text) = case.text[1..].split_once(']').expect("[request] first");
        let bytes = unescape(text);
        for one_by_one in [false, true] {
            let found = read_response(asked, &bytes, one_by_one);
            if found != case.outcome {
                writeln!(
                    wrong,
                    "{} (one by one: {one_by_one}): {found}, not {}",
                    case.name, case.outcome
                )
                .unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    cases.len()
}

macro_rules! corpus {
    ($path:literal) => {
        (
            $path,
            include_str!(concat!("../../tests/corpus/http1/", $path)),
        )
    };
}

#[test]
fn every_valid_request_of_the_corpus_enters() {
    let count = run_requests(&[
        corpus!("requests/valid/heads.http"),
        corpus!("requests/valid/bodies.http"),
    ]);
    assert!(count >= 50, "{count} cases");
}

#[test]
fn every_invalid_request_of_the_corpus_is_refused_for_its_reason() {
    let count = run_requests(&[
        corpus!("requests/invalid/request-line.http"),
        corpus!("requests/invalid/target.http"),
        corpus!("requests/invalid/host.http"),
        corpus!("requests/invalid/fields.http"),
        corpus!("requests/invalid/framing.http"),
        corpus!("requests/invalid/chunked.http"),
    ]);
    assert!(count >= 200, "{count} cases");
}

#[test]
fn every_valid_response_of_the_corpus_passes() {
    let count = run_responses(corpus!("responses/valid/responses.http").1);
    assert!(count >= 25, "{count} cases");
}

#[test]
fn every_invalid_response_of_the_corpus_is_refused_for_its_reason() {
    let count = run_responses(corpus!("responses/invalid/responses.http").1);
    assert!(count >= 50, "{count} cases");
}
