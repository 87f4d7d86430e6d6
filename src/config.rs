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

use std::path::{Path, PathBuf};

use problem::{Place, Problems, why};
use read::Reader;

use crate::listen::ListenAddress;
use crate::upstream::Address;

pub use spec::Config;

/// Where the configuration comes from.
pub enum Source {
    File(PathBuf),
    /// Made from arguments; nothing to reload.
    Given(Box<Config>),
}

impl Source {
    /// The configuration file, where there is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Given(_) => None,
        }
    }

    /// What messages call it.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Given(_) => "arguments".to_owned(),
        }
    }

    /// What can be read of it, in the environment of this process.
    pub fn draft(&self) -> Draft {
        match self {
            Self::File(path) => Draft::of_file(path, &|name| std::env::var(name).ok()),
            Self::Given(config) => Draft::right_already(Config::clone(config), &self.name()),
        }
    }
}

/// As much of a configuration as could be read, and everything that is wrong with its text.
///
/// Where a value is wrong, its default stands in.
pub struct Draft {
    config: Option<Config>,
    problems: Problems,
}

impl Draft {
    /// Reads and checks a file. Paths in it are meant from its directory.
    fn of_file(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Self {
        let file = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                let mut problems = Problems::new(&file);
                let message = format!("{}; expected a configuration file", why(&error));
                problems.note(&Place::NOWHERE, message);
                let config = None;
                return Self { config, problems };
            }
        };
        let mut draft = Self::of_text(&text, &file, env);
        if let Some(config) = &draft.config {
            check::directories(config, &mut draft.problems);
        }
        draft
    }

    fn of_text(text: &str, file: &str, env: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut reader = Reader::new(text, file, env);
        let config = reader.document();
        let mut problems = reader.problems;
        if let Some(config) = &config {
            check::tables(config, &mut problems);
        }
        Self { config, problems }
    }

    /// A configuration whose text is right, to make something of it. `file` is its name in messages.
    pub fn right_already(config: Config, file: &str) -> Self {
        Self {
            config: Some(config),
            problems: Problems::new(file),
        }
    }

    /// The configuration, if its text is right.
    pub fn right(self) -> Result<Config, Problems> {
        self.make(|_, _| Some(())).map(|(config, ())| config)
    }

    /// What `make` makes of the configuration, if all is right.
    ///
    /// It is also asked when the text is wrong, so that what only it can find - a certificate that
    /// cannot be used - is said together with everything else.
    pub fn make<T>(
        self,
        make: impl FnOnce(&Config, &mut Problems) -> Option<T>,
    ) -> Result<(Config, T), Problems> {
        let Self {
            config,
            mut problems,
        } = self;
        let made = config
            .as_ref()
            .and_then(|config| make(config, &mut problems));
        match config.zip(made) {
            Some(both) if problems.is_empty() => Ok(both),
            _ => Err(problems),
        }
    }
}

/// Reads and checks a text without touching any other file. `file` is its name in messages.
pub fn parse(
    text: &str,
    file: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Problems> {
    Draft::of_text(text, file, env).right()
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

    /// What is legal and probably not meant: what no route uses.
    pub fn warnings(&self, file: &str) -> Problems {
        let mut warnings = Problems::new(file);
        check::warnings(self, &mut warnings);
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
