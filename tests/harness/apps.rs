//! The real applications of `tests/apps/`, each an instance on a loopback port of its own.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use tempfile::TempDir;

use super::client::Connection;
use super::port::{free_port, loopback};
use super::process::{Process, Signal};
use super::{PATIENCE, repository, wait_within};

/// The password of every user that the Django site is seeded with.
pub const PASSWORD: &str = "correct-horse";
/// A port may be taken between its choice and the application's bind; then another is chosen.
const STARTS: usize = 3;

/// The Django site under gunicorn: one worker process, many threads.
pub struct Gunicorn;

/// The FastAPI service under uvicorn.
pub struct Uvicorn;

/// The gRPC service over cleartext HTTP/2.
pub struct Grpc;

/// The database of a Django site; several instances on one are one site.
pub struct Site {
    folder: TempDir,
}

/// A running instance of an application. Ends with the value.
pub struct App {
    name: String,
    address: SocketAddr,
    command: Box<dyn Fn(SocketAddr) -> Command + Send>,
    is_up: fn(SocketAddr) -> bool,
    process: Process,
    /// The site's database, when this instance has one of its own.
    _site: Option<Site>,
}

impl Gunicorn {
    /// An instance with a database of its own.
    pub fn start(instance: &str, env: &[(&str, &str)]) -> App {
        let site = Site::create();
        let mut app = Self::start_on(&site, instance, env);
        app._site = Some(site);
        app
    }

    /// An instance of a site that others serve too: the sessions of one are known to all.
    pub fn start_on(site: &Site, instance: &str, env: &[(&str, &str)]) -> App {
        let env = env_for(instance, env, &[("SITE_DATA", site.path())]);
        let command = move |address: SocketAddr| {
            let mut command = Command::new(python_program("gunicorn"));
            command
                .current_dir(repository("tests/apps/django_site"))
                .args([
                    "--config",
                    "gunicorn.conf.py",
                    "--bind",
                    &address.to_string(),
                ])
                .arg("site_app.wsgi")
                .envs(env.clone());
            command
        };
        App::start(
            &format!("gunicorn {instance}"),
            Box::new(command),
            is_healthy,
        )
    }
}

impl Uvicorn {
    pub fn start(instance: &str, env: &[(&str, &str)]) -> App {
        let env = env_for(instance, env, &[]);
        let command = move |address: SocketAddr| {
            let mut command = Command::new(python_program("uvicorn"));
            command
                .current_dir(repository("tests/apps/fastapi_service"))
                .args([
                    "--host",
                    &address.ip().to_string(),
                    "--port",
                    &address.port().to_string(),
                ])
                .args([
                    "--no-server-header",
                    "--no-use-colors",
                    "--timeout-keep-alive",
                    "75",
                ])
                .arg("service:app")
                .envs(env.clone());
            command
        };
        App::start(
            &format!("uvicorn {instance}"),
            Box::new(command),
            is_healthy,
        )
    }
}

impl Grpc {
    pub fn start(instance: &str) -> App {
        let env = env_for(instance, &[], &[]);
        let command = move |address: SocketAddr| {
            let mut command = Command::new(python_program("python"));
            command
                .arg(repository("tests/apps/grpc_service.py"))
                .arg(address.to_string())
                .envs(env.clone());
            command
        };
        let is_up = |address: SocketAddr| TcpStream::connect(address).is_ok();
        App::start(
            &format!("gRPC service {instance}"),
            Box::new(command),
            is_up,
        )
    }
}

impl Site {
    /// A migrated and seeded database, copied from one that each test run prepares once.
    pub fn create() -> Self {
        static PREPARED: OnceLock<Vec<u8>> = OnceLock::new();
        let database = PREPARED.get_or_init(|| {
            let folder = TempDir::new().expect("a temporary folder");
            for step in ["migrate", "seed"] {
                let mut command = Command::new(python_program("python"));
                command
                    .current_dir(repository("tests/apps/django_site"))
                    .args(["manage.py", step])
                    .env("SITE_DATA", folder.path())
                    .env("PYTHONDONTWRITEBYTECODE", "1");
                expect_success(&format!("manage.py {step}"), &mut command);
            }
            std::fs::read(folder.path().join("site.sqlite3")).expect("migrate made the database")
        });
        let folder = TempDir::new().expect("a temporary folder");
        std::fs::write(folder.path().join("site.sqlite3"), database).expect("there is space");
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl App {
    fn start(
        name: &str,
        mut command: Box<dyn Fn(SocketAddr) -> Command + Send>,
        is_up: fn(SocketAddr) -> bool,
    ) -> Self {
        let mut attempt = 1;
        loop {
            let address = loopback(free_port());
            let process = Process::spawn(name, &mut command(address));
            let name = name.to_owned();
            let mut app = Self {
                name,
                address,
                command,
                is_up,
                process,
                _site: None,
            };
            if app.came_up() {
                return app;
            }
            if attempt == STARTS {
                app.process.fail("did not start");
            }
            attempt += 1;
            command = app.command;
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process that was started; gunicorn's workers are its children.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    /// SIGKILL for the instance and its workers; returns when its port refuses.
    pub fn kill(&mut self) {
        self.process.signal_all(Signal::Kill);
        self.process.wait_for_exit();
        let refuses = || TcpStream::connect(self.address).is_err().then_some(());
        if wait_within(PATIENCE, refuses).is_none() {
            self.process.fail("still listens after SIGKILL");
        }
    }

    /// SIGSTOP: connections are accepted by the kernel and answered by nobody.
    pub fn freeze(&self) {
        self.process.signal_all(Signal::Stop);
    }

    /// SIGCONT after [`App::freeze`].
    pub fn thaw(&self) {
        self.process.signal_all(Signal::Continue);
    }

    /// Starts the same instance on the same port again, after [`App::kill`].
    pub fn restart(&mut self) {
        self.process = Process::spawn(&self.name, &mut (self.command)(self.address));
        if !self.came_up() {
            self.process.fail("did not start again");
        }
    }

    /// True when it answers, false when it has ended; panics when neither happens.
    fn came_up(&mut self) -> bool {
        let up = wait_within(PATIENCE, || {
            if self.process.exited().is_some() {
                return Some(false);
            }
            (self.is_up)(self.address).then_some(true)
        });
        up.unwrap_or_else(|| self.process.fail("does not answer"))
    }
}

/// A program of the Python environment; panics with the command that makes it.
pub fn python_program(name: &str) -> PathBuf {
    let path = repository("target/venv/bin").join(name);
    assert!(
        path.exists(),
        "{} is missing; run tests/setup.sh",
        path.display()
    );
    path
}

/// Runs a command to its end; panics with its output unless it succeeds.
pub fn expect_success(what: &str, command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("cannot run {what}: {error}"));
    assert!(
        output.status.success(),
        "{what} ended with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    output
}

fn is_healthy(address: SocketAddr) -> bool {
    Connection::try_open(address).is_ok_and(|mut client| {
        client
            .get("/healthz")
            .is_ok_and(|answer| answer.status() == 200)
    })
}

fn env_for(
    instance: &str,
    extra: &[(&str, &str)],
    paths: &[(&str, &Path)],
) -> Vec<(String, String)> {
    let fixed = [
        ("INSTANCE", instance),
        ("PYTHONUNBUFFERED", "1"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
    ];
    let paths = paths
        .iter()
        .map(|(name, path)| (*name, path.to_str().expect("UTF-8 paths")));
    fixed
        .into_iter()
        .chain(paths)
        .chain(extra.iter().copied())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
