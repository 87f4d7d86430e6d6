//! A body that is still arriving: written once, read by many from its beginning.
//!
//! As long as it may be stored, all of it is kept. Once it may not, it is held back to the pace of
//! its slowest reader, and what everybody has read is let go.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

/// How far a body that is not kept may run ahead of its slowest reader, in bytes.
const AHEAD: usize = 256 << 10;

/// What has arrived, and how it ended.
pub struct Body {
    state: Mutex<State>,
    /// Something was written.
    grown: watch::Sender<()>,
    /// A reader has moved on, or left.
    read: Notify,
}

#[derive(Default)]
struct State {
    pieces: VecDeque<Bytes>,
    /// How many pieces before these were let go.
    gone: usize,
    /// Bytes of `pieces`.
    held: usize,
    /// Everything is kept, so that a reader may still begin.
    let_go: bool,
    end: Option<End>,
    /// The next piece of each reader; `None` is a free place.
    readers: Vec<Option<usize>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    Broken,
}

/// The body ended before it was whole: no reader gets the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// Nobody reads what nobody keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoReaders;

impl Body {
    /// An empty body and the one who writes it.
    pub fn begin() -> (Writer, Arc<Self>) {
        let body = Arc::new(Self {
            state: Mutex::default(),
            grown: watch::Sender::new(()),
            read: Notify::new(),
        });
        (Writer(body.clone()), body)
    }

    /// Reads from the beginning. `None` once that has been let go.
    pub fn reader(self: &Arc<Self>) -> Option<Reader> {
        let mut state = self.state.lock();
        if state.let_go {
            return None;
        }
        let free = state.readers.iter().position(Option::is_none);
        let place = free.unwrap_or_else(|| {
            state.readers.push(None);
            state.readers.len() - 1
        });
        state.readers[place] = Some(0);
        Some(Reader {
            grown: self.grown.subscribe(),
            body: self.clone(),
            place,
        })
    }
}

impl State {
    /// Lets go of what every reader has had.
    fn trim(&mut self) {
        let Some(slowest) = self.readers.iter().flatten().min().copied() else {
            return;
        };
        while self.let_go && self.gone < slowest {
            let piece = self.pieces.pop_front().expect("read pieces have arrived");
            self.held -= piece.len();
            self.gone += 1;
        }
    }
}

/// Writes a body. If it is dropped before the end, the body is broken.
pub struct Writer(Arc<Body>);

impl Writer {
    /// Appends a piece.
    pub fn push(&self, piece: Bytes) {
        let mut state = self.0.state.lock();
        state.held += piece.len();
        state.pieces.push_back(piece);
        drop(state);
        self.0.grown.send_replace(());
    }

    /// Bytes that have arrived and are still there.
    pub fn arrived(&self) -> u64 {
        self.0.state.lock().held as u64
    }

    /// From here on the body is only for those who read it already.
    pub fn let_go(&self) {
        let mut state = self.0.state.lock();
        state.let_go = true;
        state.trim();
    }

    /// Waits until the slowest reader of a body that is not kept is near.
    pub async fn wait_for_readers(&self) -> Result<(), NoReaders> {
        loop {
            {
                let state = self.0.state.lock();
                if state.readers.iter().all(Option::is_none) {
                    return Err(NoReaders);
                }
                if state.held <= AHEAD {
                    return Ok(());
                }
            }
            self.0.read.notified().await;
        }
    }

    /// What has arrived and what follows, in one piece that shares nothing with the buffers it came in.
    /// `None` if the beginning was let go.
    pub fn whole(&self, last: &[u8]) -> Option<Bytes> {
        let state = self.0.state.lock();
        if state.let_go {
            return None;
        }
        let mut whole = Vec::with_capacity(state.held + last.len());
        for piece in &state.pieces {
            whole.extend_from_slice(piece);
        }
        whole.extend_from_slice(last);
        Some(whole.into())
    }

    /// The body is whole.
    pub fn finish(self) {
        self.0.state.lock().end = Some(End::Whole);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.state.lock().end.get_or_insert(End::Broken);
        self.0.grown.send_replace(());
    }
}

/// One who reads a body while it arrives.
pub struct Reader {
    body: Arc<Body>,
    grown: watch::Receiver<()>,
    place: usize,
}

impl Reader {
    /// The next piece; `None` at the end of a whole body.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            // The sender lives in the body, which this reader holds.
            self.grown.changed().await.map_err(|_| Broken)?;
        }
    }

    /// What is there now; `None` if that is nothing yet.
    fn take(&mut self) -> Option<Result<Option<Bytes>, Broken>> {
        let mut state = self.body.state.lock();
        let next = state.readers[self.place].expect("a reader has its place");
        let Some(piece) = state.pieces.get(next - state.gone).cloned() else {
            return state.end.map(|end| match end {
                End::Whole => Ok(None),
                End::Broken => Err(Broken),
            });
        };
        state.readers[self.place] = Some(next + 1);
        if state.let_go {
            state.trim();
            self.body.read.notify_one();
        }
        Some(Ok(Some(piece)))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.body.state.lock();
        state.readers[self.place] = None;
        state.trim();
        drop(state);
        self.body.read.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn piece(bytes: usize) -> Bytes {
        vec![b'x'; bytes].into()
    }

    #[tokio::test]
    async fn readers_get_what_has_arrived_and_await_the_rest() {
        let (writer, body) = Body::begin();
        writer.push("one".into());
        let mut early = body.reader().unwrap();
        assert_eq!(early.next().await, Ok(Some("one".into())));
        assert_eq!(early.next().now_or_never(), None);
        writer.push("two".into());
        let mut late = body.reader().unwrap();
        assert_eq!(early.next().await, Ok(Some("two".into())));
        assert_eq!(writer.whole(b"!"), Some("onetwo!".into()));
        writer.finish();
        assert_eq!(early.next().await, Ok(None));
        for expected in [Some("one".into()), Some("two".into()), None] {
            assert_eq!(late.next().await, Ok(expected));
        }
    }

    #[tokio::test]
    async fn a_body_whose_writer_fails_is_broken_for_everybody() {
        let (writer, body) = Body::begin();
        writer.push("one".into());
        let mut reader = body.reader().unwrap();
        drop(writer);
        assert_eq!(reader.next().await, Ok(Some("one".into())));
        assert_eq!(reader.next().await, Err(Broken));
    }

    #[tokio::test]
    async fn what_is_not_kept_stays_near_its_slowest_reader() {
        let (writer, body) = Body::begin();
        let (mut slow, mut fast) = (body.reader().unwrap(), body.reader().unwrap());
        writer.push(piece(AHEAD));
        writer.let_go();
        assert!(body.reader().is_none(), "its beginning may be gone");
        writer.push(piece(1));
        fast.next().await.unwrap();
        fast.next().await.unwrap();
        assert_eq!(writer.wait_for_readers().now_or_never(), None);
        slow.next().await.unwrap();
        assert_eq!(writer.wait_for_readers().now_or_never(), Some(Ok(())));
        assert_eq!(body.state.lock().held, 1);
        assert_eq!(writer.whole(b""), None);
        writer.finish();
        assert_eq!(slow.next().await, Ok(Some(piece(1))));
        assert_eq!(slow.next().await, Ok(None));
    }

    #[tokio::test]
    async fn nobody_waits_for_a_reader_who_has_left() {
        let (writer, body) = Body::begin();
        let (slow, mut fast) = (body.reader().unwrap(), body.reader().unwrap());
        writer.push(piece(AHEAD));
        writer.push(piece(1));
        writer.let_go();
        fast.next().await.unwrap();
        assert_eq!(writer.wait_for_readers().now_or_never(), None);
        drop(slow);
        assert_eq!(writer.wait_for_readers().now_or_never(), Some(Ok(())));
        drop(fast);
        assert_eq!(
            writer.wait_for_readers().now_or_never(),
            Some(Err(NoReaders))
        );
    }
}
