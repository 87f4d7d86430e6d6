//! Which plan a client has: the map from keys to the names of plans, from a file or from a hash in Redis. Knows nothing
//! of what a plan is.

mod directory;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::Arc;

use thiserror::Error;

pub use self::directory::Directory;
use crate::followed::{Content, FileError, Followed, Form, Wrong, each_line};
use crate::redis::Redis;
use crate::word::unknown;

/// The longest file that is read, in bytes.
const LONGEST_FILE: u64 = 256 << 20;

/// A key as it is kept: its SHA-256, so that nobody reads keys from our memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyDigest([u8; 32]);

/// Where the plans of keys are written.
#[derive(Clone, Debug)]
pub enum Keys {
    File(Arc<Followed<KeyFile>>),
    Redis(Arc<Directory>),
}

/// What a file of keys says.
#[derive(Debug)]
pub struct KeyFile(HashMap<KeyDigest, Arc<str>>);

#[derive(Debug, Error, PartialEq, Eq)]
enum BadLine {
    #[error("it is no key and plan; expected a line such as \"KEY gold\" or \"sha256:HEX gold\"")]
    Form,
    #[error("{0:?} is no SHA-256; expected 64 hexadecimal digits after \"sha256:\"")]
    Hash(String),
    #[error("{0}")]
    Plan(String),
    #[error("its key has a plan already; expected each key once")]
    Twice,
}

impl KeyDigest {
    pub fn of(key: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, key);
        let bytes = digest.as_ref().try_into();
        Self(bytes.expect("a SHA-256 has 32 bytes"))
    }

    /// As operators write it: `sha256:HEX`, or the key itself.
    fn parse(text: &str) -> Result<Self, BadLine> {
        let Some(hex) = text.strip_prefix("sha256:") else {
            return Ok(Self::of(text.as_bytes()));
        };
        let wrong = || BadLine::Hash(hex.to_owned());
        let is_hex = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut bytes = [0; 32];
        for (place, byte) in bytes.iter_mut().enumerate() {
            let digits = hex.get(2 * place..2 * place + 2).filter(|_| is_hex);
            let digits = digits.ok_or_else(wrong)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

/// As it may be written: `sha256:HEX`.
impl std::fmt::Display for KeyDigest {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl KeyFile {
    fn parse(text: &[u8], plans: &[Arc<str>]) -> Result<Self, Wrong> {
        let mut keys = HashMap::new();
        each_line(text, |line| {
            let line = str::from_utf8(line).map_err(|_| BadLine::Form)?;
            let (key, plan) = line
                .rsplit_once(|c: char| c.is_ascii_whitespace())
                .ok_or(BadLine::Form)?;
            let known = plans.iter().find(|one| ***one == *plan);
            let known = known.ok_or_else(|| {
                let defined: Vec<&str> = plans.iter().map(|one| &**one).collect();
                BadLine::Plan(unknown("plan", plan, "defined", &defined))
            })?;
            match keys.entry(KeyDigest::parse(key.trim_ascii())?) {
                Entry::Occupied(_) => Err(BadLine::Twice),
                Entry::Vacant(free) => {
                    free.insert(known.clone());
                    Ok(())
                }
            }
        })?;
        Ok(Self(keys))
    }
}

impl Content for KeyFile {
    fn entries(&self) -> usize {
        self.0.len()
    }
}

impl Keys {
    /// A file of one key and the name of its plan a line, of those that there are.
    pub fn read(path: &Path, plans: Arc<[Arc<str>]>) -> Result<Self, FileError> {
        let form = Form {
            noun: "key file",
            longest: LONGEST_FILE,
            parse: Box::new(move |text: &[u8]| KeyFile::parse(text, &plans)),
        };
        Followed::read(path, form).map(|file| Self::File(Arc::new(file)))
    }

    /// Follows the file for as long as this is in use. To be called in a runtime.
    pub fn watch(&self) {
        if let Self::File(file) = self {
            file.watch();
        }
    }

    /// The plan of a key; `None` if nobody has given it one, or nobody can be asked.
    pub async fn plan_of(&self, key: &[u8], redis: Option<&Redis>) -> Option<Arc<str>> {
        match self {
            Self::File(file) => file.now().0.get(&KeyDigest::of(key)).cloned(),
            Self::Redis(directory) => directory.plan_of(key, redis).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<KeyFile, Wrong> {
        KeyFile::parse(text.as_bytes(), &["free".into(), "gold".into()])
    }

    fn plan<'a>(file: &'a KeyFile, key: &str) -> Option<&'a str> {
        file.0
            .get(&KeyDigest::of(key.as_bytes()))
            .map(|plan| &**plan)
    }

    #[test]
    fn a_line_is_a_key_and_its_plan_and_the_key_may_be_a_hash() {
        let text = "# of May\nk1 gold # ada\r\n\n  Bearer k2\tfree\n";
        let file = parsed(text).unwrap();
        assert_eq!(plan(&file, "k1"), Some("gold"));
        assert_eq!(plan(&file, "Bearer k2"), Some("free"));
        assert_eq!(plan(&file, "k3"), None);
        let hashed = format!("{} gold", KeyDigest::of(b"hashed"));
        assert_eq!(plan(&parsed(&hashed).unwrap(), "hashed"), Some("gold"));
        let known = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(KeyDigest::of(b"abc").to_string(), known);
    }

    #[test]
    fn what_is_no_line_is_told_what_one_is() {
        for text in ["k1", "k1 goldd", "sha256:12 gold", "k1 gold\nk1 free"] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }
}
