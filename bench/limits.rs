//! What limits take of the machine with ten million clients: `cargo run --release --example limits [addresses | names]`.
//!
//! Each check is that of a request: the moment, whether its client is banned (a hundred thousand others are), who is
//! counted by the fields of its head, its bucket, and the sketch of the heaviest. `addresses` counts by address, `names` by
//! a name that each address brings. Ends with 1 where a bound is passed; that of a check holds for clients by address that arrive or are present.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, exit};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tollgate::limit::ban::{Bans, Settings};
use tollgate::limit::jwt::Claims;
use tollgate::limit::key::{Asker, Prefixes, Secret};
use tollgate::limit::local::Meter;
use tollgate::limit::{CLEANED_EVERY, Cost, Exempt, Fields, Live, Mode, Phase, Rule, Taken};
use tollgate::moment::Moment;

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CLIENTS: u32 = 10_000_000;
/// Clients whose buckets and names the caches of a core hold.
const FEW: u32 = 1_000;
const BANNED: u32 = 100_000;
/// No bucket is whole again while this runs.
const QUOTA: &str = "1 per minute, burst 100_000";
/// When all of them are.
const LATER: Duration = Duration::from_secs(365 * 86_400);
/// As the gateway cleans: so many pauses, and between two of them so many pieces of a table as are due.
const TURNS: u32 = 300;
const STEPS: u32 = 25;

const BY_ADDRESS: &str = "client-ip";

const MOST_RESIDENT: u64 = 1 << 30;
const MOST_OF_CLIENT: f64 = 100.0;
/// In nanoseconds.
const MOST_P99: u64 = 1_000;
const MOST_STALL: u64 = 1_000_000;
/// What may stay of the growth when all have gone: pages that the allocator keeps for what comes next.
const MOST_LEFT: f64 = 0.1;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let is_within = match words[..] {
        // Each in a process of its own: what one leaves behind would be room for the other.
        [] => run("addresses") & run("names"),
        ["addresses"] => Bench::new(BY_ADDRESS).run(),
        ["names"] => Bench::new("header:x-api-key | client-ip").run(),
        _ => {
            eprintln!("usage: limits [addresses | names]");
            exit(2);
        }
    };
    exit(i32::from(!is_within));
}

fn run(what: &str) -> bool {
    let own = std::env::current_exe().expect("Linux says it");
    let status = Command::new(own).arg(what).status();
    status.expect("it starts, as it has before").success()
}

struct Bench {
    key: &'static str,
    rules: [Arc<Rule>; 1],
    bans: Bans,
    /// Of the process before there was a client.
    before: u64,
    /// What it costs to look at the clock, in nanoseconds.
    clock: u64,
    is_within: bool,
}

impl Bench {
    fn new(key: &'static str) -> Self {
        let settings = Settings {
            prefixes: Prefixes::default(),
            most: BANNED as usize,
        };
        let bans = Bans::new(Vec::new(), 1, settings, None);
        for number in 0..BANNED {
            let client = bans.standing().client(address(u32::MAX - number));
            bans.standing()
                .ban_by_hand(client, LATER, None, Instant::now());
        }
        let mut bench = Self {
            key,
            rules: [Arc::new(rule(key))],
            bans,
            before: 0,
            clock: 0,
            is_within: true,
        };
        // Pages of code and tables that the first requests touch are no part of a client.
        bench.timed(0..FEW);
        bench.before = resident();
        bench
    }

    fn run(mut self) -> bool {
        println!("{CLIENTS} clients by {}:", self.key);
        let control = timed(random(CLIENTS, 0), |_| ());
        self.clock = control.part(0.5);
        self.tell("nothing (the clock alone)", &control);
        println!(
            "  {} ns are taken off in what follows, for looking at the clock",
            self.clock
        );
        self.times();
        self.parts();
        self.housekeeping();
        self.leaving();
        self.is_within
    }

    fn times(&mut self) {
        let arriving = self.timed(0..CLIENTS);
        self.told("arriving", &arriving);
        self.told_memory("all are there");
        let few = self.timed(random(FEW, 1));
        self.told("a thousand of them, within the caches", &few);
        let present = self.timed(random(CLIENTS, 2));
        self.told("present, at random", &present);
        let contended = thread::scope(|scope| {
            let bench = &*self;
            let others = scope.spawn(|| bench.timed(random(CLIENTS, 3)));
            let mut own = bench.timed(random(CLIENTS, 4));
            own.add(&others.join().expect("it does not panic"));
            own
        });
        self.tell("present, two threads at once", &contended);
        let evicting = self.timed(CLIENTS..3 * CLIENTS);
        self.tell("twice as many more, each in place of another", &evicting);
        self.told_memory("after these");
    }

    /// Cleans all of them once as the gateway does, beside requests: first nobody goes, then all.
    fn housekeeping(&mut self) {
        let live = self.rules[0].live.clone();
        for (what, now) in [("nobody goes", Moment::now()), ("all go", later())] {
            let over = AtomicBool::new(false);
            let (steps, beside) = thread::scope(|scope| {
                let (bench, over) = (&*self, &over);
                let beside = scope.spawn(|| {
                    let numbers = random(CLIENTS, 5).cycle().map(|number| CLIENTS + number);
                    bench.timed(numbers.take_while(|_| !over.load(Ordering::Relaxed)))
                });
                let mut times = Times::new();
                let began = Instant::now();
                for turn in 0..TURNS {
                    for step in 0..STEPS {
                        let began_step = of_thread();
                        clean(&live, turn * STEPS + step, now);
                        times.count((of_thread() - began_step).as_nanos() as u64);
                    }
                    let next = began + CLEANED_EVERY / TURNS * (turn + 1);
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                }
                over.store(true, Ordering::Relaxed);
                (times, beside.join().expect("it does not panic"))
            });
            println!(
                "  housekeeping, {what}: {} steps of {:.1} µs, p99 {:.1} µs, p99.9 {:.1} µs, the longest {:.1} µs",
                steps.count,
                steps.sum as f64 / steps.count as f64 / 1e3,
                steps.part(0.99) as f64 / 1e3,
                steps.part(0.999) as f64 / 1e3,
                steps.longest as f64 / 1e3,
            );
            // The longest ones are those of the allocator, which gives memory back behind no lock.
            self.is_within &= steps.part(0.999) <= MOST_STALL;
            self.tell("meanwhile", &beside);
        }
    }

    /// What a check consists of, each part by itself and without looking at the clock.
    fn parts(&self) {
        let rule = &self.rules[0];
        let now = Moment::now();
        self.part("the moment", |_| {
            black_box(Moment::now());
        });
        self.part("the ban", |visitor| {
            black_box(self.bans.check(visitor.address, now.instant, || false));
        });
        self.part("who is counted", |visitor| {
            black_box(rule.key.of(&visitor.asker(), rule.prefixes, &rule.secret));
        });
        self.part("who is counted, and the sketch", |visitor| {
            let counted = rule.counted(&visitor.asker());
            rule.live.heavy.count(counted, false, now.instant);
        });
        self.part("the whole", |visitor| self.check(visitor));
    }

    fn part(&self, what: &str, check: impl Fn(&Visitor)) {
        let mut visitors: Vec<Visitor> = (0..FEW).map(|_| Visitor::new()).collect();
        for (visitor, number) in visitors.iter_mut().zip(random(CLIENTS, 6)) {
            visitor.is(number);
        }
        let began = Instant::now();
        for _ in 0..CLIENTS / FEW / 10 {
            visitors.iter().for_each(&check);
        }
        let each = began.elapsed() / (CLIENTS / 10);
        println!("  of a thousand, {what}: {} ns", each.as_nanos());
    }

    fn leaving(&mut self) {
        let live = self.rules[0].live.clone();
        let full = resident() - self.before;
        for step in 0..TURNS * STEPS {
            clean(&live, step, later());
        }
        assert_eq!(live.buckets(), 0, "all have gone");
        // The allocator gives pages back a moment later, when it is asked for something.
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            black_box(vec![0_u8; 1 << 16]);
        }
        let left = resident().saturating_sub(self.before);
        println!(
            "  all have gone: {:.1} MiB of what was taken are left",
            mib(left)
        );
        self.is_within &= left as f64 <= MOST_LEFT * full.max(1) as f64 || left < 64 << 20;
    }

    fn timed(&self, numbers: impl Iterator<Item = u32>) -> Times {
        timed(numbers, |visitor| self.check(visitor))
    }

    /// What both lanes do over a request before its route's cache or upstream is asked.
    fn check(&self, visitor: &Visitor) {
        let now = Moment::now();
        let banned = self.bans.check(visitor.address, now.instant, || false);
        assert!(banned.is_none(), "others are");
        let mut taken = Taken::default();
        let asker = visitor.asker();
        let took = taken.take(&self.rules, &asker, &Method::GET, Phase::Whole, now);
        assert!(took.is_ok(), "nobody has used up so much");
        black_box(&taken);
    }

    fn told(&mut self, what: &str, times: &Times) {
        let is_fast = times.part(0.99).saturating_sub(self.clock) <= MOST_P99;
        self.is_within &= is_fast || self.key != BY_ADDRESS;
        self.tell(what, times);
    }

    fn tell(&self, what: &str, times: &Times) {
        let part = |part| times.part(part).saturating_sub(self.clock);
        println!(
            "  {what}: p50 {} ns, p99 {} ns, p99.9 {} ns, p99.99 {} ns, the longest {:.0} µs ({} checks, mean {:.0} ns)",
            part(0.5),
            part(0.99),
            part(0.999),
            part(0.9999),
            times.longest as f64 / 1e3,
            times.count,
            (times.sum as f64 / times.count as f64) - self.clock as f64,
        );
    }

    fn told_memory(&mut self, when: &str) {
        let buckets = self.rules[0].live.buckets();
        let resident = resident();
        let each = (resident - self.before) as f64 / buckets as f64;
        println!(
            "  {when}: {buckets} are remembered, of {each:.1} bytes; the process has {:.0} MiB, before {:.0} MiB",
            mib(resident),
            mib(self.before),
        );
        self.is_within &= resident < MOST_RESIDENT && each <= MOST_OF_CLIENT;
    }
}

fn rule(key: &str) -> Rule {
    let quota = QUOTA.parse().expect("it is a quota");
    let meter = Meter::new(quota, &jiff::tz::TimeZone::UTC);
    Rule {
        name: "bench".into(),
        plan: None,
        key: key.parse().expect("it is a key"),
        prefixes: Prefixes::default(),
        meters: [(meter, "bench".into())].into(),
        in_flight: None,
        cost: Cost {
            each: 1,
            special: Box::default(),
            cache_hit: None,
            said_in: None,
        },
        mode: Mode::Enforce,
        status: StatusCode::TOO_MANY_REQUESTS,
        fields: Fields::Draft11,
        exempt: Exempt::default(),
        secret: Secret::new([7; 16]),
        sharing: None,
        live: Arc::new(Live::new("bench", CLIENTS as usize, 1, Instant::now())),
    }
}

/// One step: of each table one piece.
fn clean(live: &Live, step: u32, now: Moment) {
    live.clean(step as usize, (TURNS * STEPS) as usize, now);
}

/// A client and the head of its request.
struct Visitor {
    address: IpAddr,
    fields: HeaderMap,
    claims: Claims,
}

impl Visitor {
    fn new() -> Self {
        let mut fields = HeaderMap::new();
        for (name, value) in [
            ("host", "shop.example"),
            ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0)"),
            ("accept", "application/json"),
            ("accept-encoding", "gzip, br, zstd"),
            ("x-api-key", ""),
        ] {
            fields.insert(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        Self {
            address: address(0),
            fields,
            claims: Claims::default(),
        }
    }

    /// Becomes another one: the parser's work, and no part of a check.
    fn is(&mut self, number: u32) {
        self.address = address(number);
        let name = HeaderValue::from(u64::from(number) << 32);
        *self.fields.get_mut("x-api-key").expect("it is there") = name;
    }

    fn asker(&self) -> Asker<'_> {
        Asker {
            client: self.address,
            fields: &self.fields,
            claims: &self.claims,
            certificate: None,
            host: "shop.example",
            path: "/api/items",
            query: None,
            route: "api",
        }
    }
}

/// Another one for each number.
fn address(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(number.wrapping_mul(0x9e37_79b1)).into()
}

/// As many numbers below `end` as there are clients, the same in every run (SplitMix64).
fn random(end: u32, seed: u64) -> impl Iterator<Item = u32> + Clone {
    (0..u64::from(CLIENTS)).map(move |turn| {
        let mixed = (turn << 8 | seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % u64::from(end)) as u32
    })
}

/// How long things took, in nanoseconds: by 4 up to 4096, then each eighth of a power of two.
struct Times {
    counts: Box<[u64]>,
    count: u64,
    sum: u64,
    longest: u64,
}

const FINE: u64 = 4096;

impl Times {
    fn new() -> Self {
        Self {
            counts: vec![0; 2048].into(),
            count: 0,
            sum: 0,
            longest: 0,
        }
    }

    fn count(&mut self, nanos: u64) {
        let place = match nanos < FINE {
            true => nanos / 4,
            false => {
                let power = u64::from(nanos.ilog2());
                FINE / 4 + (power - 12) * 8 + (nanos >> (power - 3)) % 8
            }
        };
        self.counts[place as usize] += 1;
        self.count += 1;
        self.sum += nanos;
        self.longest = self.longest.max(nanos);
    }

    fn add(&mut self, other: &Self) {
        for (mine, one) in self.counts.iter_mut().zip(&other.counts) {
            *mine += one;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.longest = self.longest.max(other.longest);
    }

    /// What this part of them did not pass; rounded up.
    fn part(&self, part: f64) -> u64 {
        let wanted = (self.count as f64 * part).ceil() as u64;
        let mut seen = 0;
        for (place, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                let place = place as u64;
                return match place < FINE / 4 {
                    true => place * 4 + 3,
                    false => {
                        let (power, eighth) = ((place - FINE / 4) / 8, (place - FINE / 4) % 8);
                        (9 + eighth) << (power + 9)
                    }
                };
            }
        }
        self.longest
    }
}

fn timed(numbers: impl Iterator<Item = u32>, check: impl Fn(&Visitor)) -> Times {
    let mut visitor = Visitor::new();
    let mut times = Times::new();
    for number in numbers {
        visitor.is(number);
        let began = Instant::now();
        check(&visitor);
        times.count(began.elapsed().as_nanos() as u64);
    }
    times
}

fn later() -> Moment {
    let now = Moment::now();
    Moment {
        instant: now.instant + LATER,
        system: now.system + LATER,
    }
}

/// What this thread has had of a core: what others take of the machine is no part of it.
fn of_thread() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: it writes to what it is given.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(failed, 0, "Linux has this clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
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
