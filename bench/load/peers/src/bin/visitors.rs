//! Visitors who ask for one page at a fixed rate, whatever becomes of the requests before: each request has its moment, and
//! its latency counts from there, so that who waits behind a slow answer is seen to wait. wrk and h2load ask again when they
//! have an answer, and neither reads the answer to a HEAD. One thread, one epoll.
//!
//! `visitors ADDRESS:PORT CONNECTIONS SECONDS RATE METHOD PATH [FIELD]`. With rate 0 every connection asks again when it has
//! its answer. Prints one object of JSON: requests, seconds, percentiles of the latency in µs, how often each status came.
//! An answer that is not told by Content-Length, a connection that is closed, or an answer that is five seconds late
//! ends it with code 1.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::process::exit;
use std::time::{Duration, Instant};

use peers::epoll::Epoll;
use peers::head::end_of_head;

const EVENTS: usize = 256;
const LATE: Duration = Duration::from_secs(5);
/// An answer that is longer is read in pieces.
const BUFFER: usize = 128 * 1024;

struct Visit {
    connections: usize,
    length: Duration,
    /// A second; 0: as fast as answers come.
    rate: f64,
    request: Vec<u8>,
    bodyless: bool,
}

struct Connection {
    stream: TcpStream,
    /// When the request that is under way was due.
    due: Instant,
    /// What has come of a head.
    head: Vec<u8>,
    /// What is to come of the body.
    body: usize,
}

struct Outcome {
    seconds: f64,
    latencies: Vec<u32>,
    statuses: BTreeMap<u16, u64>,
}

impl Visit {
    fn run(&self, address: &str) -> io::Result<Outcome> {
        let epoll = Epoll::new()?;
        let mut timer = Timer::new()?;
        epoll.control(libc::EPOLL_CTL_ADD, timer.descriptor, libc::EPOLLIN as u32)?;
        let mut connections = BTreeMap::new();
        for _ in 0..self.connections {
            let connection = Connection::open(address)?;
            let descriptor = connection.stream.as_raw_fd();
            epoll.control(libc::EPOLL_CTL_ADD, descriptor, libc::EPOLLIN as u32)?;
            connections.insert(descriptor, connection);
        }
        let mut free: VecDeque<_> = connections.keys().copied().collect();
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        let mut buffer = vec![0; BUFFER];
        let mut outcome = Outcome {
            seconds: 0.0,
            latencies: Vec::new(),
            statuses: BTreeMap::new(),
        };
        let begin = Instant::now();
        let end = begin + self.length;
        let mut asked = 0;
        loop {
            let now = Instant::now();
            let mut due = self.due(begin, asked, now);
            while due < end
                && due <= now
                && let Some(descriptor) = free.pop_front()
            {
                let connection = connections.get_mut(&descriptor).expect("it is open");
                connection.ask(&self.request, due)?;
                asked += 1;
                due = self.due(begin, asked, now);
            }
            if due >= end && free.len() == connections.len() {
                break;
            }
            if now > end + LATE {
                return Err(io::Error::other("an answer is late"));
            }
            timer.set(if due < end && !free.is_empty() {
                due
            } else {
                end + LATE
            })?;
            for event in epoll.wait(&mut events)? {
                let descriptor = event.u64 as RawFd;
                let Some(connection) = connections.get_mut(&descriptor) else {
                    timer.fired();
                    continue;
                };
                if let Some(status) = connection.read(&mut buffer, self.bodyless)? {
                    let latency = connection.due.elapsed().as_micros();
                    outcome
                        .latencies
                        .push(u32::try_from(latency).unwrap_or(u32::MAX));
                    *outcome.statuses.entry(status).or_default() += 1;
                    free.push_back(descriptor);
                }
            }
        }
        outcome.seconds = begin.elapsed().as_secs_f64();
        outcome.latencies.sort_unstable();
        Ok(outcome)
    }

    /// The moment of the request with this number.
    fn due(&self, begin: Instant, number: u64, now: Instant) -> Instant {
        if self.rate == 0.0 {
            now
        } else {
            begin + Duration::from_secs_f64(number as f64 / self.rate)
        }
    }
}

impl Connection {
    fn open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            due: Instant::now(),
            head: Vec::new(),
            body: 0,
        })
    }

    fn ask(&mut self, request: &[u8], due: Instant) -> io::Result<()> {
        self.due = due;
        // A request is far smaller than what a socket has room for.
        self.stream.write_all(request)
    }

    /// The status of an answer that has come whole.
    fn read(&mut self, buffer: &mut [u8], bodyless: bool) -> io::Result<Option<u16>> {
        let received = match self.stream.read(buffer) {
            Ok(0) => return Err(io::Error::other("a connection was closed")),
            Ok(received) => &buffer[..received],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut come = received.len();
        if self.body == 0 {
            self.head.extend_from_slice(received);
            let Some(end) = end_of_head(&self.head) else {
                return Ok(None);
            };
            come = self.head.len() - end;
            self.head.truncate(end);
            self.body = length(&self.head, bodyless)?;
        }
        let left = self.body.checked_sub(come);
        self.body = left.ok_or_else(|| io::Error::other("an answer is longer than it says"))?;
        if self.body > 0 {
            return Ok(None);
        }
        let status = status(&self.head)?;
        self.head.clear();
        Ok(Some(status))
    }
}

fn status(head: &[u8]) -> io::Result<u16> {
    let digits = head
        .get(9..12)
        .and_then(|digits| str::from_utf8(digits).ok());
    digits
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| io::Error::other("an answer has no status"))
}

/// Of the body behind a head.
fn length(head: &[u8], bodyless: bool) -> io::Result<usize> {
    if bodyless || status(head)? == 304 {
        return Ok(0);
    }
    const NAME: &[u8] = b"content-length:";
    let line = head.split(|byte| *byte == b'\n').find(|line| {
        line.get(..NAME.len())
            .is_some_and(|name| name.eq_ignore_ascii_case(NAME))
    });
    line.and_then(|line| str::from_utf8(&line[NAME.len()..]).ok())
        .and_then(|value| value.trim().parse().ok())
        .ok_or_else(|| io::Error::other("an answer does not tell its length"))
}

/// epoll itself waits for whole milliseconds.
struct Timer {
    descriptor: RawFd,
    /// What it waits for, unless it has fired.
    moment: Option<Instant>,
}

impl Timer {
    fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        match unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK) } {
            -1 => Err(io::Error::last_os_error()),
            descriptor => Ok(Self {
                descriptor,
                moment: None,
            }),
        }
    }

    fn set(&mut self, moment: Instant) -> io::Result<()> {
        if self.moment.replace(moment) == Some(moment) {
            return Ok(());
        }
        // No time at all would disarm it.
        let wait = moment
            .saturating_duration_since(Instant::now())
            .max(Duration::from_nanos(1));
        let once = libc::itimerspec {
            it_interval: timespec(Duration::ZERO),
            it_value: timespec(wait),
        };
        let before = std::ptr::null_mut();
        // SAFETY: `once` outlives the call, which only reads it; what it was set to before is not asked for.
        match unsafe { libc::timerfd_settime(self.descriptor, 0, &once, before) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// Takes back that it has fired, so that it wakes us once.
    fn fired(&mut self) {
        self.moment = None;
        let mut times = [0_u8; 8];
        // SAFETY: the kernel writes at most eight bytes into an array of that length.
        unsafe { libc::read(self.descriptor, times.as_mut_ptr().cast(), times.len()) };
    }
}

fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: duration.as_secs() as libc::time_t,
        tv_nsec: duration.subsec_nanos().into(),
    }
}

impl Outcome {
    /// Nearest rank.
    fn percentile(&self, percent: f64) -> u32 {
        let rank = (self.latencies.len() as f64 * percent / 100.0).ceil() as usize;
        let found = self.latencies.get(rank.saturating_sub(1));
        found.copied().unwrap_or_default()
    }

    fn json(&self) -> String {
        let statuses: Vec<String> = self
            .statuses
            .iter()
            .map(|(status, count)| format!("\"{status}\": {count}"))
            .collect();
        format!(
            "{{\"requests\": {}, \"seconds\": {}, \"p50_us\": {}, \"p99_us\": {}, \"statuses\": {{{}}}}}",
            self.latencies.len(),
            self.seconds,
            self.percentile(50.0),
            self.percentile(99.0),
            statuses.join(", ")
        )
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let Some((address, visit)) = visit(&words) else {
        eprintln!(
            "usage: visitors ADDRESS:PORT CONNECTIONS SECONDS RATE METHOD PATH [FIELD]; with rate 0 as fast as answers come"
        );
        exit(2);
    };
    match visit.run(address) {
        Ok(outcome) => println!("{}", outcome.json()),
        Err(error) => {
            eprintln!("visitors of {address}: {error}");
            exit(1);
        }
    }
}

fn visit<'a>(words: &[&'a str]) -> Option<(&'a str, Visit)> {
    let &[
        address,
        connections,
        seconds,
        rate,
        method,
        path,
        ref field @ ..,
    ] = words
    else {
        return None;
    };
    let field: String = match field {
        [] => String::new(),
        [field] => format!("{field}\r\n"),
        _ => return None,
    };
    let visit = Visit {
        connections: connections.parse().ok()?,
        length: Duration::try_from_secs_f64(seconds.parse().ok()?).ok()?,
        rate: rate.parse().ok().filter(|rate: &f64| *rate >= 0.0)?,
        request: format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n{field}\r\n").into_bytes(),
        bodyless: method == "HEAD",
    };
    Some((address, visit))
}
