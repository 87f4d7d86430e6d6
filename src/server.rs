//! Composition root: from a configuration to listeners, the proxy, signals, and their end.

mod listening;

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::accept::Acceptor;
use crate::accept::listener::Listener;
use crate::admin::Admin;
use crate::banner;
use crate::cache::memory::Memory;
use crate::cache::purger::{Name, Purger};
use crate::cache::redis::{Bounds, SharedCache};
use crate::config::problem::Problems;
use crate::config::{self, Config, Draft, Source};
use crate::demo::{self, Rhythm};
use crate::descriptors;
use crate::gateway::Gateway;
use crate::limit::ban::sharing;
use crate::listen::{ListenAddress, ListenerSettings};
use crate::plan::{self, AdminSettings, Plan};
use crate::proxy;
use crate::redis::{self, Redis};
use crate::reload::{self, Reloader};
use crate::telemetry::{self, Log};
use crate::upgrade::{self, Inheritance, Invocation};
use crate::upstream::Connector;
use crate::warm::{Warmer, popular};

/// How long the start waits for the names of backends to be looked up. A name that takes longer
/// does not block it: its upstream has no backends until then.
const FIRST_LOOKUP: Duration = Duration::from_secs(2);

/// How long the start waits for Redis, so that the first requests find it. It starts without, too.
const FIRST_ANSWER: Duration = Duration::from_millis(500);

/// How long the end waits for what is still to be written to Redis.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// Why the gateway does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Configuration(#[from] Problems),
    #[error("cannot listen on {address}")]
    Listen {
        address: ListenAddress,
        source: std::io::Error,
    },
    #[error("cannot write the pid file {path}", path = path.display())]
    PidFile {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} names no running gateway; give --pid", path = path.display())]
    NotRunning { path: PathBuf },
    #[error("which process? give --pid, or set server.pid_file")]
    NoPid,
    #[error("cannot signal process {pid}")]
    Signal { pid: i32, source: std::io::Error },
    #[error("no new process took over from {pid}; its log says why")]
    NotUpgraded { pid: i32 },
    #[error("cannot open the log")]
    Log(#[source] telemetry::LogError),
    #[error("cannot start the demonstration's backends")]
    Demo(#[source] std::io::Error),
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
}

/// Serves until told to end. Returns when every connection has ended or `drain` is over.
pub fn run(source: &Source, mut inheritance: Inheritance) -> Result<(), ServeError> {
    let outcome = run_inheriting(source, &mut inheritance);
    if let Err(error) = &outcome {
        inheritance.announce_failure(&telemetry::chain(error));
    }
    outcome
}

fn run_inheriting(source: &Source, inheritance: &mut Inheritance) -> Result<(), ServeError> {
    // A wrong text is not all that may be wrong: `check` says everything.
    let config = match source.draft().right() {
        Ok(config) => config,
        Err(_) => check(source)?.config,
    };
    let log = telemetry::init(&plan::log_settings(&config)).map_err(ServeError::Log)?;
    descriptors::allow(config.server.max_connections);
    let runtime = runtime(config.server.workers)?;
    let outcome = runtime.block_on(serve(source, config, log.log(), inheritance));
    // Connections that outlived the drain are cut here; blocking work gets a moment.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// A configuration with everything that it stands for.
pub struct Checked {
    pub config: Config,
    pub plan: Plan,
    pub listeners: Vec<Arc<ListenerSettings>>,
    /// The interface for administration, where it is wanted.
    pub admin: Option<AdminSettings>,
    /// How Redis is reached, where it is wanted.
    pub redis: Option<redis::Settings>,
}

/// Loads and compiles without serving: every problem that serving would meet, but for addresses
/// that are in use.
pub fn check(source: &Source) -> Result<Checked, Problems> {
    compile(source.draft())
}

pub(crate) fn compile(draft: Draft) -> Result<Checked, Problems> {
    let (config, ((plan, listeners), (redis, admin))) = draft.make(|config, problems| {
        let listeners = listening::listeners(config, problems);
        let redis = plan::redis_settings(config, problems);
        let plan = Plan::compile(config, None, problems);
        let admin = plan::admin_settings(config, problems);
        plan.zip(listeners).map(|both| (both, (redis, admin)))
    })?;
    Ok(Checked {
        config,
        plan,
        listeners,
        admin,
        redis,
    })
}

impl Checked {
    /// What is legal and probably not meant: what no route uses, certificates that have expired.
    pub fn warnings(&self, file: &str) -> Problems {
        let mut warnings = self.config.warnings(file);
        listening::complaints(&self.config, &self.listeners, &mut warnings);
        warnings
    }
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

/// The demonstration: three backends of our own and the gateway over them, until it is ended.
pub fn demo(
    listen: SocketAddr,
    rhythm: Rhythm,
    inheritance: Inheritance,
) -> Result<(), ServeError> {
    let backing = runtime(1)?;
    let backends = backing
        .block_on(demo::backends(rhythm))
        .map_err(ServeError::Demo)?;
    let text = demo::config(&backends, listen);
    let config = config::parse(&text, "demo", &|_| None)?;
    println!("{}", demo::guide(listen, rhythm));
    run(&Source::Given(Box::new(config)), inheritance)
}

async fn serve(
    source: &Source,
    config: Config,
    log: Log,
    inheritance: &mut Inheritance,
) -> Result<(), ServeError> {
    // Before anything else: a signal must never meet its default action.
    let mut signals = Signals::new().map_err(ServeError::Runtime)?;
    let invocation = Invocation::of_this_process().map_err(ServeError::Runtime)?;

    let Checked {
        config,
        plan,
        listeners,
        admin,
        redis,
    } = compile(Draft::right_already(config, &source.name()))?;
    let plan = Arc::new(plan);
    listening::watch(&listeners);
    let mut sockets = Vec::new();
    for settings in &listeners {
        sockets.push(socket(&settings.address, inheritance)?);
    }
    let admin = match admin {
        Some(settings) => Some((socket(&settings.listen, inheritance)?, settings)),
        None => None,
    };
    plan.start(None);
    let redis = redis.map(Redis::open);
    plan.looked_up(FIRST_LOOKUP).await;
    if let Some(redis) = &redis {
        redis.settled(FIRST_ANSWER).await;
        plan.limit_store.open(redis.clone(), FIRST_ANSWER).await;
    }
    if let Some(redis) = &redis {
        sharing::open(redis.clone(), plan.bans.standing().clone());
    }
    let memory = Memory::new(*config.cache.memory);
    let shared_cache = redis.clone().map(|redis| {
        let bounds = Bounds {
            queued_writes: *config.cache.queued_writes,
            queued_bytes: *config.cache.queued_bytes,
        };
        SharedCache::open(redis, &bounds)
    });
    let purger = Purger::new(
        purger_name(&listeners),
        memory.tombstones().clone(),
        redis.clone(),
        *config.cache.without_redis,
    );
    purger.ready().await;
    let gateway = Gateway::new(
        plan.clone(),
        log.clone(),
        memory,
        redis,
        shared_cache,
        purger,
    );
    let gateway = Arc::new(gateway);
    tokio::spawn(gateway.clone().sample_counters());
    tokio::spawn(gateway.clone().tidy_bans());
    tokio::spawn(gateway.clone().clean_limits());
    tokio::spawn(gateway.clone().return_leases());
    // Before anybody can purge through us.
    let warmer = Warmer::new(gateway.clone(), listeners[0].clone());
    let proxy = proxy::build(gateway.clone(), Connector);
    let acceptor = Arc::new(Acceptor {
        settings: listening::accept_settings(&config),
        guards: Arc::new(listening::guards(&config)),
        gateway: gateway.clone(),
        proxy,
    });

    let (shutdown, ending) = watch::channel(false);
    let (alive, mut all_ended) = mpsc::channel::<()>(1);
    let public = listeners
        .iter()
        .map(|settings| &settings.address)
        .zip(&sockets);
    let private = admin
        .iter()
        .map(|(socket, settings)| (&settings.listen, socket));
    let bound: Vec<_> = public.chain(private).collect();
    let addresses: Vec<_> = bound
        .iter()
        .map(|(address, _)| (*address).clone())
        .collect();
    let named: Vec<(String, RawFd)> = bound
        .iter()
        .map(|(address, socket)| (address.to_string(), socket.as_raw_fd()))
        .collect();
    for (settings, socket) in listeners.iter().zip(sockets) {
        let listener = listener(&settings.address, socket)?;
        let accepting =
            acceptor
                .clone()
                .run(listener, settings.clone(), ending.clone(), alive.clone());
        tokio::spawn(accepting);
    }
    drop(alive);
    if let Some((socket, AdminSettings { listen, token })) = admin {
        let gateway = gateway.clone();
        let warmer = warmer.clone();
        let admin = Arc::new(Admin {
            gateway,
            warmer,
            token,
        });
        tokio::spawn(admin.run(listener(&listen, socket)?, ending.clone()));
    }

    banner::print(&config, &plan, &listeners);
    let pid_file = config
        .server
        .pid_file
        .as_ref()
        .map(|file| file.path.clone());
    if let Some(path) = &pid_file {
        upgrade::write_pid_file(path).map_err(|source| ServeError::PidFile {
            path: path.clone(),
            source,
        })?;
    }
    inheritance.announce_ready();
    notify(&[
        sd_notify::NotifyState::MainPid(std::process::id()),
        sd_notify::NotifyState::Ready,
    ]);
    banner::log_ready(&config, &plan, &listeners);

    tokio::spawn(warmer.keep_to_plan());
    let remembering = tokio::spawn(popular::keep(gateway.clone()));
    let mut reloader = Reloader::new(source, config, gateway.clone(), log.clone());
    let handed_over = loop {
        match signals.next(&mut reloader).await {
            Event::Reload(why) => {
                notify(&reloading());
                reloader.reload(why);
                refresh_certificates(&listeners).await;
                notify(&[sd_notify::NotifyState::Ready]);
            }
            Event::ReopenLog => log.reopen(),
            Event::Status => {
                gateway.plan().log_status();
                gateway.shared_cache().inspect(|shared| shared.log_status());
            }
            Event::Upgrade => match upgrade::hand_over(&invocation, &named).await {
                Ok(pid) => {
                    tracing::info!(pid, "a new process serves; draining");
                    break true;
                }
                Err(error) => {
                    for line in telemetry::chain(&error).lines() {
                        tracing::error!("upgrade failed, still serving: {line}");
                    }
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
    remembering.abort();
    // While connections drain: a process that is not given the time for that has remembered all the same.
    let remembered = {
        let gateway = gateway.clone();
        tokio::spawn(async move { popular::remember(&gateway).await })
    };
    // Nobody listens to this only when every listener and connection has ended already.
    let _ = shutdown.send(true);
    drop(ending);
    if !handed_over {
        // Before the drain: a gateway that is started meanwhile has a file of its own there.
        remove_socket_files(&addresses);
    }
    let drain = reloader.config().server.drain;
    tokio::select! {
        _ = all_ended.recv() => {}
        () = tokio::time::sleep(drain) => {
            tracing::warn!(?drain, "connections are still open after the drain; closing them");
        }
        signal = signals.end() => {
            tracing::warn!(signal, "asked again; closing the connections that are open");
        }
    }
    if let Some(path) = pid_file.filter(|_| !handed_over) {
        upgrade::remove_pid_file(&path);
    }
    if let Some(shared) = gateway.shared_cache() {
        shared.written(LAST_WRITES).await;
    }
    if tokio::time::timeout(LAST_WRITES, remembered).await.is_err() {
        tracing::warn!("the most-hit pages are not remembered: Redis is too slow");
    }
    // Whatever is not given back in time ends by itself.
    let _ = tokio::time::timeout(LAST_WRITES, gateway.leave_limits()).await;
    gateway.purger().leave().await;
    tracing::info!("ended");
    Ok(())
}

/// Removes the files of the Unix sockets that nobody will accept from any more.
fn remove_socket_files(addresses: &[ListenAddress]) {
    for address in addresses {
        if let ListenAddress::Unix(path) = address {
            // A file that is gone already is as good.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Asks the running gateway to hand its sockets to a new process, and waits until that one has
/// written its id to the pid file. Without a pid file it only asks.
pub fn request_upgrade(source: &Source, pid: Option<i32>) -> Result<String, ServeError> {
    let pid_file = match source.draft().right() {
        Ok(config) => config.server.pid_file.map(|file| file.value.path),
        Err(problems) if pid.is_none() => return Err(problems.into()),
        Err(_) => None,
    };
    let running = match (pid, &pid_file) {
        (Some(pid), _) => pid,
        (None, Some(path)) => upgrade::read_pid_file(path)
            .ok_or_else(|| ServeError::NotRunning { path: path.clone() })?,
        (None, None) => return Err(ServeError::NoPid),
    };
    upgrade::ask(running).map_err(|source| ServeError::Signal {
        pid: running,
        source,
    })?;
    let Some(path) = pid_file else {
        return Ok(format!("asked process {running} to upgrade"));
    };
    match upgrade::wait_for_other(&path, running) {
        Some(new) => Ok(format!("process {new} serves; {running} drains")),
        None => Err(ServeError::NotUpgraded { pid: running }),
    }
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

fn listener(address: &ListenAddress, socket: OwnedFd) -> Result<Listener, ServeError> {
    Listener::from_fd(address, socket).map_err(|source| ServeError::Listen {
        address: address.clone(),
        source,
    })
}

/// What this gateway is called where several have one Redis: its machine and where it listens there.
fn purger_name(listeners: &[Arc<ListenerSettings>]) -> Name {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let address = listeners
        .first()
        .map(|settings| settings.address.to_string());
    Name::new(&format!("{}@{}", host.trim(), address.unwrap_or_default()))
}

/// Tells systemd, where there is one. Without it there is nobody to tell.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}

/// What systemd wants to hear of a reload: with `Type=notify-reload` it must be dated.
fn reloading() -> Vec<sd_notify::NotifyState<'static>> {
    let mut states = vec![sd_notify::NotifyState::Reloading];
    states.extend(sd_notify::NotifyState::monotonic_usec_now().ok());
    states
}

/// Looks at the certificates now rather than at the next turn of their watch: who has replaced one
/// and asks for a reload means that one too.
async fn refresh_certificates(listeners: &[Arc<ListenerSettings>]) {
    let stores = listeners
        .iter()
        .filter_map(|listener| listener.certificates.clone());
    for store in stores {
        let refreshed = tokio::task::spawn_blocking(move || store.refresh()).await;
        match refreshed {
            Ok(Ok(changed)) => changed.log(),
            Ok(Err(error)) => {
                let error = telemetry::chain(&error);
                tracing::error!("certificates not refreshed, still serving the old: {error}");
            }
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
}

/// What the loop of the running gateway reacts to.
enum Event {
    Reload(reload::Why),
    ReopenLog,
    Status,
    Upgrade,
    End(&'static str),
}

struct Signals {
    hangup: Signal,
    user1: Signal,
    user2: Signal,
    quit: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for a signal to end, and for no other.
    async fn end(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    async fn next(&mut self, reloader: &mut Reloader<'_>) -> Event {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Event::End("SIGTERM"),
            _ = self.interrupt.recv() => Event::End("SIGINT"),
            _ = self.quit.recv() => Event::Upgrade,
            _ = self.hangup.recv() => Event::Reload(reload::Why::Signal),
            _ = self.user1.recv() => Event::ReopenLog,
            _ = self.user2.recv() => Event::Status,
            () = reloader.file_changed() => Event::Reload(reload::Why::FileChanged),
        }
    }
}
