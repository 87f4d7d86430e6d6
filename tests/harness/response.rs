//! HTTP/1 as text: heads, framing, and the ways in which a message can be broken.

use std::io;

/// The status line and fields of a response, as received.
#[derive(Clone, Debug)]
pub struct Head {
    pub version: String,
    pub status: u16,
    pub reason: String,
    fields: Vec<(String, String)>,
}

/// A whole response.
#[derive(Clone, Debug)]
pub struct Response {
    pub head: Head,
    pub body: Vec<u8>,
    /// Fields after a chunked body.
    pub trailers: Vec<(String, String)>,
}

/// Where a message's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// Why no whole message arrived.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("the peer closed before the first byte")]
    Closed,
    #[error("the peer closed in the middle of a message")]
    Truncated,
    #[error("the peer reset the connection")]
    Reset,
    #[error("the peer was silent for too long")]
    Silent,
    #[error("not HTTP/1: {0}")]
    Malformed(String),
    #[error("the connection failed")]
    Failed(#[source] io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Reset,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent,
            // What rustls says when TCP ends without a close_notify.
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            _ => Self::Failed(error),
        }
    }
}

impl Head {
    /// Parses everything up to and including the empty line.
    pub fn parse(head: &[u8]) -> Result<Self, Broken> {
        let text = String::from_utf8_lossy(head);
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default();
        let mut words = start.splitn(3, ' ');
        let malformed = || Broken::Malformed(start.to_owned());
        let version = words.next().filter(|word| word.starts_with("HTTP/1."));
        let status = words.next().and_then(|word| word.parse().ok());
        Ok(Self {
            version: version.ok_or_else(malformed)?.to_owned(),
            status: status.ok_or_else(malformed)?,
            reason: words.next().unwrap_or_default().to_owned(),
            fields: parse_fields(lines)?,
        })
    }

    /// The first value of a field; the name's case does not matter.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields(name).next()
    }

    /// All values of a field, one for each line.
    pub fn fields(&self, name: &str) -> impl Iterator<Item = &str> {
        let matching = move |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
        self.fields
            .iter()
            .filter(matching)
            .map(|field| field.1.as_str())
    }

    /// Every field line, in order.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        let lines = self.fields.iter();
        lines.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// How the body of this response to `method` ends (RFC 9112 6.3).
    pub fn framing(&self, method: &str) -> Result<Framing, Broken> {
        if method == "HEAD" || self.status < 200 || matches!(self.status, 204 | 304) {
            return Ok(Framing::Length(0));
        }
        Ok(framing(self)?.unwrap_or(Framing::UntilClose))
    }
}

impl Response {
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// The first value of a field; the name's case does not matter.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; panics showing it when it is something else.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in the body {:?}", self.text()))
    }
}

/// How the body of a request with this head ends.
pub fn request_framing(head: &[u8]) -> Result<Framing, Broken> {
    let text = String::from_utf8_lossy(head);
    let fields = parse_fields(text.split("\r\n").skip(1))?;
    let head = Head {
        version: String::new(),
        status: 0,
        reason: String::new(),
        fields,
    };
    Ok(framing(&head)?.unwrap_or(Framing::Length(0)))
}

/// Fields as `name: value` lines up to the first empty one.
pub fn parse_fields<'a>(
    lines: impl Iterator<Item = &'a str>,
) -> Result<Vec<(String, String)>, Broken> {
    lines
        .take_while(|line| !line.is_empty())
        .map(|line| match line.split_once(':') {
            Some((name, value)) => Ok((name.to_owned(), value.trim().to_owned())),
            None => Err(Broken::Malformed(line.to_owned())),
        })
        .collect()
}

fn framing(head: &Head) -> Result<Option<Framing>, Broken> {
    if head
        .fields("transfer-encoding")
        .any(|coding| coding.eq_ignore_ascii_case("chunked"))
    {
        return Ok(Some(Framing::Chunked));
    }
    let length = head.field("content-length").map(str::parse).transpose();
    match length {
        Ok(length) => Ok(length.map(Framing::Length)),
        Err(_) => Err(Broken::Malformed(
            "Content-Length is not a number".to_owned(),
        )),
    }
}
