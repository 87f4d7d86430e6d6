//! Generated configurations: routes, header policies, limits, bans, compression, caches.
//!
//! Quotas are so small or their time so long that nothing comes back while a test runs, and clients are so few that none
//! is one name too many in its minute: both gateways stand alike whenever they are asked.

use super::dice::Dice;

pub const TOKEN: &str = "0123456789abcdef-of-the-test";

/// A configuration, and what a request has to know of it.
pub struct Plan {
    /// `{backend}` is for the application.
    pub text: String,
    /// The client may say who it is, as a trusted proxy does.
    pub believes: bool,
    /// A connection is ended after a few requests.
    pub counts: bool,
}

const LIMITS: usize = 4;

impl Plan {
    pub fn any(dice: &mut Dice) -> Self {
        let believes = dice.one_in(2);
        let mut text = String::new();
        text += &server(dice);
        text += &clients(dice, believes);
        text += &upstream(dice);
        text += &headers(dice);
        text += &compression(dice);
        text += &cache(dice);
        (0..LIMITS).for_each(|number| text += &limit(dice, number));
        text += FEW_AND_BYTES;
        text += &routes(dice);
        Self {
            believes,
            counts: text.contains("keepalive_requests"),
            text,
        }
    }
}

impl Plan {
    /// With the limits that the corpus of messages was written for.
    pub fn of_the_corpus() -> Self {
        let text = r#"
            [server]
            listen = ["127.0.0.1:0"]
            max_request_line = 256
            max_headers = 16
            max_header_bytes = 1024
            [log]
            access = "all"
            [upstream.app]
            backends = ["{backend}"]
            [[route]]
            upstream = "app"
        "#;
        Self {
            text: text.to_owned(),
            believes: false,
            counts: false,
        }
    }
}

fn server(dice: &mut Dice) -> String {
    let more = [
        "",
        "drop_unsafe_headers = false",
        "merge_slashes = true",
        "path_parameters = \"refuse\"",
        "max_headers = 9",
        "keepalive_requests = 7",
        "max_request_line = \"64 B\"",
    ];
    let query = dice.pick(&["masked", "off", "full"]);
    format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        {}
        [admin]
        listen = "127.0.0.1:0"
        token = "{TOKEN}"
        [limits]
        secret = "the same for both gateways"
        [log]
        access = "all"
        query = "{query}"
        slow_after = "1h"
        buffer = 100000
        "#,
        dice.pick(&more)
    )
}

fn clients(dice: &mut Dice, believes: bool) -> String {
    let trusted = if believes {
        "127.0.0.0/8"
    } else {
        "192.0.2.0/24"
    };
    let forwarded = dice.one_in(3);
    let mut text =
        format!("[clients]\ntrusted_proxies = [\"{trusted}\"]\nforwarded = {forwarded}\n");
    if believes && dice.one_in(2) {
        text += "allow = [\"198.51.100.1\", \"198.51.100.2\"]\ndeny = [\"198.51.100.3\"]\n";
    }
    // Elsewhere all that is asked comes from one address.
    if believes && dice.one_in(2) {
        let answer = dice.pick(&["403", "429", "close"]);
        let (what, more) = [
            ("12 × 404", ""),
            ("9 × malformed", ""),
            ("20 × 404/502", ""),
            ("6 × refusals", ""),
            ("3 × scans", "paths = [\"/few/c\"]"),
        ][dice.below(5)];
        let mode = dice.pick(&["enforce", "enforce", "shadow"]);
        text += &format!(
            "[ban.test]\nwhen = \"{what} in 1 hour\"\nfor = \"5h\"\nanswer = \"{answer}\"\nmode = \"{mode}\"\n{more}\n"
        );
    }
    text
}

fn upstream(dice: &mut Dice) -> String {
    let keepalive = dice.pick(&["32", "32", "32", "0"]);
    let retry = dice.pick(&[
        "attempts = 1",
        "attempts = 2\non = [\"connect\", \"502\", \"503\"]",
    ]);
    let host = dice.pick(&["", "max_response_head = \"1 KiB\""]);
    format!(
        r#"
        [upstream.app]
        backends = ["{{backend}}"]
        max_fails = 0
        keepalive = {keepalive}
        {host}
        [upstream.app.retry]
        {retry}
        "#
    )
}

fn headers(dice: &mut Dice) -> String {
    let preset = dice.pick(&["basic", "strict", "off"]);
    format!(
        r#"
        [headers.site]
        preset = "{preset}"
        set = {{ "X-Frame-Options" = "SAMEORIGIN", "X-Set" = "set" }}
        default = {{ "Referrer-Policy" = "same-origin", "Content-Security-Policy" = "default-src 'none'" }}
        add = {{ "Link" = ["</a.css>; rel=preload", "</b.js>; rel=preload"] }}
        remove = ["X-Powered-By", "Set-Cookie"]
        request_set = {{ "X-A" = "gateway" }}
        request_remove = ["X-Empty"]
        "#
    )
}

fn compression(dice: &mut Dice) -> String {
    let enabled = !dice.one_in(4);
    let size = dice.pick(&["0 B", "1 KiB"]);
    let personal = dice.one_in(3);
    format!("[compression]\nenabled = {enabled}\nmin_size = \"{size}\"\npersonal = {personal}\n")
}

fn cache(dice: &mut Dice) -> String {
    let mut policy = |name: &str, audience: &str| {
        let more = dice.pick(&[
            "",
            "ttl = \"1h\"",
            "stale_while_revalidate = \"1h\"",
            "ttl_by_status = { 404 = \"1h\", 500 = \"1h\" }\ndebug = true",
            "sort_query = true\nkeep_for_validation = \"0s\"",
            "vary_cookies = [\"a\", \"sid\"]",
            "key_headers = [\"Accept-Language\"]",
        ]);
        format!(
            "[cache.policy.{name}]\naudience = \"{audience}\"\nignore_query = [\"utm_*\"]\n{more}\n"
        )
    };
    policy("pages", "anonymous") + &policy("shared", "rfc9111")
}

/// By the path where there are few, and by the bytes of bodies.
const FEW_AND_BYTES: &str = r#"
    [limit.few]
    quota = "9 per hour"
    key = "path"
    [limit.bytes]
    quota = "20 KiB per month"
    key = "client-ip + header:x-api-key | route"
"#;

fn limit(dice: &mut Dice, number: usize) -> String {
    let key = dice.pick(&[
        "client-ip",
        "header:x-api-key | client-ip",
        "cookie:sid | client-ip",
        "query:k | header:x-api-key | client-ip",
        "host",
        "route",
        "client-ip + cookie:sid | client-ip",
    ]);
    let quota = dice.pick(&[
        "\"12 per hour\"",
        "\"4 per hour, burst 12\"",
        "[\"12 per hour, burst 30\", \"100 per month\"]",
        "\"300 per month\"",
        "\"3000 per month\"",
        "\"9000 per month\"",
    ]);
    let fields = dice.pick(&["draft-11", "draft-11", "x-ratelimit", "off"]);
    let more = dice.pick(&[
        "",
        "mode = \"shadow\"",
        "status = 503",
        "cost = 2",
        "cost_header = \"X-Cost\"",
        "costs = [{ method = \"HEAD\", cost = 0 }, { path = \"/api\", cost = 3 }]",
        "exempt = { clients = [\"198.51.100.4\"], paths = [\"/api/v1\"], headers = { \"X-Internal\" = \"let me in\" } }",
    ]);
    format!("[limit.l{number}]\nquota = {quota}\nkey = \"{key}\"\nfields = \"{fields}\"\n{more}\n")
}

fn routes(dice: &mut Dice) -> String {
    let mut text = String::new();
    // Without the limits by bytes, of which a stored answer may be sent in fewer.
    for (path, policy) in [("/c/", "pages"), ("/r/", "shared")] {
        for host in ["*", "*.example"] {
            let limits = limits(dice, &["few"]);
            let headers = dice.pick(&["basic", "strict", "off", "site"]);
            text += &format!(
                "[[route]]\nhost = \"{host}\"\npath = \"{path}\"\nupstream = \"app\"\ncache = \"{policy}\"\nheaders = \"{headers}\"\nlimit = [{limits}]\n"
            ).replace("host = \"*\"\n", "");
        }
    }
    for path in [
        "/", "/api/", "/api/v1/", "/shop", "/strip/", "/few/", "/fixed/", "/moved/", "/post/",
    ] {
        for host in ["", "a.example", "*.example"] {
            // Whatever is asked for below these hosts finds something, most of the time.
            let is_ground = path == "/" && host == "*.example";
            if is_ground || dice.one_in(2) {
                text += &route(dice, host, path);
            }
        }
    }
    text
}

fn route(dice: &mut Dice, host: &str, path: &str) -> String {
    let mut text = format!("[[route]]\npath = \"{path}\"\n");
    if !host.is_empty() {
        text += &format!("host = \"{host}\"\n");
    }
    text += match path {
        "/fixed/" => dice.pick(&[
            "respond = { status = 200, body = \"hello\" }\n",
            "respond = { status = 503, body = \"<p>back soon\", content_type = \"text/html\" }\n",
            "respond = { status = 204 }\n",
        ]),
        "/moved/" => dice.pick(&[
            "redirect = { status = 301, to = \"https://{host}{path}\" }\n",
            "redirect = { status = 307, to = \"https://b.example{path}{?query}\" }\n",
        ]),
        "/strip/" => dice.pick(&[
            "upstream = \"app\"\nstrip_prefix = true\n",
            "upstream = \"app\"\nreplace_prefix = \"/v2\"\n",
        ]),
        "/post/" => "upstream = \"app\"\nmethods = [\"POST\"]\n",
        _ => "upstream = \"app\"\n",
    };
    text += &format!(
        "headers = \"{}\"\n",
        dice.pick(&["basic", "strict", "off", "site"])
    );
    let limits = limits(
        dice,
        if path == "/few/" {
            &["few", "bytes"]
        } else {
            &["bytes"]
        },
    );
    if text.contains("upstream") {
        // Bytes are counted as they leave: how many an encoder makes depends on the pieces in which they came.
        let is_free = !limits.contains("bytes");
        let said = ["", "compress = true\n", "compress = false\n"];
        text += if is_free {
            dice.pick(&said)
        } else {
            "compress = false\n"
        };
    }
    text += &format!("limit = [{limits}]\n");
    text
}

/// Most routes have none, so that most requests are answered.
fn limits(dice: &mut Dice, more: &[&str]) -> String {
    if !dice.one_in(3) {
        return String::new();
    }
    let first = dice.below(LIMITS);
    let mut names = vec![format!("\"l{first}\"")];
    if dice.one_in(3) {
        names.push(format!("\"l{}\"", (first + 1) % LIMITS));
    }
    if dice.one_in(3) {
        names.push(format!("{:?}", dice.pick(more)));
    }
    names.join(", ")
}

/// Everybody who may be counted, as an administrator names them.
pub fn names() -> Vec<String> {
    let mut names: Vec<_> = (1..=25)
        .map(|last| format!("client-ip=198.51.100.{last}"))
        .collect();
    let others = [
        "client-ip=127.0.0.1",
        "client-ip=192.0.2.1",
        "header:x-api-key=one",
        "header:x-api-key=two",
        "header:x-api-key=three",
        "header:x-api-key=four",
        "cookie:sid=me",
        "cookie:sid=you",
        "cookie:sid=they",
        "query:k=1",
        "query:k=2",
        "host=a.example",
        "host=b.example",
        "path=/few/a",
        "path=/few/b",
    ];
    names.extend(others.map(str::to_owned));
    names
}
