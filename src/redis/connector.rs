//! Makes one connection: to the server, to the cluster, or to the master that the sentinels name. Knows no state.

use std::sync::Arc;

use ::redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use ::redis::cluster::{ClusterClient, ClusterClientBuilder};
use ::redis::cluster_async::ClusterConnection;
use ::redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use ::redis::io::tcp::TcpSettings;
use ::redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use ::redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo,
    IntoConnectionInfo, Pipeline, RedisConnectionInfo, RedisError, RedisFuture, RedisResult,
    TlsCertificates, TlsMode, Value, cmd,
};
use tokio::time::timeout;

use super::{Away, Credentials, Kind, Node, Settings};

/// How often a cluster's node is asked again after it has sent us to another, or was lost. The deadline ends it anyway.
const CLUSTER_RETRIES: u32 = 2;
const CLUSTER_RETRY_WAIT_MS: u64 = 5;

/// A connection that many questions share. Cloning it makes no other.
#[derive(Clone)]
pub enum Handle {
    Node(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// Why there is no connection, or none any more: the reason, and what was heard of it for the log.
#[derive(Clone, Debug)]
pub struct Failure {
    pub away: Away,
    pub detail: String,
}

impl Failure {
    pub fn of(error: &RedisError) -> Self {
        Self {
            away: Away::of(error),
            detail: error.to_string(),
        }
    }

    pub fn late() -> Self {
        Self {
            away: Away::Deadline,
            detail: "no answer in time".to_owned(),
        }
    }

    pub fn ended() -> Self {
        Self {
            away: Away::Lost,
            detail: "the connection ended".to_owned(),
        }
    }

    /// Messages came faster than they were taken.
    pub fn overrun() -> Self {
        Self {
            away: Away::Busy,
            detail: "messages came faster than they were taken".to_owned(),
        }
    }
}

pub struct Connector {
    settings: Arc<Settings>,
    tls: Option<TlsCertificates>,
}

impl Connector {
    pub fn new(settings: Arc<Settings>) -> Self {
        let nodes = settings.kind.nodes();
        let tls =
            nodes.iter().any(|node| node.tls).then(|| TlsCertificates {
                client_tls: settings.tls.identity.as_ref().map(|(certificate, key)| {
                    ClientTlsConfig {
                        client_cert: certificate.clone(),
                        client_key: key.text().as_bytes().to_vec(),
                    }
                }),
                root_cert: settings.tls.ca.clone(),
            });
        Self { settings, tls }
    }

    /// A connection whose first question has been answered, within the time for that.
    pub async fn connect(&self) -> Result<Handle, Failure> {
        let connecting = async {
            let handle = self.handle().await.map_err(|error| Failure::of(&error))?;
            self.check(handle.clone()).await?;
            Ok(handle)
        };
        timeout(self.settings.connect_timeout, connecting)
            .await
            .unwrap_or_else(|_| Err(Failure::late()))
    }

    /// Whether there is an answer. The caller has the deadline.
    pub async fn check(&self, handle: Handle) -> Result<(), Failure> {
        let ping = cmd("PING");
        let answered = match handle {
            Handle::Node(mut connection) => connection.send_packed_command(&ping).await,
            Handle::Cluster(mut connection) => {
                // Any node: one that is lost must not be the loss of all.
                let any = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
                connection.route_command(ping, any).await
            }
        };
        let answer = answered.and_then(Value::extract_error);
        answer.map(drop).map_err(|error| Failure::of(&error))
    }

    /// A connection for messages. `turn` chooses among the nodes of a cluster, each of which hears all messages.
    pub async fn subscriber(&self, turn: usize) -> Result<PubSub, Failure> {
        let connecting = async { self.client(turn).await?.get_async_pubsub().await };
        match timeout(self.settings.connect_timeout, connecting).await {
            Ok(connected) => connected.map_err(|error| Failure::of(&error)),
            Err(_) => Err(Failure::late()),
        }
    }

    async fn handle(&self) -> RedisResult<Handle> {
        if let Kind::Cluster(nodes) = &self.settings.kind {
            let connection = self.cluster(nodes)?.get_async_connection().await?;
            return Ok(Handle::Cluster(connection));
        }
        // Times are ours to keep: each question has its own.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        let client = self.client(0).await?;
        let connection = client.get_multiplexed_async_connection_with_config(&config);
        connection.await.map(Handle::Node)
    }

    /// The client of one server: the only one, the master, or the node whose turn it is.
    async fn client(&self, turn: usize) -> RedisResult<Client> {
        let nodes = self.settings.kind.nodes();
        match &self.settings.kind {
            Kind::Single(_) | Kind::Cluster(_) => {
                let info = self.info(&nodes[turn % nodes.len()])?;
                match &self.tls {
                    Some(tls) => Client::build_with_tls(info, tls.clone()),
                    None => Client::open(info),
                }
            }
            Kind::Sentinel { master, sentinels } => self.master(master, sentinels).await,
        }
    }

    fn cluster(&self, nodes: &[Node]) -> RedisResult<ClusterClient> {
        let infos: Vec<_> = nodes
            .iter()
            .map(|node| self.info(node))
            .collect::<RedisResult<_>>()?;
        // A server that is silent must not use up the time in which the others are found.
        let each = self.settings.connect_timeout / 2;
        let builder = ClusterClientBuilder::new(infos)
            .tcp_settings(tcp())
            .retries(CLUSTER_RETRIES)
            .min_retry_wait(CLUSTER_RETRY_WAIT_MS)
            .max_retry_wait(CLUSTER_RETRY_WAIT_MS)
            .connection_timeout(each)
            .response_timeout(each)
            .overall_response_timeout(None);
        match &self.tls {
            Some(tls) => builder.certs(tls.clone()).build(),
            None => builder.build(),
        }
    }

    /// Asks the sentinels, in their order, for the master.
    async fn master(&self, master: &str, sentinels: &[Node]) -> RedisResult<Client> {
        let first = &sentinels[0];
        let addresses = sentinels.iter().map(address);
        let mut builder =
            SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?
                .set_client_to_redis_db(first.database)
                .set_client_to_redis_tcp_settings(tcp())
                .set_client_to_sentinel_tcp_settings(tcp());
        let Credentials { username, password } = &self.settings.credentials;
        if let Some(username) = username {
            builder = builder.set_client_to_redis_username(username);
        }
        if let Some(password) = password {
            builder = builder.set_client_to_redis_password(password.text());
        }
        if let Some(username) = &first.username {
            builder = builder.set_client_to_sentinel_username(username);
        }
        if let Some(password) = &first.password {
            builder = builder.set_client_to_sentinel_password(password.text());
        }
        if let Some(tls) = &self.tls {
            builder = builder
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_redis_certificates(tls.clone())
                .set_client_to_sentinel_certificates(tls.clone());
        }
        builder.build()?.async_get_client().await
    }

    fn info(&self, node: &Node) -> RedisResult<ConnectionInfo> {
        let mut redis = RedisConnectionInfo::default()
            .set_db(node.database)
            .set_lib_name(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        let Credentials { username, password } = &self.settings.credentials;
        if let Some(username) = username {
            redis = redis.set_username(username);
        }
        if let Some(password) = password {
            redis = redis.set_password(password.text());
        }
        let info = address(node).into_connection_info()?;
        Ok(info.set_redis_settings(redis).set_tcp_settings(tcp()))
    }
}

fn address(node: &Node) -> ConnectionAddr {
    match node.tls {
        true => ConnectionAddr::TcpTls {
            host: node.host.clone(),
            port: node.port,
            insecure: false,
            tls_params: None,
        },
        false => ConnectionAddr::Tcp(node.host.clone(), node.port),
    }
}

/// Small questions are not to wait for each other.
fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

impl ConnectionLike for Handle {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Node(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Node(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Node(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}
