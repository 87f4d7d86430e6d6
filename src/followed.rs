//! A file that an operator keeps, followed while it changes. Knows lines and versions; what the file says is not its
//! business.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use thiserror::Error;

use crate::stamp::FileStamp;

/// How often [`Followed::watch`] looks at the file. Looking sees every way of replacing it, which watching an inode
/// does not.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Wrong lines that are told one by one.
const MOST_TOLD: usize = 20;

/// What a file is to be, and how it is read.
pub struct Form<T> {
    /// What it is called towards operators.
    pub noun: &'static str,
    /// The longest file that is read, in bytes.
    pub longest: u64,
    pub parse: Parse<T>,
}

type Parse<T> = Box<dyn Fn(&[u8]) -> Result<T, Wrong> + Send + Sync>;

/// What a file says. Its readers go on while it is read anew.
pub struct Followed<T> {
    path: PathBuf,
    form: Form<T>,
    now: ArcSwap<T>,
    /// The version that was last read or refused. Its lock also makes refreshes follow one another.
    seen: Mutex<Option<FileStamp>>,
}

/// What can be said of a file that was taken in.
pub trait Content: Send + Sync + 'static {
    fn entries(&self) -> usize;
}

/// Why a file is not what it should be.
#[derive(Debug, Error)]
pub enum FileError {
    #[error("cannot read the {noun} {path}", path = path.display())]
    Read {
        noun: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("the {noun} {path} has more than {longest} bytes", path = path.display())]
    TooLong {
        noun: &'static str,
        path: PathBuf,
        longest: u64,
    },
    #[error("the {noun} {path} has {count} wrong lines, the first of them line {first}", path = path.display())]
    Lines {
        noun: &'static str,
        path: PathBuf,
        count: usize,
        first: usize,
        /// The first of them.
        told: Vec<WrongLine>,
    },
}

/// A line that cannot be used. Displays as `FILE:LINE: why`.
#[derive(Debug)]
pub struct WrongLine {
    file: PathBuf,
    line: usize,
    why: Why,
}

type Why = Box<dyn Error + Send + Sync>;

impl fmt::Display for WrongLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.why)
    }
}

/// The lines of a text that cannot be used, counted from 1.
#[derive(Debug, Default)]
pub struct Wrong {
    count: usize,
    told: Vec<(usize, Why)>,
}

impl Wrong {
    /// One line of a text.
    pub fn line(line: usize, why: impl Into<Why>) -> Self {
        let mut wrong = Self::default();
        wrong.note(line, why);
        wrong
    }

    fn note(&mut self, line: usize, why: impl Into<Why>) {
        self.count += 1;
        if self.told.len() < MOST_TOLD {
            self.told.push((line, why.into()));
        }
    }
}

/// Reads every line that says something; what follows a `#` is a comment.
pub fn each_line<E: Into<Why>>(
    text: &[u8],
    mut read: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), Wrong> {
    let mut wrong = Wrong::default();
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let said = line.split(|&byte| byte == b'#').next().unwrap_or_default();
        let said = said.trim_ascii();
        if !said.is_empty()
            && let Err(why) = read(said)
        {
            wrong.note(index + 1, why);
        }
    }
    match wrong.count {
        0 => Ok(()),
        _ => Err(wrong),
    }
}

impl<T: Content> Followed<T> {
    /// Reads a file. Every wrong line is an error.
    pub fn read(path: &Path, form: Form<T>) -> Result<Self, FileError> {
        let (content, stamp) = read(path, &form)?;
        Ok(Self {
            path: path.to_owned(),
            form,
            now: ArcSwap::from_pointee(content),
            seen: Mutex::new(Some(stamp)),
        })
    }

    /// What it says now.
    pub fn now(&self) -> Guard<Arc<T>> {
        self.now.load()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes in the file if it has changed since the last look, and says whether it did. After an error what it said
    /// stays; a version of the file that cannot be used is an error once. Blocks on the disk.
    pub fn refresh(&self) -> Result<bool, FileError> {
        let mut seen = self.seen.lock();
        let stamp = std::fs::metadata(&self.path).map(|metadata| FileStamp::from(&metadata));
        let stamp = match stamp {
            Ok(stamp) => Some(stamp),
            // Away for a moment while it is replaced, or for good: said once.
            Err(source) => {
                return match seen.take() {
                    None => Ok(false),
                    Some(_) => Err(FileError::Read {
                        noun: self.form.noun,
                        path: self.path.clone(),
                        source,
                    }),
                };
            }
        };
        if *seen == stamp {
            return Ok(false);
        }
        *seen = stamp;
        let (content, stamp) = read(&self.path, &self.form)?;
        *seen = Some(stamp);
        self.now.store(Arc::new(content));
        Ok(true)
    }

    /// Follows the file for as long as this is in use, and logs what was taken in and what was not. To be called in a
    /// runtime.
    pub fn watch(self: &Arc<Self>) {
        tokio::spawn(watch(Arc::downgrade(self)));
    }

    fn look(&self) {
        let noun = self.form.noun;
        match self.refresh() {
            Ok(false) => {}
            Ok(true) => {
                let (entries, file) = (self.now().entries(), self.path.display());
                tracing::info!(file = %file, entries, "{noun} taken from disk");
            }
            Err(error) => {
                if let FileError::Lines { told, .. } = &error {
                    for wrong in told {
                        tracing::error!("{noun} refused: {wrong}");
                    }
                }
                let error = crate::telemetry::chain(&error);
                tracing::error!("{noun} not refreshed, its predecessor stays: {error}");
            }
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Followed<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Followed")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

async fn watch<T: Content>(file: Weak<Followed<T>>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let file = file.clone();
        let looked = tokio::task::spawn_blocking(move || file.upgrade().map(|file| file.look()));
        if !matches!(looked.await, Ok(Some(()))) {
            return;
        }
    }
}

fn read<T>(path: &Path, form: &Form<T>) -> Result<(T, FileStamp), FileError> {
    let noun = form.noun;
    let failed = |source| FileError::Read {
        noun,
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let stamp = FileStamp::from(&file.metadata().map_err(failed)?);
    let mut text = Vec::new();
    let length = file.take(form.longest + 1).read_to_end(&mut text);
    if length.map_err(failed)? as u64 > form.longest {
        return Err(FileError::TooLong {
            noun,
            path: path.to_owned(),
            longest: form.longest,
        });
    }
    let content = (form.parse)(&text).map_err(|wrong| FileError::Lines {
        noun,
        path: path.to_owned(),
        count: wrong.count,
        first: wrong.told.first().map_or(0, |(line, _)| *line),
        told: wrong
            .told
            .into_iter()
            .map(|(line, why)| WrongLine {
                file: path.to_owned(),
                line,
                why,
            })
            .collect(),
    })?;
    Ok((content, stamp))
}
