//! The HTML page of a refusal: ours, or the operator's template.

use std::time::Duration;

use thiserror::Error;

/// What operators may change about refusals.
#[derive(Clone, Debug)]
pub struct Pages {
    html: Template,
    /// Ours needs a `Content-Security-Policy` of its own; an operator's page gets the route's.
    pub(super) is_ours: bool,
    pub(super) retry_after: Duration,
}

/// Why an operator's page cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PageError {
    #[error(
        "line {line}: unknown placeholder {{{{{found}}}}}; expected {{{{status}}}}, {{{{title}}}}, {{{{detail}}}}, {{{{reason}}}} or {{{{request_id}}}}"
    )]
    UnknownPlaceholder { line: usize, found: String },
    #[error("line {line}: \"{{{{\" without \"}}}}\"")]
    Unclosed { line: usize },
    #[error("the page has {found} bytes; at most {limit} are allowed")]
    TooLarge { found: usize, limit: usize },
}

/// The values of one page; every one is escaped when written.
pub(super) struct Values<'a> {
    pub status: &'a str,
    pub title: &'a str,
    pub detail: &'a str,
    pub reason: &'a str,
    pub request_id: &'a str,
}

impl Pages {
    /// Largest page an operator may bring, in bytes.
    pub const MAX_BYTES: usize = 256 * 1024;

    /// Our own page; `retry_after` (whole seconds, rounded up) goes into 503 answers, none if zero.
    pub fn built_in(retry_after: Duration) -> Self {
        let html = Template::parse(BUILT_IN).expect("our own page is right");
        Self {
            html,
            is_ours: true,
            retry_after,
        }
    }

    /// An operator's page: HTML in which `{{status}}`, `{{title}}`, `{{detail}}`, `{{reason}}` and
    /// `{{request_id}}` are replaced by escaped text.
    pub fn with_template(html: &str, retry_after: Duration) -> Result<Self, PageError> {
        let html = Template::parse(html)?;
        Ok(Self {
            html,
            is_ours: false,
            retry_after,
        })
    }

    pub(super) fn render(&self, values: &Values<'_>) -> String {
        self.html.render(values)
    }
}

#[derive(Clone, Debug)]
enum Piece {
    Text(Box<str>),
    Status,
    Title,
    Detail,
    Reason,
    RequestId,
}

#[derive(Clone, Debug)]
struct Template(Box<[Piece]>);

impl Template {
    fn parse(html: &str) -> Result<Self, PageError> {
        if html.len() > Pages::MAX_BYTES {
            return Err(PageError::TooLarge {
                found: html.len(),
                limit: Pages::MAX_BYTES,
            });
        }
        let mut pieces = Vec::new();
        let mut rest = html;
        while let Some((text, after)) = rest.split_once("{{") {
            let line = 1 + html[..html.len() - after.len()].matches('\n').count();
            let (name, after) = after.split_once("}}").ok_or(PageError::Unclosed { line })?;
            pieces.push(Piece::Text(text.into()));
            pieces.push(match name.trim() {
                "status" => Piece::Status,
                "title" => Piece::Title,
                "detail" => Piece::Detail,
                "reason" => Piece::Reason,
                "request_id" => Piece::RequestId,
                found => {
                    return Err(PageError::UnknownPlaceholder {
                        line,
                        found: found.to_owned(),
                    });
                }
            });
            rest = after;
        }
        pieces.push(Piece::Text(rest.into()));
        Ok(Self(pieces.into()))
    }

    fn render(&self, values: &Values<'_>) -> String {
        let mut html = String::with_capacity(2048);
        for piece in &self.0 {
            let value = match piece {
                Piece::Text(text) => {
                    html.push_str(text);
                    continue;
                }
                Piece::Status => values.status,
                Piece::Title => values.title,
                Piece::Detail => values.detail,
                Piece::Reason => values.reason,
                Piece::RequestId => values.request_id,
            };
            escape_into(&mut html, value);
        }
        html
    }
}

/// Text for element content and quoted attributes.
pub(super) fn escape_into(html: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
}

const BUILT_IN: &str = include_str!("page.html");
