//! What the memory of the cache takes of the machine:
//! `cargo run --release --example memory [fill | churn [SECONDS [PAGES_PER_SECOND]]]`.
//!
//! Fills it with a million pages of 1 KiB and holds the growth of the process to the bytes of keys, heads
//! and bodies, and to what the cache believes; then changes its contents many times over within a small
//! size, by several threads, and holds the process to that size. Ends with 1 where a bound is passed.

use std::process::{Command, exit};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tollgate::cache::admission::may_store;
use tollgate::cache::body::Body;
use tollgate::cache::entry::{Content, Entry, Times};
use tollgate::cache::key::Key;
use tollgate::cache::memory::{Found, Memory};
use tollgate::cache::{Exchange, Policy, Request, Response};
use tollgate::target::PathRules;

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ENTRIES: u64 = 1_000_000;
const BODY: usize = 1024;
/// What the process may have grown by, over the bytes of keys, heads and bodies.
const MOST_OVER_CONTENT: f64 = 1.6;
/// How far the process may be above what the cache believes, and above the size it is given.
const MOST_OVER_SIZE: f64 = 1.05;

const CHURN_SIZE: u64 = 256 << 20;
const CHURN_SECONDS: u64 = 60;
/// The longest that is measured without entries.
const BASE_SECONDS: u64 = 30;
const CHURN_THREADS: u64 = 2;
/// Pages that are asked for: several times what there is room for.
const CHURN_PAGES: u64 = 200_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let is_within = match words[..] {
        // Each in a process of its own: what one leaves behind would be room for the other.
        [] => run(&["fill"]) & run(&["churn"]),
        ["fill"] => fill(),
        ["churn"] => churn(Duration::from_secs(CHURN_SECONDS), None),
        ["churn", seconds] if let Ok(seconds) = seconds.parse() => {
            churn(Duration::from_secs(seconds), None)
        }
        ["churn", seconds, pace]
            if let (Ok(seconds), Ok(pace)) = (seconds.parse(), pace.parse()) =>
        {
            churn(Duration::from_secs(seconds), Some(pace))
        }
        _ => {
            eprintln!("usage: memory [fill | churn [SECONDS [PAGES_PER_SECOND]]]");
            exit(2);
        }
    };
    exit(i32::from(!is_within));
}

fn run(arguments: &[&str]) -> bool {
    let own = std::env::current_exe().expect("Linux says it");
    let status = Command::new(own).args(arguments).status();
    status.expect("it starts, as it has before").success()
}

/// Whether a million entries take no more than they may.
fn fill() -> bool {
    // Pages of code and tables that the first entries touch are no part of an entry.
    grow(1000);
    let grown = grow(ENTRIES);
    let over_content = grown.process / grown.content;
    let over_belief = grown.process / grown.believed;
    println!(
        "{ENTRIES} entries: key, head and body {:.0} bytes; the process grew by {:.0} ({over_content:.3} times); \
         the cache counts {:.0} ({:.3} of that)",
        grown.content,
        grown.process,
        grown.believed,
        1.0 / over_belief,
    );
    over_content <= MOST_OVER_CONTENT && over_belief <= MOST_OVER_SIZE
}

/// Bytes for one entry.
struct Grown {
    content: f64,
    process: f64,
    believed: f64,
}

fn grow(entries: u64) -> Grown {
    let memory = Memory::new(16 << 30);
    let policy = Policy::anonymous();
    let before = resident();
    let mut content = 0;
    for number in 0..entries {
        let page = Page::new(number, BODY);
        content += page.content;
        page.store(&memory, &policy);
    }
    let (counted, believed) = memory.size();
    assert_eq!(counted, entries, "all of them are kept");
    let each = |bytes: u64| bytes as f64 / entries as f64;
    Grown {
        content: each(content),
        process: each(resident() - before),
        believed: each(believed),
    }
}

/// Whether the process stays within the size while its contents change; `pace` is how many pages are asked for in a second.
fn churn(duration: Duration, pace: Option<f64>) -> bool {
    // What the work takes beside what is kept: the same visits, and room for next to nothing.
    let alone = (duration / 10).min(Duration::from_secs(BASE_SECONDS));
    let base = visited(&Memory::new(1 << 20), alone, pace, |_, _, _| {}).resident;
    let memory = Memory::new(CHURN_SIZE);
    let mut report = Duration::ZERO;
    let most = visited(&memory, duration, pace, |elapsed, stored, most| {
        if elapsed < report {
            return;
        }
        report += duration / 10;
        println!(
            "{:>5.0} s: {:>7.1} MiB above the base, {:.1} at most; {:.1} MiB held, {:.1} at most; \
             {:.1} GiB stored so far, {} pages refused",
            elapsed.as_secs_f64(),
            mib(resident().saturating_sub(base)),
            mib(most.resident.saturating_sub(base)),
            mib(memory.held()),
            mib(most.held),
            mib(stored) / 1024.0,
            memory.refused(),
        );
    });
    let part = most.resident.saturating_sub(base) as f64 / CHURN_SIZE as f64;
    println!(
        "churn: at most {part:.3} times the size of {:.0} MiB, above a base of {:.1} MiB; held at most {:.3} times",
        mib(CHURN_SIZE),
        mib(base),
        most.held as f64 / CHURN_SIZE as f64,
    );
    part <= MOST_OVER_SIZE
}

/// In bytes.
#[derive(Clone, Copy, Default)]
struct Most {
    /// Of the process.
    resident: u64,
    /// Of what is kept, and of what is evicted and not let go of yet.
    held: u64,
}

/// The most there was while several threads visit; `watch` is told the time, the bytes stored, and that most so far.
fn visited(
    memory: &Memory,
    duration: Duration,
    pace: Option<f64>,
    mut watch: impl FnMut(Duration, u64, Most),
) -> Most {
    let stored = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    let each = pace.map(|pace| Duration::from_secs_f64(CHURN_THREADS as f64 / pace));
    thread::scope(|scope| {
        for seed in 0..CHURN_THREADS {
            let (stored, over) = (&stored, &over);
            scope.spawn(move || visit(memory, seed, each, stored, over));
        }
        let (_stop, stopped) = mpsc::channel::<()>();
        let began = Instant::now();
        let mut most = Most::default();
        while began.elapsed() < duration {
            // Also the pace of the samples.
            let _ = stopped.recv_timeout(Duration::from_millis(20));
            most.resident = most.resident.max(resident());
            most.held = most.held.max(memory.held());
            watch(began.elapsed(), stored.load(Ordering::Relaxed), most);
        }
        over.store(true, Ordering::Relaxed);
        most
    })
}

/// Asks for pages, some more often than others, and stores what is missing; one in each `each`.
fn visit(
    memory: &Memory,
    seed: u64,
    each: Option<Duration>,
    stored: &AtomicU64,
    over: &AtomicBool,
) {
    let policy = Policy::anonymous();
    let mut random = Random(seed + 1);
    let began = Instant::now();
    let mut visits = 0;
    while !over.load(Ordering::Relaxed) {
        visits += 1;
        if let Some(each) = each {
            thread::sleep((each * visits).saturating_sub(began.elapsed()));
        }
        // The smaller of two: the first pages are asked for most.
        let number = random.below(CHURN_PAGES).min(random.below(CHURN_PAGES));
        // Sizes from nothing to 64 KiB, small ones most, and now and then one of 2 MiB.
        let body = match random.below(1000) {
            0 => 2 << 20,
            _ => random.below(256) * random.below(256),
        };
        let fields = HeaderMap::new();
        let path = path(number);
        let request = request(&path, &fields);
        let key = Key::of(&request, SCOPE, &policy);
        if let Found::Nothing = memory.find(&key, &fields, &policy) {
            Page::new(number, body as usize).store(memory, &policy);
            stored.fetch_add(body, Ordering::Relaxed);
        }
    }
}

const SCOPE: &str = "shop.example/:pages:0123456789abcdef";

/// A page as it comes from an application.
struct Page {
    path: String,
    fields: HeaderMap,
    body: Bytes,
    /// Bytes of its key, head and body.
    content: u64,
}

impl Page {
    fn new(number: u64, body: usize) -> Self {
        let path = path(number);
        let lines = [
            ("date", httpdate::fmt_http_date(SystemTime::now())),
            ("content-type", "text/html; charset=utf-8".to_owned()),
            ("content-length", body.to_string()),
            ("cache-control", "public, max-age=3600".to_owned()),
            ("etag", format!("\"{number:016x}\"")),
            ("last-modified", "Mon, 14 Nov 1994 10:00:00 GMT".to_owned()),
            ("content-language", "en".to_owned()),
            ("referrer-policy", "same-origin".to_owned()),
            ("x-content-type-options", "nosniff".to_owned()),
            (
                "link",
                "</static/site.css>; rel=preload; as=style".to_owned(),
            ),
        ];
        let head: usize = lines
            .iter()
            .map(|(name, value)| name.len() + value.len() + 4)
            .sum();
        let mut fields = HeaderMap::with_capacity(lines.len());
        for (name, value) in lines {
            let value = HeaderValue::try_from(value).expect("a value");
            fields.append(HeaderName::from_static(name), value);
        }
        let none = HeaderMap::new();
        let key = Key::of(&request(&path, &none), SCOPE, &Policy::anonymous());
        let status_line = "HTTP/1.1 200 OK\r\n\r\n".len();
        let content = (key.bytes().len() + status_line + head + body) as u64;
        Self {
            path,
            fields,
            body: vec![b'x'; body].into(),
            content,
        }
    }

    fn store(self, memory: &Memory, policy: &Policy) {
        let none = HeaderMap::new();
        let asked = request(&self.path, &none);
        let now = SystemTime::now();
        let exchange = Exchange {
            sent: now,
            received: now,
        };
        let response = Response {
            status: StatusCode::OK,
            fields: &self.fields,
        };
        let admission = may_store(&asked, &response, exchange, policy).expect("it may be stored");
        let times = Times {
            asked: memory.tombstones().epoch(),
            received: now,
        };
        let (_writer, growing) = Body::begin();
        let entry = Entry::new(admission, b"OK", Content::Growing(growing), times, policy);
        let key = Key::of(&asked, SCOPE, policy);
        // What there is no room for is counted.
        let _ = memory.store(&key, Arc::new(entry.whole(self.body)), policy);
    }
}

fn path(number: u64) -> String {
    format!("/articles/{number}/a-page-with-a-title")
}

fn request<'a>(path: &'a str, fields: &'a HeaderMap) -> Request<'a> {
    Request {
        method: &Method::GET,
        scheme: "https",
        host: "shop.example",
        path,
        path_rules: PathRules::default(),
        query: None,
        fields,
        is_trusted: false,
    }
}

/// The same numbers in every run (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// Bytes of this process in the memory of the machine.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux says it");
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("the second number") * 4096
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
