//! A program that a test has started: its output, its signals, its end.
//!
//! Each runs in a process group of its own, so that its workers and successors end with it.

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::log::Log;
use super::{PATIENCE, stats, wait_within};

/// How long a program may take to end by itself after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
pub enum Signal {
    Hangup,
    /// SIGUSR1: the gateway opens its log file again.
    User1,
    /// SIGUSR2: the gateway logs the status of every backend.
    User2,
    Interrupt,
    Quit,
    Terminate,
    Kill,
    Stop,
    Continue,
}

impl Signal {
    fn number(self) -> libc::c_int {
        match self {
            Self::Hangup => libc::SIGHUP,
            Self::User1 => libc::SIGUSR1,
            Self::User2 => libc::SIGUSR2,
            Self::Interrupt => libc::SIGINT,
            Self::Quit => libc::SIGQUIT,
            Self::Terminate => libc::SIGTERM,
            Self::Kill => libc::SIGKILL,
            Self::Stop => libc::SIGSTOP,
            Self::Continue => libc::SIGCONT,
        }
    }
}

pub struct Process {
    name: String,
    child: Child,
    log: Log,
    exit: Option<ExitStatus>,
}

impl Process {
    /// Starts the program with its output captured; panics naming it when it cannot be started.
    pub fn spawn(name: &str, command: &mut Command) -> Self {
        let mut process = Self::spawn_with(name, command.stderr(Stdio::piped()));
        let stderr = process.child.stderr.take().expect("stderr is piped");
        process.log.follow(stderr);
        process
    }

    /// As [`Process::spawn`], with a terminal as its standard error, as where a person looks on.
    pub fn spawn_on_terminal(name: &str, command: &mut Command) -> Self {
        let (screen, stderr) = terminal();
        let process = Self::spawn_with(name, command.stderr(stderr));
        process.log.follow(screen);
        process
    }

    fn spawn_with(name: &str, command: &mut Command) -> Self {
        let program = command.get_program().to_owned();
        let spawned = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => panic!("cannot start {name} ({}): {error}", program.display()),
        };
        let log = Log::default();
        log.follow(child.stdout.take().expect("stdout is piped"));
        Self {
            name: name.to_owned(),
            child,
            log,
            exit: None,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Every living process of the program: itself, its workers, the successor of an upgrade.
    pub fn members(&self) -> Vec<u32> {
        stats::group_members(self.pid())
    }

    /// Sends a signal to the process that was started, and to it alone.
    pub fn signal(&self, signal: Signal) {
        if self.exit.is_none()
            && let Err(error) = kill(self.pid().cast_signed(), signal)
        {
            panic!("{signal:?} to {} (pid {}): {error}", self.name, self.pid());
        }
    }

    /// Sends a signal to the process and to all it has started; nobody left is not an error.
    pub fn signal_all(&self, signal: Signal) {
        let sent = kill(-self.pid().cast_signed(), signal);
        if let Err(error) = sent
            && error.raw_os_error() != Some(libc::ESRCH)
        {
            panic!(
                "{signal:?} to the group of {} (pid {}): {error}",
                self.name,
                self.pid()
            );
        }
    }

    /// The exit status, if the program has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.exit.is_none() {
            self.exit = self.child.try_wait().expect("we are the parent");
        }
        self.exit
    }

    /// Waits for the end; panics with the log when it does not come.
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        match wait_within(PATIENCE, || self.exited()) {
            Some(status) => status,
            None => self.fail("did not end"),
        }
    }

    /// The first line of output that `wanted` accepts; panics with the log when none comes.
    pub fn wait_for_log(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.wait_for_log_after(0, what, wanted)
    }

    /// As [`Process::wait_for_log`], for lines from this [`Log::position`] on.
    pub fn wait_for_log_after(
        &self,
        position: usize,
        what: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> String {
        match self.log.wait_after(position, wanted, PATIENCE) {
            Some(line) => line,
            None => self.fail(&format!("did not log {what}")),
        }
    }

    /// Ends the test with what happened; the log follows when the process is dropped.
    pub fn fail(&self, what: &str) -> ! {
        panic!("{} (pid {}) {what}", self.name, self.pid())
    }

    /// Ends the program and all it started: asked first, then forced.
    pub fn stop(&mut self) {
        // A stopped process receives SIGTERM only when it is continued.
        self.signal_all(Signal::Terminate);
        self.signal_all(Signal::Continue);
        if !self.gone_within(GRACE) {
            self.signal_all(Signal::Kill);
            self.gone_within(PATIENCE);
        }
        self.exit = self.exit.or_else(|| self.child.wait().ok());
    }

    fn gone_within(&mut self, patience: Duration) -> bool {
        let gone = wait_within(patience, || {
            self.exited();
            self.members().is_empty().then_some(())
        });
        gone.is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!("--- log of {} (pid {}):", self.name, self.pid());
            self.log
                .lines()
                .iter()
                .for_each(|line| eprintln!("    {line}"));
        }
    }
}

/// Sends a signal to a process that a test has started without holding it: the successor of an
/// upgrade.
pub fn signal_to(pid: u32, signal: Signal) {
    if let Err(error) = kill(pid.cast_signed(), signal) {
        panic!("{signal:?} to pid {pid}: {error}");
    }
}

/// Both ends of a terminal: what is written to the second appears at the first.
fn terminal() -> (File, OwnedFd) {
    let (mut screen, mut line) = (-1, -1);
    let none = std::ptr::null_mut();
    // SAFETY: two integers of ours are written; the pointers that may be null are.
    let opened = unsafe { libc::openpty(&mut screen, &mut line, none, none.cast(), none.cast()) };
    assert_eq!(opened, 0, "no terminal: {}", io::Error::last_os_error());
    // SAFETY: openpty has just opened both, and nobody else knows them.
    unsafe { (File::from_raw_fd(screen), OwnedFd::from_raw_fd(line)) }
}

fn kill(pid: libc::pid_t, signal: Signal) -> io::Result<()> {
    // SAFETY: kill takes two integers and touches no memory of ours.
    match unsafe { libc::kill(pid, signal.number()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
