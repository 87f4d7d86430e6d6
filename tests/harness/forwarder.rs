//! A wire between two programs that a test can cut and mend.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use super::port::bind_free;

/// Forwards connections to one address.
pub struct Forwarder {
    address: SocketAddr,
    wires: Arc<Mutex<Wires>>,
}

#[derive(Default)]
struct Wires {
    is_cut: bool,
    open: Vec<TcpStream>,
}

impl Forwarder {
    pub fn to(target: SocketAddr) -> Self {
        let (listener, address) = bind_free();
        let wires = Arc::default();
        let forwarder = Self {
            address,
            wires: Arc::clone(&wires),
        };
        thread::spawn(move || accept(&listener, target, &wires));
        forwarder
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections; new ones end at once.
    pub fn cut(&self) {
        let mut wires = self.wires();
        wires.is_cut = true;
        for socket in wires.open.drain(..) {
            // One that has ended by itself is as good.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    pub fn mend(&self) {
        self.wires().is_cut = false;
    }

    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.wires.lock().expect("no holder panics")
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.cut();
    }
}

fn accept(listener: &TcpListener, target: SocketAddr, wires: &Mutex<Wires>) {
    for client in listener.incoming().map_while(Result::ok) {
        let mut wires = wires.lock().expect("no holder panics");
        if wires.is_cut {
            continue;
        }
        let Ok(server) = TcpStream::connect(target) else {
            continue;
        };
        for (from, to) in [(&client, &server), (&server, &client)] {
            let copy = |socket: &TcpStream| socket.try_clone().expect("a descriptor is free");
            let (mut from, mut to) = (copy(from), copy(to));
            thread::spawn(move || {
                // However it ends, the other side is to know.
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
        wires.open.extend([client, server]);
    }
}
