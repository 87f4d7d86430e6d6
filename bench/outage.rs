//! The application and the visitors of `bench/outage`. Of std alone, so that rustc makes it in seconds.
//!
//! `outage origin ADDRESS` answers every GET with 1 KiB that may be stored for an hour.
//!
//! `outage visit ADDRESS PATHS RATE SECONDS CONNECTIONS` asks so many times a second for one of `PATHS` after the other,
//! which spaces part and in which `{}` is the number of the round, and `{N}` its remainder by N. Each request has its moment,
//! whatever became of those before it, and its latency begins there: who waits behind a slow answer is seen to wait. With
//! rate 0 every connection asks again when it has its answer. Prints the Unix time of the beginning in microseconds; then
//! for each request, in a line, which path it was for, its moment after the beginning and its latency in microseconds, its
//! status, which is 0 without an answer, and 1 if it came from memory.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant, SystemTime};
use std::{env, thread};

const BODY: usize = 1024;
/// Before the first request: all connections stand then.
const LEAD: Duration = Duration::from_millis(50);
const TIMEOUT: Duration = Duration::from_secs(5);
/// The kernel may be so late with waking us, in nanoseconds.
const SLACK: usize = 1000;

unsafe extern "C" {
    fn prctl(option: i32, ...) -> i32;
}
const PR_SET_TIMERSLACK: i32 = 29;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["origin", address] => serve(address),
        ["visit", address, paths, rate, seconds, connections] => {
            let number = |text: &str| text.parse::<f64>().map_err(io::Error::other);
            let plan = Plan {
                address: address.to_owned(),
                paths: paths.split(' ').map(str::to_owned).collect(),
                rate: number(rate)?,
                length: Duration::from_secs_f64(number(seconds)?),
                connections: number(connections)? as usize,
            };
            plan.run().print()
        }
        _ => Err(io::Error::other(
            "origin ADDRESS, or visit ADDRESS PATHS RATE SECONDS CONNECTIONS",
        )),
    }
}

fn serve(address: &str) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: max-age=3600\r\nContent-Length: {BODY}\r\n\r\n"
    );
    let answer = [head.into_bytes(), vec![b'x'; BODY]].concat();
    for client in TcpListener::bind(address)?.incoming() {
        let (client, answer) = (client?, answer.clone());
        thread::spawn(move || answer_all(client, &answer));
    }
    Ok(())
}

fn answer_all(client: TcpStream, answer: &[u8]) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut requests = BufReader::new(client);
    let mut line = String::new();
    loop {
        line.clear();
        if requests.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if line == "\r\n" {
            requests.get_mut().write_all(answer)?;
        }
    }
}

struct Plan {
    address: String,
    paths: Vec<String>,
    rate: f64,
    length: Duration,
    connections: usize,
}

struct Seen {
    began: SystemTime,
    answers: Vec<Answer>,
}

struct Answer {
    path: usize,
    due: Duration,
    latency: Duration,
    /// 0: there was none.
    status: u16,
    is_hit: bool,
}

impl Plan {
    fn run(&self) -> Seen {
        let (begin, began) = (Instant::now() + LEAD, SystemTime::now() + LEAD);
        let visit = |visitor: usize| self.visit(visitor, begin);
        let answers = thread::scope(|scope| {
            let visitors: Vec<_> = (0..self.connections)
                .map(|visitor| scope.spawn(move || visit(visitor)))
                .collect();
            let all = visitors
                .into_iter()
                .flat_map(|visitor| visitor.join().expect("it does not panic"));
            all.collect()
        });
        Seen { began, answers }
    }

    /// What one connection asks: of so many requests as there are connections, one.
    fn visit(&self, visitor: usize, begin: Instant) -> Vec<Answer> {
        // SAFETY: sets a number of this thread.
        unsafe { prctl(PR_SET_TIMERSLACK, SLACK) };
        let mut answers = Vec::new();
        let mut kept = self.connect().ok();
        for number in (visitor..).step_by(self.connections) {
            let due = match self.rate {
                0.0 => begin.max(Instant::now()),
                rate => begin + Duration::from_secs_f64(number as f64 / rate),
            };
            if due >= begin + self.length {
                break;
            }
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let (status, is_hit) = self.ask(&mut kept, number).unwrap_or_else(|_| {
                kept = None;
                (0, false)
            });
            answers.push(Answer {
                path: number % self.paths.len(),
                due: due - begin,
                latency: due.elapsed(),
                status,
                is_hit,
            });
        }
        answers
    }

    fn connect(&self) -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(BufReader::new(stream))
    }

    /// The status, and whether it came from memory.
    fn ask(
        &self,
        kept: &mut Option<BufReader<TcpStream>>,
        number: usize,
    ) -> io::Result<(u16, bool)> {
        let connection = match kept {
            Some(connection) => connection,
            None => kept.insert(self.connect()?),
        };
        let path = self.path(number);
        let request = format!("GET {path} HTTP/1.1\r\nHost: bench.example\r\n\r\n");
        connection.get_mut().write_all(request.as_bytes())?;
        let (mut status, mut length, mut is_hit) = (None, None, false);
        let mut line = String::new();
        loop {
            line.clear();
            if connection.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let text = line.trim_end().to_ascii_lowercase();
            match text.split_once(": ") {
                _ if text.is_empty() => break,
                None => status = text.split(' ').nth(1).and_then(|word| word.parse().ok()),
                Some(("content-length", value)) => length = value.parse().ok(),
                Some(("x-cache", value)) => is_hit = value == "hit",
                Some(_) => {}
            }
        }
        let (Some(status), Some(length)) = (status, length) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let mut body = vec![0; length];
        connection.read_exact(&mut body)?;
        Ok((status, is_hit))
    }

    fn path(&self, number: usize) -> String {
        let (round, path) = (
            number / self.paths.len(),
            &self.paths[number % self.paths.len()],
        );
        let Some((before, (modulus, after))) = path
            .split_once('{')
            .and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
        else {
            return path.clone();
        };
        match modulus.parse::<usize>() {
            Ok(modulus) => format!("{before}{}{after}", round % modulus),
            Err(_) => format!("{before}{round}{after}"),
        }
    }
}

impl Seen {
    fn print(self) -> io::Result<()> {
        let began = self.began.duration_since(SystemTime::UNIX_EPOCH);
        let mut out = BufWriter::new(io::stdout().lock());
        writeln!(out, "{}", began.map_err(io::Error::other)?.as_micros())?;
        for answer in self.answers {
            let (due, latency) = (answer.due.as_micros(), answer.latency.as_micros());
            let (path, status, hit) = (answer.path, answer.status, u8::from(answer.is_hit));
            writeln!(out, "{path} {due} {latency} {status} {hit}")?;
        }
        out.flush()
    }
}
