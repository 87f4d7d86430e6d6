//! The one thread that writes lines, and the bounded buffer before it. A line is appended under a
//! short lock and written later; whoever writes never waits for a disk or a pipe.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tracing_subscriber::fmt::MakeWriter;

use super::{LogError, Output};

/// How long lines may wait for company, so that a busy gateway writes many with one call.
const GATHER: Duration = Duration::from_millis(20);
/// Bytes per line of capacity: 8192 lines bound the buffer to 16 MiB.
const BYTES_PER_LINE: usize = 2048;
/// How long the end of the process waits for an output that does not take its lines.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The producers' end; clones share it.
#[derive(Clone)]
pub struct Writer(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    /// Something for the thread to do.
    work: Condvar,
    /// The thread has ended.
    ended: Condvar,
    dropped: AtomicU64,
}

struct Queue {
    text: Vec<u8>,
    lines: usize,
    capacity: usize,
    /// Lines refused since the last report.
    lost: u64,
    /// The thread waits for the first line of a batch.
    idle: bool,
    output: Option<(Sink, Output)>,
    reopen: bool,
    stop: bool,
    ended: bool,
}

enum Sink {
    Stderr,
    Stdout,
    File(File),
}

impl Writer {
    /// Opens `output` and starts the thread. `capacity` is in lines.
    pub fn start(output: &Output, capacity: usize) -> Result<Self, LogError> {
        let sink = Sink::open(output)?;
        let writer = Self(Arc::new(Shared {
            queue: Mutex::new(Queue {
                text: Vec::new(),
                lines: 0,
                capacity,
                lost: 0,
                idle: false,
                output: None,
                reopen: false,
                stop: false,
                ended: false,
            }),
            work: Condvar::new(),
            ended: Condvar::new(),
            dropped: AtomicU64::new(0),
        }));
        let shared = Arc::clone(&writer.0);
        let output = output.clone();
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || shared.run(sink, output))
            .map_err(LogError::Thread)?;
        Ok(writer)
    }

    /// Appends what `line` writes (one line with its end), or counts it as dropped.
    pub fn write_with(&self, line: impl FnOnce(&mut Vec<u8>)) {
        let mut queue = self.0.queue.lock();
        if queue.lines >= queue.capacity || queue.text.len() >= queue.capacity * BYTES_PER_LINE {
            queue.lost += 1;
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        line(&mut queue.text);
        queue.lines += 1;
        // Half full is no time to wait for company.
        if queue.idle || queue.lines == queue.capacity / 2 {
            self.0.work.notify_one();
        }
    }

    /// Goes on with another output and capacity; what waits is written to the old one.
    pub fn redirect(&self, output: &Output, capacity: usize) -> Result<(), LogError> {
        let sink = Sink::open(output)?;
        let mut queue = self.0.queue.lock();
        queue.output = Some((sink, output.clone()));
        queue.capacity = capacity;
        self.0.work.notify_one();
        Ok(())
    }

    pub fn reopen(&self) {
        self.0.queue.lock().reopen = true;
        self.0.work.notify_one();
    }

    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Writes what waits and ends the thread; gives up after a second.
    pub fn stop(&self) {
        let mut queue = self.0.queue.lock();
        queue.stop = true;
        self.0.work.notify_one();
        let deadline = Instant::now() + LAST_WORDS;
        while !queue.ended && !self.0.ended.wait_until(&mut queue, deadline).timed_out() {}
    }
}

impl Shared {
    fn run(&self, mut sink: Sink, mut output: Output) {
        let mut batch = Vec::new();
        loop {
            let (lines, lost, turn) = self.next(&mut batch);
            if sink.write(&batch).is_err() {
                // The lines are gone; the next batch that gets through says how many.
                self.dropped.fetch_add(lines as u64, Ordering::Relaxed);
                self.queue.lock().lost += lost + lines as u64;
            } else if lost > 0 {
                report(&format!("{lost} log lines were dropped"));
            }
            batch.clear();
            match turn {
                Turn::Go => {}
                Turn::Redirect(next, to) => (sink, output) = (next, to),
                Turn::Reopen => match Sink::open(&output) {
                    Ok(next) => sink = next,
                    Err(error) => report(&format!("{error}; still writing to the old file")),
                },
                Turn::Stop => break,
            }
        }
        self.queue.lock().ended = true;
        self.ended.notify_all();
    }

    /// Waits for lines, swaps them into `batch`, and says what to do after writing them.
    fn next(&self, batch: &mut Vec<u8>) -> (usize, u64, Turn) {
        let mut queue = self.queue.lock();
        queue.idle = true;
        while queue.lines == 0 && !queue.is_urgent() {
            self.work.wait(&mut queue);
        }
        queue.idle = false;
        if !queue.is_urgent() && queue.lines < queue.capacity / 2 {
            self.work.wait_for(&mut queue, GATHER);
        }
        std::mem::swap(&mut queue.text, batch);
        let lines = std::mem::take(&mut queue.lines);
        let lost = std::mem::take(&mut queue.lost);
        let turn = if let Some((sink, output)) = queue.output.take() {
            Turn::Redirect(sink, output)
        } else if std::mem::take(&mut queue.reopen) {
            Turn::Reopen
        } else if queue.stop {
            Turn::Stop
        } else {
            Turn::Go
        };
        (lines, lost, turn)
    }
}

impl Queue {
    fn is_urgent(&self) -> bool {
        self.stop || self.reopen || self.output.is_some()
    }
}

enum Turn {
    Go,
    Redirect(Sink, Output),
    Reopen,
    Stop,
}

/// A line about the log itself takes the same way as every other.
fn report(message: &str) {
    tracing::warn!("{message}");
}

impl Sink {
    fn open(output: &Output) -> Result<Self, LogError> {
        match output {
            Output::Stderr => Ok(Self::Stderr),
            Output::Stdout => Ok(Self::Stdout),
            Output::File(path) => open_file(path).map(Self::File),
        }
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        match self {
            Self::Stderr => io::stderr().lock().write_all(text),
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(text)?;
                stdout.flush()
            }
            Self::File(file) => file.write_all(text),
        }
    }
}

fn open_file(path: &Path) -> Result<File, LogError> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|source| LogError::Open {
        path: path.to_owned(),
        source,
    })
}

/// What `tracing` hands over is one whole line.
impl Write for &Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.write_with(|text| text.extend_from_slice(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = &'a Writer;

    fn make_writer(&'a self) -> &'a Writer {
        self
    }
}
