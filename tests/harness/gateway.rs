//! The gateway itself: the binary under test, run with a configuration of the test's own.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::client::Connection;
use super::log::Log;
use super::port::{free_port, loopback};
use super::process::{Process, Signal};
use super::{GLANCE, PATIENCE};

/// Where a configuration wants a free port of its own.
const ANY_PORT: &str = "127.0.0.1:0";
/// A port may be taken between its choice and the gateway's bind; then others are chosen.
const STARTS: usize = 3;

/// A running `tollgate run --config …`. Ends with the value; its log is shown when the test fails.
pub struct Gateway {
    process: Process,
    folder: TempDir,
    addresses: Vec<SocketAddr>,
}

impl Gateway {
    /// Starts the gateway and waits until it is ready.
    ///
    /// Each `127.0.0.1:0` in the text becomes a free port; [`Gateway::addresses`] has them in the
    /// order of the text.
    pub fn start(config: &str) -> Self {
        Self::start_in(TempDir::new().expect("a temporary folder"), config)
    }

    /// As [`Gateway::start`], with the configuration beside what the test has put into `folder`
    /// (certificates, error pages).
    pub fn start_in(folder: TempDir, config: &str) -> Self {
        Self::start_with_env(folder, config, &[])
    }

    /// As [`Gateway::start_in`], with these variables in the environment.
    pub fn start_with_env(folder: TempDir, config: &str, env: &[(&str, &OsStr)]) -> Self {
        let mut folder = folder;
        for attempt in 1.. {
            match Self::try_start(folder, config, env) {
                Ok(gateway) => return gateway,
                Err(Taken { folder: same, .. }) if attempt < STARTS => folder = same,
                Err(Taken { process, .. }) => process.fail("found no free port"),
            }
        }
        unreachable!("the last attempt returns or panics")
    }

    fn try_start(folder: TempDir, config: &str, env: &[(&str, &OsStr)]) -> Result<Self, Taken> {
        let addresses: Vec<_> = config
            .matches(ANY_PORT)
            .map(|_| loopback(free_port()))
            .collect();
        let path = config_path(&folder);
        replace_file(&path, &with_ports(config, &addresses));
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.arg("run").arg("--config").arg(path);
        command.envs(env.iter().copied());
        let process = Process::spawn("tollgate", &mut command);
        let mut gateway = Self {
            process,
            folder,
            addresses,
        };
        match gateway.wait_until_ready() {
            true => Ok(gateway),
            false => Err(Taken {
                process: gateway.process,
                folder: gateway.folder,
            }),
        }
    }

    /// True when ready, false when a port was taken; anything else fails the test.
    fn wait_until_ready(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.process.log().wait_after(0, is_ready, GLANCE).is_some() || self.answers() {
                return true;
            }
            if let Some(status) = self.process.exited() {
                if self.process.log().wait_after(0, is_taken, GLANCE).is_some() {
                    return false;
                }
                self.process
                    .fail(&format!("ended before it was ready: {status}"));
            }
            if Instant::now() > deadline {
                self.process.fail("was not ready in time");
            }
        }
    }

    fn answers(&self) -> bool {
        let accepts = |address| TcpStream::connect_timeout(address, Duration::from_secs(1)).is_ok();
        !self.addresses.is_empty() && self.addresses.iter().all(accepts)
    }

    /// The first listener of the configuration.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// All the free ports that were filled in, in the order of the text.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The folder of the configuration, for files that it names.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A fresh connection to the first listener.
    pub fn connect(&self) -> Connection {
        Connection::open(self.address())
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The gateway's processes: more than one while an upgrade hands over.
    pub fn pids(&self) -> Vec<u32> {
        self.process.members()
    }

    pub fn log(&self) -> &Log {
        self.process.log()
    }

    /// The first log line that `wanted` accepts; fails the test when it does not come.
    pub fn wait_for_log(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.process.wait_for_log(what, wanted)
    }

    /// As [`Gateway::wait_for_log`], for lines from this [`Log::position`] on.
    pub fn wait_for_log_after(
        &self,
        position: usize,
        what: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> String {
        self.process.wait_for_log_after(position, what, wanted)
    }

    /// Replaces the configuration file at once (by rename); its `127.0.0.1:0` mean the ports that
    /// the gateway already has. Whether it notices or is told by a signal is the test's choice.
    pub fn write_config(&self, config: &str) {
        replace_file(
            &config_path(&self.folder),
            &with_ports(config, &self.addresses),
        );
    }

    /// The configuration file that it was started with.
    pub fn config_path(&self) -> PathBuf {
        config_path(&self.folder)
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until the process that was started has ended; an upgrade's successor may live on.
    pub fn wait_for_exit(&mut self) -> std::process::ExitStatus {
        self.process.wait_for_exit()
    }
}

/// A start that failed because someone else had the port.
struct Taken {
    process: Process,
    folder: TempDir,
}

/// Runs `tollgate` with these arguments to its end, for the commands that are not `run`.
pub fn tollgate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(arguments)
        .output()
        .expect("the binary under test starts")
}

fn config_path(folder: &TempDir) -> PathBuf {
    folder.path().join("gateway.toml")
}

fn with_ports(config: &str, addresses: &[SocketAddr]) -> String {
    addresses.iter().fold(config.to_owned(), |text, address| {
        text.replacen(ANY_PORT, &address.to_string(), 1)
    })
}

fn replace_file(path: &Path, text: &str) {
    let folder = path.parent().expect("the file is in a folder");
    let mut file = tempfile::NamedTempFile::new_in(folder).expect("the folder is writable");
    file.write_all(text.as_bytes()).expect("there is space");
    fs::rename(file.into_temp_path().keep().expect("not yet deleted"), path).expect("same folder");
}

fn is_ready(line: &str) -> bool {
    line.contains("\"ready\"")
}

fn is_taken(line: &str) -> bool {
    let line = line.to_lowercase();
    line.contains("address already in use") || line.contains("address in use")
}
