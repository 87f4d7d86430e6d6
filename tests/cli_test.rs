//! The command line, as a person meets it.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::client::{Connection, get};
use crate::harness::gateway::{Gateway, tollgate};
use crate::harness::origin::{Origin, Reply};
use crate::harness::port::{free_port, loopback};
use crate::harness::process::{Process, Signal};

/// What a command said on both streams, and its exit code.
fn said(arguments: &[&str]) -> (String, Option<i32>) {
    let output = tollgate(arguments);
    let text = [output.stdout, output.stderr].concat();
    (
        String::from_utf8_lossy(&text).into_owned(),
        output.status.code(),
    )
}

/// A folder with this `gateway.toml`, and the file's path.
fn file(config: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("gateway.toml");
    std::fs::write(&path, config).expect("there is space");
    let path = path.to_str().expect("UTF-8 paths").to_owned();
    (folder, path)
}

fn spawn(arguments: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    let process = Process::spawn("tollgate", command.args(arguments));
    process.wait_for_log("that it is ready", |line| line.contains("ready"));
    process
}

#[test]
fn two_backends_need_no_file() {
    let origins = ["a", "b"].map(|text| Origin::always(Reply::ok(text)));
    let [a, b] = origins
        .each_ref()
        .map(|origin| origin.address().to_string());
    let listen = loopback(free_port());
    let mut gateway = spawn(&["run", "--upstream", &a, &b, "--listen", &listen.to_string()]);
    let mut seen: Vec<_> = (0..8).map(|_| get(listen, "/").text()).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen, ["a", "b"]);
    gateway.signal(Signal::Interrupt);
    assert_eq!(gateway.wait_for_exit().code(), Some(0));
}

#[test]
fn the_log_says_what_the_gateway_is_when_it_is_ready() {
    let origin = Origin::always(Reply::ok("x"));
    let upstream = origin.address().to_string();
    let listen = loopback(free_port()).to_string();
    let gateway = spawn(&["run", "--upstream", &upstream, "--listen", &listen]);
    let line = gateway.wait_for_log("that it is ready", |line| line.contains("\"ready\""));
    let facts: serde_json::Value = serde_json::from_str(&line).expect("a line of JSON");
    assert_eq!(facts["listeners"], format!("http://{listen}"));
    assert_eq!(facts["routes"], 1);
    assert_eq!(facts["pid"], gateway.pid());
    let upstreams = facts["upstreams"].as_str().expect("a text");
    assert!(upstreams.contains(&upstream), "{upstreams}");
}

#[test]
fn arguments_that_contradict_each_other_are_an_error_of_use() {
    for arguments in [
        &["run", "--listen", "127.0.0.1:1"][..],
        &["run", "--config", "x", "--upstream", "127.0.0.1:1"],
        &["run", "--upstream", "nonsense"],
        &["completions", "tcsh"],
        &["serve"],
        &[],
    ] {
        let (text, code) = said(arguments);
        assert_eq!(code, Some(2), "{arguments:?}");
        assert!(text.contains("--help"), "{arguments:?}: {text}");
    }
}

#[test]
fn check_prints_every_problem_and_exits_with_two() {
    let (_folder, path) = file(
        "[server]\nlisten = [\"nowhere\"]\n[upstream.app]\nbackends = []\n\
         [[route]]\nupstream = \"apq\"\npathh = \"/\"\n",
    );
    let (text, code) = said(&["check", "--config", &path]);
    assert_eq!(code, Some(2));
    for place in [":2:", ":4:", ":6:", ":7:"] {
        assert!(text.contains(&format!("{path}{place}")), "{place}: {text}");
    }
    assert!(
        text.contains("nowhere") && text.contains("apq") && text.contains("pathh"),
        "{text}"
    );
    assert!(!text.contains("no problems"), "{text}");
}

#[test]
fn check_finds_what_only_other_files_tell() {
    let (folder, path) = file(
        "[server]\nlisten = [{ address = \"127.0.0.1:8443\", tls = \"certs/\" }]\n\
         [[route]]\nrespond = { body = \"x\" }\n",
    );
    let (text, code) = said(&["check", "--config", &path]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("certs"), "{text}");
    std::fs::create_dir(folder.path().join("certs")).expect("writable");
    let (text, code) = said(&["check", "--config", &path]);
    assert_eq!(code, Some(2), "{text}");
    let (text, code) = said(&["check", "--config", "/nonexistent/gateway.toml"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("/nonexistent/gateway.toml"), "{text}");
}

#[test]
fn check_of_a_good_file_says_so() {
    let (_folder, path) =
        file("[server]\nlisten = [\"127.0.0.1:8080\"]\n[[route]]\nrespond = {}\n");
    let (text, code) = said(&["check", "-c", &path]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.ends_with(&format!("{path}: no problems\n")), "{text}");
}

// Some seconds: the demonstration's own drain.
#[test]
fn the_demonstration_answers_and_ends_on_ctrl_c() {
    for signal in [Signal::Interrupt, Signal::Terminate] {
        let listen = loopback(free_port());
        let mut demo = spawn(&["demo", "--listen", &listen.to_string()]);
        demo.wait_for_log("what to try", |line| {
            line.contains(&format!("curl -si http://{listen}/strict"))
        });
        assert_eq!(get(listen, "/").status(), 200);
        assert_eq!(get(listen, "/strict").status(), 200);
        assert_eq!(
            get(listen, "/about").text(),
            "answered by the gateway itself\n"
        );
        assert_eq!(get(listen, "/old").status(), 308);
        assert_eq!(get(listen, "/error").status(), 500);
        let mut client = Connection::open(listen);
        let post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
        client.send(post).expect("the gateway reads");
        assert_eq!(client.response().expect("a response").status(), 405);
        demo.signal(signal);
        assert_eq!(demo.wait_for_exit().code(), Some(0), "{signal:?}");
    }
}

#[test]
fn development_certificates_are_made_reused_and_served() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("certs");
    let dir_text = dir.to_str().expect("UTF-8 paths");
    let (text, code) = said(&["certs", "--dir", dir_text, "--host", "shop.example"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("curl --cacert"), "{text}");
    let authority = std::fs::read(dir.join("ca/ca.crt")).expect("made");
    for key in ["ca/ca.key", "shop.example.key"] {
        let mode = std::fs::metadata(dir.join(key))
            .expect("made")
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600, "{key}");
    }
    let (text, code) = said(&["certs", "--dir", dir_text]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("used again"), "{text}");
    assert_eq!(
        std::fs::read(dir.join("ca/ca.crt")).expect("kept"),
        authority
    );

    let gateway = Gateway::start_in(
        folder,
        "[server]\nlisten = [{ address = \"127.0.0.1:0\", tls = \"certs/\" }]\n\
         [[route]]\nrespond = { body = \"sealed\" }\n",
    );
    let ca = gateway.folder().join("certs/ca/ca.crt");
    for name in ["shop.example", "localhost"] {
        assert_eq!(curl(&ca, gateway.address().port(), name), "sealed");
    }
}

/// The body of `https://name:port/` for a client that trusts this authority alone.
fn curl(ca: &Path, port: u16, name: &str) -> String {
    let script = "import socket, ssl, sys\n\
        ca, port, name = sys.argv[1:]\n\
        tls = ssl.create_default_context(cafile=ca)\n\
        s = tls.wrap_socket(socket.create_connection(('127.0.0.1', int(port))), server_hostname=name)\n\
        s.sendall(f'GET / HTTP/1.1\\r\\nHost: {name}\\r\\nConnection: close\\r\\n\\r\\n'.encode())\n\
        print(b''.join(iter(lambda: s.recv(4096), b'')).split(b'\\r\\n\\r\\n')[1].decode(), end='')\n";
    let mut python = Command::new("python3");
    python
        .args(["-c", script])
        .arg(ca)
        .args([&port.to_string(), name]);
    let output = python.output().expect("python3 is there");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_schema_is_json_and_knows_every_table() {
    let output = tollgate(&["schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for table in [
        "server", "clients", "log", "errors", "upstream", "headers", "route",
    ] {
        assert!(schema["properties"][table].is_object(), "{table}");
    }
}

#[test]
fn completions_are_scripts_that_their_shell_accepts() {
    for (shell, word) in [
        ("bash", "complete -F _tollgate"),
        ("zsh", "#compdef tollgate"),
        ("fish", "complete -c tollgate"),
    ] {
        let (text, code) = said(&["completions", shell]);
        assert_eq!(code, Some(0), "{shell}");
        assert!(text.contains(word) && text.contains("upgrade"), "{shell}");
    }
    let (_folder, path) = file(&said(&["completions", "bash"]).0);
    let parsed = Command::new("bash").args(["-n", &path]).status();
    assert!(parsed.expect("bash is there").success());
}

#[test]
fn a_reader_that_has_had_enough_is_no_error_and_a_full_disk_is_one() {
    for command in ["schema", "version"] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let full = File::create("/dev/full").expect("Linux has it");
        for (stdout, code, says) in [
            (Stdio::from(writer), 0, ""),
            (Stdio::from(full), 1, "cannot write to stdout"),
        ] {
            let mut tollgate = Command::new(env!("CARGO_BIN_EXE_tollgate"));
            let child = tollgate.arg(command).stdout(stdout).stderr(Stdio::piped());
            let output = child.spawn().and_then(|child| child.wait_with_output());
            let output = output.expect("the binary runs");
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{command}: {error}");
            assert!(error.contains(says), "{command}: {error}");
            assert!(code == 1 || error.is_empty(), "{command}: {error}");
        }
    }
}

#[test]
fn the_version_and_the_help_are_there() {
    let version = format!("tollgate {}\n", env!("CARGO_PKG_VERSION"));
    for arguments in [&["version"][..], &["--version"], &["-V"]] {
        assert_eq!(said(arguments), (version.clone(), Some(0)));
    }
    let (help, code) = said(&["--help"]);
    assert_eq!(code, Some(0));
    for command in [
        "run",
        "check",
        "demo",
        "certs",
        "explain",
        "upgrade",
        "schema",
        "completions",
        "version",
    ] {
        assert!(
            help.contains(&format!("\n  {command} ")),
            "{command}: {help}"
        );
        let (help, code) = said(&[command, "--help"]);
        assert_eq!(code, Some(0), "{command}");
        assert!(
            help.lines().all(|line| line.len() <= 110),
            "{command}: {help}"
        );
    }
}

/// What `explain` says and what the running gateway does, for the same request.
#[test]
fn explain_decides_as_the_gateway_does() {
    let origin = Origin::with(|request| {
        let head = request.head_text();
        Reply::ok(head.lines().next().unwrap_or_default())
    });
    let config = format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        watch = false
        [upstream.app]
        backends = ["{}"]
        [[route]]
        name = "api"
        host = "shop.example"
        path = "/api"
        methods = ["GET"]
        upstream = "app"
        strip_prefix = true
        [[route]]
        name = "wild"
        host = "*.shop.example"
        upstream = "app"
        replace_prefix = "/w"
        [[route]]
        name = "old"
        host = "shop.example"
        path = "/old"
        redirect = {{ status = 308, to = "https://{{host}}/new{{?query}}" }}
        [[route]]
        name = "fixed"
        host = "shop.example"
        path = "/fixed"
        respond = {{ status = 202, body = "fixed" }}
        "#,
        origin.address()
    );
    let gateway = Gateway::start(&config);
    let path = gateway.config_path();
    let path = path.to_str().expect("UTF-8 paths");
    let table = [
        (
            "GET",
            "shop.example",
            "/api/x?y=1",
            "route       api",
            200,
            "GET /x?y=1 HTTP/1.1",
        ),
        (
            "GET",
            "SHOP.example",
            "/%61pi/./x",
            "route       api",
            200,
            "GET /x HTTP/1.1",
        ),
        ("POST", "shop.example", "/api/x", "refused     405", 405, ""),
        ("GET", "shop.example", "/apix", "refused     404", 404, ""),
        (
            "GET",
            "a.shop.example",
            "/p",
            "route       wild",
            200,
            "GET /w/p HTTP/1.1",
        ),
        (
            "GET",
            "shop.example",
            "/old?a=b",
            "location    https://shop.example/new?a=b",
            308,
            "",
        ),
        ("GET", "shop.example", "/fixed", "respond 202", 202, "fixed"),
        ("GET", "shop.example", "/a%00b", "refused     400", 400, ""),
        ("GET", "shop..example", "/", "refused     400", 400, ""),
        ("GET", "other.example", "/", "refused     404", 404, ""),
    ];
    for (method, host, target, explained, status, body) in table {
        let url = format!("http://{host}{target}");
        let (text, code) = said(&["explain", "--config", path, method, &url]);
        assert_eq!(code, Some(0), "{url}: {text}");
        assert!(text.contains(explained), "{method} {url}: {text}");
        let mut client = gateway.connect();
        let request =
            format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n");
        client.send(request.as_bytes()).expect("the gateway reads");
        let response = client.response().expect("a response");
        assert_eq!(response.status(), status, "{method} {url}");
        if !body.is_empty() {
            assert_eq!(response.text(), body, "{method} {url}");
        }
    }
    let (text, code) = said(&["explain", "--config", path, "GET", "shop.example/api"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("absolute URL"), "{text}");
    let with_field = [
        "explain",
        "-c",
        path,
        "GET",
        "http://x/fixed",
        "-H",
        "Host: shop.example",
    ];
    let (text, _) = said(&with_field);
    assert!(text.contains("route       fixed"), "{text}");
}

#[test]
fn explain_says_which_headers_a_route_gives_and_how_its_backends_are_chosen() {
    let (_folder, path) = file(
        r#"
        [server]
        listen = ["127.0.0.1:8080"]
        [upstream.app]
        backends = ["127.0.0.1:9000"]
        balance = "consistent-hash:cookie:sid"
        [headers.site]
        set = { "X-Frame-Options" = "DENY" }
        remove = ["X-Trace"]
        hsts = "1h"
        request_set = { "X-Shop" = "1" }
        [[route]]
        upstream = "app"
        headers = "site"
        [[route]]
        path = "/plain"
        upstream = "app"
        headers = "off"
        "#,
    );
    let explained = |url: &str| {
        let (text, code) = said(&["explain", "-c", &path, "GET", url]);
        assert_eq!(code, Some(0), "{text}");
        text
    };
    let text = explained("https://shop.example/");
    for expected in [
        "balance     consistent-hash:cookie:sid",
        "headers     request_set X-Shop: 1",
        "            remove x-trace",
        "            set X-Frame-Options: DENY",
        "            default X-Content-Type-Options: nosniff",
        "            default Strict-Transport-Security: max-age=3600 (on https)",
    ] {
        assert!(
            text.lines().any(|line| line == expected),
            "{expected}: {text}"
        );
    }
    assert!(!text.contains("SAMEORIGIN"), "{text}");
    let text = explained("https://shop.example/plain");
    assert!(!text.contains("headers"), "{text}");
}
