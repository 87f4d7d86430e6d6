//! A name server over UDP that knows one thing, whatever name it is asked for, and says it until the test changes it.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use super::wait_for;

const A: u16 = 1;
const NO_ERROR: u8 = 0;
const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;
/// How long the end of the test waits for the thread to notice it.
const TURN: Duration = Duration::from_millis(20);

/// What is said of every name. Its IPv6 addresses are none.
#[derive(Clone, Debug)]
pub enum Zone {
    /// These, for this many seconds.
    Addresses(Vec<Ipv4Addr>, u32),
    /// The name exists and has no address.
    Empty,
    NoSuchName,
    /// SERVFAIL to each question.
    Failing,
    /// SERVFAIL to the question for IPv4, no address for IPv6.
    FailingForIpv4,
    Silent,
}

pub struct NameServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    zone: Mutex<Zone>,
    ended: AtomicBool,
    asked: AtomicUsize,
}

impl NameServer {
    pub fn start(zone: Zone) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is left");
        socket.set_read_timeout(Some(TURN)).expect("above zero");
        let address = socket.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            zone: Mutex::new(zone),
            ended: AtomicBool::new(false),
            asked: AtomicUsize::new(0),
        });
        let serving = Arc::clone(&shared);
        let thread = std::thread::spawn(move || serving.serve(&socket));
        Self {
            address,
            shared,
            thread: Some(thread),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says this from now on.
    pub fn say(&self, zone: Zone) {
        *self.shared.zone() = zone;
    }

    /// How many questions have come.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::Relaxed)
    }

    /// Waits until this many more questions have come.
    pub fn wait_for_more(&self, questions: usize) {
        let wanted = self.asked() + questions;
        wait_for(&format!("{wanted} questions to the name server"), || {
            (self.asked() >= wanted).then_some(())
        });
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed; a second one here would hide the test's own.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn zone(&self) -> MutexGuard<'_, Zone> {
        self.zone.lock().expect("no holder panics")
    }

    fn serve(&self, socket: &UdpSocket) {
        let mut question = [0; 512];
        while !self.ended.load(Ordering::Relaxed) {
            let Ok((length, peer)) = socket.recv_from(&mut question) else {
                continue;
            };
            let zone = self.zone().clone();
            // Counted after the look at the zone: who waits for a question knows what was said.
            if let Some(answer) = answer(&question[..length], &zone) {
                socket.send_to(&answer, peer).expect("loopback takes it");
            }
            self.asked.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The answer to a message with one question (RFC 1035 4.1), without what else it brought.
fn answer(message: &[u8], zone: &Zone) -> Option<Vec<u8>> {
    let (code, addresses, ttl) = match zone {
        Zone::Addresses(addresses, ttl) => (NO_ERROR, addresses.as_slice(), *ttl),
        Zone::Empty => (NO_ERROR, &[][..], 0),
        Zone::NoSuchName => (NO_SUCH_NAME, &[][..], 0),
        Zone::Failing => (SERVER_FAILURE, &[][..], 0),
        Zone::FailingForIpv4 if kind(message) == A => (SERVER_FAILURE, &[][..], 0),
        Zone::FailingForIpv4 => (NO_ERROR, &[][..], 0),
        Zone::Silent => return None,
    };
    let addresses = match kind(message) {
        A => addresses,
        _ => &[],
    };
    let count = u8::try_from(addresses.len()).expect("a handful");
    // The number of the question; an answer, recursion asked for and available; one question.
    let mut answer = message[..2].to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
    answer.extend(&message[12..question_end(message)]);
    for address in addresses {
        // The name of the question, type A, class IN.
        answer.extend([0xc0, 12, 0, 1, 0, 1]);
        answer.extend(ttl.to_be_bytes());
        answer.extend([0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

fn kind(message: &[u8]) -> u16 {
    let at = question_end(message) - 4;
    u16::from_be_bytes([message[at], message[at + 1]])
}

/// Behind the labels of the name, its type and its class.
fn question_end(message: &[u8]) -> usize {
    let mut at = 12;
    while message[at] != 0 {
        at += 1 + usize::from(message[at]);
    }
    at + 5
}
