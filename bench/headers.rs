//! What it costs to dress one response.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use pingora_http::ResponseHeader;
use tollgate::client::RequestId;
use tollgate::headers::policy::{Facts, HeaderPolicy};
use tollgate::headers::security::Preset;

/// A response as a small application sends it.
fn response() -> ResponseHeader {
    let mut response = ResponseHeader::build(200, Some(16)).expect("200 is a status");
    let fields = [
        ("Server", "gunicorn"),
        ("Date", "Fri, 20 Nov 2026 15:00:00 GMT"),
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Length", "1024"),
        ("Vary", "Cookie"),
        ("X-Frame-Options", "DENY"),
    ];
    for (name, value) in fields {
        response
            .insert_header(name, value)
            .expect("the field is right");
    }
    response
}

fn header_finish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("header finish");
    let id = RequestId::make();
    let facts = Facts {
        https: true,
        request_id: &id,
        elapsed: Duration::from_micros(53_914),
        connect: Some(Duration::from_micros(412)),
        first_byte: Some(Duration::from_micros(53_200)),
        cache: None,
    };
    for (name, preset) in [
        ("off", Preset::Off),
        ("basic", Preset::Basic),
        ("strict", Preset::Strict),
    ] {
        let policy = HeaderPolicy::of(preset);
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                response,
                |response| policy.finish(black_box(response), black_box(&facts)),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
    criterion.bench_function("request id", |bencher| bencher.iter(RequestId::make));
}

criterion_group!(benches, header_finish);
criterion_main!(benches);
