//! The configurations in tests/corpus/config: what loads, and exactly what is said of what does not.
//!
//! With `UPDATE_EXPECTED=1` in the environment the expected messages are written instead of compared.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use serde_json::Value as Json;
use toml::de::{DeTable, DeValue};

use super::problem::{Positioned, Problems};
use super::schema::to_json;
use super::schema_check::{SCHEMA, accepts};
use super::{Config, Draft, Source};
use crate::server::{Checked, compile};

/// Stands in the first line of an invalid configuration that an editor with the schema marks as well.
const STRUCTURAL: &str = "(the schema refuses it too)";

fn corpus(kind: &str) -> Vec<(String, PathBuf)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus/config")
        .join(kind);
    let mut files: Vec<_> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path))
        .collect();
    files.sort();
    files
}

/// The directory that the configurations of the corpus are loaded from. No key is kept in the repository.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        let valid = CertificateParams::new(["shop.example".to_owned()]).unwrap();
        let mut expired = valid.clone();
        expired.not_before = date_time_ymd(2001, 1, 1);
        expired.not_after = date_time_ymd(2002, 1, 1);
        let mut authority = valid.clone();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);

        bench.pair("certs", "site", &valid);
        bench.pair("certs-mismatch", "site", &valid);
        bench.put(
            "certs-mismatch/site.key",
            &KeyPair::generate().unwrap().serialize_pem(),
        );
        bench.put("certs-broken/site.crt", "no certificate");
        bench.put("certs-broken/site.key", "no key");
        bench.pair("certs-broken", "unkeyed", &valid);
        bench.put("certs-broken/unkeyed.key", "no key");
        bench.pair("certs-halves", "alone", &valid);
        fs::remove_file(bench.path().join("certs-halves/alone.key")).unwrap();
        bench.put(
            "certs-halves/key.key",
            &KeyPair::generate().unwrap().serialize_pem(),
        );
        bench.pair("certs-halves", "authority", &authority);
        fs::remove_file(bench.path().join("certs-halves/authority.key")).unwrap();
        bench.pair("certs-halves", "twice", &valid);
        bench.put("certs-halves/twice.pem", "");
        bench.pair("certs-expired", "site", &expired);
        bench.put("certs-empty/.hidden.crt", "");
        bench.put("certs-empty/README", "");
        bench.put("error-unknown.html", "<h1>\n{{stauts}}</h1>");
        bench.put("networks.txt", "# ours\n10.0.0.0/8\n\n::1 # here\n");
        bench.put("networks-broken.txt", "10.0.0.0/8\nnobody\n10.0.0.1/8\n");
        bench.put("plan-keys.txt", "# ours\nk1 gold\n");
        bench.put("plan-keys-broken.txt", "k1\nk1 fre\nsha256:12 free\n");
        bench.put("error.html", "<h1>{{status}} {{title}}</h1>");
        bench
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn put(&self, file: &str, text: &str) {
        let path = self.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn pair(&self, directory: &str, name: &str, params: &CertificateParams) {
        let key = KeyPair::generate().unwrap();
        self.put(
            &format!("{directory}/{name}.crt"),
            &params.self_signed(&key).unwrap().pem(),
        );
        self.put(&format!("{directory}/{name}.key"), &key.serialize_pem());
    }

    /// As the gateway does before it serves.
    fn load(&self, name: &str, text: &str) -> Result<Checked, Problems> {
        self.put(&format!("{name}.toml"), text);
        let path = self.path().join(format!("{name}.toml"));
        compile(Draft::of_file(&path, &env))
    }

    /// The messages with the file named as if it were in the current directory.
    fn messages(&self, problems: &Problems) -> String {
        format!("{problems}\n").replace(&format!("{}/", self.path().display()), "")
    }
}

fn env(name: &str) -> Option<String> {
    match name {
        "PORT" => Some("8080".to_owned()),
        "PORT_NAME" => Some("http".to_owned()),
        _ => None,
    }
}

fn as_json(text: &str) -> Option<Json> {
    let tree = DeTable::parse(text).ok()?;
    Some(to_json(&DeValue::Table(tree.into_inner())))
}

#[test]
fn every_valid_configuration_loads_and_the_schema_accepts_it() {
    let bench = Bench::new();
    for (name, path) in corpus("valid") {
        let text = fs::read_to_string(path).unwrap();
        let config = bench
            .load(&name, &text)
            .unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(config.warnings(&name).to_string(), "");
        assert_eq!(accepts(&SCHEMA, &as_json(&text).unwrap()), Ok(()), "{name}");
    }
    let reference = include_str!("../../gateway.toml");
    assert_eq!(accepts(&SCHEMA, &as_json(reference).unwrap()), Ok(()));
}

#[test]
fn every_invalid_configuration_is_answered_with_exactly_these_problems() {
    let bench = Bench::new();
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let files = corpus("invalid");
    assert!(files.len() >= 45, "only {} cases", files.len());
    let mut differences = String::new();
    for (name, path) in files {
        let text = fs::read_to_string(&path).unwrap();
        let found = match bench.load(&name, &text) {
            Ok(_) => "nothing\n".to_owned(),
            Err(problems) => bench.messages(&problems),
        };
        let expected_file = path.with_extension("expected");
        if update {
            fs::write(&expected_file, &found).unwrap();
        }
        let expected = fs::read_to_string(&expected_file).unwrap_or_default();
        differences.push_str(&difference(&name, &expected, &found));
    }
    assert!(differences.is_empty(), "{differences}");
}

/// The lines that only one of the two has.
fn difference(name: &str, expected: &str, found: &str) -> String {
    if expected == found {
        return String::new();
    }
    let only = |sign: &str, these: &str, others: &str| -> String {
        let missing = these
            .lines()
            .filter(|line| !others.lines().any(|other| other == *line));
        missing.map(|line| format!("  {sign} {line}\n")).collect()
    };
    format!(
        "{name}:\n{}{}",
        only("expected", expected, found),
        only("found   ", found, expected)
    )
}

#[test]
fn the_schema_refuses_what_is_wrong_in_its_structure_and_accepts_the_rest() {
    for (name, path) in corpus("invalid") {
        let text = fs::read_to_string(path).unwrap();
        let Some(document) = as_json(&text) else {
            continue;
        };
        let refused = accepts(&SCHEMA, &document).is_err();
        let structural = text
            .lines()
            .next()
            .is_some_and(|line| line.ends_with(STRUCTURAL));
        assert_eq!(refused, structural, "{name}");
    }
}

#[test]
fn an_expired_certificate_is_a_warning_and_no_problem() {
    let bench = Bench::new();
    let text = "server.listen = [{ address = \"127.0.0.1:8443\", tls = \"certs-expired\" }]\nroute = [{ respond = {} }]\n";
    let config = bench.load("expired", text).unwrap();
    let warnings = config.warnings("expired.toml");
    assert_eq!(
        warnings.to_string(),
        "expired.toml:1:54: certificate \"site\" of \"certs-expired\" expired on Tue, 01 Jan 2002 00:00:00 GMT"
    );
}

#[test]
fn an_upstream_that_no_route_uses_is_a_warning() {
    let text = "server.listen = [\"127.0.0.1:8080\"]\nroute = [{ respond = {} }]\n[upstream.app]\nbackends = [\"app:80\"]\n[headers.site]\n";
    let config = super::parse(text, "gateway.toml", &env).unwrap();
    assert_eq!(
        config.warnings("gateway.toml").to_string(),
        "gateway.toml:3:1: upstream \"app\" is used by no route\ngateway.toml:5:1: header policy \"site\" is used by no route"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_like_any_other() {
    let missing = Source::File("/no/such/gateway.toml".into());
    let problems = missing.draft().right().unwrap_err();
    assert_eq!(
        problems.to_string(),
        "/no/such/gateway.toml: does not exist; expected a configuration file"
    );
}

#[test]
fn a_gateway_without_a_file_has_every_default() {
    let config = Config::for_upstreams(
        &["0.0.0.0:80".parse().unwrap()],
        &["app:1".parse().unwrap()],
    )
    .unwrap();
    let text = "server.listen = [\"0.0.0.0:80\"]\nroute = [{ upstream = \"app\" }]\n[upstream.app]\nbackends = [\"app:1\"]\n";
    assert!(config == super::parse(text, "gateway.toml", &env).unwrap());
    let twice = [
        "0.0.0.0:80".parse().unwrap(),
        "127.0.0.1:80".parse().unwrap(),
    ];
    assert_eq!(
        Config::for_upstreams(&twice, &["app:1".parse().unwrap()])
            .unwrap_err()
            .to_string(),
        "arguments: listener 127.0.0.1:80 overlaps listener 0.0.0.0:80; expected one of them or another port"
    );
}

proptest::proptest! {
    /// What a half-typed file looks like: a valid one with a piece cut out, doubled or replaced.
    #[test]
    fn no_text_breaks_the_reader(at in 0usize..2000, length in 0usize..40, put in "[\\PC\n]{0,8}") {
        let text = include_str!("../../tests/corpus/config/valid/routes.toml");
        let mut characters: Vec<char> = text.chars().collect();
        let start = at.min(characters.len());
        let end = (start + length).min(characters.len());
        characters.splice(start..end, put.chars());
        let text: String = characters.into_iter().collect();
        if let Err(problems) = super::parse(&text, "gateway.toml", &env) {
            proptest::prop_assert!(!problems.is_empty());
            for problem in problems.iter() {
                let line = problem.place().line() as usize;
                proptest::prop_assert!((1..=text.matches('\n').count() + 1).contains(&line), "{}", problem.message());
            }
        }
    }
}
