//! Heads of stored responses, dressed once: all that is the same for every request of a route. Each worker keeps those that it
//! sent lately; what it keeps costs a hit nothing but to be copied.

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::DATE;

use crate::cache::conditional;
use crate::cache::entity::Validators;
use crate::cache::entry::Entry;
use crate::exchange::{Exchange, compressing, entry};
use crate::headers::encoding::Said;
use crate::http1::{Framing, PackedHead, ResponseHead};
use crate::plan::Route;

/// Heads that a worker keeps.
const SLOTS: usize = 512;
/// Bytes of a head that is kept, at most. It is there up to three times: all of them take 6 MiB at the most, and as often what
/// policies give.
const LONGEST: usize = 4096;

/// Status line and field lines, each with its end. What is said of one request is missing, and the end of the head.
pub struct Head {
    pub status: StatusCode,
    pub lines: Bytes,
}

/// What is ready of a stored head.
pub struct Ready {
    pub head: Head,
    /// What it says of being encoded.
    pub said: Option<Said>,
    /// Of the body as it is stored: how a client that has it already is answered.
    pub known: Option<Known>,
}

pub struct Known {
    pub validators: Validators,
    pub not_modified: Head,
}

/// Whose head it is, which decides what `Vary` says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// Of the body as it is stored.
    Stored,
    /// Of an encoded form of it. `varies`: as [`Exchange::varies`] was for the stored one.
    Form { varies: bool },
}

/// One head, and for whom it is ready. What is pointed to stays where it is while it is pointed to, and so nothing else is
/// ever taken for it.
struct Slot {
    text: Bytes,
    route: Weak<Route>,
    https: bool,
    of: Of,
    /// `None`: it has to be dressed each time.
    ready: Option<Arc<Ready>>,
}

thread_local! {
    static SLOTS_OF_WORKER: RefCell<Box<[Option<Slot>]>> =
        RefCell::new((0..SLOTS).map(|_| None).collect());
}

/// What is ready for this exchange of the head of an entry; `None` for one that has to be dressed each time.
pub fn stored(exchange: &mut Exchange, entry: &Entry) -> Option<Arc<Ready>> {
    ready(exchange, entry.packed(), Of::Stored, |exchange| {
        let fields = entry.fields();
        let kept = conditional::not_modified_fields(&fields);
        let status = StatusCode::NOT_MODIFIED;
        Some(Known {
            validators: entry.validators(),
            not_modified: written(
                exchange,
                ResponseHead::compose(status, b"Not Modified", kept),
            ),
        })
    })
}

/// The same of an encoded form of it, behind [`stored`] and what follows from it for `Vary`.
pub fn form(exchange: &mut Exchange, packed: &PackedHead) -> Option<Arc<Ready>> {
    let varies = exchange.varies;
    ready(exchange, packed, Of::Form { varies }, |_| None)
}

fn ready(
    exchange: &mut Exchange,
    packed: &PackedHead,
    of: Of,
    known: impl FnOnce(&Exchange) -> Option<Known>,
) -> Option<Arc<Ready>> {
    let route = exchange.route.clone()?;
    let text = packed.text();
    if text.len() > LONGEST {
        return None;
    }
    SLOTS_OF_WORKER.with_borrow_mut(|slots| {
        let slot = &mut slots[place(text, &route)];
        let is_it = |slot: &&Slot| {
            std::ptr::eq(slot.text.as_ptr(), text.as_ptr())
                && slot.text.len() == text.len()
                && std::ptr::eq(slot.route.as_ptr(), Arc::as_ptr(&route))
                && slot.https == exchange.https
                && slot.of == of
        };
        if let Some(slot) = slot.as_ref().filter(is_it) {
            return slot.ready.clone();
        }
        let ready = dressed(exchange, packed, of, known).map(Arc::new);
        *slot = Some(Slot {
            text: text.clone(),
            route: Arc::downgrade(&route),
            https: exchange.https,
            of,
            ready: ready.clone(),
        });
        ready
    })
}

fn place(text: &Bytes, route: &Arc<Route>) -> usize {
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    let both = text.as_ptr() as u64 ^ (Arc::as_ptr(route) as u64).rotate_left(32);
    (both.wrapping_mul(MIX) >> 48) as usize % SLOTS
}

fn dressed(
    exchange: &mut Exchange,
    packed: &PackedHead,
    of: Of,
    known: impl FnOnce(&Exchange) -> Option<Known>,
) -> Option<Ready> {
    let head = packed.unpack();
    let is_plain =
        matches!(head.framing(), Framing::Length(_)) && head.has(&DATE) && !entry::is_signed(&head);
    if !is_plain {
        return None;
    }
    let said = compressing::said(exchange, &head);
    let before = exchange.varies;
    exchange.varies = match of {
        Of::Form { varies } => varies,
        Of::Stored => {
            compressing::depends(exchange, &head);
            exchange.varies
        }
    };
    let ready = Ready {
        head: written(exchange, head),
        said,
        known: known(exchange),
    };
    // It is not said yet that this head is the one that is sent.
    exchange.varies = before;
    Some(ready)
}

fn written(exchange: &Exchange, mut head: ResponseHead) -> Head {
    entry::give(exchange, &mut head);
    let mut lines = BytesMut::with_capacity(head.longest());
    head.write(&mut lines);
    Head {
        status: head.status(),
        lines: lines.freeze(),
    }
}
