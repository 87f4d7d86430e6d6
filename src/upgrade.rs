//! Handing the listening sockets to a new process, so that no connection is refused while the
//! binary is replaced.
//!
//! The old process starts the new one with the sockets left open and their numbers in the
//! environment. The new one says that it is ready through a pipe; only then does the old one
//! stop accepting. Both hold the same sockets meanwhile, so the kernel's queue of waiting
//! connections is never closed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use tokio::io::AsyncReadExt;

use crate::accept::listener;

/// `ADDRESS=FD;ADDRESS=FD…`
const SOCKETS: &str = "TOLLGATE_INHERITED_SOCKETS";
/// The number of the pipe's end to write to when ready.
const READY: &str = "TOLLGATE_READY_PIPE";

/// What the new process writes to the pipe when it is ready; anything else is why it is not.
const READY_WORD: &[u8] = b"1";
/// Bytes of that reason that are read.
const LONGEST_FAILURE: u64 = 16 * 1024;

/// How long a new process may take to be ready. Beyond it the old one goes on.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a new process did not take over. The old one serves on.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    #[error("cannot start {path}")]
    Spawn { path: PathBuf, source: io::Error },
    #[error("cannot make the pipe to the new process")]
    Pipe(#[source] io::Error),
    #[error("the new process ended before it was ready")]
    Ended,
    #[error("the new process cannot serve: {0}")]
    Failed(String),
    #[error("the new process was not ready within {} s", PATIENCE.as_secs())]
    TooSlow,
}

/// The program and its arguments as they were at start, before a relative path could go stale.
#[derive(Clone, Debug)]
pub struct Invocation {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Invocation {
    /// This process's own. A program found through `PATH` is looked up by the running binary.
    pub fn of_this_process() -> io::Result<Self> {
        let mut arguments = std::env::args_os();
        let name = PathBuf::from(arguments.next().unwrap_or_default());
        let program = if name.components().count() > 1 {
            std::path::absolute(name)?
        } else {
            std::env::current_exe()?
        };
        Ok(Self {
            program,
            arguments: arguments.collect(),
        })
    }
}

/// What the process before left open for this one.
#[derive(Debug, Default)]
pub struct Inheritance {
    sockets: BTreeMap<String, OwnedFd>,
    ready: Option<OwnedFd>,
}

impl Inheritance {
    /// Takes what the environment names.
    ///
    /// # Safety
    /// Must be called at most once and before this process opens descriptors of its own.
    pub unsafe fn take() -> Self {
        let number = |text: &str| text.parse::<RawFd>().ok().filter(|fd| is_open(*fd));
        let sockets = std::env::var(SOCKETS).unwrap_or_default();
        let sockets = sockets.split(';').filter_map(|entry| {
            let (address, fd) = entry.rsplit_once('=')?;
            // SAFETY: the environment names descriptors that were opened for us; we are the first to touch them.
            Some((address.to_owned(), unsafe {
                listener::inherit(number(fd)?)
            }))
        });
        let ready = std::env::var(READY).ok().as_deref().and_then(number);
        Self {
            sockets: sockets.collect(),
            // SAFETY: as above.
            ready: ready.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
        }
    }

    /// The socket that listens on `address` already, if there is one.
    pub fn socket(&mut self, address: &str) -> Option<OwnedFd> {
        self.sockets.remove(address)
    }

    /// Tells the process before that it may stop accepting. Sockets that nobody asked for close.
    pub fn announce_ready(&mut self) {
        self.sockets.clear();
        self.announce(READY_WORD);
    }

    /// Tells the process before why it must serve on. Says nothing where readiness was announced.
    pub fn announce_failure(&mut self, why: &str) {
        self.announce(why.as_bytes());
    }

    fn announce(&mut self, word: &[u8]) {
        if let Some(pipe) = self.ready.take() {
            // The process before may have given up; then it serves on beside us until stopped.
            let _ = std::fs::File::from(pipe).write_all(word);
        }
    }
}

fn is_open(fd: RawFd) -> bool {
    // SAFETY: asks the kernel for flags and touches no memory.
    fd > 2 && unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0
}

/// Starts a new process over `sockets` and waits until it is ready. Returns its process id.
pub async fn hand_over(
    invocation: &Invocation,
    sockets: &[(String, RawFd)],
) -> Result<u32, UpgradeError> {
    let (ours, theirs) = pipe().map_err(UpgradeError::Pipe)?;
    let mut child = start(invocation, sockets, &theirs).map_err(|source| UpgradeError::Spawn {
        path: invocation.program.clone(),
        source,
    })?;
    // Only the new process holds this end now, so its death reads as the end of the pipe.
    drop(theirs);
    let mut word = Vec::new();
    let mut announced = ours.take(LONGEST_FAILURE);
    match tokio::time::timeout(PATIENCE, announced.read_to_end(&mut word)).await {
        Ok(Ok(_)) if word == READY_WORD => {
            let pid = child.id();
            reap_in_background(child);
            Ok(pid)
        }
        Ok(_) => {
            reap_in_background(child);
            Err(match String::from_utf8_lossy(&word).trim_end() {
                "" => UpgradeError::Ended,
                why => UpgradeError::Failed(why.to_owned()),
            })
        }
        Err(_) => {
            // It is ours and not ready: nobody depends on it yet.
            let _ = child.kill();
            reap_in_background(child);
            Err(UpgradeError::TooSlow)
        }
    }
}

fn start(
    invocation: &Invocation,
    sockets: &[(String, RawFd)],
    ready: &OwnedFd,
) -> io::Result<Child> {
    let mut inherited: Vec<RawFd> = sockets.iter().map(|(_, fd)| *fd).collect();
    inherited.push(ready.as_raw_fd());
    let named: Vec<String> = sockets
        .iter()
        .map(|(address, fd)| format!("{address}={fd}"))
        .collect();
    let mut command = Command::new(&invocation.program);
    command
        .args(&invocation.arguments)
        .env(SOCKETS, named.join(";"))
        .env(READY, ready.as_raw_fd().to_string());
    // SAFETY: between fork and exec only fcntl is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            for fd in &inherited {
                if libc::fcntl(*fd, libc::F_SETFD, 0) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    command.spawn()
}

fn pipe() -> io::Result<(tokio::net::unix::pipe::Receiver, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    let reader = tokio::net::unix::pipe::Receiver::from_owned_fd(reader.into())?;
    Ok((reader, writer.into()))
}

/// Waits for the child in a thread of its own, so that it leaves no zombie while we drain.
fn reap_in_background(mut child: Child) {
    std::thread::spawn(move || child.wait());
}

/// Writes this process's id to `path`, by rename, so that a reader never sees half a number.
pub fn write_pid_file(path: &Path) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    std::fs::write(&draft, format!("{}\n", std::process::id()))?;
    std::fs::rename(draft, path)
}

/// The process that a pid file names.
pub fn read_pid_file(path: &Path) -> Option<i32> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Sends a running gateway the signal to upgrade.
pub fn ask(pid: i32) -> io::Result<()> {
    // SAFETY: kill(2) touches no memory of ours.
    match unsafe { libc::kill(pid, libc::SIGQUIT) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Waits until the pid file names another process than `old`, for as long as one may take to be
/// ready. `None` when it never does.
pub fn wait_for_other(path: &Path, old: i32) -> Option<i32> {
    const LOOK_EVERY: Duration = Duration::from_millis(50);
    let deadline = std::time::Instant::now() + PATIENCE;
    while std::time::Instant::now() < deadline {
        if let Some(pid) = read_pid_file(path).filter(|pid| *pid != old) {
            return Some(pid);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    None
}

/// Removes the pid file if it still names this process.
pub fn remove_pid_file(path: &Path) {
    let mine = std::fs::read_to_string(path)
        .is_ok_and(|text| text.trim() == std::process::id().to_string());
    if mine {
        // It is only a courtesy to the operator; leaving it behind harms nobody.
        let _ = std::fs::remove_file(path);
    }
}
