//! One gateway before its own application, and the connection of its only client.

use std::ffi::OsStr;
use std::slice;

use serde_json::Value;
use tempfile::TempDir;

use super::application;
use super::outcome::{self, Leeway, Outcome};
use super::plan::{Plan, TOKEN};
use super::request::Request;
use crate::harness::client::Connection;
use crate::harness::gateway::Gateway;
use crate::harness::origin::Origin;
use crate::harness::response::Broken;
use crate::harness::{PATIENCE, wait_within};

/// Which lane serves plain requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Express,
    Full,
}

pub struct Lane {
    origin: Origin,
    gateway: Gateway,
    connection: Option<Connection>,
    records: Vec<String>,
}

impl Lane {
    pub fn start(plan: &Plan, which: Which) -> Self {
        let origin = application::start();
        let text = plan
            .text
            .replace("{backend}", &origin.address().to_string());
        let folder = TempDir::new().expect("a temporary folder");
        let full = [("TOLLGATE_TEST_FULL_LANE_ONLY", OsStr::new("1"))];
        let env = match which {
            Which::Express => &[][..],
            Which::Full => &full[..],
        };
        let gateway = Gateway::start_with_env(folder, &text, env);
        Self {
            origin,
            gateway,
            connection: None,
            records: Vec::new(),
        }
    }

    /// Sends all of them at once, over the connection that is left.
    pub fn send(&mut self, batch: &[Request]) {
        let bytes: Vec<_> = batch
            .iter()
            .flat_map(|request| &request.bytes)
            .copied()
            .collect();
        let gateway = &self.gateway;
        let connection = self.connection.get_or_insert_with(|| gateway.connect());
        // Whoever closes early need not take the rest.
        let _ = connection.send(&bytes);
    }

    /// What became of each that was sent. Those behind one that ends the connection are sent again.
    pub fn outcomes(&mut self, batch: &[Request]) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(batch.len());
        for (number, request) in batch.iter().enumerate() {
            if self.connection.is_none() {
                self.send(&batch[number..]);
            }
            outcomes.push(self.outcome(&request.method));
        }
        outcomes
    }

    /// What becomes of it on a connection of its own.
    pub fn alone(&mut self, request: &Request) -> Outcome {
        self.send(slice::from_ref(request));
        let outcome = self.outcome(&request.method);
        self.connection = None;
        outcome
    }

    fn outcome(&mut self, method: &str) -> Outcome {
        let mut connection = self.connection.take().expect("it was sent over one");
        let mut outcome = Outcome::default();
        let ended = read(&mut connection, method, &mut outcome);
        if ended.is_ok() && outcome.kept {
            self.connection = Some(connection);
        }
        outcome
    }

    /// What the backend has received since it was last asked, by what the request is called.
    pub fn received(&self) -> Vec<(Option<String>, Vec<String>)> {
        let received = self.origin.take_received();
        let port = self.gateway.address().port().to_string();
        let one = |received| {
            let mut lines = outcome::received(received);
            for line in &mut lines {
                *line = line.replace(&port, "PORT");
            }
            let tag = lines
                .iter()
                .find_map(|line| line.strip_prefix("user-agent: "));
            (tag.map(str::to_owned), lines)
        };
        received.iter().map(one).collect()
    }

    /// The records of so many requests, or of as many as there are in the end.
    pub fn records(&mut self, count: usize, leeway: &Leeway) -> Vec<String> {
        // One that is missing is seen where they are compared.
        wait_within(PATIENCE, || {
            let lines = self.gateway.log().take();
            let records = lines
                .iter()
                .filter_map(|line| outcome::record(line, leeway));
            self.records.extend(records);
            (self.records.len() >= count).then_some(())
        });
        std::mem::take(&mut self.records)
    }

    /// What an administrator is told.
    pub fn told(&self, method: &str, path: &str, body: &str) -> Value {
        let address = self.gateway.addresses()[1];
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let mut client = Connection::open(address);
        client.send(request.as_bytes()).expect("it is taken");
        outcome::told(client.response().expect("an answer").json())
    }
}

/// Reads one answer, and all that comes behind the last one of a connection.
fn read(connection: &mut Connection, method: &str, outcome: &mut Outcome) -> Result<(), Broken> {
    let head = loop {
        let head = connection.head()?;
        if head.status == 100 {
            // Where there is no body to wait for, it is chance whether it comes before a failure.
            continue;
        }
        outcome.heads.push((head.status, outcome::fields(&head)));
        if head.status >= 200 || head.status == 101 {
            break head;
        }
    };
    let mut bytes = Vec::new();
    if method != "HEAD" {
        connection.body(&head, |piece| bytes.extend_from_slice(piece))?;
    }
    let is_tunnel = head.status == 101;
    outcome.kept = !is_tunnel && !head.fields("connection").any(|option| option == "close");
    if !outcome.kept && !is_tunnel {
        // At its end all is recorded.
        bytes.extend(rest(connection)?);
    }
    outcome.body = Some(outcome::body(&head, &bytes));
    Ok(())
}

/// Whatever comes until the other side closes.
fn rest(connection: &mut Connection) -> Result<Vec<u8>, Broken> {
    let mut rest = Vec::new();
    loop {
        match connection.some()? {
            piece if piece.is_empty() => return Ok(rest),
            piece => rest.extend(piece),
        }
    }
}
