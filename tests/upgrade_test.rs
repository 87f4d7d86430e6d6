//! The life of the process: a new one takes over, systemd is told, the old one drains and ends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::harness::client::get;
use crate::harness::gateway::{Gateway, tollgate};
use crate::harness::h2_client::H2;
use crate::harness::load::Load;
use crate::harness::origin::{Origin, Reply};
use crate::harness::port::{bind_free, free_port, loopback};
use crate::harness::process::{Process, Signal, signal_to};
use crate::harness::response::Broken;
use crate::harness::tls::TestCa;
use crate::harness::{PATIENCE, wait_for};

/// A gateway with a pid file in front of this origin, with these listeners and server settings.
fn config(listen: &str, server: &str, origin: &Origin) -> String {
    format!(
        r#"
        [server]
        listen = [{listen}]
        pid_file = "tollgate.pid"
        {server}
        [upstream.app]
        backends = ["{}"]
        [[route]]
        upstream = "app"
        "#,
        origin.address()
    )
}

fn start(server: &str, origin: &Origin) -> Gateway {
    let gateway = Gateway::start(&config("\"127.0.0.1:0\"", server, origin));
    wait_until_ready(&gateway);
    gateway
}

fn wait_until_ready(gateway: &Gateway) {
    gateway.wait_for_log("that it is ready", |line| line.contains("\"ready\""));
}

/// An origin that answers only when the test says so.
fn held_origin() -> (Origin, mpsc::Sender<&'static str>) {
    let (release, gate) = mpsc::channel();
    let gate = Mutex::new(gate);
    let origin = Origin::with(move |_| {
        let gate = gate.lock().expect("no holder panics");
        gate.recv().map_or(Reply::nothing().then_close(), Reply::ok)
    });
    (origin, release)
}

fn pid_in_file(gateway: &Gateway) -> Option<u32> {
    let text = std::fs::read_to_string(gateway.folder().join("tollgate.pid")).ok()?;
    text.trim().parse().ok()
}

/// Waits until the pid file names another process than `old`.
fn successor_of(gateway: &Gateway, old: u32) -> u32 {
    wait_for("the new process in the pid file", || {
        pid_in_file(gateway).filter(|pid| *pid != old)
    })
}

fn wait_until_gone(gateway: &Gateway, pid: u32) {
    wait_for(&format!("the end of process {pid}"), || {
        (!gateway.pids().contains(&pid)).then_some(())
    });
}

// About twelve seconds: eleven starts of the gateway, each while the load has both cores.
#[test]
fn ten_upgrades_under_load_refuse_no_connection_and_fail_no_request() {
    const CLIENTS: usize = 4;
    const UPGRADES: usize = 10;
    let origin = Origin::always(Reply::ok("x"));
    let gateway = start("drain = \"20s\"", &origin);
    let config = gateway.config_path();
    let config = config.to_str().expect("UTF-8 paths");
    let kept = Load::start(gateway.address(), "/kept", CLIENTS);
    let fresh = Load::start_on_new_connections(gateway.address(), "/fresh", CLIENTS);
    let mut pid = gateway.pid();
    for round in 0..UPGRADES {
        kept.wait_for_more(20);
        fresh.wait_for_more(20);
        if round % 2 == 0 {
            signal_to(pid, Signal::Quit);
        } else {
            let output = tollgate(&["upgrade", "--config", config]);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{output:?}");
            assert!(said.contains(&format!("{pid} drains")), "{said}");
        }
        let new = successor_of(&gateway, pid);
        wait_until_gone(&gateway, pid);
        pid = new;
    }
    kept.wait_for_more(20);
    fresh.wait_for_more(20);
    let (kept, fresh) = (kept.stop(), fresh.stop());
    for tally in [&kept, &fresh] {
        assert_eq!(tally.failures, [""; 0]);
        assert!(tally.statuses.keys().eq([&200]), "{:?}", tally.statuses);
    }
    // An idle connection is closed, and a client may write to it in that moment: once an upgrade.
    assert!(kept.replayed <= CLIENTS * UPGRADES, "{}", kept.replayed);
    assert_eq!(fresh.replayed, 0);
    // What was asked again had not been asked before: the backend saw each request once.
    let answered = kept.statuses[&200] + fresh.statuses[&200];
    assert_eq!(origin.received().len(), answered);
    assert_eq!(gateway.pids(), [pid]);
}

#[test]
fn a_request_in_flight_is_finished_by_the_old_process() {
    let (origin, release) = held_origin();
    let gateway = start("", &origin);
    let mut busy = gateway.connect();
    busy.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("the gateway reads");
    origin.wait_for_requests(1);
    let mut idle = gateway.connect();
    idle.send(b"GET /idle HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("the gateway reads");
    origin.wait_for_requests(2);
    release.send("first").expect("the origin waits");
    // Either of the two connections has its answer now; both are answered before the upgrade's end.
    gateway.signal(Signal::Quit);
    let new = successor_of(&gateway, gateway.pid());
    release.send("second").expect("the origin waits");
    for client in [&mut busy, &mut idle] {
        client.response().expect("a whole response");
        client.wait_for_close().expect("the old process closes it");
    }
    wait_until_gone(&gateway, gateway.pid());
    assert_eq!(gateway.pids(), [new]);
}

#[test]
fn the_last_answer_says_that_the_connection_closes() {
    let (origin, release) = held_origin();
    let gateway = start("", &origin);
    let mut client = gateway.connect();
    client
        .send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("the gateway reads");
    origin.wait_for_requests(1);
    gateway.signal(Signal::Terminate);
    gateway.wait_for_log("that it drains", |line| line.contains("draining"));
    wait_until_refused(gateway.address());
    release.send("done").expect("the origin waits");
    let response = client.response().expect("a whole response");
    assert_eq!(response.field("connection"), Some("close"));
    client.wait_for_close().expect("the gateway closes it");
}

#[test]
fn idle_connections_are_closed_at_once_and_the_process_ends() {
    let origin = Origin::always(Reply::ok("x"));
    let mut gateway = start("drain = \"1h\"", &origin);
    let mut client = gateway.connect();
    client.get("/").expect("a response");
    gateway.signal(Signal::Terminate);
    client.wait_for_close().expect("the gateway closes it");
    assert_eq!(gateway.wait_for_exit().code(), Some(0));
}

#[test]
fn a_connection_that_has_just_been_made_may_still_ask() {
    let origin = Origin::always(Reply::ok("x"));
    let mut gateway = start("drain = \"1h\"", &origin);
    let mut late = gateway.connect();
    // The old one has taken the connection when it answers on another that was made after it.
    gateway.connect().get("/").expect("a response");
    gateway.signal(Signal::Terminate);
    wait_until_refused(gateway.address());
    let response = late.get("/").expect("its one response");
    assert_eq!(response.field("connection"), Some("close"));
    let silent = Instant::now();
    assert_eq!(gateway.wait_for_exit().code(), Some(0));
    assert!(silent.elapsed() < Duration::from_secs(5));
}

#[test]
fn the_drain_ends_with_its_deadline() {
    let (origin, _release) = held_origin();
    let mut gateway = start("drain = \"200ms\"", &origin);
    let mut client = gateway.connect();
    client
        .send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("the gateway reads");
    origin.wait_for_requests(1);
    gateway.signal(Signal::Terminate);
    assert_eq!(gateway.wait_for_exit().code(), Some(0));
    let cut = client.response().expect_err("no response");
    assert!(matches!(cut, Broken::Closed | Broken::Reset), "{cut}");
    gateway.wait_for_log("the cut", |line| {
        line.contains("still open after the drain")
    });
}

#[test]
fn asked_twice_it_ends_at_once() {
    let (origin, _release) = held_origin();
    let mut gateway = start("drain = \"1h\"", &origin);
    let mut client = gateway.connect();
    client
        .send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("the gateway reads");
    origin.wait_for_requests(1);
    gateway.signal(Signal::Interrupt);
    gateway.wait_for_log("that it drains", |line| line.contains("draining"));
    gateway.signal(Signal::Interrupt);
    assert_eq!(gateway.wait_for_exit().code(), Some(0));
}

#[test]
fn every_kind_of_listener_is_handed_over() {
    let origin = Origin::always(Reply::ok("x"));
    let ca = TestCa::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    ca.issue_into(&folder.path().join("certs"), "a", &["test.example"]);
    let path = folder.path().join("gateway.sock");
    let listen = format!(
        r#"{{ address = "127.0.0.1:0", tls = "certs/" }}, "unix:{}""#,
        path.display()
    );
    let gateway = Gateway::start_in(folder, &config(&listen, "", &origin));
    wait_until_ready(&gateway);
    let inode = std::fs::metadata(&path).expect("it listens").ino();
    let mut idle = ca.connect(gateway.address(), "test.example");
    idle.get("/").expect("a response");
    let h2 = H2::tls(gateway.address(), "test.example", &ca);
    h2.get("https://test.example/").expect("a response");

    gateway.signal(Signal::Quit);
    let new = successor_of(&gateway, gateway.pid());
    wait_until_gone(&gateway, gateway.pid());
    let mut fresh = ca.connect(gateway.address(), "test.example");
    assert_eq!(fresh.get("/").expect("a response").text(), "x");
    let mut unix = UnixStream::connect(&path).expect("it still listens");
    unix.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .expect("the gateway reads");
    let mut answer = String::new();
    unix.read_to_string(&mut answer)
        .expect("the gateway closes");
    assert!(answer.ends_with("\r\n\r\nx"), "{answer}");
    assert_eq!(std::fs::metadata(&path).expect("it listens").ino(), inode);

    signal_to(new, Signal::Terminate);
    wait_until_gone(&gateway, new);
    assert!(!path.exists(), "the socket's file is left behind");
    assert_eq!(pid_in_file(&gateway), None);
}

#[test]
fn an_upgrade_takes_settings_that_a_reload_cannot() {
    let origin = Origin::always(Reply::ok("x"));
    let gateway = start("watch = false", &origin);
    let second = loopback(free_port());
    let more = format!("\"127.0.0.1:0\", \"{second}\"");
    gateway.write_config(&config(&more, "watch = false", &origin));
    gateway.signal(Signal::Quit);
    successor_of(&gateway, gateway.pid());
    for address in [gateway.address(), second] {
        assert_eq!(get(address, "/").text(), "x");
    }
}

#[test]
fn a_new_process_with_a_broken_file_leaves_the_old_one_serving() {
    let origin = Origin::always(Reply::ok("x"));
    let gateway = start("watch = false", &origin);
    let mut kept = gateway.connect();
    kept.get("/").expect("a response");
    let good = config("\"127.0.0.1:0\"", "watch = false", &origin);
    gateway.write_config(&good.replace("upstream = \"app\"", "upstream = \"apq\""));
    let position = gateway.log().position();
    gateway.signal(Signal::Quit);
    let why = gateway.wait_for_log_after(position, "why", |line| {
        line.contains("upgrade failed, still serving")
    });
    assert!(why.contains("gateway.toml:9:"), "{why}");
    assert_eq!(why.matches("apq").count(), 1, "said once: {why}");
    assert_eq!(kept.get("/").expect("the kept connection").text(), "x");
    assert_eq!(pid_in_file(&gateway), Some(gateway.pid()));
    wait_for("the failed process to be gone", || {
        (gateway.pids() == [gateway.pid()]).then_some(())
    });

    // Mended, the same process upgrades.
    gateway.write_config(&good);
    gateway.signal(Signal::Quit);
    successor_of(&gateway, gateway.pid());
    assert_eq!(get(gateway.address(), "/").text(), "x");
}

#[test]
fn a_new_binary_that_cannot_run_leaves_the_old_one_serving() {
    let origin = Origin::always(Reply::ok("x"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let binary = folder.path().join("tollgate");
    let link_to = |target: &str| {
        let _ = std::fs::remove_file(&binary);
        std::os::unix::fs::symlink(target, &binary).expect("the folder is writable");
    };
    link_to(env!("CARGO_BIN_EXE_tollgate"));
    let address = loopback(free_port());
    let upstream = origin.address().to_string();
    let mut command = Command::new(&binary);
    command.args(["run", "--listen", &address.to_string()]);
    command.args(["--upstream", &upstream]);
    let process = Process::spawn("tollgate", &mut command);
    process.wait_for_log("that it is ready", |line| line.contains("\"ready\""));
    for (target, said) in [
        ("/nonexistent", "cannot start"),
        ("/bin/false", "ended before it was ready"),
    ] {
        link_to(target);
        let position = process.log().position();
        process.signal(Signal::Quit);
        process.wait_for_log_after(position, said, |line| {
            line.contains("upgrade failed, still serving") && line.contains(said)
        });
        assert_eq!(get(address, "/").text(), "x");
    }
    link_to(env!("CARGO_BIN_EXE_tollgate"));
    process.signal(Signal::Quit);
    wait_for("the new process alone", || {
        let members = process.members();
        (members.len() == 1 && members[0] != process.pid()).then_some(())
    });
    assert_eq!(get(address, "/").text(), "x");
}

#[test]
fn systemd_is_told_of_every_step() {
    let origin = Origin::always(Reply::ok("x"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("notify.sock");
    let socket = UnixDatagram::bind(&path).expect("the folder is writable");
    socket
        .set_read_timeout(Some(PATIENCE))
        .expect("a timeout above zero");
    let next = || {
        let mut datagram = [0; 1024];
        let length = socket.recv(&mut datagram).expect("a word to systemd");
        String::from_utf8_lossy(&datagram[..length]).into_owned()
    };
    let gateway = Gateway::start_with_env(
        folder,
        &config("\"127.0.0.1:0\"", "", &origin),
        &[("NOTIFY_SOCKET", path.as_os_str())],
    );
    let ready = next();
    let says = |text: &str, fact: &str| text.lines().any(|line| line == fact);
    assert!(says(&ready, "READY=1"), "{ready}");
    assert!(
        says(&ready, &format!("MAINPID={}", gateway.pid())),
        "{ready}"
    );

    gateway.signal(Signal::Hangup);
    let reloading = next();
    assert!(says(&reloading, "RELOADING=1"), "{reloading}");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    assert!(says(&next(), "READY=1"));

    gateway.signal(Signal::Quit);
    let new = successor_of(&gateway, gateway.pid());
    let ready = next();
    assert!(says(&ready, &format!("MAINPID={new}")), "{ready}");
    assert!(says(&ready, "READY=1"), "{ready}");
    wait_until_gone(&gateway, gateway.pid());

    signal_to(new, Signal::Terminate);
    let stopping = next();
    assert!(says(&stopping, "STOPPING=1"), "{stopping}");
}

#[test]
fn a_port_in_use_ends_with_one() {
    let (_listener, taken) = bind_free();
    let output = tollgate(&[
        "run",
        "--upstream",
        "127.0.0.1:9",
        "--listen",
        &taken.to_string(),
    ]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains(&format!("cannot listen on {taken}")),
        "{said}"
    );
    assert!(said.contains("in use"), "{said}");
}

#[test]
fn a_new_process_whose_port_is_taken_says_so_in_the_old_ones_log() {
    let origin = Origin::always(Reply::ok("x"));
    let gateway = start("watch = false", &origin);
    let (_listener, taken) = bind_free();
    let more = format!("\"127.0.0.1:0\", \"{taken}\"");
    gateway.write_config(&config(&more, "watch = false", &origin));
    let position = gateway.log().position();
    gateway.signal(Signal::Quit);
    gateway.wait_for_log_after(position, "why", |line| {
        line.contains("upgrade failed") && line.contains(&format!("cannot listen on {taken}"))
    });
    assert_eq!(get(gateway.address(), "/").text(), "x");
}

#[test]
fn an_upgrade_without_a_running_gateway_says_what_is_missing() {
    let origin = Origin::always(Reply::ok("x"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("gateway.toml");
    let with_file = config("\"127.0.0.1:8080\"", "", &origin);
    let without = with_file.replace("pid_file = \"tollgate.pid\"", "");
    let upgrade = || {
        let output = tollgate(&["upgrade", "--config", path.to_str().expect("UTF-8 paths")]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    std::fs::write(&path, without).expect("there is space");
    let (code, said) = upgrade();
    assert_eq!(code, Some(2));
    assert!(
        said.contains("--pid") && said.contains("pid_file"),
        "{said}"
    );
    std::fs::write(&path, with_file).expect("there is space");
    let (code, said) = upgrade();
    assert_eq!(code, Some(1));
    assert!(
        said.contains("tollgate.pid names no running gateway"),
        "{said}"
    );
    // A pid that was used and is gone: the shell of a moment ago.
    let mut gone = Command::new("true").spawn().expect("true is everywhere");
    gone.wait().expect("we are the parent");
    std::fs::write(folder.path().join("tollgate.pid"), gone.id().to_string()).expect("space");
    let (code, said) = upgrade();
    assert_eq!(code, Some(1));
    assert!(said.contains(&format!("process {}", gone.id())), "{said}");
}

fn wait_until_refused(address: SocketAddr) {
    wait_for("the port to close", || TcpStream::connect(address).err());
}
