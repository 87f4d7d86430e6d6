//! What it costs to find a route among 1, 16 and 256, and to judge the head that asks for it.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use http::Method;
use tollgate::http1::{BodyScanner, Framing, Limits, RequestHead, ResponseGate, ResponseLimits};
use tollgate::route::{HostPattern, Route, Routes};
use tollgate::target::{Host, PathRules, Target};

/// Half of the routes by exact host, a quarter by wildcard, a quarter for any host.
fn routes(count: usize) -> Routes<usize> {
    let routes = (0..count).map(|i| Route {
        host: match i % 4 {
            0 | 1 => format!("shop{}.example", i % 8).parse().expect("a host"),
            2 => format!("*.zone{}.example", i % 8).parse().expect("a host"),
            _ => HostPattern::Any,
        },
        path: format!("/service{i}/api").parse().expect("a path"),
        methods: Vec::new(),
        value: i,
    });
    Routes::new(routes.collect())
}

fn find(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route_find");
    for count in [1, 16, 256] {
        let routes = routes(count);
        let last = format!("/service{}/api/orders/17", (count - 1) / 4 * 4);
        let host = format!("shop{}.example", (count - 1) / 4 * 4 % 8);
        group.bench_function(BenchmarkId::new("hit", count), |bencher| {
            bencher.iter(|| routes.lookup(Some(black_box(&host)), &Method::GET, black_box(&last)));
        });
        let deep = "/a".repeat(60);
        group.bench_function(BenchmarkId::new("miss", count), |bencher| {
            bencher.iter(|| {
                routes.lookup(
                    Some(black_box("a.b.zone2.example")),
                    &Method::GET,
                    black_box(&deep),
                )
            });
        });
    }
}

const REQUEST: &[u8] = b"GET /service0/api/orders/17?page=2 HTTP/1.1\r\n\
    Host: shop.example\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Connection: keep-alive\r\n\
    Cookie: sessionid=0123456789abcdef0123456789abcdef\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: gunicorn\r\n\
    Date: Fri, 20 Nov 2026 12:00:00 GMT\r\n\
    Connection: keep-alive\r\n\
    Content-Type: application/json\r\n\
    X-Frame-Options: DENY\r\n\
    Content-Length: 16384\r\n\r\n";

fn wire(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wire");
    let limits = Limits::default();
    group.bench_function("request_head", |bencher| {
        bencher.iter(|| RequestHead::check(black_box(REQUEST), &limits));
    });
    group.bench_function("canonical_target", |bencher| {
        let rules = PathRules::default();
        bencher.iter(|| Target::parse(black_box(b"/service0/api/orders/17?page=2"), &rules));
    });
    group.bench_function("canonical_host", |bencher| {
        bencher.iter(|| Host::parse(black_box(b"shop.example")));
    });
    let body = vec![b'x'; 16384];
    let response = [RESPONSE, &body].concat();
    group.bench_function("response_whole", |bencher| {
        let mut gate = ResponseGate::new(ResponseLimits::default());
        bencher.iter(|| {
            gate.request_started(black_box(REQUEST));
            gate.feed(black_box(&response))
        });
    });
    let chunked = [b"1000\r\n", &body[..4096], b"\r\n"].concat().repeat(16);
    group.throughput(Throughput::Bytes(chunked.len() as u64));
    group.bench_function("chunked_body", |bencher| {
        bencher.iter(|| BodyScanner::new(Framing::Chunked).feed(black_box(&chunked)));
    });
}

criterion_group!(benches, find, wire);
criterion_main!(benches);
