//! What the documentation says is true of the program: its TOML is a configuration, its commands exist, its links
//! lead somewhere, and its table of refusals is the table in the code.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use regex::Regex;
use tollgate::http1::bad_response::BadResponse;
use tollgate::http1::malformed::Malformed;
use tollgate::limit::ban::Answer;
use tollgate::limit::{Bound, Limited};
use tollgate::refusal::Refusal;
use tollgate::target::{BadHost, BadPath};

use crate::harness::gateway::tollgate;
use crate::harness::repository;

/// A page with its path from the top of the repository.
struct Page {
    path: String,
    text: String,
}

/// A fenced block of a page.
struct Block<'a> {
    page: &'a Page,
    line: usize,
    /// What stands behind the opening fence.
    info: &'a str,
    text: String,
}

fn page(path: &str) -> Page {
    let text = fs::read_to_string(repository(path));
    Page {
        path: path.to_owned(),
        text: text.unwrap_or_else(|error| panic!("{path}: {error}")),
    }
}

/// README, CHANGELOG and everything in docs/.
fn pages() -> Vec<Page> {
    let mut paths: Vec<String> = fs::read_dir(repository("docs"))
        .expect("docs/ is there")
        .map(|entry| entry.expect("docs/ is readable").file_name())
        .map(|name| format!("docs/{}", name.to_str().expect("UTF-8 names")))
        .filter(|path| path.ends_with(".md"))
        .collect();
    paths.extend(["README.md", "CHANGELOG.md", "certs/README.md"].map(str::to_owned));
    paths.sort();
    paths.iter().map(|path| page(path)).collect()
}

impl Page {
    fn blocks(&self) -> Vec<Block<'_>> {
        let mut blocks: Vec<Block<'_>> = Vec::new();
        let mut open = false;
        for (index, line) in self.text.lines().enumerate() {
            match line.strip_prefix("```") {
                Some(_) if open => open = false,
                Some(info) => {
                    open = true;
                    blocks.push(Block {
                        page: self,
                        line: index + 1,
                        info,
                        text: String::new(),
                    });
                }
                None if open => {
                    let block = blocks.last_mut().expect("a block is open");
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                None => {}
            }
        }
        assert!(!open, "{}: a fence is not closed", self.path);
        blocks
    }

    /// Everything that is set as code, by line or by block.
    fn code(&self) -> Vec<String> {
        let inline = Regex::new("`([^`\n]+)`").expect("a pattern");
        let spans = inline.captures_iter(&self.text);
        let spans = spans.map(|span| span[1].to_owned());
        let lines = self.blocks().into_iter().flat_map(|block| {
            let lines: Vec<String> = block.text.lines().map(str::to_owned).collect();
            lines
        });
        spans.chain(lines).collect()
    }
}

fn problems(text: &str, name: &str) -> Option<String> {
    let environment = |_: &str| None;
    tollgate::config::parse(text, name, &environment)
        .err()
        .map(|problems| problems.to_string())
}

/// A fragment with the least that a whole file has besides.
fn completed(fragment: &str) -> String {
    let table: toml::Table = fragment.parse().unwrap_or_default();
    let mut text = fragment.to_owned();
    let missing = [
        (
            "upstream",
            "[upstream.app]\nbackends = [\"127.0.0.1:8000\"]\n",
        ),
        ("server", "[server]\nlisten = [\"127.0.0.1:8080\"]\n"),
        ("route", "[[route]]\nupstream = \"app\"\n"),
    ];
    for (name, piece) in missing {
        if !table.contains_key(name) {
            text.push_str(piece);
        }
    }
    text
}

#[test]
fn every_toml_block_is_a_configuration() {
    let mut complete = 0;
    for page in pages() {
        for block in page.blocks() {
            let name = format!("{}:{}", block.page.path, block.line);
            match block.info {
                "toml" => {
                    complete += 1;
                    if let Some(problems) = problems(&block.text, &name) {
                        panic!(
                            "{name} is no configuration; if it is a part of one, say `toml fragment`:\n{problems}"
                        );
                    }
                }
                "toml fragment" => {
                    let found = problems(&completed(&block.text), &name);
                    assert_eq!(found, None, "{name} is no part of a configuration");
                    let whole = problems(&block.text, &name).is_none();
                    assert!(!whole, "{name} is whole: say `toml`");
                }
                info => assert!(!info.starts_with("toml"), "{name}: unknown mark {info:?}"),
            }
        }
    }
    assert!(complete >= 2, "the pages show whole files");
}

#[test]
fn every_command_of_the_documentation_exists() {
    let command = Regex::new(
        r"(?:^|[ /(])(?:tollgate|cargo run(?: --release)? --) ((?:(?:cache|limit) )?[a-z]+)(.*)",
    )
    .expect("a pattern");
    let option = Regex::new(r"--[a-z][a-z-]*").expect("a pattern");
    let mut helps: BTreeMap<String, String> = BTreeMap::new();
    let others = [
        "gateway.toml",
        "docker-compose.yml",
        "deploy/systemd/tollgate.service",
    ];
    for page in pages().into_iter().chain(others.map(page)) {
        let mut code = page.code();
        if !page.path.ends_with(".md") {
            code.extend(page.text.lines().map(str::to_owned));
        }
        for line in code {
            let Some(found) = command.captures(&line) else {
                continue;
            };
            let help = helps.entry(found[1].to_owned()).or_insert_with_key(|name| {
                let words: Vec<_> = name.split(' ').chain(["--help"]).collect();
                let output = tollgate(&words);
                let help = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(
                    output.status.success(),
                    "{}: no command {name}: {line}",
                    page.path
                );
                help
            });
            let end = found[2].find(['|', '#', '`']).unwrap_or(found[2].len());
            for name in option.find_iter(&found[2][..end]) {
                let known = help.contains(name.as_str());
                assert!(
                    known,
                    "{}: {} has no {}",
                    page.path,
                    &found[1],
                    name.as_str()
                );
            }
        }
    }
    for name in [
        "run",
        "check",
        "demo",
        "certs",
        "explain",
        "upgrade",
        "schema",
        "cache purge",
        "limit ban",
        "limit unban",
        "limit bans",
        "limit show",
        "limit reset",
        "limit top",
        "limit report",
    ] {
        assert!(helps.contains_key(name), "{name} is documented nowhere");
    }
}

#[test]
fn every_link_between_files_leads_to_one() {
    let link = Regex::new(r"\]\(([^)#\s]+)(#[^)]*)?\)").expect("a pattern");
    for page in pages() {
        let folder = PathBuf::from(&page.path);
        let folder = folder.parent().expect("a file is in a folder");
        for found in link.captures_iter(&page.text) {
            let target = &found[1];
            if target.contains("://") {
                continue;
            }
            let path = repository(folder.join(target).to_str().expect("UTF-8 paths"));
            assert!(path.exists(), "{}: {target} is not there", page.path);
        }
    }
}

/// One of each refusal. The match fails to compile when there is one more.
fn refusals() -> Vec<Refusal> {
    let nobody = |refusal: &Refusal| match refusal {
        Refusal::Malformed(_)
        | Refusal::Forbidden
        | Refusal::Denied
        | Refusal::Banned { .. }
        | Refusal::NotFound { .. }
        | Refusal::MethodNotAllowed { .. }
        | Refusal::RequestTimeout
        | Refusal::BodyTooLarge { .. }
        | Refusal::Misdirected
        | Refusal::TooManyConnections
        | Refusal::Limited(_)
        | Refusal::UpstreamConnect
        | Refusal::UpstreamProtocol
        | Refusal::UpstreamReset
        | Refusal::UpstreamUnavailable
        | Refusal::QueueFull
        | Refusal::QueueTimeout
        | Refusal::Overloaded
        | Refusal::UpstreamPaced { .. }
        | Refusal::UpstreamPaused { .. }
        | Refusal::Draining
        | Refusal::UpstreamTimeout
        | Refusal::NotCached
        | Refusal::Internal => {}
    };
    let all = vec![
        Refusal::Forbidden,
        Refusal::Denied,
        Refusal::Banned {
            answer: Answer::Forbidden,
            left: Duration::ZERO,
        },
        Refusal::NotFound {
            host: String::new(),
            path: String::new(),
        },
        Refusal::MethodNotAllowed {
            allow: String::new(),
        },
        Refusal::RequestTimeout,
        Refusal::BodyTooLarge { limit: 0 },
        Refusal::Misdirected,
        Refusal::TooManyConnections,
        Refusal::Limited(Limited {
            bound: Bound::Quota,
            policy: "api".into(),
            status: http::StatusCode::TOO_MANY_REQUESTS,
            retry_after: Duration::ZERO,
        }),
        Refusal::Limited(Limited {
            bound: Bound::InFlight,
            policy: "api".into(),
            status: http::StatusCode::TOO_MANY_REQUESTS,
            retry_after: Duration::ZERO,
        }),
        Refusal::UpstreamConnect,
        Refusal::UpstreamProtocol,
        Refusal::UpstreamReset,
        Refusal::UpstreamUnavailable,
        Refusal::QueueFull,
        Refusal::QueueTimeout,
        Refusal::Overloaded,
        Refusal::UpstreamPaced {
            retry_after: Duration::ZERO,
        },
        Refusal::UpstreamPaused {
            retry_after: Duration::ZERO,
        },
        Refusal::Draining,
        Refusal::UpstreamTimeout,
        Refusal::NotCached,
        Refusal::Internal,
    ];
    all.iter().for_each(nobody);
    all
}

/// The rows of the tables below `heading`, by their first cell, which is a word set as code.
fn rows(page: &Page, heading: &str) -> BTreeMap<String, Vec<String>> {
    let (_, below) = page.text.split_once(heading).expect("the heading is there");
    let end = below.find("\n## ").unwrap_or(below.len());
    let mut rows = BTreeMap::new();
    for line in below[..end].lines().filter(|line| line.starts_with("| `")) {
        let mut cells = line
            .trim_matches('|')
            .split(" | ")
            .map(|cell| cell.trim().to_owned());
        let word = cells.next().expect("a first cell");
        let word = word.trim_matches('`').to_owned();
        let again = rows.insert(word.clone(), cells.collect());
        assert!(again.is_none(), "{word} is there twice");
    }
    rows
}

fn assert_rows(heading: &str, expected: BTreeMap<String, Vec<String>>) {
    let page = page("docs/refusals.md");
    let mut found = rows(&page, heading);
    let lines: Vec<String> = expected
        .iter()
        .filter(|(word, cells)| {
            let row = found.remove(*word).unwrap_or_default();
            !row.starts_with(cells)
        })
        .map(|(word, cells)| format!("| `{word}` | {} |", cells.join(" | ")))
        .collect();
    assert!(
        lines.is_empty(),
        "{} lacks:\n{}",
        page.path,
        lines.join("\n")
    );
    assert!(
        found.is_empty(),
        "{} has what the code has not: {found:?}",
        page.path
    );
}

#[test]
fn the_page_of_refusals_lists_every_answer_of_the_gateway() {
    let expected = refusals().into_iter().map(|refusal| {
        let status = refusal.status().as_u16().to_string();
        (refusal.reason().to_owned(), vec![status])
    });
    assert_rows("## The answers of the gateway", expected.collect());
}

#[test]
fn the_page_of_refusals_lists_every_malformed_request() {
    let hosts = BadHost::ALL.into_iter().map(Malformed::Host);
    let paths = BadPath::ALL.into_iter().map(Malformed::Path);
    let expected = Malformed::PLAIN
        .into_iter()
        .chain(hosts)
        .chain(paths)
        .map(|malformed| {
            let status = malformed.status().as_u16().to_string();
            (
                malformed.reason().to_owned(),
                vec![status, malformed.detail().to_owned()],
            )
        });
    assert_rows("## Malformed requests", expected.collect());
}

#[test]
fn the_page_of_refusals_lists_every_malformed_response() {
    let expected = BadResponse::PLAIN
        .into_iter()
        .map(|bad| (bad.reason().to_owned(), vec![bad.detail().to_owned()]));
    assert_rows("## Malformed responses", expected.collect());
}
