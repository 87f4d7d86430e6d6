//! The file's shape, and what is wrong with it: text in, typed tables out, or every problem with its position.
//! Words become the types of the modules that live by them; what the tables become is decided in `plan`.

mod check;
#[cfg(test)]
mod corpus;
mod declare;
mod expand;
pub mod problem;
mod read;
#[cfg(test)]
mod reference;
pub mod schema;
#[cfg(test)]
mod schema_check;
pub mod spec;
pub mod word;

use std::path::Path;
use std::time::SystemTime;

use problem::{Place, Problems};
use read::Reader;

use crate::listen::ListenAddress;
use crate::upstream::Address;

pub use spec::Config;

/// Reads and checks a file, with the files it names, in the environment of this process.
///
/// Paths in the file are meant from its directory.
pub fn load(path: &Path) -> Result<Config, Problems> {
    load_with(path, &|name| std::env::var(name).ok())
}

fn load_with(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Problems> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        let mut problems = Problems::new(&file);
        problems.note(
            &Place::NOWHERE,
            format!("{}; expected a configuration file", check::why(&error)),
        );
        problems
    })?;
    let (config, mut problems) = read(&text, &file, env);
    if let Some(config) = &config {
        check::files(config, &mut problems);
    }
    right(config, problems)
}

/// Reads and checks a text without touching any other file. `file` is its name in messages.
pub fn parse(
    text: &str,
    file: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Problems> {
    let (config, problems) = read(text, file, env);
    right(config, problems)
}

/// As much as could be read, and everything that is wrong with it.
fn read(
    text: &str,
    file: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> (Option<Config>, Problems) {
    let mut reader = Reader::new(text, file, env);
    let config = reader.document();
    let mut problems = reader.problems;
    if let Some(config) = &config {
        check::tables(config, &mut problems);
    }
    (config, problems)
}

fn right(config: Option<Config>, problems: Problems) -> Result<Config, Problems> {
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(problems),
    }
}

impl Config {
    /// One application on these backends behind these listeners, everything else by default.
    ///
    /// Fails when two of the listeners or of the backends collide, or when there are none or too many.
    pub fn for_upstreams(listen: &[ListenAddress], backends: &[Address]) -> Result<Self, Problems> {
        // Through the same text as a file, so that there is one way to a default.
        let text = format!(
            "server = {{ listen = {} }}\nupstream = {{ app = {{ backends = {} }} }}\nroute = [{{ upstream = \"app\" }}]",
            list_of_strings(listen),
            list_of_strings(backends),
        );
        parse(&text, "arguments", &|_| None).map_err(Problems::without_places)
    }

    /// What is legal and probably not meant: what no route uses, certificates that have expired.
    ///
    /// Not problems: a gateway that refuses to start for an expired certificate takes every other name down with it.
    pub fn warnings(&self, file: &str, now: SystemTime) -> Problems {
        let mut warnings = Problems::new(file);
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        check::warnings(self, now.try_into().unwrap_or(i64::MAX), &mut warnings);
        warnings
    }
}

/// A TOML list; a `$` is doubled so that a path is not taken for a variable.
fn list_of_strings(values: &[impl ToString]) -> String {
    serde_json::Value::from_iter(
        values
            .iter()
            .map(|value| value.to_string().replace("${", "$${")),
    )
    .to_string()
}
