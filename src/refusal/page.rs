//! The HTML page of a refusal: ours, or the operator's template.

use std::time::Duration;

use thiserror::Error;

use super::answer::Problem;

/// What operators may change about refusals.
#[derive(Clone, Debug)]
pub struct Pages {
    html: Template,
    ours: bool,
    retry_after: Duration,
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

impl Pages {
    /// Largest page an operator may bring, in bytes.
    pub const MAX_BYTES: usize = 256 * 1024;

    /// Our own page; `retry_after` (whole seconds, rounded up) goes into 503 answers, none if zero.
    pub fn built_in(retry_after: Duration) -> Self {
        let html = Template::parse(BUILT_IN).expect("our own page is right");
        Self {
            html,
            ours: true,
            retry_after,
        }
    }

    /// An operator's page: HTML in which `{{status}}`, `{{title}}`, `{{detail}}`, `{{reason}}` and
    /// `{{request_id}}` are replaced by escaped text.
    pub fn with_template(html: &str, retry_after: Duration) -> Result<Self, PageError> {
        let html = Template::parse(html)?;
        Ok(Self {
            html,
            ours: false,
            retry_after,
        })
    }

    /// Our page brings a `Content-Security-Policy` of its own; an operator's gets the route's.
    pub(super) fn are_ours(&self) -> bool {
        self.ours
    }

    pub(super) fn retry_after(&self) -> Duration {
        self.retry_after
    }

    pub(super) fn render(&self, problem: &Problem<'_>) -> String {
        self.html.render(problem)
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

    fn render(&self, problem: &Problem<'_>) -> String {
        let mut html = String::with_capacity(2048);
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => html.push_str(text),
                Piece::Status => html.push_str(&problem.status.to_string()),
                Piece::Title => escape_into(&mut html, problem.title),
                Piece::Detail => escape_into(&mut html, problem.detail),
                Piece::Reason => escape_into(&mut html, problem.reason),
                Piece::RequestId => escape_into(&mut html, problem.request_id),
            }
        }
        html
    }
}

/// Text for element content and quoted attributes.
fn escape_into(html: &mut String, text: &str) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(html: &str) -> PageError {
        Pages::with_template(html, Duration::ZERO).unwrap_err()
    }

    #[test]
    fn an_operators_page_is_filled_in_and_escaped() {
        let html = "<p title=\"{{ reason }}\">{{status}}{{title}}|{{detail}}|{{request_id}}</p>{}";
        let template = Template::parse(html).unwrap();
        let id = crate::client::RequestId::parse(b"id-1").unwrap();
        let refusal = crate::refusal::Refusal::NotFound {
            host: "a.example".into(),
            path: "/\"'&<{{status}}".into(),
        };
        let pages = Pages {
            html: template,
            ours: false,
            retry_after: Duration::ZERO,
        };
        let asked = crate::refusal::Asked {
            accept: Some(b"text/html"),
            head: false,
            request_id: &id,
        };
        let answer = refusal.answer(&asked, &pages);
        assert_eq!(
            answer.body,
            "<p title=\"no_route\">404Not Found|nothing is served at \
             a.example/&quot;&#39;&amp;&lt;{{status}}|id-1</p>{}"
        );
        assert!(!answer.head.headers.contains_key("content-security-policy"));
    }

    #[test]
    fn a_wrong_page_is_refused_with_its_line() {
        let error = problem("<html>\n{{ stauts }}");
        assert_eq!(
            error.to_string(),
            "line 2: unknown placeholder {{stauts}}; expected {{status}}, {{title}}, {{detail}}, \
             {{reason}} or {{request_id}}"
        );
        assert_eq!(
            problem("a\n\n{{status").to_string(),
            "line 3: \"{{\" without \"}}\""
        );
        let huge = "x".repeat(Pages::MAX_BYTES + 1);
        assert_eq!(
            problem(&huge),
            PageError::TooLarge {
                found: huge.len(),
                limit: Pages::MAX_BYTES
            }
        );
    }
}
