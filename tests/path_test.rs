//! One path for everyone, and names that pass for others: what the settings of `[server]` make of them.

use crate::harness::gateway::Gateway;
use crate::harness::origin::{Origin, Reply};
use crate::harness::response::Response;

/// Everything goes to the origin, but for `/admin` and `/files`.
fn in_front_of(origin: &Origin, server: &str) -> Gateway {
    Gateway::start(&format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        {server}
        [upstream.app]
        backends = ["{}"]
        [[route]]
        upstream = "app"
        [[route]]
        path = "/admin"
        respond = {{ body = "the route of admin" }}
        [[route]]
        path = "/files/public"
        upstream = "app"
        strip_prefix = true
        "#,
        origin.address()
    ))
}

fn ask(gateway: &Gateway, target: &str, fields: &str) -> Response {
    let mut client = gateway.connect();
    let request = format!("GET {target} HTTP/1.1\r\nHost: test.example\r\n{fields}\r\n");
    client.send(request.as_bytes()).expect("the gateway reads");
    client.response().expect("an answer")
}

/// What became of a target: the path at the origin, the reason of a refusal, or the answer of the
/// route of `/admin`.
fn outcome(gateway: &Gateway, origin: &Origin, target: &str) -> String {
    let before = origin.received().len();
    let answer = ask(gateway, target, "");
    let received = origin.received();
    match (answer.status(), &received[before..]) {
        (200, [one]) => {
            let head = one.head_text();
            head.split(' ').nth(1).expect("a target").to_owned()
        }
        (200, []) => answer.text(),
        (400, []) => answer.json()["reason"].as_str().expect("a reason").into(),
        (status, some) => panic!("{target}: {status}, {} requests", some.len()),
    }
}

fn assert_outcomes(server: &str, table: &[(&str, &str)]) {
    let origin = Origin::always(Reply::ok("yes"));
    let gateway = in_front_of(&origin, server);
    for (target, wanted) in table {
        assert_eq!(
            outcome(&gateway, &origin, target),
            *wanted,
            "{server}: {target}"
        );
    }
}

const ADMIN: &str = "the route of admin";

#[test]
fn the_path_that_is_routed_is_the_one_form_of_the_path() {
    assert_outcomes(
        "",
        &[
            ("/a/./b/../c", "/a/c"),
            ("/a/%2e/b/%2E%2e/c", "/a/c"),
            ("/%7Euser", "/~user"),
            ("/a%2fb", "/a%2Fb"),
            ("/%252e%252e/", "/%252e%252e/"),
            ("/..;/a", "path_hidden_dot_segment"),
            ("/a/..%2fb", "path_hidden_dot_segment"),
            ("/x/../admin", ADMIN),
            ("/%61dmin/x", ADMIN),
            ("/admin/../a", "/a"),
            ("/files/public/../secret", "/files/secret"),
            ("/files/public/x", "/x"),
            ("/a?b=//c;d/../e", "/a?b=//c;d/../e"),
        ],
    );
}

#[test]
fn empty_segments_are_part_of_the_path_unless_they_are_merged() {
    for (setting, table) in [
        (
            "",
            [
                ("//admin", "//admin"),
                ("/a//b", "/a//b"),
                ("/files//public/x", "/files//public/x"),
                ("/files/public//x", "//x"),
                ("/a//../b", "/a/b"),
            ],
        ),
        (
            "merge_slashes = true",
            [
                ("//admin", ADMIN),
                ("/a//b", "/a/b"),
                ("/files//public/x", "/x"),
                ("/files/public//x", "/x"),
                ("/a//../b", "/b"),
            ],
        ),
    ] {
        assert_outcomes(setting, &table);
    }
}

#[test]
fn path_parameters_are_text_unless_they_are_refused() {
    for (setting, table) in [
        (
            "path_parameters = \"keep\"",
            [
                ("/admin;x/users", "/admin;x/users"),
                ("/admin/users;x=1", ADMIN),
                ("/a;x=1/b", "/a;x=1/b"),
                ("/a%3bx=1/b", "/a%3Bx=1/b"),
                ("/a?b;c", "/a?b;c"),
            ],
        ),
        (
            "path_parameters = \"refuse\"",
            [
                ("/admin;x/users", "path_parameter"),
                ("/admin/users;x=1", "path_parameter"),
                ("/a;x=1/b", "path_parameter"),
                ("/a%3bx=1/b", "/a%3Bx=1/b"),
                ("/a?b;c", "/a?b;c"),
            ],
        ),
    ] {
        assert_outcomes(setting, &table);
    }
}

#[test]
fn names_that_pass_for_others_reach_the_application_only_where_they_are_let_through() {
    const FIELDS: &str = "X_Tenant: 1\r\nX.Tenant: 1\r\nX-Plain: 1\r\n\
        X_Real_IP: 203.0.113.7\r\nX.Real.IP: 203.0.113.7\r\nProxy: http://evil.example\r\n";
    for (setting, passes) in [
        ("", false),
        ("drop_unsafe_headers = true", false),
        ("drop_unsafe_headers = false", true),
    ] {
        let origin = Origin::always(Reply::ok("yes"));
        let gateway = in_front_of(&origin, setting);
        assert_eq!(ask(&gateway, "/", FIELDS).status(), 200);
        let received = origin.received().remove(0);
        for name in ["x_tenant", "x.tenant"] {
            let sent = !received.fields(name).is_empty();
            assert_eq!(sent, passes, "{setting}: {name}");
        }
        assert_eq!(received.fields("x-plain"), ["1"]);
        assert_eq!(received.fields("x-real-ip"), ["127.0.0.1"]);
        // What only the gateway may say is never let through.
        for name in ["x_real_ip", "x.real.ip", "proxy"] {
            assert_eq!(received.fields(name), [""; 0], "{setting}: {name}");
        }
    }
}
