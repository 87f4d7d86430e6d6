//! Memory for large bodies, in pages of the machine: what is let go is the machine's again at once.
//!
//! An allocator serves each size from chunks of its own, for each thread; while entries come and go in changing
//! sizes, a quarter of those chunks is empty and belongs to nobody else. Here nothing is lost but the end of the last
//! page, so that the configured size is what the process takes.

use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::room::NoRoom;
use super::runs::{Run, Runs};
use crate::weight;

/// Bytes of a page: the kernel's, or a part of it.
const PAGE: usize = 4 << 10;
/// The shortest body that has pages of its own. Of a shorter one too much would be the end of the last.
const SHORTEST: usize = 8 << 10;
/// Addresses, over the bytes in use at most: runs of all lengths leave gaps between them, which cost nothing.
const ADDRESSES: u32 = 2;

/// A region of addresses.
pub struct Pages {
    start: NonNull<u8>,
    bytes: usize,
    usage: Mutex<Usage>,
}

struct Usage {
    free: Runs,
    /// How many more pages may be taken.
    left: u32,
}

// SAFETY: a run belongs to one owner from `take` to `give`, which are behind a lock; it is written before anybody
// else has it, and only read after.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

/// The bytes of a body, and the pages that they are in.
struct Body {
    pages: Arc<Pages>,
    run: Run,
    length: usize,
}

impl Pages {
    /// Addresses for bodies of at most `capacity` bytes together. An error is a machine that grants none.
    pub fn reserve(capacity: u64) -> io::Result<Self> {
        let most = (capacity / PAGE as u64).min(u64::from(u32::MAX / ADDRESSES));
        let most = u32::try_from(most).expect("no more than that");
        let pages = (most * ADDRESSES).max(1);
        let bytes = pages as usize * PAGE;
        // SAFETY: asks for new addresses, and touches none that are in use.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("no mapping is at address 0");
        let region = Self {
            start,
            bytes,
            usage: Mutex::new(Usage {
                free: Runs::all(pages),
                left: most,
            }),
        };
        // Otherwise a body of three pages may take 512. A kernel without huge pages refuses, and has none.
        region.advise(0..bytes, libc::MADV_NOHUGEPAGE);
        Ok(region)
    }

    /// A copy of a body in pages of its own; `None` for one that is short, or has them already. There is no
    /// room where as many bytes as there may be are in use: by what is kept, and by what is let go and still read.
    pub fn keep(self: &Arc<Self>, body: &Bytes) -> Result<Option<Bytes>, NoRoom> {
        if body.len() < SHORTEST || self.has(body) {
            return Ok(None);
        }
        let pages = u32::try_from(body.len().div_ceil(PAGE)).map_err(|_| NoRoom)?;
        let run = self.usage.lock().take(pages).ok_or(NoRoom)?;
        // SAFETY: the run is ours alone, lies in the region, and has room for the body, which lies elsewhere.
        unsafe {
            let to = self.start.as_ptr().add(run.start as usize * PAGE);
            std::ptr::copy_nonoverlapping(body.as_ptr(), to, body.len());
        }
        Ok(Some(Bytes::from_owner(Body {
            pages: self.clone(),
            run,
            length: body.len(),
        })))
    }

    fn has(&self, body: &Bytes) -> bool {
        let start = self.start.as_ptr() as usize;
        (start..start + self.bytes).contains(&(body.as_ptr() as usize))
    }

    /// `range` is in bytes of the region.
    fn advise(&self, range: Range<usize>, advice: i32) {
        // SAFETY: the range lies in the region, and nobody has what is in it.
        let code = unsafe {
            let at = self.start.as_ptr().add(range.start);
            libc::madvise(at.cast(), range.len(), advice)
        };
        // Nothing but the size of the process depends on it.
        debug_assert!(code == 0 || advice == libc::MADV_NOHUGEPAGE);
    }
}

impl Usage {
    fn take(&mut self, pages: u32) -> Option<Run> {
        let left = self.left.checked_sub(pages)?;
        let run = self.free.take(pages)?;
        self.left = left;
        Some(run)
    }

    fn give(&mut self, run: Run) {
        self.left += run.pages;
        self.free.give(run);
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: each body holds the region, so none is left.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        let at = self.run.start as usize * PAGE;
        // SAFETY: the bytes lie in our run, were written when it was taken, and are not written again while we have it.
        unsafe { std::slice::from_raw_parts(self.pages.start.as_ptr().add(at), self.length) }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let at = self.run.start as usize * PAGE;
        let bytes = self.run.pages as usize * PAGE;
        self.pages.advise(at..at + bytes, libc::MADV_DONTNEED);
        self.pages.usage.lock().give(self.run);
    }
}

/// Bytes of memory that a body takes where it is kept.
pub fn weight(bytes: usize) -> usize {
    const OWNER: usize = size_of::<Body>() + 2 * size_of::<usize>();
    match bytes {
        0..SHORTEST => weight::of_bytes(bytes),
        _ => bytes.next_multiple_of(PAGE) + weight::of_piece(OWNER),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(bytes: usize, first: u8) -> Bytes {
        let pattern = (0..bytes).map(|at| first.wrapping_add((at / 7) as u8));
        pattern.collect::<Vec<_>>().into()
    }

    fn pages(capacity: u64) -> Arc<Pages> {
        Arc::new(Pages::reserve(capacity).unwrap())
    }

    fn kept(pages: &Arc<Pages>, body: &Bytes) -> Bytes {
        let kept = pages.keep(body);
        kept.expect("there is room").expect("it is long enough")
    }

    #[test]
    fn a_body_is_the_same_in_pages_and_short_ones_stay_where_they_are() {
        let pages = pages(1 << 20);
        assert_eq!(pages.keep(&body(SHORTEST - 1, 0)), Ok(None));
        let kept: Vec<_> = (0..20)
            .map(|number| {
                let body = body(SHORTEST + usize::from(number) * 1000, number);
                (kept(&pages, &body), body)
            })
            .collect();
        for (kept, body) in &kept {
            assert_eq!(kept, body);
            assert_eq!(pages.keep(&kept.slice(10..)), Ok(None), "it has its place");
        }
    }

    #[test]
    fn what_is_let_go_is_room_for_others_and_what_is_still_read_is_not() {
        let pages = pages(3 * SHORTEST as u64);
        let first = kept(&pages, &body(SHORTEST, 1));
        let read = first.slice(..100);
        let second = kept(&pages, &body(2 * SHORTEST, 2));
        let is_refused = || pages.keep(&body(SHORTEST, 3)) == Err(NoRoom);
        assert!(is_refused());
        drop(first);
        assert!(is_refused(), "a client reads it");
        assert_eq!(read, body(100, 1));
        drop((read, second));
        let all = kept(&pages, &body(3 * SHORTEST, 4));
        assert_eq!(all, body(3 * SHORTEST, 4));
    }

    #[test]
    fn bodies_outlive_the_memory_that_they_were_kept_by() {
        let pages = pages(1 << 20);
        let kept = kept(&pages, &body(SHORTEST, 5));
        drop(pages);
        assert_eq!(kept, body(SHORTEST, 5));
    }

    #[test]
    fn threads_that_keep_and_let_go_find_their_own_bytes() {
        let pages = pages(1 << 20);
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                let pages = pages.clone();
                scope.spawn(move || {
                    let mut held = std::collections::VecDeque::new();
                    for round in 0..500usize {
                        let body = body(SHORTEST + round * 37 % 20_000, thread ^ round as u8);
                        held.push_back((kept(&pages, &body), body));
                        if held.len() > 5 {
                            let (kept, body) = held.pop_front().unwrap();
                            assert_eq!(kept, body);
                        }
                    }
                });
            }
        });
    }
}
