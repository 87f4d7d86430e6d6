//! What is wrong with a configuration, and where. Knows positions and wording; knows no key.

use std::fmt;
use std::io;
use std::ops::Deref;

/// A position in the file: line and column count from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    line: u32,
    column: u32,
}

impl Place {
    /// For values that stand in no file: command line arguments and problems of the file as a whole.
    pub const NOWHERE: Self = Self { line: 0, column: 0 };

    pub(crate) fn new(line: u32, column: u32) -> Self {
        Self { line, column }
    }

    pub fn line(self) -> u32 {
        self.line
    }
}

/// Something that stands at a place in the file.
pub trait Positioned {
    fn place(&self) -> Place;
}

impl Positioned for Place {
    fn place(&self) -> Place {
        *self
    }
}

/// A value and where it was written; a default stands where its table begins.
///
/// Two are equal when their values are: moving a line changes nothing.
#[derive(Debug, Clone, Copy)]
pub struct Located<T> {
    pub value: T,
    pub place: Place,
}

impl<T> Deref for Located<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Located<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: PartialOrd> PartialOrd for Located<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        self.value.partial_cmp(&other.value)
    }
}

impl<T> Positioned for Located<T> {
    fn place(&self) -> Place {
        self.place
    }
}

/// One thing to put right: the text found and what would be right, lower case, no full stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    place: Place,
    message: String,
}

impl Problem {
    pub fn at(what: &impl Positioned, message: impl Into<String>) -> Self {
        Self {
            place: what.place(),
            message: message.into(),
        }
    }

    pub fn message(&self) -> &str {
        &self.message
    }
}

impl Positioned for Problem {
    fn place(&self) -> Place {
        self.place
    }
}

/// Every problem of one file. Displays as one line each, `file:line:column: message`, in file order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    file: String,
    list: Vec<Problem>,
}

impl Problems {
    /// An empty collection for `file`, which is shown as given.
    pub fn new(file: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            list: Vec::new(),
        }
    }

    pub fn push(&mut self, problem: Problem) {
        self.list.push(problem);
    }

    /// Shorthand for pushing [`Problem::at`].
    pub fn note(&mut self, what: &impl Positioned, message: impl Into<String>) {
        self.push(Problem::at(what, message));
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn file(&self) -> &str {
        &self.file
    }

    /// In file order; two at one place in the order they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        let mut sorted: Vec<&Problem> = self.list.iter().collect();
        sorted.sort_by_key(|problem| problem.place);
        sorted.into_iter()
    }

    /// The same problems without positions, for a text that the operator did not write.
    pub fn without_places(mut self) -> Self {
        self.list
            .iter_mut()
            .for_each(|problem| problem.place = Place::NOWHERE);
        self
    }

    /// `value` when nothing was found, all of the problems otherwise.
    pub fn none_or<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() {
            Ok(value)
        } else {
            Err(self)
        }
    }
}

impl Extend<Problem> for Problems {
    fn extend<I: IntoIterator<Item = Problem>>(&mut self, problems: I) {
        self.list.extend(problems);
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.iter().enumerate() {
            if index > 0 {
                out.write_str("\n")?;
            }
            match problem.place {
                Place::NOWHERE => write!(out, "{}: {}", self.file, problem.message)?,
                Place { line, column } => {
                    write!(out, "{}:{line}:{column}: {}", self.file, problem.message)?
                }
            }
        }
        Ok(())
    }
}

/// What the system said, in a few words that do not depend on the system.
pub fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "does not exist".to_owned(),
        io::ErrorKind::PermissionDenied => "may not be read by this user".to_owned(),
        io::ErrorKind::NotADirectory => "is not a directory".to_owned(),
        io::ErrorKind::IsADirectory => "is a directory".to_owned(),
        _ => format!("cannot be read ({error})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_shown_in_file_order_one_line_each() {
        let mut problems = Problems::new("gateway.toml");
        problems.note(&Place::new(9, 1), "later");
        problems.note(&Place::new(3, 11), "weight is 0; expected 1 to 1000");
        problems.note(&Place::NOWHERE, "the file as a whole");
        assert_eq!(
            problems.to_string(),
            "gateway.toml: the file as a whole\ngateway.toml:3:11: weight is 0; expected 1 to 1000\ngateway.toml:9:1: later"
        );
    }

    #[test]
    fn a_value_that_moved_is_the_same_value() {
        let here = Located {
            value: 1,
            place: Place::new(1, 1),
        };
        assert_eq!(
            here,
            Located {
                value: 1,
                place: Place::new(2, 7)
            }
        );
    }
}
