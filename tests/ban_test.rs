//! Who is not let in: clients on lists, and clients banned for what they did, at one gateway and at several.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use http::Request;
use serde_json::{Value, json};

use crate::harness::client::{Connection, raw};
use crate::harness::gateway::{Gateway, tollgate};
use crate::harness::h2_client::H2;
use crate::harness::h2_frames::{Frames, Outcome};
use crate::harness::origin::{Origin, Reply};
use crate::harness::redis::{RedisCluster, RedisServer};
use crate::harness::response::Response;
use crate::harness::wait_for;

const TOKEN: &str = "a-token-of-the-test";
/// Requests come by a proxy that is believed, so that there are many clients.
const BY_A_PROXY: &str = r#"trusted_proxies = ["127.0.0.1"]"#;

const ONE: &str = "192.0.2.1";
const OTHER: &str = "192.0.2.2";

/// Answers `/status/N` with that status, and all else with 200.
fn application() -> Origin {
    Origin::with(|request| {
        let head = request.head_text();
        let path = head.split(' ').nth(1).expect("a target");
        let status = path.strip_prefix("/status/");
        let status = status.map_or(200, |status| status.parse().expect("a status"));
        Reply::status(status, "said by the application")
    })
}

fn config(origin: &Origin, clients: &str, rest: &str) -> String {
    format!(
        r#"
        [server]
        listen = ["127.0.0.1:0", {{ address = "127.0.0.1:0", h2c = true }}]
        [log]
        access = "all"
        [clients]
        {clients}
        [upstream.app]
        backends = ["{}"]
        max_fails = 0
        [[route]]
        upstream = "app"
        [[route]]
        path = "/own"
        respond = {{ status = 200, body = "own" }}
        [admin]
        listen = "127.0.0.1:0"
        token = "{TOKEN}"
        {rest}
        "#,
        origin.address()
    )
}

fn gateway(origin: &Origin, clients: &str, rest: &str) -> Gateway {
    Gateway::start(&config(origin, clients, rest))
}

/// A rule of this name, and its other keys.
fn rule(when: &str, rest: &str) -> String {
    format!("[ban.test]\nwhen = \"{when}\"\n{rest}")
}

fn sharing(redis: &RedisServer, when: &str) -> String {
    sharing_by(&format!("{:?}", redis.url()), when)
}

fn sharing_by(nodes: &str, when: &str) -> String {
    format!(
        "[redis]\nnodes = [{nodes}]\ndeadline = \"1s\"\n{}",
        rule(when, "")
    )
}

/// The three ways that a request may take through the gateway.
#[derive(Clone, Copy, Debug)]
enum Way {
    Express,
    Full,
    Http2,
}

const WAYS: [Way; 3] = [Way::Express, Way::Full, Way::Http2];

/// What a client is told, as status and reason; `None` is nothing at all.
fn told(gateway: &Gateway, way: Way, client: &str, path: &str) -> Option<(u16, String)> {
    let reason = |body: &[u8]| {
        let problem: Option<Value> = serde_json::from_slice(body).ok();
        let reason = problem.and_then(|problem| problem["reason"].as_str().map(str::to_owned));
        reason.unwrap_or_default()
    };
    if let Way::Http2 = way {
        let request = Request::get(format!("http://a.example{path}"))
            .header("x-forwarded-for", client)
            .body(Vec::new())
            .expect("a request");
        let h2 = H2::cleartext(gateway.addresses()[1]);
        let response = h2.request(request).ok()?.response;
        return Some((response.status().as_u16(), reason(response.body())));
    }
    let fields = match way {
        Way::Full => "Content-Length: 0\r\n",
        _ => "",
    };
    let response = ask(gateway, client, path, fields)?;
    Some((response.status(), reason(&response.body)))
}

fn ask(gateway: &Gateway, client: &str, path: &str, fields: &str) -> Option<Response> {
    let mut connection = gateway.connect();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: {client}\r\n{fields}\r\n"
    );
    connection.send(request.as_bytes()).expect("it is read");
    connection.response().ok()
}

fn status(gateway: &Gateway, client: &str, path: &str) -> u16 {
    told(gateway, Way::Express, client, path)
        .expect("an answer")
        .0
}

fn is_banned(gateway: &Gateway, client: &str) -> bool {
    told(gateway, Way::Express, client, "/") == Some((403, "banned".to_owned()))
}

/// A request is held against its client when its answer has been sent.
fn wait_until_banned(gateway: &Gateway, client: &str) {
    wait_for("the ban", || is_banned(gateway, client).then_some(()));
}

fn wait_until_let_in(gateway: &Gateway, client: &str) {
    wait_for("the end of the ban", || {
        (status(gateway, client, "/") == 200).then_some(())
    });
}

/// The next line of the log after `from` with this message.
fn line(gateway: &Gateway, from: usize, message: &str) -> Value {
    let wanted = format!("\"message\":\"{message}\"");
    let line = gateway.wait_for_log_after(from, message, |line| line.contains(&wanted));
    serde_json::from_str(&line).expect("JSON")
}

fn admin(gateway: &Gateway) -> SocketAddr {
    *gateway
        .addresses()
        .last()
        .expect("the admin listener is the last")
}

fn call(gateway: &Gateway, method: &str, path: &str, body: &str) -> Response {
    let mut client = Connection::open(admin(gateway));
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    client.send(request.as_bytes()).expect("it is read");
    client.response().expect("an answer")
}

fn bans(gateway: &Gateway) -> Value {
    call(gateway, "GET", "/limit/bans", "").json()
}

fn ban(gateway: &Gateway, client: &str, length: &str) -> Value {
    let order = json!({ "client": client, "for": length });
    let answer = call(gateway, "POST", "/limit/ban", &order.to_string());
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()
}

fn unban(gateway: &Gateway, client: &str) -> Value {
    let order = json!({ "client": client });
    call(gateway, "POST", "/limit/unban", &order.to_string()).json()
}

fn metric(gateway: &Gateway, sample: &str) -> String {
    let page = call(gateway, "GET", "/metrics", "").text();
    let line = page.lines().find_map(|line| line.strip_prefix(sample));
    line.unwrap_or_else(|| panic!("{sample} in {page}"))
        .trim()
        .to_owned()
}

fn put(folder: &Path, name: &str, text: &str) {
    let whole = folder.join("new");
    fs::write(&whole, text).expect("the folder is writable");
    fs::rename(whole, folder.join(name)).expect("same folder");
}

fn seconds(line: &Value) -> f64 {
    let length = line["length"].as_str().expect("a length");
    length.trim_end_matches('s').parse().expect("seconds")
}

#[test]
fn what_a_rule_counts_bans_a_client_on_every_lane_and_nobody_else() {
    let origin = application();
    for (when, rest, path) in [
        ("3 × 404 in 1 minute", "", "/status/404"),
        ("3 × 401/403 in 5 minutes", "", "/status/401"),
        ("3 scans in 1 minute", "paths = [\"/trap/*\"]", "/trap/x"),
    ] {
        let gateway = gateway(&origin, BY_A_PROXY, &rule(when, rest));
        for (way, client) in WAYS
            .into_iter()
            .zip(["198.51.100.1", "198.51.100.2", "198.51.100.3"])
        {
            let from = gateway.log().position();
            for _ in 0..2 {
                assert_ne!(told(&gateway, way, client, path), None, "{when}");
                assert!(!is_banned(&gateway, client), "{when} {way:?}");
            }
            assert_ne!(told(&gateway, way, client, path), None, "{when}");
            let audit = line(&gateway, from, "client banned");
            assert_eq!(
                (&audit["client"], &audit["rule"]),
                (&json!(client), &json!("test"))
            );
            assert_eq!(
                (&audit["events"], &audit["offence"]),
                (&json!(3), &json!(1)),
                "{audit}"
            );
            assert_eq!(
                (seconds(&audit), &audit["mode"]),
                (600.0, &json!("enforce")),
                "{audit}"
            );
            for way in WAYS {
                let banned = Some((403, "banned".to_owned()));
                assert_eq!(told(&gateway, way, client, "/"), banned, "{when} {way:?}");
                assert_eq!(
                    told(&gateway, way, client, "/own"),
                    banned,
                    "{when} {way:?}"
                );
                assert_eq!(
                    told(&gateway, way, OTHER, "/own").expect("an answer").0,
                    200
                );
            }
        }
    }
}

#[test]
fn paths_of_scanners_count_where_nothing_is_served() {
    let origin = Origin::with(|request| match request.head_text().contains("/.env") {
        true => Reply::status(404, "nothing"),
        false => Reply::ok("a login"),
    });
    let gateway = gateway(&origin, BY_A_PROXY, &rule("2 scans in 1 hour", ""));
    for _ in 0..4 {
        assert_eq!(status(&gateway, ONE, "/wp-login.php"), 200);
    }
    assert_eq!(status(&gateway, ONE, "/.env"), 404);
    assert_eq!(status(&gateway, ONE, "/.env.local"), 404);
    wait_until_banned(&gateway, ONE);
}

#[test]
fn who_goes_on_when_its_quota_is_used_up_is_banned() {
    let origin = application();
    let rest = rule("3 refusals in 1 minute", "");
    let limit = "[limit.api]\nquota = \"2 per hour\"\n[[route]]\npath = \"/api\"\nupstream = \"app\"\nlimit = [\"api\"]";
    let gateway = gateway(&origin, BY_A_PROXY, &format!("{rest}\n{limit}"));
    // What the application says by itself is no refusal.
    for _ in 0..5 {
        assert_eq!(status(&gateway, ONE, "/status/429"), 429);
    }
    for expected in [200, 200, 429, 429] {
        assert_eq!(status(&gateway, ONE, "/api"), expected);
    }
    assert!(!is_banned(&gateway, ONE));
    assert_eq!(
        told(&gateway, Way::Full, ONE, "/api").expect("an answer").0,
        429
    );
    wait_until_banned(&gateway, ONE);
    assert!(!is_banned(&gateway, OTHER));
}

#[test]
fn malformed_messages_ban_who_sends_them_over_either_version() {
    let origin = application();
    let malformed = rule("3 malformed in 1 minute", "");
    let gateway_h1 = gateway(&origin, "", &malformed);
    let patience = Duration::from_secs(5);
    for _ in 0..3 {
        assert!(!is_banned(&gateway_h1, ONE));
        let answer = raw(
            gateway_h1.address(),
            b"GET / HTTP/1.1\nHost: a\n\n",
            patience,
        );
        assert!(answer.starts_with(b"HTTP/1.1 400"));
    }
    wait_until_banned(&gateway_h1, ONE);
    // Even that is not looked at any more.
    let answer = raw(
        gateway_h1.address(),
        b"GET / HTTP/1.1\nHost: a\n\n",
        patience,
    );
    assert!(
        answer.starts_with(b"HTTP/1.1 403"),
        "{}",
        String::from_utf8_lossy(&answer)
    );

    let gateway_h2 = gateway(&origin, BY_A_PROXY, &malformed);
    for _ in 0..3 {
        assert_eq!(
            told(&gateway_h2, Way::Http2, ONE, "/%00")
                .expect("an answer")
                .0,
            400
        );
    }
    wait_until_banned(&gateway_h2, ONE);
    assert!(!is_banned(&gateway_h2, OTHER));
}

#[test]
fn streams_that_are_no_requests_ban_who_sends_them() {
    let origin = application();
    let gateway = gateway(&origin, "", &rule("3 malformed in 1 minute", ""));
    let mut frames = Frames::open(gateway.addresses()[1]);
    for _ in 0..3 {
        assert!(!is_banned(&gateway, ONE));
        let fields = [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "a.example"),
            (":path", "/"),
            ("host", "b.example"),
        ];
        let outcome = frames.request(&fields, b"");
        let refused = matches!(outcome, Outcome::Answered { status: 400, .. });
        assert!(refused, "{outcome:?}");
    }
    wait_until_banned(&gateway, ONE);
    assert_eq!(bans(&gateway)["bans"][0]["client"], "127.0.0.1");
}

#[test]
fn each_ban_is_longer_than_the_one_before() {
    let origin = application();
    let keys = "for = \"1s\"\ngrowth = 2\nup_to = \"2s\"";
    let gateway = gateway(&origin, BY_A_PROXY, &rule("1 × 404 in 1 minute", keys));
    for (offence, length) in [(1, 1.0), (2, 2.0), (3, 2.0)] {
        let from = gateway.log().position();
        status(&gateway, ONE, "/status/404");
        let audit = line(&gateway, from, "client banned");
        assert_eq!(
            (&audit["offence"], seconds(&audit)),
            (&json!(offence), length),
            "{audit}"
        );
        let began = Instant::now();
        assert!(is_banned(&gateway, ONE));
        wait_until_let_in(&gateway, ONE);
        assert!(
            began.elapsed().as_secs_f64() > length - 0.5,
            "{:?}",
            began.elapsed()
        );
        let ended = line(&gateway, from, "ban ended");
        assert_eq!(
            (&ended["client"], &ended["end"]),
            (&json!(ONE), &json!("over"))
        );
    }
}

#[test]
fn a_banned_client_is_answered_as_the_rule_says() {
    let origin = application();
    let when = "1 × 404 in 1 minute";
    let later = gateway(&origin, BY_A_PROXY, &rule(when, "answer = \"429\""));
    assert_eq!(status(&later, ONE, "/status/404"), 404);
    wait_for("the ban", || {
        (status(&later, ONE, "/") == 429).then_some(())
    });
    for fields in ["", "Content-Length: 0\r\n"] {
        let answer = ask(&later, ONE, "/", fields).expect("an answer");
        let after: u64 = answer
            .field("retry-after")
            .expect("with it")
            .parse()
            .expect("seconds");
        assert!((1..=600).contains(&after), "{after}");
        assert_eq!(answer.json()["reason"], "banned");
    }

    let silent = gateway(&origin, BY_A_PROXY, &rule(when, "answer = \"close\""));
    assert_eq!(status(&silent, ONE, "/status/404"), 404);
    let silence = |way| told(&silent, way, ONE, "/").is_none();
    wait_for("the ban", || silence(Way::Express).then_some(()));
    let from = silent.log().position();
    for way in WAYS {
        assert!(silence(way), "{way:?}");
        assert_eq!(
            told(&silent, way, OTHER, "/").expect("an answer").0,
            200,
            "{way:?}"
        );
    }
    let banned = silent.wait_for_log_after(from, "its record", |line| line.contains("\"banned\""));
    assert!(banned.contains("\"status\":0"), "{banned}");
}

#[test]
fn who_is_on_the_allow_list_is_neither_denied_nor_banned() {
    let origin = application();
    let clients = format!("{BY_A_PROXY}\nallow = [\"{ONE}\"]\ndeny = [\"192.0.2.0/24\"]");
    let gateway = gateway(&origin, &clients, &rule("1 × 404 in 1 minute", ""));
    for _ in 0..3 {
        assert_eq!(status(&gateway, ONE, "/status/404"), 404);
    }
    // A later request of the same kind is held against its client after those of before.
    assert_eq!(status(&gateway, "198.51.100.1", "/status/404"), 404);
    wait_until_banned(&gateway, "198.51.100.1");
    assert_eq!(status(&gateway, ONE, "/"), 200);
    assert_eq!(bans(&gateway)["standing"], 1);
    let refused = call(
        &gateway,
        "POST",
        "/limit/ban",
        &json!({"client": ONE, "for": "1h"}).to_string(),
    );
    assert_eq!(refused.status(), 409, "{}", refused.text());
}

#[test]
fn a_trusted_proxy_is_not_banned_for_what_it_passes_on() {
    let origin = application();
    let gateway = gateway(
        &origin,
        BY_A_PROXY,
        &rule("1 malformed/404 in 1 minute", ""),
    );
    let proxy = "127.0.0.1";
    raw(
        gateway.address(),
        b"GET / HTTP/1.1\nHost: a\n\n",
        Duration::from_secs(5),
    );
    assert_eq!(status(&gateway, proxy, "/status/404"), 404);
    assert_eq!(status(&gateway, ONE, "/status/404"), 404);
    wait_until_banned(&gateway, ONE);
    assert_eq!(status(&gateway, proxy, "/"), 200);
    assert_eq!(bans(&gateway)["standing"], 1);
}

#[test]
fn a_rule_in_shadow_says_what_it_would_do_and_does_not() {
    let origin = application();
    let gateway = gateway(
        &origin,
        BY_A_PROXY,
        &rule("2 × 404 in 1 minute", "mode = \"shadow\""),
    );
    let from = gateway.log().position();
    status(&gateway, ONE, "/status/404");
    status(&gateway, ONE, "/status/404");
    let audit = line(&gateway, from, "client banned");
    assert_eq!(
        (&audit["mode"], &audit["client"]),
        (&json!("shadow"), &json!(ONE))
    );
    for way in WAYS {
        assert_eq!(told(&gateway, way, ONE, "/").expect("an answer").0, 200);
    }
    assert_eq!(metric(&gateway, "tollgate_bans{mode=\"shadow\"}"), "1");
    assert_eq!(metric(&gateway, "tollgate_bans{mode=\"enforce\"}"), "0");
    assert_eq!(
        metric(
            &gateway,
            "tollgate_ban_shadow_refusals_total{rule=\"test\"}"
        ),
        "3"
    );
    assert_eq!(
        metric(&gateway, "tollgate_ban_refusals_total{rule=\"test\"}"),
        "0"
    );
    let told = bans(&gateway);
    assert_eq!(
        (&told["standing"], &told["in_shadow"]),
        (&json!(0), &json!(1)),
        "{told}"
    );
    let lines = gateway.log().lines_after(from);
    let audits = lines.iter().filter(|line| line.contains("client banned"));
    assert_eq!(audits.count(), 1);
}

#[test]
fn a_ban_survives_a_reload() {
    let origin = application();
    let first = rule("1 × 404 in 1 minute", "");
    let gateway = gateway(&origin, BY_A_PROXY, &first);
    // From then on a change of the file is noticed.
    gateway.wait_for_log("that it is ready", |line| line.contains("\"ready\""));
    status(&gateway, ONE, "/status/404");
    wait_until_banned(&gateway, ONE);
    let from = gateway.log().position();
    gateway.write_config(&config(
        &origin,
        BY_A_PROXY,
        "[ban.another]\nwhen = \"5 × 404 in 1 minute\"",
    ));
    gateway.wait_for_log_after(from, "the reload", |line| line.contains("\"reloaded\""));
    assert!(is_banned(&gateway, ONE));
    assert_eq!(status(&gateway, OTHER, "/status/404"), 404);
    assert_eq!(
        metric(&gateway, "tollgate_bans_made_total{rule=\"test\"}"),
        "1"
    );
    assert_eq!(unban(&gateway, ONE)["was_banned"], true);
    assert_eq!(status(&gateway, ONE, "/"), 200);
}

#[test]
fn a_client_does_not_escape_by_saying_that_it_is_another() {
    let origin = application();
    let gateway = gateway(&origin, "", &rule("5 × 404 in 1 minute", ""));
    for number in 0..5 {
        assert_eq!(
            status(&gateway, &format!("203.0.113.{number}"), "/status/404"),
            404
        );
    }
    wait_until_banned(&gateway, "203.0.113.9");
    let told = bans(&gateway);
    assert_eq!(told["standing"], 1, "{told}");
    assert_eq!(told["bans"][0]["client"], "127.0.0.1");
    // Nor does it have another banned, or the ban forgotten, whatever it says.
    for number in 0..100 {
        assert!(is_banned(&gateway, &format!("198.51.100.{number}")));
    }
    assert_eq!(bans(&gateway)["standing"], 1);
}

#[test]
fn a_denied_client_is_refused_before_anything_else_on_every_lane() {
    let origin = application();
    let clients = format!("{BY_A_PROXY}\ndeny = [\"192.0.2.0/24\", \"2001:db8::/32\"]");
    let gateway = gateway(&origin, &clients, "");
    let denied = Some((403, "denied".to_owned()));
    for way in WAYS {
        for client in [ONE, "2001:db8::7"] {
            assert_eq!(told(&gateway, way, client, "/"), denied, "{way:?}");
        }
        assert_eq!(
            told(&gateway, way, "198.51.100.1", "/")
                .expect("an answer")
                .0,
            200
        );
    }
    // Whatever is wrong with what it asks.
    assert_eq!(told(&gateway, Way::Http2, ONE, "/%00"), denied);
    assert_eq!(origin.received().len(), WAYS.len());
    assert_eq!(metric(&gateway, "tollgate_denied_total"), "7");
    assert_eq!(
        metric(&gateway, "tollgate_client_list_entries{list=\"deny\"}"),
        "2"
    );
}

#[test]
fn a_list_file_is_followed_and_a_wrong_one_changes_nothing() {
    let origin = application();
    let folder = tempfile::tempdir().expect("a temporary folder");
    put(folder.path(), "deny.txt", "# of May\n192.0.2.1 # noisy\n");
    let clients = format!("{BY_A_PROXY}\ndeny = \"deny.txt\"");
    let gateway = Gateway::start_in(folder, &config(&origin, &clients, ""));
    assert_eq!(
        (status(&gateway, ONE, "/"), status(&gateway, OTHER, "/")),
        (403, 200)
    );

    let from = gateway.log().position();
    put(gateway.folder(), "deny.txt", "192.0.2.2\n");
    let taken = line(&gateway, from, "list taken from disk");
    assert_eq!(taken["entries"], 1);
    assert_eq!(
        (status(&gateway, ONE, "/"), status(&gateway, OTHER, "/")),
        (200, 403)
    );

    let from = gateway.log().position();
    put(gateway.folder(), "deny.txt", "192.0.2.1\nnobody\n");
    let wrong =
        gateway.wait_for_log_after(from, "the wrong line", |line| line.contains("list refused"));
    assert!(
        wrong.contains("deny.txt:2: ") && wrong.contains("nobody"),
        "{wrong}"
    );
    gateway.wait_for_log_after(from, "what follows", |line| {
        line.contains("its predecessor stays")
    });
    assert_eq!(
        (status(&gateway, ONE, "/"), status(&gateway, OTHER, "/")),
        (200, 403)
    );
}

#[test]
fn every_wrong_line_of_a_list_is_a_problem_of_the_configuration() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    put(folder.path(), "deny.txt", "192.0.2.1\nnobody\n10.0.0.1/8\n");
    put(folder.path(), "allow.txt", "10.0.0.1:80\n");
    let text = "[server]\nlisten = [\"127.0.0.1:8080\"]\n[clients]\nallow = \"allow.txt\"\ndeny = \"deny.txt\"\n[[route]]\npath = \"/\"\nrespond = { body = \"x\" }\n";
    put(folder.path(), "gateway.toml", text);
    let path = folder.path().join("gateway.toml");
    let output = tollgate(&["check", "--config", path.to_str().expect("UTF-8")]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    for wrong in [
        r#"allow.txt:1: "10.0.0.1:80" has a port"#,
        r#"deny.txt:2: "nobody" is not a network"#,
        r#"deny.txt:3: "10.0.0.1/8" has bits after its prefix"#,
    ] {
        assert!(said.contains(wrong), "{said}");
    }
    assert_eq!(said.lines().count(), 3, "{said}");
    assert!(
        said.lines()
            .nth(1)
            .expect("a line")
            .contains("gateway.toml:5:8: "),
        "{said}"
    );
}

#[test]
fn an_operator_bans_and_unbans_by_command() {
    let origin = application();
    let gateway = gateway(&origin, BY_A_PROXY, "");
    let command = |arguments: &[&str]| {
        let config = gateway.config_path();
        let config = ["--config", config.to_str().expect("UTF-8 paths")];
        let output = tollgate(&[&["limit"], arguments, &config].concat());
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    };
    let from = gateway.log().position();
    let (code, text) = command(&["ban", ONE, "--for", "1h", "--why", "a scraper"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("192.0.2.1 banned for another 3"), "{text}");
    assert!(text.ends_with(": by hand, \"a scraper\"\n"), "{text}");
    let audit = line(&gateway, from, "client banned");
    assert_eq!(
        (&audit["rule"], &audit["why"]),
        (&json!("by hand"), &json!("a scraper"))
    );
    assert!(is_banned(&gateway, ONE));
    let (_, text) = command(&["bans"]);
    assert!(
        text.contains("\"a scraper\"\n1 banned, 0 in shadow\n"),
        "{text}"
    );
    let (code, text) = command(&["unban", ONE]);
    assert_eq!(
        (code, &*text),
        (Some(0), "192.0.2.1 is not banned any more\n")
    );
    assert_eq!(line(&gateway, from, "ban ended")["end"], "lifted");
    assert_eq!(status(&gateway, ONE, "/"), 200);
    let (code, text) = command(&["unban", ONE]);
    assert_eq!((code, &*text), (Some(0), "192.0.2.1 was not banned\n"));
    let (code, text) = command(&["ban", ONE, "--for", "soon"]);
    assert!(
        code == Some(1) && text.contains("is not a duration"),
        "{text}"
    );

    let without = Connection::open(admin(&gateway)).get("/limit/bans");
    assert_eq!(without.expect("an answer").status(), 401);
}

#[test]
fn explain_says_what_is_held_against_a_client() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    put(folder.path(), "deny.txt", "192.0.2.1\n");
    let origin = application();
    let clients = format!("{BY_A_PROXY}\nallow = [\"10.0.0.0/8\"]\ndeny = \"deny.txt\"");
    let text = config(&origin, &clients, &rule("3 × 404 in 1 minute", ""));
    let ports = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"].into_iter();
    put(
        folder.path(),
        "gateway.toml",
        &ports.fold(text, |text, port| text.replacen("127.0.0.1:0", port, 1)),
    );
    let path = folder.path().join("gateway.toml");
    let explain = |client: &str, header: &str| {
        let config = path.to_str().expect("UTF-8");
        let output = tollgate(&[
            "explain",
            "GET",
            "http://a.example/",
            "--client",
            client,
            "-H",
            header,
            "--config",
            config,
        ]);
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).into_owned()
    };
    let denied = explain(ONE, "X-A: 1");
    assert!(
        denied.contains("on the list clients.deny\nrefused     403 denied\n"),
        "{denied}"
    );
    let behind = explain("127.0.0.1", &format!("X-Forwarded-For: {ONE}"));
    assert_eq!(denied, behind);
    let allowed = explain("10.1.2.3", "X-A: 1");
    assert!(
        allowed.contains("never denied, never banned") && allowed.contains("route "),
        "{allowed}"
    );
    let anybody = explain("203.0.113.1", "X-A: 1");
    assert!(
        anybody.contains("by test after 3 × 404 in 1 minute: 600s to 86400s, answered 403"),
        "{anybody}"
    );
}

#[test]
fn gateways_that_share_a_redis_ban_together() {
    let redis = RedisServer::start();
    let origin = application();
    let start = || gateway(&origin, BY_A_PROXY, &sharing(&redis, "3 × 404 in 1 minute"));
    let (first, second) = (start(), start());
    for _ in 0..3 {
        status(&first, ONE, "/status/404");
    }
    wait_until_banned(&first, ONE);
    wait_until_banned(&second, ONE);
    let told = bans(&second);
    assert_eq!(told["bans"][0]["rule"], "test", "{told}");
    assert_eq!(told["bans"][0]["events"], 3, "{told}");
    // One line of one gateway for one ban.
    assert!(
        !second
            .log()
            .lines()
            .iter()
            .any(|line| line.contains("client banned"))
    );

    // Who comes later reads it.
    let third = start();
    wait_until_banned(&third, ONE);

    assert_eq!(unban(&second, ONE)["was_banned"], true);
    for gateway in [&first, &second, &third] {
        wait_until_let_in(gateway, ONE);
    }
    // One that was forgotten by all grows from the beginning.
    let from = third.log().position();
    for _ in 0..3 {
        status(&third, ONE, "/status/404");
    }
    assert_eq!(line(&third, from, "client banned")["offence"], 1);
    wait_until_banned(&first, ONE);
}

#[test]
fn gateways_over_a_cluster_ban_together() {
    let cluster = RedisCluster::start();
    let origin = application();
    let shared = sharing_by(&cluster.urls(), "1 × 404 in 1 minute");
    let start = || gateway(&origin, BY_A_PROXY, &shared);
    let (first, second) = (start(), start());
    status(&first, ONE, "/status/404");
    wait_until_banned(&second, ONE);
    unban(&second, ONE);
    wait_until_let_in(&first, ONE);
}

#[test]
fn a_ban_of_another_gateway_makes_the_next_one_longer() {
    let redis = RedisServer::start();
    let origin = application();
    let keys = format!("{}\nfor = \"1s\"", sharing(&redis, "1 × 404 in 1 minute"));
    let start = || gateway(&origin, BY_A_PROXY, &keys);
    let (first, second) = (start(), start());
    status(&first, ONE, "/status/404");
    wait_until_banned(&second, ONE);
    wait_until_let_in(&second, ONE);
    let from = second.log().position();
    status(&second, ONE, "/status/404");
    let audit = line(&second, from, "client banned");
    assert_eq!(
        (&audit["offence"], seconds(&audit)),
        (&json!(2), 2.0),
        "{audit}"
    );
}

#[test]
fn bans_stand_while_redis_is_away_and_are_told_when_it_is_back() {
    let mut redis = RedisServer::start();
    let origin = application();
    let shared = sharing(&redis, "3 × 404 in 1 minute");
    let start = || gateway(&origin, BY_A_PROXY, &shared);
    let (first, second) = (start(), start());
    ban(&first, ONE, "1h");
    wait_until_banned(&second, ONE);
    let meanwhile = "198.51.100.1";
    ban(&first, meanwhile, "1h");
    wait_until_banned(&second, meanwhile);

    redis.kill();
    assert!(is_banned(&first, ONE) && is_banned(&second, ONE));
    for _ in 0..3 {
        status(&first, OTHER, "/status/404");
    }
    wait_until_banned(&first, OTHER);
    assert_eq!(status(&second, OTHER, "/"), 200);
    unban(&second, meanwhile);
    assert_eq!(status(&second, meanwhile, "/"), 200);
    assert!(is_banned(&first, meanwhile));

    // It comes back without anything.
    redis.restart();
    wait_until_banned(&second, OTHER);
    wait_until_let_in(&first, meanwhile);
    for gateway in [&first, &second] {
        assert!(is_banned(gateway, ONE) && is_banned(gateway, OTHER));
        wait_until_let_in(gateway, meanwhile);
    }
    let third = start();
    wait_until_banned(&third, ONE);
    wait_until_banned(&third, OTHER);
    assert_eq!(status(&third, meanwhile, "/"), 200);
}

#[test]
fn a_redis_that_is_silent_delays_nobody() {
    let redis = RedisServer::start();
    let origin = application();
    let gateway = gateway(&origin, BY_A_PROXY, &sharing(&redis, "1 × 404 in 1 minute"));
    ban(&gateway, ONE, "1h");
    redis.pause();
    let began = Instant::now();
    for number in 0..50 {
        let client = format!("198.51.100.{number}");
        assert_eq!(status(&gateway, &client, "/status/404"), 404);
        wait_until_banned(&gateway, &client);
    }
    assert!(is_banned(&gateway, ONE));
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    redis.resume();
}
