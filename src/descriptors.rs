//! How many files and sockets the process may have open. Knows the kernel's limit; knows nothing of
//! what the descriptors are for.

use std::io;

/// Descriptors of the process's own: listeners, log, timers, certificates being read.
const OWN: u64 = 64;

/// Raises the process's limit as far as it may be raised, and warns where `connections` clients, each
/// with a connection to a backend, would not fit: what is beyond waits in the kernel's queue.
///
/// Shells and many init systems set 1024 for the sake of programs that use select(2); we do not.
pub fn allow(connections: usize) {
    let wanted = 2 * connections as u64 + OWN;
    match raise() {
        Ok(limit) if limit >= wanted => {}
        Ok(limit) => tracing::warn!(
            limit,
            wanted,
            "fewer open files are allowed than max_connections needs; raise LimitNOFILE or ulimit -Hn"
        ),
        Err(error) => tracing::warn!(%error, "the limit on open files cannot be raised"),
    }
}

/// Sets the soft limit to the hard one and returns it.
fn raise() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes to the struct, which lives on.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the kernel reads the struct.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_once_and_stays() {
        let first = raise().unwrap();
        assert_eq!(raise().unwrap(), first);
    }
}
