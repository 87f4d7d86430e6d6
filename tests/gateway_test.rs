//! The gateway in front of real applications: the first walk through every kind of traffic.

use std::net::TcpStream;
use std::process::Command;
use std::sync::{Mutex, mpsc};

use http::Request;

use crate::harness::apps::{
    Grpc, Gunicorn, PASSWORD, Site, Uvicorn, expect_success, python_program,
};
use crate::harness::client::{get, raw};
use crate::harness::gateway::{Gateway, tollgate};
use crate::harness::h2_client::H2;
use crate::harness::load::Load;
use crate::harness::origin::{Origin, Reply};
use crate::harness::process::{Process, Signal};
use crate::harness::tls::TestCa;
use crate::harness::visitor::{Visitor, sha256_hex};
use crate::harness::{PATIENCE, repository, stats, wait_for};

/// A gateway on one plaintext port that sends everything to these backends.
fn in_front_of(backends: &[String]) -> String {
    format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        [upstream.app]
        backends = {backends:?}
        balance = "round-robin"
        [[route]]
        upstream = "app"
        "#
    )
}

fn in_front_of_origin(origin: &Origin) -> String {
    in_front_of(&[origin.address().to_string()])
}

#[test]
fn requests_are_spread_over_three_django_instances() {
    let apps = ["a", "b", "c"].map(|name| Gunicorn::start(name, &[]));
    let gateway = Gateway::start(&in_front_of(
        &apps.each_ref().map(|app| app.address().to_string()),
    ));
    let page = get(gateway.address(), "/");
    assert!(page.text().contains("/articles/article-39"));
    assert!(page.field("x-request-id").is_some_and(|id| !id.is_empty()));
    let mut seen: Vec<_> = (0..9)
        .map(|_| get(gateway.address(), "/whoami").text())
        .collect();
    seen.sort();
    assert_eq!(seen.concat(), "aaabbbccc");
}

#[test]
fn a_visitor_logs_in_and_stays_logged_in_on_every_instance() {
    let site = Site::create();
    let apps = ["a", "b"].map(|name| Gunicorn::start_on(&site, name, &[]));
    let gateway = Gateway::start(&in_front_of(
        &apps.each_ref().map(|app| app.address().to_string()),
    ));
    let mut visitor = Visitor::new(gateway.address(), "shop.example");
    visitor.log_in("user3", PASSWORD);
    for _ in 0..4 {
        assert!(visitor.get("/me").text().contains("Hello user3"));
    }
    assert_eq!(visitor.post("/feedback", "text=thanks").status(), 200);
}

#[test]
fn an_upload_and_a_download_arrive_unchanged() {
    let service = Uvicorn::start("u", &[]);
    let gateway = Gateway::start(&in_front_of(&[service.address().to_string()]));
    let body: Vec<_> = (0..5_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut client = gateway.connect();
    let head = format!(
        "PUT /upload HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    client
        .send(head.as_bytes())
        .and_then(|()| client.send(&body))
        .expect("the gateway reads");
    let answer = client.response().expect("a response").json();
    assert_eq!(answer["sha256"], sha256_hex(&body));
    let downloaded = client
        .get("/download?bytes=5000000")
        .expect("a response")
        .body;
    assert_eq!(sha256_hex(&downloaded), sha256_hex(&body));
    assert!(stats::rss_kib(gateway.pid()) > 0);
}

#[test]
fn two_gib_pass_in_each_direction_at_constant_memory() {
    const SIZE: u64 = 2 * 1024 * 1024 * 1024;
    const GROWTH_KIB: u64 = 32 * 1024;
    const CHECK_EVERY: usize = 4 * 1024 * 1024;
    let site = Gunicorn::start("a", &[]);
    let config = in_front_of(&[site.address().to_string()])
        .replace("balance", "max_body = \"3 GiB\"\nbalance");
    let gateway = Gateway::start(&config);
    get(gateway.address(), "/whoami");
    let limit = stats::rss_kib(gateway.pid()) + GROWTH_KIB;
    let stays_small = || assert!(stats::rss_kib(gateway.pid()) < limit, "the gateway grew");

    let mut client = gateway.connect();
    let request = format!("GET /download?bytes={SIZE} HTTP/1.1\r\nHost: a\r\n\r\n");
    client.send(request.as_bytes()).expect("the gateway reads");
    let head = client.head().expect("a head");
    let mut unchecked = 0;
    let body = client.body(&head, |block| {
        unchecked += block.len();
        if unchecked >= CHECK_EVERY {
            unchecked = 0;
            stays_small();
        }
    });
    assert_eq!(body.expect("a whole body").bytes, SIZE);

    let head = format!("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n");
    client.send(head.as_bytes()).expect("the gateway reads");
    let block = vec![0; CHECK_EVERY];
    for _ in 0..SIZE / CHECK_EVERY as u64 {
        client.send(&block).expect("the gateway reads");
        stays_small();
    }
    assert_eq!(client.response().expect("a response").json()["bytes"], SIZE);
}

#[test]
fn events_arrive_one_by_one() {
    let service = Uvicorn::start("u", &[]);
    let gateway = Gateway::start(&in_front_of(&[service.address().to_string()]));
    let mut client = gateway.connect();
    // Ten minutes of events: the first can only be here if nobody waits for the last.
    client
        .send(b"GET /events?count=600&ms=1000 HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("the gateway reads");
    assert_eq!(
        client.head().expect("a head").field("content-type"),
        Some("text/event-stream; charset=utf-8")
    );
    let first = client.some().expect("the first event");
    assert!(String::from_utf8_lossy(&first).contains("data: event 0"));
}

#[test]
fn a_backend_that_dies_in_the_body_is_never_a_whole_response() {
    let service = Uvicorn::start("u", &[]);
    let gateway = Gateway::start(&in_front_of(&[service.address().to_string()]));
    for path in ["/abort?after=1000", "/abort?after=1000&announced=5000"] {
        gateway.connect().get_broken_off(path);
    }
}

#[test]
fn a_websocket_passes() {
    let service = Uvicorn::start("u", &[]);
    let gateway = Gateway::start(&in_front_of(&[service.address().to_string()]));
    let mut client = Command::new(python_program("python"));
    client
        .arg(repository("tests/apps/ws_client.py"))
        .arg(format!("ws://{}/ws", gateway.address()));
    expect_success("ws_client.py through the gateway", &mut client);
}

#[test]
fn a_websocket_outlives_reloads() {
    let service = Uvicorn::start("u", &[]);
    let config = in_front_of(&[service.address().to_string()]);
    let gateway = Gateway::start(&config);
    let mut command = Command::new(python_program("python"));
    command
        .arg(repository("tests/apps/ws_client.py"))
        .arg(format!("ws://{}/ws", gateway.address()))
        .args(["--hold", "2"]);
    let mut client = Process::spawn("ws_client.py", &mut command);
    client.wait_for_log("that it is connected", |line| line == "open");
    for slow_after in ["2s", "3s"] {
        let position = gateway.log().position();
        gateway.write_config(&format!("{config}\n[log]\nslow_after = \"{slow_after}\"\n"));
        gateway.signal(Signal::Hangup);
        gateway.wait_for_log_after(position, "the reload", |line| line.contains("reload"));
    }
    assert!(client.wait_for_exit().success());
    client.wait_for_log("that all came back", |line| line == "ok");
}

#[test]
fn grpc_passes_over_cleartext_and_tls() {
    let service = Grpc::start("g");
    let ca = TestCa::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    ca.issue_into(&folder.path().join("certs"), "rpc", &["rpc.example"]);
    std::fs::write(folder.path().join("ca.pem"), ca.certificate()).expect("there is space");
    let config = format!(
        r#"
        [server]
        listen = [
            {{ address = "127.0.0.1:0", h2c = true }},
            {{ address = "127.0.0.1:0", tls = "certs/" }},
        ]
        [upstream.rpc]
        backends = ["{}"]
        protocol = "h2c"
        [[route]]
        upstream = "rpc"
        "#,
        service.address()
    );
    let gateway = Gateway::start_in(folder, &config);
    let client = || {
        let mut client = Command::new(python_program("python"));
        client.arg(repository("tests/apps/grpc_client.py"));
        client
    };
    let [cleartext, tls] = [gateway.addresses()[0], gateway.addresses()[1]];
    expect_success("gRPC over h2c", client().arg(cleartext.to_string()));
    let ca = gateway.folder().join("ca.pem");
    expect_success(
        "gRPC over TLS",
        client().arg(tls.to_string()).arg(ca).arg("rpc.example"),
    );
}

#[test]
fn one_tls_listener_serves_both_versions_of_http() {
    let origin = Origin::always(Reply::ok("hello"));
    let ca = TestCa::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    ca.issue_into(&folder.path().join("certs"), "shop", &["test.example"]);
    let config = in_front_of_origin(&origin).replace(
        r#"["127.0.0.1:0"]"#,
        r#"[{ address = "127.0.0.1:0", tls = "certs/" }]"#,
    );
    let gateway = Gateway::start_in(folder, &config);
    let response = ca
        .connect(gateway.address(), "test.example")
        .get("/")
        .expect("a response");
    assert_eq!(response.text(), "hello");
    let client = H2::tls(gateway.address(), "test.example", &ca);
    let request = || {
        Request::get("https://test.example/")
            .body(Vec::new())
            .expect("valid")
    };
    for answer in client.requests(vec![request(), request()]) {
        assert_eq!(answer.expect("a response").response.body(), b"hello");
    }
}

#[test]
fn a_reload_takes_the_new_file_and_keeps_the_process() {
    let [before, after] = ["before", "after"].map(|text| Origin::always(Reply::ok(text)));
    let gateway = Gateway::start(&in_front_of_origin(&before));
    let mut client = gateway.connect();
    assert_eq!(client.get("/").expect("a response").text(), "before");
    gateway.write_config(&in_front_of_origin(&after));
    gateway.signal(Signal::Hangup);
    wait_for("the new configuration", || {
        (client.get("/").expect("a response").text() == "after").then_some(())
    });
    assert_eq!(gateway.pids(), [gateway.pid()]);
}

#[test]
fn a_broken_reload_changes_nothing_and_says_why() {
    let origin = Origin::always(Reply::ok("still here"));
    let gateway = Gateway::start(&in_front_of_origin(&origin));
    let position = gateway.log().position();
    gateway.write_config(
        &in_front_of_origin(&origin).replace("upstream = \"app\"", "upstream = \"apq\""),
    );
    gateway.signal(Signal::Hangup);
    gateway.wait_for_log_after(position, "the unknown upstream", |line| {
        line.contains("apq")
    });
    assert_eq!(get(gateway.address(), "/").text(), "still here");
}

#[test]
fn no_request_fails_while_the_configuration_changes_twenty_times() {
    let origins = ["a", "b"].map(|text| Origin::always(Reply::ok(text)));
    let gateway = Gateway::start(&in_front_of_origin(&origins[0]));
    let load = Load::start(gateway.address(), "/", 16);
    for round in 0..20 {
        load.wait_for_more(50);
        match round % 3 {
            2 => gateway.write_config("[broken"),
            next => gateway.write_config(&in_front_of_origin(&origins[next])),
        }
        gateway.signal(Signal::Hangup);
    }
    load.wait_for_more(50);
    let tally = load.stop();
    assert_eq!(tally.failures, [""; 0]);
    assert!(tally.statuses.keys().eq([&200]), "{:?}", tally.statuses);
    assert!(tally.bodies.contains_key("b"), "no reload took effect");
    assert_eq!(tally.replayed, 0);
}

#[test]
fn sigterm_lets_a_request_finish_and_ends_with_zero() {
    let (release, gate) = mpsc::channel();
    let gate = Mutex::new(gate);
    let origin = Origin::with(move |_| {
        gate.lock()
            .expect("no holder panics")
            .recv()
            .expect("the test lives");
        Reply::ok("finished")
    });
    let mut gateway = Gateway::start(&in_front_of_origin(&origin));
    gateway.wait_for_log("that it is ready", |line| line.contains("ready"));
    let mut client = gateway.connect();
    client
        .send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("the gateway reads");
    origin.wait_for_requests(1);
    gateway.signal(Signal::Terminate);
    wait_for("the port to close", || {
        TcpStream::connect(gateway.address()).err()
    });
    release.send(()).expect("the origin waits");
    assert_eq!(
        client.response().expect("a whole response").text(),
        "finished"
    );
    assert_eq!(gateway.wait_for_exit().code(), Some(0));
}

#[test]
fn what_is_not_http_is_refused_before_any_backend() {
    let origin = Origin::always(Reply::ok("never"));
    let gateway = Gateway::start(&in_front_of_origin(&origin));
    let answer = raw(
        gateway.address(),
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        PATIENCE,
    );
    assert!(
        answer.starts_with(b"HTTP/1.1 400 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert_eq!(origin.accepted(), 0);
}

#[test]
fn a_wrong_configuration_ends_with_two() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("gateway.toml");
    std::fs::write(&path, "[servr]\n").expect("there is space");
    let path = path.to_str().expect("UTF-8 paths");
    for command in ["check", "run"] {
        let output = tollgate(&[command, "--config", path]);
        assert_eq!(output.status.code(), Some(2), "{command}");
        let said = [output.stdout, output.stderr].concat();
        assert!(
            String::from_utf8_lossy(&said).contains("servr"),
            "{command}"
        );
    }
}

#[test]
fn as_many_threads_serve_as_were_asked_for() {
    let origin = Origin::always(Reply::ok("x"));
    for workers in [1, 3] {
        let gateway = Gateway::start(&format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nworkers = {workers}\nwatch = false\n\
             [upstream.app]\nbackends = [\"{}\"]\n[[route]]\nupstream = \"app\"\n",
            origin.address()
        ));
        gateway.wait_for_log("its start", |line| line.contains("\"ready\""));
        let serving = || {
            let threads = std::fs::read_dir(format!("/proc/{}/task", gateway.pid()));
            let names = threads
                .expect("it runs")
                .flatten()
                .filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
            // The first thread of the process has the name too.
            names.filter(|name| name.trim() == "tollgate").count() - 1
        };
        // A thread of another name has that of its parent until it has begun.
        // One more keeps house, where no request waits for it.
        wait_for(&format!("{workers} threads"), || {
            (workers..=workers + 1).contains(&serving()).then_some(())
        });
    }
}
