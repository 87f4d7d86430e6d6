//! A connection to a backend, whoever will speak on it: one that rested, or a new one.

use std::{sync::Arc, time::Duration};

use thiserror::Error;
use tokio::time::timeout;

use super::{
    Endpoint, Transport,
    socket::{ConnectError, Socket},
    wire::Wire,
};

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectFailed {
    #[error("connecting to {endpoint} took longer than {patience:?}")]
    TooSlow {
        endpoint: Endpoint,
        patience: Duration,
    },
    #[error("connecting to {endpoint}: {cause}")]
    Error {
        endpoint: Endpoint,
        #[source]
        cause: ConnectError,
    },
}

/// A connection to `endpoint`, and whether it had rested, which it has for less than `rest`. A new one is made within the
/// transport's connect timeout.
pub(super) async fn connect(
    transport: &Arc<Transport>,
    endpoint: &Endpoint,
    rest: Duration,
) -> Result<(Wire, bool), ConnectFailed> {
    let wire = |socket| Wire::new(socket, endpoint.clone(), transport.clone());
    if let Some(socket) = transport.idle().take(endpoint, rest) {
        return Ok((wire(socket), true));
    }
    let settings = transport.settings();
    let patience = settings.timeouts.connect;
    let endpoint = endpoint.clone();
    match timeout(patience, Socket::connect(&endpoint, settings)).await {
        Ok(Ok(socket)) => Ok((wire(socket), false)),
        Ok(Err(cause)) => Err(ConnectFailed::Error { endpoint, cause }),
        Err(_) => Err(ConnectFailed::TooSlow { endpoint, patience }),
    }
}
