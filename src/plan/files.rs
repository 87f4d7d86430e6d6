//! What is said of files that are followed and cannot be used at the start.

use crate::config::problem::{Positioned, Problems, why};
use crate::config::word::FilePath;
use crate::followed::FileError;

/// Notes why `file`, which stands at `place`, is not a file with what is `expected`; each wrong line by itself.
pub(super) fn refused(
    place: &impl Positioned,
    file: &FilePath,
    error: &FileError,
    expected: &str,
    problems: &mut Problems,
) {
    match error {
        FileError::Lines { told, count, .. } => {
            for wrong in told {
                problems.note(place, wrong.to_string());
            }
            if *count > told.len() {
                problems.note(place, format!("{} more wrong lines", count - told.len()));
            }
        }
        FileError::Read { noun, source, .. } => {
            let why = why(source);
            let message = format!("{noun} {file} {why}; expected a file with {expected}");
            problems.note(place, message);
        }
        FileError::TooLong { .. } => problems.note(place, error.to_string()),
    }
}
