//! Answers whose body is encoded for the client: piece by piece on its way, or once and for all where it is stored.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::{Method, StatusCode};

use super::fetch::fields_of;
use super::ready::{self, Ready};
use super::{Gone, Lane, Unanswered, watched};
use crate::cache::entry::{Content, Entry};
use crate::cache::key::Key;
use crate::cache::room::NoRoom;
use crate::compression::{Coding, representation};
use crate::exchange::compressing::{self, For};
use crate::gateway::Gateway;
use crate::http1::ResponseHead;
use crate::plan::Caching;

/// The longest body of which an encoded form is kept, in bytes. A longer one is encoded each time, at the pace of its client.
const LONGEST_FORM: usize = 8 << 20;
/// How much of a stored body is encoded at once.
const PIECE: usize = 64 << 10;

impl Lane<'_> {
    /// Begins an answer whose body follows in pieces.
    pub(super) fn begin_pieces(&mut self, mut head: ResponseHead, whose: For) -> Result<(), Gone> {
        if head.status() == StatusCode::NOT_MODIFIED {
            head = self.not_modified_as_known(head);
        } else if let Some(coding) = compressing::coding(&mut self.exchange, &head, whose) {
            return self.begin_encoded(&head, coding);
        }
        self.begin_answer(head)
    }

    fn begin_encoded(&mut self, head: &ResponseHead, coding: Coding) -> Result<(), Gone> {
        let head = changed(head, |fields| representation::encode(fields, coding, None));
        if self.request.method != Method::HEAD {
            self.encoder = Some(compressing::encoder(&self.exchange, coding));
        }
        self.begin_answer(head)
    }

    /// A 304 that names its version as the client does.
    pub(super) fn not_modified_as_known(&mut self, head: ResponseHead) -> ResponseHead {
        match compressing::is_known_weakly(&mut self.exchange, &self.request.fields, &head) {
            true => changed(&head, representation::weaken),
            false => head,
        }
    }

    /// Does `work`, which brings the next piece of a body, and gives it up when the client leaves. What an encoder holds back
    /// leaves before the client is kept waiting.
    pub(super) async fn arriving<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Gone> {
        let mut work = pin!(work);
        if self.encoder.as_ref().is_some_and(|encoder| encoder.holds()) {
            let at_once = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
            if let Poll::Ready(done) = at_once {
                return Ok(done);
            }
            let held = self.encoder.as_mut().map(|encoder| encoder.flush());
            self.write(held.unwrap_or_default()).await?;
        }
        let waited = watched(&mut self.client, work).await;
        self.present(waited)
    }

    /// Sends all of a stored response, whose head may be ready.
    pub(super) async fn all(
        &mut self,
        caching: &Caching,
        entry: &Arc<Entry>,
        stored: Option<Arc<Ready>>,
        body: &Bytes,
    ) -> Result<(), Unanswered> {
        if let Some(stored) = stored
            && let Some((ready, body)) = self.ready(entry, stored, body)
        {
            return Ok(self.answer_ready(&ready.head, body).await?);
        }
        Box::pin(self.all_dressed(caching, entry, body)).await
    }

    /// Head and body of an answer of which everything is there.
    fn ready(
        &mut self,
        entry: &Entry,
        stored: Arc<Ready>,
        body: &Bytes,
    ) -> Option<(Arc<Ready>, Bytes)> {
        let exchange = &mut self.exchange;
        let status = stored.head.status;
        let coding = compressing::coding_by(exchange, status, stored.said, For::Everybody);
        let Some(coding) = coding else {
            return Some((stored, body.clone()));
        };
        match entry.form(coding)? {
            None => Some((stored, body.clone())),
            Some(form) => Some((ready::form(exchange, form.head)?, form.body.clone())),
        }
    }

    async fn all_dressed(
        &mut self,
        caching: &Caching,
        entry: &Arc<Entry>,
        body: &Bytes,
    ) -> Result<(), Unanswered> {
        let head = entry.head();
        let coding = compressing::coding(&mut self.exchange, &head, For::Everybody);
        let Some(coding) = coding else {
            return self.whole(head, body.clone()).await;
        };
        let is_head = self.request.method == Method::HEAD;
        if entry.form(coding).is_none() {
            // A HEAD is not worth the work: it says what a GET would, but for the length.
            if is_head || body.len() > LONGEST_FORM {
                return self.all_in_pieces(&head, coding, body).await;
            }
            let making = Making {
                gateway: self.gateway.clone(),
                key: Key::of(&self.described().request(), &caching.scope, &caching.policy),
                entry: entry.clone(),
                coding,
                level: compressing::compression(&self.exchange)
                    .stored_levels
                    .of(coding),
            };
            // In a task of its own: the work is not lost when the client leaves.
            let made = watched(&mut self.client, tokio::spawn(making.run())).await;
            // One that fails has panicked, and the body is sent as it is.
            if let Ok(Err(NoRoom)) = self.present(made)? {
                return self.all_in_pieces(&head, coding, body).await;
            }
        }
        match entry.form(coding).flatten() {
            Some(form) => self.whole(form.head.unpack(), form.body.clone()).await,
            None => self.whole(head, body.clone()).await,
        }
    }

    /// Sends all of a stored response, encoded for this client alone.
    async fn all_in_pieces(
        &mut self,
        head: &ResponseHead,
        coding: Coding,
        body: &Bytes,
    ) -> Result<(), Unanswered> {
        self.begin_encoded(head, coding)?;
        if self.request.method != Method::HEAD {
            for piece in body.chunks(PIECE) {
                self.send(body.slice_ref(piece)).await?;
            }
        }
        Ok(self.end_answer().await?)
    }
}

/// An encoded form of a stored response that somebody wants.
struct Making {
    gateway: Arc<Gateway>,
    key: Key,
    entry: Arc<Entry>,
    coding: Coding,
    level: u16,
}

impl Making {
    async fn run(self) -> Result<(), NoRoom> {
        let Content::Whole(body) = &self.entry.content else {
            return Ok(());
        };
        let memory = self.gateway.memory();
        let room = || memory.room_for_form(body.len());
        let keep = |form| memory.keep(form);
        let forms = self.entry.forms();
        let made = forms
            .make(self.coding, self.level, body, room, keep)
            .await?;
        if made.is_some() && self.entry.form(self.coding).flatten().is_some() {
            memory.weigh_again(&self.key, &self.entry);
        }
        Ok(())
    }
}

fn changed(head: &ResponseHead, change: impl FnOnce(&mut http::HeaderMap)) -> ResponseHead {
    let mut fields = fields_of(head);
    change(&mut fields);
    ResponseHead::compose(head.status(), head.reason(), fields.iter())
}
