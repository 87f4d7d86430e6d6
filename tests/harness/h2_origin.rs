//! A backend that speaks HTTP/2 in cleartext, with prior knowledge, as well or as badly as a test wants.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, server};
use http::Response;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use super::h2_client::runtime;
use super::port::bind_free;

/// What becomes of every request.
#[derive(Clone, Copy, Debug)]
pub enum Conduct {
    /// Reads the body, then answers with this status.
    Answers(u16),
    /// Reads the body, and never answers.
    SaysNothing,
    /// Answers 200 with `part`, and never ends the body.
    StopsInItsBody,
    /// Leaves the body unread, so that its window fills, and never answers.
    ReadsNothing,
}

pub struct H2Origin {
    address: SocketAddr,
    /// Ends every connection with the value.
    _runtime: Runtime,
}

impl H2Origin {
    pub fn start(conduct: Conduct) -> Self {
        let (listener, address) = bind_free();
        listener.set_nonblocking(true).expect("a socket of ours");
        let runtime = runtime();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("in a runtime");
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, conduct));
            }
        });
        Self {
            address,
            _runtime: runtime,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Until the client goes.
async fn serve(socket: TcpStream, conduct: Conduct) {
    let mut connection = server::handshake(socket).await.expect("HTTP/2");
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request.into_body(), respond, conduct));
    }
}

async fn answer(mut body: RecvStream, mut respond: SendResponse<Bytes>, conduct: Conduct) {
    while !matches!(conduct, Conduct::ReadsNothing)
        && let Some(Ok(data)) = body.data().await
    {
        // A client that has gone wants no more room.
        let _ = body.flow_control().release_capacity(data.len());
    }
    let head = |status: u16| {
        let response = Response::builder().status(status).body(());
        response.expect("three digits")
    };
    match conduct {
        Conduct::Answers(status) => {
            let _ = respond.send_response(head(status), true);
        }
        Conduct::StopsInItsBody => {
            if let Ok(mut stream) = respond.send_response(head(200), false) {
                let _ = stream.send_data(Bytes::from_static(b"part"), false);
                std::future::pending().await
            }
        }
        // Whoever drops the stream resets it.
        Conduct::SaysNothing | Conduct::ReadsNothing => std::future::pending().await,
    }
}
