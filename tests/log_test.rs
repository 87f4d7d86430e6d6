//! What is written, how much of it, and where; each setting of `[log]`.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::harness::client::{Connection, get};
use crate::harness::gateway::Gateway;
use crate::harness::origin::{Origin, Reply};
use crate::harness::port::{free_port, loopback};
use crate::harness::process::Signal;
use crate::harness::wait_for;

fn config(origin: &Origin, log: &str, routes: &str) -> String {
    format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        watch = false
        [log]
        {log}
        [upstream.app]
        backends = ["{}"]
        [[route]]
        upstream = "app"
        {routes}
        "#,
        origin.address()
    )
}

fn start(origin: &Origin, log: &str, routes: &str) -> Gateway {
    let gateway = Gateway::start(&config(origin, log, routes));
    gateway.wait_for_log("its start", |line| line.contains("ready"));
    gateway
}

fn hello() -> Origin {
    Origin::always(Reply::ok("hello"))
}

fn is_access(line: &str) -> bool {
    line.contains(r#""target":"access""#)
}

fn access(gateway: &Gateway, path: &str) -> Value {
    let line = gateway.wait_for_log("the request", |line| is_access(line) && line.contains(path));
    serde_json::from_str(&line).expect("a line of JSON")
}

/// Asks for these paths, and returns those that were written. On one connection: a request is
/// written before the next one is read.
fn written_of(gateway: &Gateway, paths: &[&str]) -> Vec<String> {
    let mut client = gateway.connect();
    for path in paths.iter().chain(&["/last"]) {
        assert_eq!(client.get(path).expect("an answer").status(), 200);
    }
    access(gateway, "\"/last\"");
    let lines = gateway.log().lines();
    lines
        .iter()
        .filter(|line| is_access(line))
        .map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"))
        .map(|line| line["path"].as_str().expect("a path").to_owned())
        .filter(|path| path != "/last")
        .collect()
}

const LAST: &str = "[[route]]\npath = \"/last\"\nupstream = \"app\"\naccess_log = \"all\"\n";

#[test]
fn as_much_of_the_query_is_written_as_was_asked_for() {
    let origin = hello();
    for (setting, written) in [
        ("", Some("token=***&page=2")),
        ("query = \"masked\"", Some("token=***&page=2")),
        ("query = \"off\"", None),
        ("query = \"full\"", Some("token=s3cret&page=2")),
    ] {
        let log = format!("access = \"all\"\nformat = \"json\"\n{setting}");
        let gateway = start(&origin, &log, "");
        get(gateway.address(), "/x?token=s3cret&page=2");
        let line = access(&gateway, "\"/x\"");
        assert_eq!(line["query"].as_str(), written, "{setting}: {line}");
        let secret = |line: &String| line.contains("s3cret");
        let told = gateway.log().lines().iter().any(secret);
        assert_eq!(told, setting.contains("full"), "{setting}");
    }
    // The application gets it whole, whatever is written.
    for request in origin.received() {
        assert!(request.head.starts_with(b"GET /x?token=s3cret&page=2 "));
    }
}

#[test]
fn a_route_says_for_itself_what_is_written_of_it_and_what_is_slow() {
    let origin = Origin::with(|request| {
        if request.head_text().contains("/slow") {
            // As slow as the setting asks for, not in the hope of something.
            std::thread::sleep(Duration::from_millis(30));
        }
        Reply::ok("hello")
    });
    let routes = format!(
        r#"
        [[route]]
        path = "/all"
        upstream = "app"
        access_log = "all"
        [[route]]
        path = "/slow"
        upstream = "app"
        slow_after = "20ms"
        {LAST}"#
    );
    let gateway = start(&origin, "access = \"errors\"", &routes);
    let written = written_of(&gateway, &["/", "/all/1", "/slow/1", "/all/2"]);
    assert_eq!(written, ["/all/1", "/slow/1", "/all/2"]);
    assert_eq!(access(&gateway, "/slow/1")["message"], "slow request");
}

#[test]
fn the_rest_of_a_kept_connection_makes_no_request_on_it_slow() {
    let origin = hello();
    let gateway = start(&origin, "slow_after = \"500ms\"", "");
    let mut client = gateway.connect();
    assert_eq!(client.get("/").expect("an answer").status(), 200);
    // The pause of a client.
    std::thread::sleep(Duration::from_millis(600));
    client.send(b"NONSENSE\r\n\r\n").expect("it is open");
    assert_eq!(client.response().expect("an answer").status(), 400);
    let line = access(&gateway, "NONSENSE");
    assert_eq!(line["message"], "request", "{line}");
}

#[test]
fn a_route_can_be_silent_where_all_is_written() {
    let routes =
        format!("[[route]]\npath = \"/quiet\"\nupstream = \"app\"\naccess_log = \"off\"\n{LAST}");
    let origin = hello();
    let gateway = start(&origin, "access = \"all\"", &routes);
    let written = written_of(&gateway, &["/quiet/1", "/loud"]);
    assert_eq!(written, ["/loud"]);
}

#[test]
fn requests_are_written_at_every_level_of_the_gateways_own_messages() {
    let origin = hello();
    for (level, informs, warns) in [
        ("error", false, false),
        ("warn", false, true),
        ("info", true, true),
    ] {
        let unknown = "[upstream.gone]\nbackends = [\"no-such-host.invalid:80\"]";
        let log = format!("access = \"all\"\nlevel = \"{level}\"");
        let mut gateway = Gateway::start(&config(&origin, &log, unknown));
        get(gateway.address(), "/x");
        access(&gateway, "\"/x\"");
        // After its end nothing more is written.
        gateway.signal(Signal::Terminate);
        gateway.wait_for_exit();
        let said = |what: &str| gateway.log().lines().iter().any(|line| line.contains(what));
        assert_eq!(said("\"ready\""), informs, "{level}");
        assert_eq!(said("does not resolve"), warns, "{level}");
    }
}

#[test]
fn at_no_level_is_a_credential_or_a_body_written() {
    let origin = hello();
    let gateway = start(&origin, "access = \"all\"\nlevel = \"trace\"", "");
    for method in ["GET", "POST"] {
        let mut client = gateway.connect();
        let request = format!(
            "{method} /{method}?token=secret1 HTTP/1.1\r\nHost: a\r\nAuthorization: secret2\r\n\
             Cookie: a=secret3\r\nContent-Length: 7\r\n\r\nsecret4"
        );
        client.send(request.as_bytes()).expect("the gateway reads");
        assert_eq!(client.response().expect("an answer").status(), 200);
        access(&gateway, &format!("/{method}"));
    }
    let lines = gateway.log().lines();
    let told: Vec<_> = lines
        .iter()
        .filter(|line| line.contains("secret"))
        .collect();
    assert!(told.is_empty(), "{told:#?}");
}

#[test]
fn a_line_of_text_has_the_facts_for_people() {
    let origin = hello();
    let gateway = start(&origin, "access = \"all\"\nformat = \"text\"", "");
    get(gateway.address(), "/x?page=2");
    let line = gateway.wait_for_log("the request", |line| line.contains("/x"));
    assert!(serde_json::from_str::<Value>(&line).is_err(), "{line}");
    for fact in ["INFO", "GET", "/x", "page=2", "200", "127.0.0.1"] {
        assert!(line.contains(fact), "{fact} in {line}");
    }
}

/// A gateway whose streams the test holds; the harness would read both. Ends with the value.
struct Held(Child);

impl Held {
    fn start(config: &Path, stdout: Stdio, stderr: Stdio) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .arg("run")
            .arg("--config")
            .arg(config)
            .stdout(stdout)
            .stderr(stderr)
            .spawn();
        Self(child.expect("the binary under test starts"))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.kill().expect("it has not been waited for");
        self.0.wait().expect("we are its parent");
    }
}

#[test]
fn lines_go_to_the_stream_that_was_named() {
    let origin = hello();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (path, written) = (
        folder.path().join("gateway.toml"),
        folder.path().join("written"),
    );
    for output in ["stdout", "stderr"] {
        let text = config(&origin, &format!("output = \"{output}\""), "");
        fs::write(&path, text).expect("there is space");
        let file = Stdio::from(File::create(&written).expect("there is space"));
        let _gateway = match output {
            "stdout" => Held::start(&path, file, Stdio::null()),
            _ => Held::start(&path, Stdio::null(), file),
        };
        wait_for(&format!("the log on {output}"), || {
            let log = fs::read_to_string(&written).expect("it was made");
            log.contains("\"ready\"").then_some(())
        });
    }
}

#[test]
fn a_log_file_that_was_moved_away_is_opened_again_on_sigusr1() {
    let origin = hello();
    let gateway = Gateway::start(&config(
        &origin,
        "access = \"all\"\noutput = \"access.log\"",
        "",
    ));
    let (file, moved) = (
        gateway.folder().join("access.log"),
        gateway.folder().join("access.log.1"),
    );
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let wait_for_line = |path, text: &str| {
        wait_for(&format!("{text} in the log file"), || {
            read(path).contains(text).then_some(())
        });
    };
    get(gateway.address(), "/before");
    wait_for_line(&file, "\"/before\"");

    fs::rename(&file, &moved).expect("it was there");
    get(gateway.address(), "/between");
    wait_for_line(&moved, "\"/between\"");
    assert!(!file.exists());

    gateway.signal(Signal::User1);
    wait_for("the new file", || file.exists().then_some(()));
    get(gateway.address(), "/after");
    wait_for_line(&file, "\"/after\"");
    assert!(!read(&moved).contains("\"/after\""));
    assert!(!read(&file).contains("\"/between\""));
}

#[test]
fn a_log_file_that_cannot_be_opened_again_is_kept_and_the_log_says_so() {
    let origin = hello();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let logs = folder.path().join("logs");
    fs::create_dir(&logs).expect("there is space");
    let gateway = Gateway::start_in(
        folder,
        &config(
            &origin,
            "access = \"all\"\noutput = \"logs/access.log\"",
            "",
        ),
    );
    let moved = gateway.folder().join("moved");
    get(gateway.address(), "/before");
    fs::rename(&logs, &moved).expect("it was there");

    gateway.signal(Signal::User1);
    let kept = moved.join("access.log");
    let said = |text: &str| {
        wait_for(&format!("{text} in the old file"), || {
            let lines = fs::read_to_string(&kept).unwrap_or_default();
            lines.contains(text).then_some(())
        });
    };
    said("\"WARN\"");
    get(gateway.address(), "/after");
    said("\"/after\"");
}

#[test]
fn requests_do_not_wait_for_a_log_that_nobody_reads_and_what_was_lost_is_counted() {
    let origin = hello();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("gateway.toml");
    let address = loopback(free_port());
    let text = config(&origin, "access = \"all\"\nbuffer = 64", "");
    let text = text.replace("127.0.0.1:0", &address.to_string());
    fs::write(&path, text).expect("there is space");
    let mut gateway = Held::start(&path, Stdio::null(), Stdio::piped());
    let mut client = wait_for("the gateway", || Connection::try_open(address).ok());
    // More than the pipe (64 KiB) and the buffer (64 lines) hold.
    for _ in 0..1000 {
        assert_eq!(client.get("/x").expect("an answer").status(), 200);
    }
    let mut pipe = gateway.0.stderr.take().expect("stderr is piped");
    let mut log = String::new();
    let mut block = [0; 64 * 1024];
    while !log.contains("log lines were dropped") {
        let length = pipe.read(&mut block).expect("the log goes on");
        assert_ne!(length, 0, "the log ended: {log}");
        log.push_str(&String::from_utf8_lossy(&block[..length]));
    }
}
