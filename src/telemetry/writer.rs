//! The one thread that writes lines, and the bounded buffer before it. A line is appended under a
//! short lock and written later; whoever has a line never waits for a disk or a pipe.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex};
use tracing_subscriber::fmt::MakeWriter;

use super::{Format, LogError, LogSettings, Output, line};

/// How long lines may wait for company, so that a busy gateway writes many with one call.
const GATHER: Duration = Duration::from_millis(20);
/// Bytes that count as one line of capacity: 8192 lines bound the buffer to 16 MiB.
const BYTES_PER_LINE: usize = 2048;
/// How long the end of the process waits for an output that does not take its lines.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// A buffer that a burst has blown up beyond this is not kept.
const KEPT_BUFFER: usize = 1024 * 1024;

/// The producers' end; clones share it.
#[derive(Clone)]
pub(super) struct Writer(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    /// Something for the thread to do.
    work: Condvar,
    /// The thread has ended.
    ended: Condvar,
    dropped: AtomicU64,
    json: AtomicBool,
}

struct Queue {
    text: Vec<u8>,
    lines: usize,
    capacity: usize,
    /// Lines refused since the last report.
    lost: u64,
    /// The thread sleeps until the first line of a batch.
    idle: bool,
    redirect: Option<Redirect>,
    reopen: bool,
    stop: bool,
    ended: bool,
}

/// Another output, and where in the queue the lines for it begin.
struct Redirect {
    to: Destination,
    bytes_before: usize,
    lines_before: usize,
}

/// An open output and how it was named.
struct Destination {
    sink: Sink,
    output: Output,
}

enum Sink {
    Stderr,
    Stdout,
    File(File),
    /// Takes what a test wants it to take.
    #[cfg(test)]
    Other(Box<dyn Write + Send>),
}

/// What the thread has taken from the queue.
struct Batch {
    text: Vec<u8>,
    lines: u64,
    lost: u64,
    then: Then,
}

/// What the thread does after it has written a batch.
enum Then {
    Continue,
    Redirect(Destination),
    Reopen,
    Stop,
}

impl Writer {
    /// Opens the output and starts the thread.
    pub fn start(settings: &LogSettings) -> Result<Self, LogError> {
        Self::over(Destination::open(&settings.output)?, settings)
    }

    fn over(destination: Destination, settings: &LogSettings) -> Result<Self, LogError> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                text: Vec::new(),
                lines: 0,
                capacity: settings.buffer,
                lost: 0,
                idle: false,
                redirect: None,
                reopen: false,
                stop: false,
                ended: false,
            }),
            work: Condvar::new(),
            ended: Condvar::new(),
            dropped: AtomicU64::new(0),
            json: AtomicBool::new(settings.format == Format::Json),
        });
        let thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || thread.run(destination))
            .map_err(LogError::Thread)?;
        Ok(Self(shared))
    }

    /// How lines are to be written.
    pub fn format(&self) -> Format {
        self.0.format()
    }

    /// Appends one line with its end, or counts it as dropped.
    pub fn write_line(&self, line: &[u8]) {
        let mut queue = self.0.queue.lock();
        if queue.lines >= queue.capacity || queue.text.len() >= queue.capacity * BYTES_PER_LINE {
            queue.lost += 1;
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.text.extend_from_slice(line);
        queue.lines += 1;
        if std::mem::take(&mut queue.idle) || queue.lines == queue.capacity / 2 {
            self.0.work.notify_one();
        }
    }

    /// Goes on with other settings; what waits is written to the old output, and not a line more.
    pub fn redirect(&self, settings: &LogSettings) -> Result<(), LogError> {
        let destination = Destination::open(&settings.output)?;
        let is_json = settings.format == Format::Json;
        let mut queue = self.0.queue.lock();
        self.0.json.store(is_json, Ordering::Relaxed);
        queue.redirect = Some(Redirect {
            to: destination,
            bytes_before: queue.text.len(),
            lines_before: queue.lines,
        });
        queue.capacity = settings.buffer;
        self.0.work.notify_one();
        Ok(())
    }

    /// Opens a file anew once what waits is written.
    pub fn reopen(&self) {
        self.0.queue.lock().reopen = true;
        self.0.work.notify_one();
    }

    /// Lines lost since the start.
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
    fn format(&self) -> Format {
        match self.json.load(Ordering::Relaxed) {
            true => Format::Json,
            false => Format::Text,
        }
    }

    fn run(&self, mut to: Destination) {
        let mut spare = Vec::new();
        loop {
            let mut batch = self.next(spare);
            if batch.lost > 0 {
                let message = format!("{} log lines were dropped", batch.lost);
                line::warning(&mut batch.text, self.format(), SystemTime::now(), &message);
            }
            if to.sink.write(&batch.text).is_err() {
                // The next batch that gets through says how many are missing.
                self.dropped.fetch_add(batch.lines, Ordering::Relaxed);
                self.queue.lock().lost += batch.lost + batch.lines;
            }
            match batch.then {
                Then::Continue => {}
                Then::Redirect(other) => to = other,
                Then::Reopen => self.reopen(&mut to),
                Then::Stop => break,
            }
            spare = batch.text;
            spare.clear();
            if spare.capacity() > KEPT_BUFFER {
                spare = Vec::new();
            }
        }
        self.queue.lock().ended = true;
        self.ended.notify_all();
    }

    /// Sleeps until there are lines, and a little longer for more of them, and takes them all.
    fn next(&self, spare: Vec<u8>) -> Batch {
        let mut queue = self.queue.lock();
        while queue.lines == 0 && !queue.is_urgent() {
            queue.idle = true;
            self.work.wait(&mut queue);
        }
        queue.idle = false;
        if !queue.is_urgent() && queue.lines < queue.capacity / 2 {
            self.work.wait_for(&mut queue, GATHER);
        }
        let queue = &mut *queue;
        let (bytes, lines) = match &queue.redirect {
            Some(redirect) => (redirect.bytes_before, redirect.lines_before),
            None => (queue.text.len(), queue.lines),
        };
        let mut text = std::mem::replace(&mut queue.text, spare);
        queue.text.extend_from_slice(&text[bytes..]);
        queue.lines -= lines;
        text.truncate(bytes);
        Batch {
            text,
            lines: lines as u64,
            lost: std::mem::take(&mut queue.lost),
            then: queue.then(),
        }
    }

    fn reopen(&self, to: &mut Destination) {
        match Destination::open(&to.output) {
            Ok(anew) => *to = anew,
            Err(error) => {
                let mut text = Vec::new();
                let message = format!("{error}; still writing to the old one");
                line::warning(&mut text, self.format(), SystemTime::now(), &message);
                // If the old file fails too, nobody is left to tell.
                let _ = to.sink.write(&text);
            }
        }
    }
}

impl Queue {
    fn is_urgent(&self) -> bool {
        self.stop || self.reopen || self.redirect.is_some()
    }

    fn then(&mut self) -> Then {
        if let Some(redirect) = self.redirect.take() {
            self.reopen = false;
            Then::Redirect(redirect.to)
        } else if std::mem::take(&mut self.reopen) {
            Then::Reopen
        } else if self.stop {
            Then::Stop
        } else {
            Then::Continue
        }
    }
}

impl Destination {
    fn open(output: &Output) -> Result<Self, LogError> {
        let sink = match output {
            Output::Stderr => Sink::Stderr,
            Output::Stdout => Sink::Stdout,
            Output::File(path) => Sink::File(open_file(path)?),
        };
        Ok(Self {
            sink,
            output: output.clone(),
        })
    }
}

impl Sink {
    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        match self {
            Self::Stderr => io::stderr().lock().write_all(text),
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(text)?;
                stdout.flush()
            }
            Self::File(file) => file.write_all(text),
            #[cfg(test)]
            Self::Other(other) => other.write_all(text),
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
        self.write_line(line);
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// An output that announces each write, waits for leave, and fails if it is refused.
    struct Gate {
        arrived: Sender<String>,
        leave: Receiver<bool>,
    }

    impl Write for Gate {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            let _ = self
                .arrived
                .send(String::from_utf8_lossy(text).into_owned());
            match self.leave.recv() {
                Ok(true) => Ok(text.len()),
                _ => Err(io::ErrorKind::StorageFull.into()),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn settings(output: Output, buffer: usize) -> LogSettings {
        LogSettings {
            output,
            buffer,
            format: Format::Text,
            ..LogSettings::default()
        }
    }

    fn gated(buffer: usize) -> (Writer, Receiver<String>, Sender<bool>) {
        let (arrived, arrivals) = channel();
        let (leave, leaves) = channel();
        let sink = Sink::Other(Box::new(Gate {
            arrived,
            leave: leaves,
        }));
        let destination = Destination {
            sink,
            output: Output::Stderr,
        };
        let writer = Writer::over(destination, &settings(Output::Stderr, buffer)).unwrap();
        (writer, arrivals, leave)
    }

    fn write(writer: &Writer, text: &str) {
        writer.write_line(text.as_bytes());
    }

    #[test]
    fn a_line_after_a_redirect_is_never_in_the_old_output() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str, round: u32| dir.path().join(format!("{name}{round}"));
        for round in 0..50 {
            let file = |name| settings(Output::File(path(name, round)), 64);
            let writer = Writer::start(&file("old")).unwrap();
            writer.write_line(b"before\n");
            writer.redirect(&file("new")).unwrap();
            writer.write_line(b"after\n");
            writer.stop();
            let text = |name| std::fs::read_to_string(path(name, round)).unwrap();
            assert_eq!([text("old"), text("new")], ["before\n", "after\n"]);
        }
    }

    #[test]
    fn a_stuck_output_costs_lines_and_no_waiting_and_is_reported_once() {
        let (writer, arrivals, leave) = gated(2);
        write(&writer, "one\n");
        assert_eq!(arrivals.recv().unwrap(), "one\n");
        for line in ["two\n", "three\n", "four\n", "five\n"] {
            write(&writer, line);
        }
        assert_eq!(writer.dropped(), 2);
        leave.send(true).unwrap();
        let batch = arrivals.recv().unwrap();
        assert!(batch.starts_with("two\nthree\n"), "{batch}");
        assert!(
            batch.ends_with(" WARN tollgate::telemetry: 2 log lines were dropped\n"),
            "{batch}"
        );
        leave.send(true).unwrap();
        write(&writer, "six\n");
        assert_eq!(arrivals.recv().unwrap(), "six\n");
        leave.send(true).unwrap();
        drop(leave);
        writer.stop();
    }

    #[test]
    fn lines_that_a_full_disk_swallowed_are_counted_and_reported() {
        let (writer, arrivals, leave) = gated(8);
        write(&writer, "one\n");
        assert_eq!(arrivals.recv().unwrap(), "one\n");
        leave.send(false).unwrap();
        write(&writer, "two\n");
        let mut batch = arrivals.recv().unwrap();
        if !batch.contains("dropped") {
            // The second line was taken before the first had failed.
            leave.send(true).unwrap();
            write(&writer, "three\n");
            batch = arrivals.recv().unwrap();
        }
        assert!(batch.ends_with("1 log lines were dropped\n"), "{batch}");
        assert_eq!(writer.dropped(), 1);
        leave.send(true).unwrap();
        drop(leave);
        writer.stop();
    }

    #[test]
    fn a_long_line_counts_for_what_it_weighs() {
        let (writer, arrivals, leave) = gated(4);
        write(&writer, "one\n");
        arrivals.recv().unwrap();
        write(&writer, &"x".repeat(4 * BYTES_PER_LINE));
        write(&writer, "three\n");
        assert_eq!(writer.dropped(), 1);
        drop(leave);
        writer.stop();
    }

    #[test]
    fn every_line_is_written_whole_or_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.log");
        let writer = Writer::start(&settings(Output::File(path.clone()), 64)).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let writer = &writer;
                scope.spawn(move || {
                    (0..2000).for_each(|nth| write(writer, &format!("line {thread} {nth} end\n")));
                });
            }
        });
        writer.stop();
        let text = std::fs::read_to_string(path).unwrap();
        let (lines, reports): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.starts_with("line "));
        assert!(lines.iter().all(|line| line.ends_with(" end")));
        assert_eq!(lines.len() as u64 + writer.dropped(), 8000);
        let reported = reports.iter().map(|report| {
            let count = report.split(' ').rev().nth(4).unwrap();
            count.parse::<u64>().unwrap()
        });
        assert_eq!(reported.sum::<u64>(), writer.dropped(), "{reports:?}");
    }

    #[test]
    fn a_moved_file_is_left_and_a_new_one_begun() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.log");
        let moved = directory.path().join("gateway.log.1");
        let writer = Writer::start(&settings(Output::File(path.clone()), 64)).unwrap();
        write(&writer, "old\n");
        std::fs::rename(&path, &moved).unwrap();
        write(&writer, "late\n");
        writer.reopen();
        writer.stop();
        assert_eq!(std::fs::read_to_string(moved).unwrap(), "old\nlate\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "");
    }

    #[test]
    fn a_file_that_cannot_be_opened_again_is_kept_and_warned_of() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("logs");
        std::fs::create_dir(&inner).unwrap();
        let path = inner.join("gateway.log");
        let writer = Writer::start(&settings(Output::File(path.clone()), 64)).unwrap();
        let kept = directory.path().join("kept.log");
        std::fs::rename(&path, &kept).unwrap();
        std::fs::remove_dir(&inner).unwrap();
        writer.reopen();
        write(&writer, "still\n");
        writer.stop();
        let text = std::fs::read_to_string(kept).unwrap();
        assert!(text.contains("cannot open log file"), "{text}");
        assert!(text.contains("still\n"), "{text}");
    }

    #[test]
    fn an_output_that_never_answers_does_not_hold_the_end_of_the_process() {
        let (writer, arrivals, leave) = gated(4);
        write(&writer, "one\n");
        arrivals.recv().unwrap();
        let begun = Instant::now();
        writer.stop();
        assert!(begun.elapsed() < 5 * LAST_WORDS);
        drop(leave);
    }
}
