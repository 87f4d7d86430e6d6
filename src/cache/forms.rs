//! The encoded forms of one stored response: each made once, when it is first wanted, and found again without a lock.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::OnceCell;

use crate::compression::{Coding, encoder, representation};
use crate::http1::ResponseHead;

/// A body up to that length is encoded where it is wanted, in bytes: one millisecond of work or two. What is longer is
/// encoded beside the connections.
const SMALL: usize = 16 << 10;

/// The forms of a body, whatever is said of it.
type Bodies = [OnceCell<Option<Bytes>>; Coding::COUNT];

/// What has been made of a response so far.
#[derive(Default)]
pub struct Forms {
    bodies: Arc<Bodies>,
    heads: [OnceLock<ResponseHead>; Coding::COUNT],
}

/// One form, ready to be sent.
pub struct Form<'a> {
    pub head: &'a ResponseHead,
    pub body: &'a Bytes,
}

impl Forms {
    /// The forms of the same body under another head.
    pub fn under_another_head(&self) -> Self {
        Self {
            bodies: self.bodies.clone(),
            heads: Default::default(),
        }
    }

    /// The bytes of this coding: `None` if it has not been made, `Some(None)` if it is not worth it.
    pub fn body(&self, coding: Coding) -> Option<Option<&Bytes>> {
        self.bodies[coding.place()].get().map(Option::as_ref)
    }

    /// The form with these bytes, of a response with this head.
    pub fn form<'a>(
        &'a self,
        coding: Coding,
        body: &'a Bytes,
        identity: &ResponseHead,
        fields: impl FnOnce() -> HeaderMap,
    ) -> Form<'a> {
        let head = self.heads[coding.place()].get_or_init(|| {
            let mut fields = fields();
            representation::encode(&mut fields, coding, Some(body.len()));
            ResponseHead::compose(identity.status(), identity.reason(), fields.iter())
        });
        Form { head, body }
    }

    /// Makes the bytes of this coding, unless they are made or being made; then waits for them. `true`: it was made here.
    pub async fn make(&self, coding: Coding, level: u16, body: &Bytes) -> bool {
        let mut is_new = false;
        let encoded = async {
            is_new = true;
            if body.len() <= SMALL {
                return encoder::whole(body, coding, level);
            }
            let body = body.clone();
            let encoded = tokio::task::spawn_blocking(move || encoder::whole(&body, coding, level));
            encoded.await.expect("encoders do not panic")
        };
        self.bodies[coding.place()].get_or_init(|| encoded).await;
        is_new
    }

    /// Bytes of memory that they take.
    pub fn weight(&self) -> usize {
        let bodies = self.bodies.iter().filter_map(|body| body.get()?.as_ref());
        let heads = self.heads.iter().filter_map(OnceLock::get);
        bodies.map(Bytes::len).sum::<usize>() + heads.map(ResponseHead::longest).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn many_who_want_a_form_at_once_get_the_one_that_is_made() {
        let forms = Forms::default();
        let body = Bytes::from(b"<p>all the same</p>".repeat(SMALL));
        let makers = (0..8).map(|_| forms.make(Coding::Gzip, 5, &body));
        let made = futures::future::join_all(makers).await;
        assert_eq!(made.iter().filter(|is_new| **is_new).count(), 1);
        let encoded = forms.body(Coding::Gzip).flatten().expect("it shrinks");
        assert_eq!(forms.body(Coding::Br), None);
        assert!(forms.weight() >= encoded.len());
        let same = forms.under_another_head();
        assert_eq!(same.body(Coding::Gzip).flatten(), Some(encoded));
    }

    #[tokio::test]
    async fn what_is_not_worth_it_is_not_tried_again() {
        let forms = Forms::default();
        let body = Bytes::from_static(b"short");
        assert!(forms.make(Coding::Zstd, 3, &body).await);
        assert!(!forms.make(Coding::Zstd, 3, &body).await);
        assert_eq!(forms.body(Coding::Zstd), Some(None));
        assert_eq!(forms.weight(), 0);
    }
}
