//! Hands out loopback ports that nothing else takes.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Below the range from which Linux takes the local ports of outgoing connections (32768 and up),
/// so that no client can grab a port between its choice and its use.
const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;
/// A SYN on loopback that has no answer by now has none.
const UNANSWERED: Duration = Duration::from_millis(300);

/// A port on 127.0.0.1 that was free a moment ago and that this process never hands out again
/// before all others: for programs that must be told their port before they start.
pub fn free_port() -> u16 {
    bind_free().1.port()
}

/// A listener on a free loopback port.
pub fn bind_free() -> (TcpListener, SocketAddr) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Spread by process id: two test runs on one machine should rarely try the same port.
    let start = std::process::id().wrapping_mul(257);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + start.wrapping_add(step) % COUNT;
        let address = loopback(u16::try_from(port).expect("the range ends below 65536"));
        if let Ok(listener) = TcpListener::bind(address) {
            return (listener, address);
        }
    }
    panic!(
        "no free port between {FIRST} and {} on 127.0.0.1",
        FIRST + COUNT
    )
}

/// A port whose queue of connections is full: the next SYN gets no answer. What is returned with it
/// holds it so.
pub fn full_port() -> (SocketAddr, impl Sized) {
    let (listener, address) = bind_free();
    let socket = socket2::SockRef::from(&listener);
    socket.listen(0).expect("a listener can be narrowed");
    let mut held = Vec::new();
    while let Ok(socket) = TcpStream::connect_timeout(&address, UNANSWERED) {
        held.push(socket);
    }
    (address, (listener, held))
}

/// 127.0.0.1 with this port.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
