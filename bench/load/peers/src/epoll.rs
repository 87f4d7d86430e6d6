//! epoll(7), level-triggered. An event carries the descriptor that it is of.

use std::io;
use std::os::fd::RawFd;

pub struct Epoll {
    descriptor: RawFd,
}

impl Epoll {
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        match unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) } {
            -1 => Err(io::Error::last_os_error()),
            descriptor => Ok(Self { descriptor }),
        }
    }

    pub fn control(&self, operation: i32, socket: RawFd, interest: u32) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: interest,
            u64: socket as u64,
        };
        // SAFETY: `event` outlives the call, which only reads it.
        match unsafe { libc::epoll_ctl(self.descriptor, operation, socket, &mut event) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    pub fn wait<'a>(
        &self,
        events: &'a mut [libc::epoll_event],
    ) -> io::Result<&'a [libc::epoll_event]> {
        let room = i32::try_from(events.len()).expect("a few hundred events");
        // SAFETY: the kernel writes at most `room` events into a slice of that length.
        let ready = unsafe { libc::epoll_wait(self.descriptor, events.as_mut_ptr(), room, -1) };
        match usize::try_from(ready) {
            Ok(ready) => Ok(&events[..ready]),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(&[]),
                error => Err(error),
            },
        }
    }
}
