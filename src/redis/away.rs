//! Why there is no answer from Redis: one list of reasons, for the log, the metrics and whoever asked.

use std::error::Error;
use std::io;
use std::sync::Arc;

use ::redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::word::choice;

choice! {
    /// Why a question had no answer. Each has a stable word.
    pub enum Away: "reason" {
        /// The first connection is still being made.
        Connecting = "connecting",
        /// Nobody accepts connections there, or the name has no address.
        Refused = "refused",
        /// No answer in time.
        Deadline = "deadline",
        /// The connection ended.
        Lost = "lost",
        /// Too many questions are in flight.
        Busy = "busy",
        /// TLS could not be agreed on, or the certificate is not believed.
        Tls = "tls",
        /// The password is wrong, or the user may not do this.
        Denied = "denied",
        /// The server is reading its data from disk.
        Loading = "loading",
        /// A replica, or a master without enough replicas: it takes no writes.
        ReadOnly = "read-only",
        /// `maxmemory` is reached and nothing may be evicted, or the disk refuses: it takes no writes.
        OutOfMemory = "out-of-memory",
        /// The cluster has no node for this key now.
        ClusterDown = "cluster-down",
        /// No sentinel knows a master of this name that answers.
        NoMaster = "no-master",
        /// The server answered something else than was asked for.
        Unexpected = "unexpected",
    }
}

impl Error for Away {}

impl Away {
    /// What `error` says of the connection or of the server.
    pub(super) fn of(error: &RedisError) -> Self {
        match error.kind() {
            ErrorKind::Io => Self::of_io(error),
            ErrorKind::AuthenticationFailed => Self::Denied,
            ErrorKind::MasterNameNotFoundBySentinel | ErrorKind::NoValidReplicasFoundBySentinel => {
                Self::NoMaster
            }
            ErrorKind::ClusterConnectionNotFound => Self::ClusterDown,
            ErrorKind::Server(kind) => Self::of_server(kind),
            _ => match error.code() {
                Some("OOM" | "MISCONF") => Self::OutOfMemory,
                Some("NOREPLICAS") => Self::ReadOnly,
                Some("NOAUTH" | "WRONGPASS") => Self::Denied,
                Some("BUSY") => Self::Busy,
                _ => Self::Unexpected,
            },
        }
    }

    fn of_server(kind: ServerErrorKind) -> Self {
        match kind {
            ServerErrorKind::BusyLoading => Self::Loading,
            ServerErrorKind::ReadOnly => Self::ReadOnly,
            ServerErrorKind::NoPerm => Self::Denied,
            ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::TryAgain => Self::ClusterDown,
            _ => Self::Unexpected,
        }
    }

    fn of_io(error: &RedisError) -> Self {
        if error.is_timeout() {
            return Self::Deadline;
        }
        let Some(cause) = io_cause(error) else {
            return Self::Lost;
        };
        match cause.kind() {
            // A handshake's failure comes as data that is no TLS, or with rustls' error inside.
            io::ErrorKind::InvalidData => Self::Tls,
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::UnexpectedEof => Self::Lost,
            _ => Self::Refused,
        }
    }

    /// Whether the server answers and takes no writes.
    pub fn refuses_writes(self) -> bool {
        matches!(self, Self::ReadOnly | Self::OutOfMemory)
    }
}

/// The library keeps causes shared, and hands out the sharing.
fn io_cause(error: &RedisError) -> Option<&io::Error> {
    let shared = error
        .source()?
        .downcast_ref::<Arc<dyn Error + Send + Sync>>()?;
    shared.downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_has_one_reason_each() {
        let table = [
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                Away::OutOfMemory,
            ),
            (
                "MISCONF Redis is configured to save RDB snapshots",
                Away::OutOfMemory,
            ),
            (
                "READONLY You can't write against a read only replica.",
                Away::ReadOnly,
            ),
            (
                "NOREPLICAS Not enough good replicas to write.",
                Away::ReadOnly,
            ),
            (
                "LOADING Redis is loading the dataset in memory",
                Away::Loading,
            ),
            ("NOAUTH Authentication required.", Away::Denied),
            ("WRONGPASS invalid username-password pair", Away::Denied),
            ("NOPERM this user has no permissions", Away::Denied),
            ("CLUSTERDOWN Hash slot not served", Away::ClusterDown),
            ("BUSY Redis is busy running a script.", Away::Busy),
            ("WRONGTYPE Operation against a key", Away::Unexpected),
        ];
        for (line, reason) in table {
            let wire = format!("-{line}\r\n");
            let value = ::redis::parse_redis_value(wire.as_bytes()).unwrap();
            let error = value.extract_error().unwrap_err();
            assert_eq!(Away::of(&error), reason, "{line}");
        }
    }

    #[test]
    fn what_the_network_does_has_one_reason_each() {
        let table = [
            (io::ErrorKind::ConnectionRefused, Away::Refused),
            (io::ErrorKind::HostUnreachable, Away::Refused),
            (io::ErrorKind::TimedOut, Away::Deadline),
            (io::ErrorKind::ConnectionReset, Away::Lost),
            (io::ErrorKind::UnexpectedEof, Away::Lost),
            (io::ErrorKind::InvalidData, Away::Tls),
        ];
        for (kind, reason) in table {
            assert_eq!(Away::of(&io::Error::from(kind).into()), reason, "{kind:?}");
        }
    }
}
