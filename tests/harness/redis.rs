//! Real Redis servers on loopback: one alone, a cluster, a master behind a sentinel; killed, frozen and started again.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ::redis::{Client, Connection, FromRedisValue, RedisResult, Value, cmd};
use tempfile::TempDir;

use super::port::{free_port, loopback};
use super::process::{Process, Signal};
use super::{GLANCE, PATIENCE, wait_for};

/// A port may be taken between its choice and the server's bind; then another is chosen.
const STARTS: usize = 3;
/// For one answer to the test itself.
const ANSWER: Duration = Duration::from_secs(10);
/// The time after which a cluster calls a node lost.
const NODE_TIMEOUT_MS: &str = "1000";

/// A running `redis-server` without persistence. Ends with the value; its log is shown when the test fails.
pub struct RedisServer {
    process: Process,
    port: u16,
    arguments: Vec<String>,
    folder: TempDir,
}

impl RedisServer {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With further options of the server, such as `["--maxmemory", "2mb"]`.
    pub fn start_with(arguments: &[&str]) -> Self {
        for attempt in 1.. {
            match Self::try_start(free_port(), arguments) {
                Some(server) => return server,
                None if attempt < STARTS => {}
                None => panic!("redis-server found no free port"),
            }
        }
        unreachable!("the last attempt returns or panics")
    }

    /// On this port, which nobody may have.
    pub fn start_on(port: u16) -> Self {
        Self::try_start(port, &[]).unwrap_or_else(|| panic!("port {port} is taken"))
    }

    fn try_start(port: u16, arguments: &[&str]) -> Option<Self> {
        let folder = TempDir::new().expect("a temporary folder");
        let arguments: Vec<_> = arguments.iter().map(|&one| one.to_owned()).collect();
        let process = spawn(port, &arguments, folder.path());
        let mut server = Self {
            process,
            port,
            arguments,
            folder,
        };
        server.answers().then_some(server)
    }

    /// False when it has ended because its port was taken.
    fn answers(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let ready = |line: &str| line.contains("Ready to accept connections");
        let taken = |line: &str| line.contains("Address already in use");
        loop {
            if self.process.log().wait_after(0, ready, GLANCE).is_some() {
                return true;
            }
            if let Some(status) = self.process.exited() {
                if self.process.log().wait_after(0, taken, GLANCE).is_some() {
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

    pub fn address(&self) -> SocketAddr {
        loopback(self.port)
    }

    /// As `nodes` of a configuration has it.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// A connection of the test's own.
    pub fn connect(&self) -> Connection {
        let client = Client::open(self.url()).expect("a plain address");
        let connection = client.get_connection_with_timeout(ANSWER);
        let connection = connection.unwrap_or_else(|error| self.process.fail(&error.to_string()));
        connection
            .set_read_timeout(Some(ANSWER))
            .expect("above zero");
        connection
    }

    /// The answer to one command; fails the test when the server refuses it.
    pub fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_command(words)
            .unwrap_or_else(|error| self.process.fail(&format!("answered {words:?}: {error}")))
    }

    pub fn try_command<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let mut command = cmd(words[0]);
        words[1..].iter().for_each(|word| {
            command.arg(word);
        });
        command.query(&mut self.connect())
    }

    /// Ends it without a farewell.
    pub fn kill(&mut self) {
        self.process.signal(Signal::Kill);
        self.process.wait_for_exit();
    }

    /// Starts it again on its port, empty, with the same options.
    pub fn restart(&mut self) {
        self.process.stop();
        self.process = spawn(self.port, &self.arguments, self.folder.path());
        assert!(self.answers(), "somebody has taken port {}", self.port);
    }

    /// Freezes it: connections are accepted and nothing is answered.
    pub fn pause(&self) {
        self.process.signal(Signal::Stop);
    }

    pub fn resume(&self) {
        self.process.signal(Signal::Continue);
    }

    /// A field of `INFO`.
    pub fn info(&self, section: &str, field: &str) -> Option<String> {
        let info: String = self.command(&["INFO", section]);
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.map(str::to_owned)
    }
}

fn spawn(port: u16, arguments: &[String], folder: &Path) -> Process {
    let mut command = Command::new("redis-server");
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(folder)
        .args(arguments);
    Process::spawn("redis-server", &mut command)
}

/// Three masters, each with a replica.
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    const MASTERS: usize = 3;

    pub fn start() -> Self {
        let start = |_| {
            let bus = free_port().to_string();
            RedisServer::start_with(&[
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                NODE_TIMEOUT_MS,
                // A replica that has not seen its master for long may follow it all the same.
                "--cluster-replica-validity-factor",
                "0",
                "--repl-diskless-sync-delay",
                "0",
            ])
        };
        let cluster = Self {
            nodes: (0..2 * Self::MASTERS).map(start).collect(),
        };
        cluster.meet();
        cluster
    }

    fn meet(&self) {
        let ranges = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
        for (node, (first, last)) in self.nodes.iter().zip(ranges) {
            node.command::<()>(&["CLUSTER", "ADDSLOTSRANGE", first, last]);
        }
        for (index, node) in self.nodes.iter().enumerate() {
            // Nodes that agree on an epoch would quarrel first.
            let epoch = (index + 1).to_string();
            node.command::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]);
            let bus: Vec<String> = node.command(&["CONFIG", "GET", "cluster-port"]);
            let port = node.port.to_string();
            self.nodes[0].command::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus[1]]);
        }
        wait_for("all nodes of the cluster to know each other", || {
            let known = |node: &RedisServer| {
                let nodes: String = node.command(&["CLUSTER", "NODES"]);
                nodes
                    .lines()
                    .filter(|line| line.contains(" connected") && !line.contains("handshake"))
                    .count()
            };
            self.nodes
                .iter()
                .all(|node| known(node) == self.nodes.len())
                .then_some(())
        });
        for (master, replica) in self.nodes.iter().zip(&self.nodes[Self::MASTERS..]) {
            let id: String = master.command(&["CLUSTER", "MYID"]);
            replica.command::<()>(&["CLUSTER", "REPLICATE", &id]);
        }
        wait_for("the cluster to be whole", || {
            let well = |node: &RedisServer| {
                let info: String = node.command(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok")
            };
            let follows = |node: &RedisServer| {
                node.info("replication", "master_link_status").as_deref() == Some("up")
            };
            let whole =
                self.nodes.iter().all(well) && self.nodes[Self::MASTERS..].iter().all(follows);
            whole.then_some(())
        });
    }

    /// As `nodes` of a configuration has it, without the brackets.
    pub fn urls(&self) -> String {
        let urls = self.nodes.iter().map(|node| format!("{:?}", node.url()));
        urls.collect::<Vec<_>>().join(", ")
    }

    /// The first three are the masters at the start.
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// Kills a master, 0 to 2, and lets its replica take over at once.
    pub fn fail_over(&mut self, index: usize) {
        self.nodes[index].kill();
        let replica = &self.nodes[Self::MASTERS + index];
        replica.command::<()>(&["CLUSTER", "FAILOVER", "TAKEOVER"]);
        wait_for("the replica to have taken over", || {
            let role = replica.info("replication", "role");
            (role.as_deref() == Some("master")).then_some(())
        });
    }
}

/// A master, its replica, and a sentinel that watches them.
pub struct Sentinel {
    pub master: RedisServer,
    pub replica: RedisServer,
    sentinel: RedisServer,
}

impl Sentinel {
    /// The name of the master.
    pub const NAME: &str = "main";

    pub fn start() -> Self {
        let master = RedisServer::start_with(&["--repl-diskless-sync-delay", "0"]);
        let port = master.port.to_string();
        let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]);
        wait_for("the replica to follow", || {
            let status = replica.info("replication", "master_link_status");
            (status.as_deref() == Some("up")).then_some(())
        });
        let sentinel = Self::watch(&port);
        let this = Self {
            master,
            replica,
            sentinel,
        };
        wait_for("the sentinel to know the replica", || {
            let known: Vec<Value> = this.sentinel.command(&["SENTINEL", "REPLICAS", Self::NAME]);
            (!known.is_empty()).then_some(())
        });
        this
    }

    fn watch(master: &str) -> RedisServer {
        let folder = TempDir::new().expect("a temporary folder");
        let port = free_port();
        let file = folder.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\n\
             sentinel monitor {name} 127.0.0.1 {master} 1\n\
             sentinel down-after-milliseconds {name} 1000\n\
             sentinel failover-timeout {name} 3000\n",
            folder.path().display(),
            name = Self::NAME,
        );
        fs::write(&file, text).expect("the folder is writable");
        let mut command = Command::new("redis-server");
        command.arg(&file).arg("--sentinel");
        let process = Process::spawn("redis-server --sentinel", &mut command);
        process.wait_for_log("that it watches", |line| line.contains("+monitor master"));
        RedisServer {
            process,
            port,
            arguments: Vec::new(),
            folder,
        }
    }

    /// As `nodes` of a configuration has it.
    pub fn url(&self) -> String {
        self.sentinel.url()
    }

    /// Makes the replica the master, and the master a replica.
    pub fn fail_over(&self) {
        // It must have looked at the replica before.
        wait_for("the sentinel to agree", || {
            let asked = ["SENTINEL", "FAILOVER", Self::NAME];
            self.sentinel.try_command::<()>(&asked).ok()
        });
        wait_for("the sentinel to name the other", || {
            let named: Vec<String> =
                self.sentinel
                    .command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Self::NAME]);
            (named[1] == self.replica.port.to_string()).then_some(())
        });
        // As the sentinel does when it looks again, which may be in ten seconds.
        let port = self.replica.port.to_string();
        self.master
            .command::<()>(&["REPLICAOF", "127.0.0.1", &port]);
    }
}
