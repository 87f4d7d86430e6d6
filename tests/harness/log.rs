//! What a program has said so far, line by line, for anyone who waits for a certain line.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

#[derive(Clone, Default)]
pub struct Log(Arc<Shared>);

#[derive(Default)]
struct Shared {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

impl Log {
    /// Copies lines from `source` until it ends, in a thread of its own.
    pub fn follow(&self, source: impl Read + Send + 'static) {
        let log = self.clone();
        std::thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while source
                .read_until(b'\n', &mut line)
                .is_ok_and(|length| length > 0)
            {
                log.push(String::from_utf8_lossy(&line).trim_end().to_owned());
                line.clear();
            }
        });
    }

    pub fn lines(&self) -> Vec<String> {
        self.locked().clone()
    }

    /// The lines so far, which are forgotten: for a test of so many that it looks at some at a time.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.locked())
    }

    /// How many lines there are: the place from which [`Log::wait_after`] looks for new ones.
    pub fn position(&self) -> usize {
        self.locked().len()
    }

    /// The lines from `position` on.
    pub fn lines_after(&self, position: usize) -> Vec<String> {
        self.locked()[position..].to_vec()
    }

    /// The first line at or after `position` that `wanted` accepts, or `None` when time is over.
    pub fn wait_after(
        &self,
        position: usize,
        wanted: impl Fn(&str) -> bool,
        patience: Duration,
    ) -> Option<String> {
        let deadline = Instant::now() + patience;
        let mut seen = position;
        let mut lines = self.locked();
        loop {
            if let Some(line) = lines.iter().skip(seen).find(|line| wanted(line)) {
                return Some(line.clone());
            }
            seen = seen.max(lines.len());
            let left = deadline.checked_duration_since(Instant::now())?;
            lines = self
                .0
                .more
                .wait_timeout(lines, left)
                .expect("no writer panics")
                .0;
        }
    }

    fn push(&self, line: String) {
        self.locked().push(line);
        self.0.more.notify_all();
    }

    fn locked(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lines.lock().expect("no writer panics")
    }
}
