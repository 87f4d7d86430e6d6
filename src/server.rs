//! Composition root: from a configuration to listeners, the proxy, signals, and their end.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::accept::guard::ConnectionGuards;
use crate::accept::listener::{ListenAddress, Listener, ListenerSettings};
use crate::accept::{AcceptSettings, Acceptor};
use crate::banner;
use crate::config::{self, Config, Problems};
use crate::plan::{self, Plan};
use crate::proxy::{self, Gateway};
use crate::reload::{self, Reloader};
use crate::telemetry::{self, access::AccessLog};
use crate::upgrade::{self, Inheritance, Invocation};
use crate::upstream::connector::UpstreamConnector;

/// Where the configuration comes from.
pub enum Source {
    File(PathBuf),
    /// Made from arguments; nothing to reload.
    Given(Box<Config>),
}

/// Why the gateway does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("{0}")]
    Configuration(#[from] Problems),
    #[error("cannot listen on {address}")]
    Listen {
        address: ListenAddress,
        source: std::io::Error,
    },
    #[error("cannot write the pid file {path}")]
    PidFile {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot open the log")]
    Log(#[source] telemetry::LogError),
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
}

impl Source {
    /// The configuration file, where there is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Given(_) => None,
        }
    }

    fn load(&self) -> Result<Config, Problems> {
        match self {
            Self::File(path) => config::load(path),
            Self::Given(config) => Ok(Config::clone(config)),
        }
    }
}

/// Serves until told to end. Returns when every connection has ended or `drain` is over.
pub fn run(source: &Source, inheritance: Inheritance) -> Result<(), ServeError> {
    let config = source.load()?;
    let log = telemetry::init(&plan::log_settings(&config)).map_err(ServeError::Log)?;
    let runtime = runtime(config.server.workers.into())?;
    let outcome = runtime.block_on(serve(source, config, log.access(), inheritance));
    // Connections that outlived the drain are cut here; blocking work gets a moment.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// Validates what only compiling shows: certificates, pages, names.
pub fn check(config: &Config) -> Result<(), Problems> {
    compile_once(config).map(drop)
}

/// A plan for looking at, not for serving.
pub fn compile_once(config: &Config) -> Result<Arc<Plan>, Problems> {
    let runtime = runtime(1).expect("a runtime of one thread starts");
    runtime.block_on(async { Plan::compile(config, None).map(Arc::new) })
}

fn runtime(workers: usize) -> Result<runtime::Runtime, ServeError> {
    let mut builder = runtime::Builder::new_multi_thread();
    if workers > 0 {
        builder.worker_threads(workers);
    }
    builder
        .enable_all()
        .thread_name("tollgate")
        .build()
        .map_err(ServeError::Runtime)
}

async fn serve(
    source: &Source,
    config: Config,
    access: AccessLog,
    mut inheritance: Inheritance,
) -> Result<(), ServeError> {
    // Before anything else: a signal must never meet its default action.
    let mut signals = Signals::new().map_err(ServeError::Runtime)?;
    let invocation = Invocation::of_this_process().map_err(ServeError::Runtime)?;

    let plan = Arc::new(Plan::compile(&config, None)?);
    let listeners = plan::listeners(&config)?;
    let mut sockets = Vec::new();
    for settings in &listeners {
        sockets.push(socket(&settings.address, &mut inheritance)?);
    }
    let gateway = Arc::new(Gateway::new(plan.clone(), access.clone()));
    let proxy = proxy::build(gateway.clone(), UpstreamConnector::new(), plan::keepalive(&config));
    let acceptor = Arc::new(Acceptor {
        settings: plan::accept_settings(&config),
        guards: Arc::new(plan::guards(&config)),
        gateway: gateway.clone(),
        proxy,
    });

    let (shutdown, ending) = watch::channel(false);
    let (alive, mut all_ended) = mpsc::channel::<()>(1);
    let named: Vec<(String, RawFd)> = listeners
        .iter()
        .zip(&sockets)
        .map(|(settings, socket)| (settings.address.to_string(), socket.as_raw_fd()))
        .collect();
    for (settings, socket) in listeners.iter().zip(sockets) {
        let listener =
            Listener::from_fd(&settings.address, socket).map_err(|source| ServeError::Listen {
                address: settings.address.clone(),
                source,
            })?;
        let accepting = acceptor.clone().run(
            listener,
            settings.clone(),
            ending.clone(),
            alive.clone(),
        );
        tokio::spawn(accepting);
    }
    drop(alive);

    banner::print(&config, &plan, &listeners);
    let pid_file = config.server.pid_file.clone();
    if let Some(path) = &pid_file {
        upgrade::write_pid_file(path).map_err(|source| ServeError::PidFile {
            path: path.to_path_buf(),
            source,
        })?;
    }
    inheritance.announce_ready();
    notify(&[
        sd_notify::NotifyState::MainPid(std::process::id()),
        sd_notify::NotifyState::Ready,
    ]);
    tracing::info!(pid = std::process::id(), "ready");

    let mut reloader = Reloader::new(source, config, gateway.clone());
    let handed_over = loop {
        match signals.next(&mut reloader).await {
            Event::Reload(why) => {
                notify(&[sd_notify::NotifyState::Reloading]);
                reloader.reload(why);
                notify(&[sd_notify::NotifyState::Ready]);
            }
            Event::ReopenLog => access.reopen(),
            Event::Upgrade => match upgrade::hand_over(&invocation, &named).await {
                Ok(pid) => {
                    tracing::info!(pid, "a new process serves; draining");
                    break true;
                }
                Err(error) => {
                    let error = crate::telemetry::chain(&error);
                    tracing::error!(%error, "upgrade failed, still serving");
                }
            },
            Event::End(why) => {
                tracing::info!(signal = why, "ending; draining");
                notify(&[sd_notify::NotifyState::Stopping]);
                break false;
            }
        }
    };

    gateway.begin_draining();
    // Nobody listens to this only when every listener and connection has ended already.
    let _ = shutdown.send(true);
    drop(ending);
    let drain = reloader.config().server.drain;
    if tokio::time::timeout(drain, all_ended.recv()).await.is_err() {
        tracing::warn!(?drain, "connections are still open after the drain; closing them");
    }
    if !handed_over {
        for settings in &listeners {
            if let ListenAddress::Unix(path) = &settings.address {
                // Nobody listens on it any more; a file that is gone already is as good.
                let _ = std::fs::remove_file(path);
            }
        }
        if let Some(path) = &pid_file {
            upgrade::remove_pid_file(path);
        }
    }
    tracing::info!("ended");
    Ok(())
}

/// The socket for `address`: handed over by the process before, or bound now.
fn socket(address: &ListenAddress, inheritance: &mut Inheritance) -> Result<OwnedFd, ServeError> {
    if let Some(socket) = inheritance.socket(&address.to_string()) {
        return Ok(socket);
    }
    Listener::bind(address).map_err(|source| ServeError::Listen {
        address: address.clone(),
        source,
    })
}

/// Tells systemd, where there is one. Without it there is nobody to tell.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}

/// What the loop of the running gateway reacts to.
enum Event {
    Reload(reload::Why),
    ReopenLog,
    Upgrade,
    End(&'static str),
}

struct Signals {
    hangup: Signal,
    user1: Signal,
    quit: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self, reloader: &mut Reloader<'_>) -> Event {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Event::End("SIGTERM"),
            _ = self.interrupt.recv() => Event::End("SIGINT"),
            _ = self.quit.recv() => Event::Upgrade,
            _ = self.hangup.recv() => Event::Reload(reload::Why::Signal),
            _ = self.user1.recv() => Event::ReopenLog,
            () = reloader.file_changed() => Event::Reload(reload::Why::FileChanged),
        }
    }
}
