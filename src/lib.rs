//! Tollgate: a reverse proxy gateway.
//!
//! The tree follows one request, from the connection to the record of it.
//!
//! ```text
//! server          composition root: listeners, signals, upgrade, drain; `server::check` is `tollgate check`
//! reload          SIGHUP or a changed file → draft → plan in force, or the old plan and every reason
//! accept          the connection: guards, PROXY protocol, TLS handshake, deadlines, the loop of requests
//! express         the express lane: plain GET and HEAD of HTTP/1.1 and HTTP/2, without pingora's proxy
//!   cached          what stands in memory is given, what does not is fetched once for all who ask
//! proxy           the full lane: everything else, every hook of pingora in one or two calls
//! gateway         what outlives every request: the plan in force, where records go
//! exchange        what one request has learned, and the decisions both lanes take over it
//!   ingress         what a request must be to enter      entry    who asks, which route
//!   attempt         one try at one backend               record   what is written of it
//!   barring         who is not let in, whatever is asked
//! plan            Config → immutable Plan: names resolved, files loaded, live backends carried over
//! config          the file: every key declared once, problems with line and column, all at once
//! refusal         every way we say no: one enum, one table, one writer
//! route           host, method and longest path prefix → route; rewriting and redirects
//! headers         fields to the application and to the client: forwarded, host, policies, security
//! cache           what a shared cache may do, as functions of heads, times and policy; what is stored
//! compression     a body in fewer bytes: which coding, for what, and the encoders
//! upstream        backends, balance, health, queue, leases, and the connections to them
//! limit           who may use how much; who is banned for what they did
//! redis           connections to Redis: questions with a deadline, messages of channels
//! downstream      what is known of a client connection      listen    what a listener was told to be
//! certificates    the certificates of a directory, kept up to date with the disk; those of clients, whom to believe
//! client          the client's address behind trusted proxies; request ids; lists of networks
//! http1           the wire grammar of HTTP/1.x, strictly     target    host and path in canonical form
//! telemetry       the log and the record of each request     address, word    what operators write
//! short           texts on the stack                       weight     what pieces of memory take
//! moment          what time it is, cheaply
//! stamp           whether a file is still the one that was read    followed    a file that is followed while it changes
//! ```
//!
//! **Imports go down only**: server, reload → accept → {express, proxy} → gateway → exchange → plan →
//! {config, refusal} → route → headers → {cache, limit, redis, upstream} → {compression, downstream, listen, certificates} →
//! {client, followed, http1, target, telemetry} → {address, word, short, stamp, moment}. Runtime modules never import config.
//!
//! **Text becomes a type at the door**: a word of the file is the type of the module that lives by
//! it (`upstream::Balance`, `route::HostPattern`), which parses itself and says what would be right;
//! config adds the place. Nothing behind config parses or checks it again.
//!
//! **One change, one place**: a key → `config::spec` and the plan; a word → its type and its line in
//! `config::word`; a balancing algorithm → `upstream::balance`; a header policy →
//! `headers::policy`; what may be stored → `cache::admission`; a refusal → a variant and its row in
//! `refusal`.
//!
//! Beside the path of a request: `admin` (the interface for administration), `token` (what opens it),
//! `banner` (what an operator sees at the start), `explain` (what a
//! request would meet), `purge` (what is named to be purged), `certs` (development certificates), `demo`, `upgrade` (sockets to the next
//! process).

pub mod accept;
pub mod address;
pub mod admin;
pub mod banner;
pub mod cache;
pub mod certificates;
pub mod certs;
pub mod client;
pub mod compression;
pub mod config;
pub mod demo;
pub mod descriptors;
pub mod downstream;
pub mod exchange;
pub mod explain;
pub mod express;
pub mod followed;
pub mod gateway;
pub mod headers;
pub mod http1;
pub mod limit;
pub mod listen;
pub mod moment;
pub mod plan;
pub mod proxy;
pub mod purge;
pub mod redis;
pub mod refusal;
pub mod reload;
pub mod route;
pub mod server;
mod short;
mod stamp;
mod stream;
pub mod target;
pub mod telemetry;
pub mod token;
pub mod upgrade;
pub mod upstream;
pub mod warm;
mod weight;
mod word;
