//! An HTTP/2 client, in cleartext with prior knowledge or over TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::PATIENCE;
use super::tls::{Issued, TestCa};

/// One connection; its streams run on a thread of their own.
pub struct H2 {
    // Dropped first: ends the connection's task before its runtime.
    sender: SendRequest<Bytes>,
    runtime: Runtime,
}

/// A whole response with what followed its body.
#[derive(Debug)]
pub struct H2Response {
    pub response: Response<Vec<u8>>,
    pub trailers: Option<HeaderMap>,
}

impl H2 {
    /// Prior knowledge over cleartext (RFC 9113 3.3).
    pub fn cleartext(address: SocketAddr) -> Self {
        let runtime = runtime();
        let sender = runtime.block_on(async {
            handshake(TcpStream::connect(address).await.expect("the port listens")).await
        });
        Self { sender, runtime }
    }

    /// Over TLS; panics when the server does not choose `h2` by ALPN.
    pub fn tls(address: SocketAddr, name: &str, ca: &TestCa) -> Self {
        Self::tls_with(address, name, ca.client_config(&["h2"]))
    }

    /// As [`H2::tls`], of a client that shows this certificate.
    pub fn tls_as(client: &Issued, address: SocketAddr, name: &str, ca: &TestCa) -> Self {
        Self::tls_with(address, name, ca.config_of_client(client, &["h2"]))
    }

    fn tls_with(address: SocketAddr, name: &str, config: Arc<ClientConfig>) -> Self {
        let runtime = runtime();
        let connector = TlsConnector::from(config);
        let name = ServerName::try_from(name.to_owned()).expect("a valid name");
        let sender = runtime.block_on(async {
            let socket = TcpStream::connect(address).await.expect("the port listens");
            let stream = connector
                .connect(name, socket)
                .await
                .expect("the handshake succeeds");
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "ALPN");
            handshake(stream).await
        });
        Self { sender, runtime }
    }

    /// GET of an absolute URL; its authority is sent as `:authority`.
    pub fn get(&self, url: &str) -> Result<H2Response, h2::Error> {
        let request = Request::get(url).body(Vec::new()).expect("a valid URL");
        self.request(request)
    }

    pub fn request(&self, request: Request<Vec<u8>>) -> Result<H2Response, h2::Error> {
        self.requests(vec![request])
            .pop()
            .expect("one response to one request")
    }

    /// Sends all requests before it waits for the first response: streams side by side.
    pub fn requests(&self, requests: Vec<Request<Vec<u8>>>) -> Vec<Result<H2Response, h2::Error>> {
        self.runtime.block_on(async {
            let exchanges: Vec<_> = requests
                .into_iter()
                .map(|request| tokio::spawn(exchange(self.sender.clone(), request)))
                .collect();
            let mut responses = Vec::new();
            for task in exchanges {
                let response = timeout(PATIENCE, task).await.expect("a response in time");
                responses.push(response.expect("an exchange does not panic"));
            }
            responses
        })
    }
}

async fn exchange(
    sender: SendRequest<Bytes>,
    request: Request<Vec<u8>>,
) -> Result<H2Response, h2::Error> {
    let (parts, body) = request.into_parts();
    let mut sender = sender.ready().await?;
    let (response, mut stream) =
        sender.send_request(Request::from_parts(parts, ()), body.is_empty())?;
    if !body.is_empty() {
        stream.send_data(Bytes::from(body), true)?;
    }
    let (parts, mut incoming) = response.await?.into_parts();
    let mut body = Vec::new();
    while let Some(data) = incoming.data().await {
        let data = data?;
        incoming.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    let trailers = incoming.trailers().await?;
    Ok(H2Response {
        response: Response::from_parts(parts, body),
        trailers,
    })
}

async fn handshake<S>(stream: S) -> SendRequest<Bytes>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = h2::client::handshake(stream)
        .await
        .expect("an HTTP/2 server");
    // Its end is seen by the streams that it carries.
    tokio::spawn(async { connection.await.ok() });
    sender
}

/// A runtime with one thread that goes on working while the test does not wait.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("threads are left")
}
