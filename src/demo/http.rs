//! HTTP/1.1 for the demonstration's backends: keep-alive, Content-Length and chunked answers.
//! Not a general server: it is only ever reached through the gateway, on loopback.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::{Backend, page};

const LONGEST_HEAD: usize = 64 * 1024;
const MOST_HEADERS: usize = 128;
/// What `/slow` takes: longer than the gateway's `slow_after`.
const SLOW: Duration = Duration::from_secs(2);
const TICKS: u32 = 10;
const TICK_EVERY: Duration = Duration::from_millis(500);

/// A request whose body, if any, is still to be read.
pub(super) struct Request {
    method: String,
    /// Without the query.
    path: String,
    /// In the order received.
    pub(super) headers: Vec<(String, String)>,
    /// `None` for a body of unknown length, which is not read.
    body_bytes: Option<u64>,
    keep_alive: bool,
}

/// Answers every request of a connection, in order, until either side closes it.
pub(super) async fn answer_all(backend: &Backend, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut received = BytesMut::with_capacity(4096);
    loop {
        let Some(request) = read_head(&mut stream, &mut received).await? else {
            return Ok(());
        };
        if let Some(body_bytes) = request.body_bytes {
            skip_body(&mut stream, &mut received, body_bytes).await?;
        }
        answer(backend, &mut stream, &request).await?;
        if !request.keep_alive {
            return stream.shutdown().await;
        }
    }
}

/// `None` when the peer closed between two requests.
async fn read_head(stream: &mut TcpStream, received: &mut BytesMut) -> io::Result<Option<Request>> {
    loop {
        if let Some((request, length)) = parse_head(received)? {
            received.advance(length);
            return Ok(Some(request));
        }
        if received.len() > LONGEST_HEAD {
            return Err(io::Error::other("request head too long"));
        }
        if stream.read_buf(received).await? == 0 {
            return match received.is_empty() {
                true => Ok(None),
                false => Err(io::ErrorKind::UnexpectedEof.into()),
            };
        }
    }
}

fn parse_head(received: &[u8]) -> io::Result<Option<(Request, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let length = match head.parse(received).map_err(io::Error::other)? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    let target = head.path.unwrap_or("/");
    let mut request = Request {
        method: head.method.unwrap_or("GET").to_owned(),
        path: target.split('?').next().unwrap_or("/").to_owned(),
        headers: Vec::with_capacity(head.headers.len()),
        body_bytes: Some(0),
        keep_alive: head.version == Some(1),
    };
    for header in head.headers.iter() {
        let value = String::from_utf8_lossy(header.value).into_owned();
        if header.name.eq_ignore_ascii_case("content-length") {
            request.body_bytes = Some(value.parse().map_err(io::Error::other)?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            request.body_bytes = None;
        } else if header.name.eq_ignore_ascii_case("connection") {
            request.keep_alive &= !value.eq_ignore_ascii_case("close");
        }
        request.headers.push((header.name.to_owned(), value));
    }
    // Where such a body ends is not known, so the next request could not be found.
    request.keep_alive &= request.body_bytes.is_some();
    Ok(Some((request, length)))
}

async fn skip_body(
    stream: &mut TcpStream,
    received: &mut BytesMut,
    mut left: u64,
) -> io::Result<()> {
    loop {
        let here = received
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        received.advance(here);
        left -= here as u64;
        if left == 0 {
            return Ok(());
        }
        if stream.read_buf(received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn answer(backend: &Backend, stream: &mut TcpStream, request: &Request) -> io::Result<()> {
    const TEXT: &str = "text/plain; charset=utf-8";
    if request.path == "/healthz" {
        return send(stream, request, "200 OK", TEXT, "ok\n").await;
    }
    if request.body_bytes.is_none() {
        let status = "411 Length Required";
        return send(stream, request, status, TEXT, "send a Content-Length\n").await;
    }
    let count = backend.count();
    sleep(backend.latency).await;
    match request.path.as_str() {
        "/" | "/strict" => {
            let page = page::html(backend.name, count, &request.headers);
            send(stream, request, "200 OK", "text/html; charset=utf-8", &page).await
        }
        // A file of its own: the strict policy allows no style within the page.
        "/style.css" => {
            let kind = "text/css; charset=utf-8";
            send(stream, request, "200 OK", kind, page::STYLE).await
        }
        // Browsers ask by themselves; a 404 would be the first line in the log of every visitor.
        "/favicon.ico" => send(stream, request, "200 OK", "image/x-icon", "").await,
        "/api/time" => {
            let unix = SystemTime::now().duration_since(UNIX_EPOCH);
            let answer = serde_json::json!({
                "backend": backend.name,
                "served": count,
                "unix_seconds": unix.unwrap_or_default().as_secs(),
            });
            let body = format!("{answer}\n");
            send(stream, request, "200 OK", "application/json", &body).await
        }
        "/slow" => {
            sleep(SLOW).await;
            let body = format!("{} took its time\n", backend.name);
            send(stream, request, "200 OK", TEXT, &body).await
        }
        "/stream" => send_ticks(backend, stream, request).await,
        "/error" => {
            let status = "500 Internal Server Error";
            let body = format!("{} failed, as asked\n", backend.name);
            send(stream, request, status, TEXT, &body).await
        }
        _ => send(stream, request, "404 Not Found", TEXT, "no such page\n").await,
    }
}

async fn send(
    stream: &mut TcpStream,
    request: &Request,
    status: &str,
    content_type: &str,
    body: &str,
) -> io::Result<()> {
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nDate: {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{}\r\n",
        date(),
        body.len(),
        connection_field(request),
    );
    if request.method != "HEAD" {
        answer.push_str(body);
    }
    stream.write_all(answer.as_bytes()).await
}

async fn send_ticks(
    backend: &Backend,
    stream: &mut TcpStream,
    request: &Request,
) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nDate: {}\r\nContent-Type: text/plain; charset=utf-8\r\nTransfer-Encoding: chunked\r\n{}\r\n",
        date(),
        connection_field(request),
    );
    stream.write_all(head.as_bytes()).await?;
    if request.method == "HEAD" {
        return Ok(());
    }
    for tick in 1..=TICKS {
        let line = format!("tick {tick} of {TICKS} from {}\n", backend.name);
        let chunk = format!("{:x}\r\n{line}\r\n", line.len());
        stream.write_all(chunk.as_bytes()).await?;
        sleep(TICK_EVERY).await;
    }
    stream.write_all(b"0\r\n\r\n").await
}

fn date() -> String {
    httpdate::fmt_http_date(SystemTime::now())
}

fn connection_field(request: &Request) -> &'static str {
    match request.keep_alive {
        true => "",
        false => "Connection: close\r\n",
    }
}
