//! The encoded forms of one stored response: each made once, when it is first wanted, and found again without a lock.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::sync::{OnceCell, Semaphore};

use super::pages;
use super::room::NoRoom;
use crate::compression::{Coding, encoder};
use crate::http1::PackedHead;
use crate::weight;

/// A body up to that length is encoded where it is wanted, in bytes: a millisecond of work. What is longer is
/// encoded beside the connections.
const SMALL: usize = 16 << 10;

/// How many bodies are encoded beside the connections at once: br takes some 20 MiB for each.
static ENCODERS: Semaphore = Semaphore::const_new(4);

/// The forms of a body, whatever is said of it.
type Bodies = [OnceCell<Option<Bytes>>; Coding::COUNT];

/// What has been made of a response so far. Most have nothing, and pay for a pointer.
#[derive(Default)]
pub struct Forms(OnceLock<Box<Made>>);

#[derive(Default)]
struct Made {
    bodies: Arc<Bodies>,
    heads: [OnceLock<PackedHead>; Coding::COUNT],
}

/// One form, ready to be sent.
pub struct Form<'a> {
    pub head: &'a PackedHead,
    pub body: &'a Bytes,
}

impl Forms {
    /// The forms of the same body under another head.
    pub fn under_another_head(&self) -> Self {
        let Some(made) = self.0.get() else {
            return Self::default();
        };
        Self(OnceLock::from(Box::new(Made {
            bodies: made.bodies.clone(),
            heads: Default::default(),
        })))
    }

    /// The form of this coding: `None` if its body has not been made, `Some(None)` if that is not worth it. `head` makes
    /// what is said of it, once, of the length of the body.
    pub fn get(
        &self,
        coding: Coding,
        head: impl FnOnce(usize) -> PackedHead,
    ) -> Option<Option<Form<'_>>> {
        let made = self.0.get()?;
        let Some(body) = made.bodies[coding.place()].get()? else {
            return Some(None);
        };
        let head = made.heads[coding.place()].get_or_init(|| head(body.len()));
        Some(Some(Form { head, body }))
    }

    /// Makes the bytes of this coding, unless they are made or being made; then waits for them. `room` is asked first, and
    /// `keep` puts them where they are to be kept. What `room` gave if they were made here, and as many bytes as the body.
    pub async fn make<P>(
        &self,
        coding: Coding,
        level: u16,
        body: &Bytes,
        room: impl FnOnce() -> Result<P, NoRoom>,
        keep: impl FnOnce(Bytes) -> Bytes,
    ) -> Result<Option<P>, NoRoom> {
        let encoded = async {
            if body.len() <= SMALL {
                return encoder::whole(body, coding, level);
            }
            let permit = ENCODERS.acquire().await;
            let body = body.clone();
            let encoded = tokio::task::spawn_blocking(move || encoder::whole(&body, coding, level));
            let encoded = encoded.await.expect("encoders do not panic");
            drop(permit);
            encoded
        };
        let made = self.0.get_or_init(Box::default);
        let mut place = None;
        let kept = async {
            place = Some(room()?);
            Ok::<_, NoRoom>(encoded.await.map(keep))
        };
        made.bodies[coding.place()].get_or_try_init(|| kept).await?;
        Ok(place)
    }

    /// Bytes of memory that they take.
    pub fn weight(&self) -> usize {
        let Some(made) = self.0.get() else {
            return 0;
        };
        let bodies = made.bodies.iter().filter_map(|body| body.get()?.as_ref());
        let heads = made.heads.iter().filter_map(OnceLock::get);
        weight::of_piece(size_of::<Made>())
            + weight::of_shared::<Bodies>()
            + bodies.map(|body| pages::weight(body.len())).sum::<usize>()
            + heads.map(PackedHead::weight).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::cache::entry::compose;

    fn get(forms: &Forms, coding: Coding) -> Option<Option<Form<'_>>> {
        let head = |_| compose(StatusCode::OK, b"Fine", &HeaderMap::new());
        forms.get(coding, head)
    }

    /// Whether it was made here.
    async fn make(forms: &Forms, coding: Coding, body: &Bytes) -> bool {
        let made = forms.make(coding, 5, body, || Ok(()), |form| form);
        made.await.expect("there is room").is_some()
    }

    #[tokio::test]
    async fn many_who_want_a_form_at_once_get_the_one_that_is_made() {
        let forms = Forms::default();
        assert_eq!(forms.weight(), 0);
        let body = Bytes::from(b"<p>all the same</p>".repeat(SMALL));
        let makers = (0..8).map(|_| make(&forms, Coding::Gzip, &body));
        let made = futures::future::join_all(makers).await;
        assert_eq!(made.iter().filter(|is_new| **is_new).count(), 1);
        let form = get(&forms, Coding::Gzip).flatten().expect("it shrinks");
        assert_eq!(form.head.reason(), b"Fine");
        assert!(get(&forms, Coding::Br).is_none());
        assert!(forms.weight() > form.body.len());
        let after_304 = forms.under_another_head();
        let same = get(&after_304, Coding::Gzip).flatten().expect("it is kept");
        assert_eq!(same.body.as_ptr(), form.body.as_ptr());
    }

    #[tokio::test]
    async fn what_is_not_worth_it_is_not_tried_again() {
        let forms = Forms::default();
        let body = Bytes::from_static(b"short");
        assert!(make(&forms, Coding::Zstd, &body).await);
        assert!(!make(&forms, Coding::Zstd, &body).await);
        assert!(matches!(get(&forms, Coding::Zstd), Some(None)));
    }

    #[tokio::test]
    async fn what_there_was_no_room_for_is_made_later() {
        let forms = Forms::default();
        let body = Bytes::from(b"<p>all the same</p>".repeat(100));
        let refused = || Err::<(), _>(NoRoom);
        let made = forms.make(Coding::Gzip, 5, &body, refused, |form| form);
        assert_eq!(made.await, Err(NoRoom));
        assert!(get(&forms, Coding::Gzip).is_none());
        assert!(make(&forms, Coding::Gzip, &body).await);
        assert!(get(&forms, Coding::Gzip).flatten().is_some());
    }
}
