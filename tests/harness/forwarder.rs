//! A wire between two programs that a test can cut, mend and slow down.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use super::port::bind_free;

/// Forwards connections to one address.
pub struct Forwarder {
    address: SocketAddr,
    wires: Arc<Mutex<Wires>>,
}

#[derive(Default)]
struct Wires {
    is_cut: bool,
    /// How late every answer is.
    delay: Duration,
    open: Vec<TcpStream>,
}

impl Forwarder {
    pub fn to(target: SocketAddr) -> Self {
        let (listener, address) = bind_free();
        let wires = Arc::<Mutex<Wires>>::default();
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

    /// From here on every answer comes so much later.
    pub fn delay(&self, delay: Duration) {
        self.wires().delay = delay;
    }

    fn wires(&self) -> MutexGuard<'_, Wires> {
        lock(&self.wires)
    }
}

fn lock(wires: &Mutex<Wires>) -> MutexGuard<'_, Wires> {
    wires.lock().expect("no holder panics")
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.cut();
    }
}

fn accept(listener: &TcpListener, target: SocketAddr, all: &Arc<Mutex<Wires>>) {
    for client in listener.incoming().map_while(Result::ok) {
        let mut wires = lock(all);
        if wires.is_cut {
            continue;
        }
        let Ok(server) = TcpStream::connect(target) else {
            continue;
        };
        let copy = |socket: &TcpStream| socket.try_clone().expect("a descriptor is free");
        let (mut questions, mut to) = (copy(&client), copy(&server));
        thread::spawn(move || {
            // However it ends, the other side is to know.
            let _ = io::copy(&mut questions, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
        let (answers, to, all) = (copy(&server), copy(&client), all.clone());
        thread::spawn(move || {
            let _ = forward_late(answers, &to, &all);
            let _ = to.shutdown(Shutdown::Both);
        });
        wires.open.extend([client, server]);
    }
}

fn forward_late(mut from: TcpStream, mut to: &TcpStream, wires: &Mutex<Wires>) -> io::Result<()> {
    let mut piece = [0; 64 << 10];
    loop {
        let length = from.read(&mut piece)?;
        if length == 0 {
            return Ok(());
        }
        let delay = lock(wires).delay;
        thread::sleep(delay);
        to.write_all(&piece[..length])?;
    }
}
