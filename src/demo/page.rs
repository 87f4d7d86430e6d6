//! The page of the demonstration: who answered, and what the gateway told it about the client.

/// Fields that a reverse proxy adds, or that tell how it was reached.
const SHOWN: [&str; 10] = [
    "host",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-real-ip",
    "forwarded",
    "x-request-id",
    "traceparent",
    "via",
];

pub(super) const STYLE: &str = "\
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 44rem; margin: 4rem auto; padding: 0 1.5rem }
h1 { font-size: 2.25rem; margin: 0 }
h1 + p { margin-top: .25rem; opacity: .7 }
table { width: 100%; border-collapse: collapse; margin: 2rem 0 }
th, td { text-align: left; padding: .4rem .5rem .4rem 0; border-top: 1px solid #8884 }
th { font-weight: 500; white-space: nowrap; vertical-align: top }
td { font-family: ui-monospace, monospace; font-size: .9rem; overflow-wrap: anywhere }
nav a { margin-right: 1rem }
";

/// The page of `backend` for its `count`th request.
pub(super) fn html(backend: &str, count: u64, headers: &[(String, String)]) -> String {
    let mut rows = String::new();
    for (name, value) in headers {
        if SHOWN.iter().any(|shown| name.eq_ignore_ascii_case(shown)) {
            let (name, value) = (escape(name), escape(value));
            rows.push_str(&format!("<tr><th>{name}</th><td>{value}</td></tr>\n"));
        }
    }
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{backend}: request {count}</title>
<link rel="stylesheet" href="/style.css">
</head>
<body>
<h1>{backend}</h1>
<p>answered its request number {count}. The gateway told it:</p>
<table>
{rows}</table>
<nav><a href="/">again</a> <a href="/strict">strict</a> <a href="/api/time">time</a> <a href="/slow">slow</a>
<a href="/stream">stream</a> <a href="/error">error</a> <a href="/about">about</a> <a href="/old">old</a></nav>
</body>
</html>
"#
    )
}

/// Header fields are the client's words.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_what_the_gateway_added_and_nothing_private() {
        let headers = [
            ("X-Forwarded-For".to_owned(), "<script>&\"".to_owned()),
            ("Cookie".to_owned(), "session=secret".to_owned()),
        ];
        let page = html("swift", 7, &headers);
        assert!(page.contains("&lt;script&gt;&amp;&quot;"));
        assert!(page.contains("request number 7"));
        assert!(!page.contains("secret") && !page.contains("<script"));
    }
}
