//! Which route a request meets, and what the route does with it.

use serde_json::Value;

use crate::harness::gateway::Gateway;
use crate::harness::origin::{Origin, Reply};
use crate::harness::response::Response;

fn start(origin: &Origin, routes: &str) -> Gateway {
    Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        [log]
        access = "all"
        [upstream.app]
        backends = ["{}"]
        max_body = 10
        {routes}
        "#,
        origin.address()
    ))
}

fn ask(gateway: &Gateway, method: &str, host: &str, target: &str, body: &str) -> Response {
    let length = body.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let mut client = gateway.connect();
    client.send(request.as_bytes()).expect("the gateway reads");
    client.response_to(method).expect("an answer")
}

#[test]
fn the_most_specific_host_and_the_longest_path_win() {
    let origin = Origin::always(Reply::ok("x"));
    let places = [
        ("", "/"),
        ("", "/api"),
        ("*.shop.example", "/"),
        ("*.eu.shop.example", "/"),
        ("shop.example", "/"),
        ("shop.example", "/api/"),
        ("shop.example", "/api/v2"),
    ];
    let route = |(host, path): (&str, &str)| {
        let of_host = match host {
            "" => String::new(),
            host => format!("host = \"{host}\"\n"),
        };
        format!("[[route]]\n{of_host}path = \"{path}\"\nrespond = {{ body = \"{host}{path}\" }}\n")
    };
    let gateway = start(&origin, &places.map(route).concat());
    for (host, path, wanted) in [
        ("other.example", "/x", "/"),
        ("other.example", "/api", "/api"),
        ("other.example", "/api/x", "/api"),
        ("other.example", "/apix", "/"),
        ("shop.example", "/x", "shop.example/"),
        ("SHOP.example:8080", "/x", "shop.example/"),
        ("shop.example.", "/x", "shop.example/"),
        // A prefix that ends in a slash is for what is below it.
        ("shop.example", "/api", "shop.example/"),
        ("shop.example", "/api/x", "shop.example/api/"),
        ("shop.example", "/api/v2", "shop.example/api/v2"),
        ("shop.example", "/api/v2/x", "shop.example/api/v2"),
        ("shop.example", "/api/v22", "shop.example/api/"),
        ("www.shop.example", "/x", "*.shop.example/"),
        ("a.b.shop.example", "/x", "*.shop.example/"),
        ("a.eu.shop.example", "/x", "*.eu.shop.example/"),
        // The host is chosen before the path: its routes are all there are.
        ("www.shop.example", "/api/x", "*.shop.example/"),
    ] {
        let answer = ask(&gateway, "GET", host, path, "");
        assert_eq!(answer.text(), wanted, "{host} {path}");
    }
}

#[test]
fn a_redirect_has_its_status_and_fills_in_where_to() {
    let origin = Origin::always(Reply::ok("never"));
    let route = |status: u16| {
        format!(
            "[[route]]\npath = \"/{status}\"\n[route.redirect]\nstatus = {status}\n\
             to = \"https://new.example{{path}}{{?query}}\"\n"
        )
    };
    let statuses = [301, 302, 303, 307, 308];
    let more = r#"
        [[route]]
        path = "/host"
        redirect = { to = "https://www.{host}/?from={path}&{query}" }
    "#;
    let gateway = start(&origin, &(statuses.map(route).concat() + more));
    for status in statuses {
        for (target, location) in [
            (format!("/{status}/a%20b"), format!("/{status}/a%20b")),
            (
                format!("/{status}/./x?y=1&z=%2F"),
                format!("/{status}/x?y=1&z=%2F"),
            ),
        ] {
            let answer = ask(&gateway, "POST", "shop.example", &target, "");
            assert_eq!(answer.status(), status);
            let wanted = format!("https://new.example{location}");
            assert_eq!(answer.field("location"), Some(&*wanted));
        }
    }
    let answer = ask(&gateway, "GET", "shop.example:8080", "/host?a=b", "");
    assert_eq!(answer.status(), 308);
    let wanted = "https://www.shop.example/?from=/host&a=b";
    assert_eq!(answer.field("location"), Some(wanted));
    assert_eq!(origin.accepted(), 0);
}

#[test]
fn a_fixed_answer_is_sent_as_it_was_written() {
    let origin = Origin::always(Reply::ok("never"));
    let gateway = start(
        &origin,
        r#"
        [[route]]
        path = "/robots.txt"
        respond = { body = "User-agent: *\n" }
        [[route]]
        path = "/gone"
        respond = { status = 410, body = "{\"gone\":true}", content_type = "application/json" }
        [[route]]
        path = "/empty"
        respond = { status = 204 }
        "#,
    );
    let robots = ask(&gateway, "GET", "a", "/robots.txt", "");
    assert_eq!(
        (robots.status(), robots.text()),
        (200, "User-agent: *\n".into())
    );
    let plain = Some("text/plain; charset=utf-8");
    assert_eq!(robots.field("content-type"), plain);
    assert_eq!(robots.field("content-length"), Some("14"));

    let head = ask(&gateway, "HEAD", "a", "/robots.txt", "");
    assert_eq!(head.field("content-length"), Some("14"));
    assert_eq!(head.text(), "");

    let gone = ask(&gateway, "DELETE", "a", "/gone", "");
    assert_eq!(gone.status(), 410);
    assert_eq!(gone.json()["gone"], true);
    assert_eq!(gone.field("content-type"), Some("application/json"));

    let empty = ask(&gateway, "GET", "a", "/empty", "");
    assert_eq!((empty.status(), empty.text()), (204, String::new()));
    assert_eq!(empty.field("content-length"), None);
    assert_eq!(origin.accepted(), 0);
}

#[test]
fn a_route_may_take_more_or_less_than_its_upstream() {
    let origin = Origin::always(Reply::ok("x"));
    let gateway = start(
        &origin,
        r#"
        [[route]]
        upstream = "app"
        [[route]]
        path = "/more"
        upstream = "app"
        max_body = 20
        [[route]]
        path = "/none"
        upstream = "app"
        max_body = 0
        "#,
    );
    for (path, body, status) in [
        ("/", "0123456789", 200),
        ("/", "0123456789-", 413),
        ("/more", "01234567890123456789", 200),
        ("/more", "01234567890123456789-", 413),
        ("/none", "", 200),
        ("/none", "0", 413),
    ] {
        let answer = ask(&gateway, "POST", "a", path, body);
        assert_eq!(answer.status(), status, "{} to {path}", body.len());
    }
}

#[test]
fn routes_of_one_path_share_its_methods_and_are_called_by_their_names() {
    let origin = Origin::always(Reply::ok("x"));
    let gateway = start(
        &origin,
        r#"
        [[route]]
        name = "reading"
        path = "/api"
        methods = ["GET", "HEAD"]
        upstream = "app"
        [[route]]
        name = "writing"
        path = "/api"
        methods = ["POST"]
        respond = { status = 202, body = "queued" }
        [[route]]
        path = "/"
        respond = { body = "rest" }
        "#,
    );
    for (method, status, route) in [
        ("GET", 200, "reading"),
        ("POST", 202, "writing"),
        ("DELETE", 405, ""),
    ] {
        let position = gateway.log().position();
        let answer = ask(&gateway, method, "a", "/api/x", "");
        assert_eq!(answer.status(), status);
        if status == 405 {
            assert_eq!(answer.field("allow"), Some("GET, HEAD, POST"));
            continue;
        }
        let line = gateway.wait_for_log_after(position, "the request", |line| {
            line.contains("\"target\":\"access\"")
        });
        let line: Value = serde_json::from_str(&line).expect("a line of JSON");
        assert_eq!(line["route"], route);
    }
}
