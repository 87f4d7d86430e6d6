//! Reloads of the running binary: all or nothing, and seen by no client.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use crate::harness::client::get;
use crate::harness::gateway::Gateway;
use crate::harness::load::Load;
use crate::harness::origin::{Origin, Reply};
use crate::harness::process::Signal;
use crate::harness::{stats, wait_for};

/// A gateway on one port in front of this origin, with more lines for the upstream and after it.
fn config(origin: &Origin, upstream: &str, rest: &str) -> String {
    format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        [upstream.app]
        backends = ["{}"]
        {upstream}
        [[route]]
        upstream = "app"
        {rest}
        "#,
        origin.address()
    )
}

fn was_decided(line: &str) -> bool {
    line.contains("\"reloaded\"") || line.contains("reload refused")
}

/// Replaces the file, asks for a reload and waits for its outcome.
fn reload(gateway: &Gateway, config: &str) -> String {
    let position = gateway.log().position();
    gateway.write_config(config);
    gateway.signal(Signal::Hangup);
    gateway.wait_for_log_after(position, "the reload by SIGHUP", |line| {
        was_decided(line) && line.contains("SIGHUP")
    })
}

// About ten seconds: five of the hundred reloads wait for the file to be looked at, once a second.
#[test]
fn a_hundred_reloads_under_load_are_seen_by_no_client() {
    let origins = ["a", "b"].map(|text| Origin::always(Reply::ok(text)));
    let [a, b] = origins.each_ref().map(|origin| config(origin, "", ""));
    let files = [
        a.clone(),
        "[broken".to_owned(),
        b,
        a.replace("upstream = \"app\"", "upstream = \"apq\""),
    ];
    let gateway = Gateway::start(&a);
    gateway.wait_for_log("that it is ready", |line| line.contains("\"ready\""));
    let mut kept = gateway.connect();
    kept.get("/").expect("a response");
    let load = Load::start(gateway.address(), "/", 8);
    for round in 0..100 {
        let position = gateway.log().position();
        load.wait_for_more(10);
        gateway.write_config(&files[round % 4]);
        // A look may come before the signal: then there are two, and the signal's is the last.
        let mut why = "file changed";
        if round % 20 != 19 {
            gateway.signal(Signal::Hangup);
            why = "SIGHUP";
        }
        let outcome = gateway.wait_for_log_after(position, "the reload", |line| {
            was_decided(line) && line.contains(why)
        });
        let is_valid = round % 2 == 0;
        assert_eq!(outcome.contains("\"reloaded\""), is_valid, "{outcome}");
    }
    assert_eq!(kept.get("/").expect("the kept connection").status(), 200);
    let tally = load.stop();
    assert_eq!(tally.failures, [""; 0]);
    assert!(tally.statuses.keys().eq([&200]), "{:?}", tally.statuses);
    assert_eq!(tally.bodies.len(), 2, "{:?}", tally.bodies);
    assert_eq!(tally.replayed, 0);
    assert_eq!(gateway.pids(), [gateway.pid()]);
}

#[test]
fn a_refused_reload_names_every_problem_and_the_old_plan_serves() {
    let origin = Origin::always(Reply::ok("old"));
    let good = config(&origin, "", "");
    let gateway = Gateway::start(&good);
    let position = gateway.log().position();
    let broken = good
        .replace("upstream = \"app\"", "upstream = \"apq\"\npathh = \"/x\"")
        .replace("backends", "max_fails = \"many\"\nbackends");
    reload(&gateway, &broken);
    for (what, place) in [
        ("apq", "gateway.toml:9:"),
        ("pathh", "gateway.toml:10:"),
        ("max_fails", "gateway.toml:5:"),
    ] {
        gateway.wait_for_log_after(position, what, |line| {
            line.contains("still serving the plan before")
                && line.contains(what)
                && line.contains(place)
        });
    }
    assert_eq!(get(gateway.address(), "/").text(), "old");
}

#[test]
fn a_missing_file_is_a_refused_reload() {
    let origin = Origin::always(Reply::ok("old"));
    let gateway = Gateway::start(&config(&origin, "", ""));
    gateway.wait_for_log("that it is ready", |line| line.contains("\"ready\""));
    std::fs::remove_file(gateway.config_path()).expect("it is there");
    let position = gateway.log().position();
    gateway.signal(Signal::Hangup);
    let outcome = gateway.wait_for_log_after(position, "the outcome", was_decided);
    assert!(outcome.contains("gateway.toml"), "{outcome}");
    assert_eq!(get(gateway.address(), "/").text(), "old");
}

#[test]
fn what_belongs_to_the_process_needs_a_restart() {
    let origin = Origin::always(Reply::ok("old"));
    let good = config(&origin, "", "");
    let gateway = Gateway::start(&good);
    let redis = "[redis]\nnodes = [\"redis://127.0.0.1:1\"]";
    for change in [
        "drain = \"5s\"",
        "workers = 3",
        "idle_timeout = \"1s\"",
        redis,
        "[bans]\nmax_bans = 7",
    ] {
        let changed = good.replace("[upstream.app]", &format!("{change}\n[upstream.app]"));
        let outcome = reload(&gateway, &changed);
        assert!(outcome.contains("needs a restart"), "{outcome}");
        assert!(outcome.contains("tollgate upgrade"), "{outcome}");
    }
    // The same settings, written in another way and place, are no difference.
    let same = good.replace("[server]", "# moved\n\n[server]\ndrain = \"30000ms\"");
    let outcome = reload(&gateway, &same);
    assert!(outcome.contains("\"reloaded\""), "{outcome}");
}

#[test]
fn requests_in_flight_count_against_the_cap_after_a_reload() {
    let (release, gate) = mpsc::channel();
    let gate = Arc::new(Mutex::new(gate));
    let origin = Origin::with(move |request| {
        if request.head_text().starts_with("GET /held ") {
            let gate = gate.lock().expect("no holder panics");
            gate.recv().expect("the test lives");
        }
        Reply::ok("done")
    });
    let gateway = Gateway::start(&config(&origin, "max_connections = 1\nqueue = 0", ""));
    let mut held = gateway.connect();
    held.send(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("the gateway reads");
    origin.wait_for_requests(1);
    assert_eq!(get(gateway.address(), "/").status(), 503);
    let changed = config(&origin, "max_connections = 1\nqueue = 0\nmax_fails = 7", "");
    assert!(reload(&gateway, &changed).contains("\"reloaded\""));
    assert_eq!(get(gateway.address(), "/").status(), 503);
    release.send(()).expect("the origin waits");
    assert_eq!(held.response().expect("a whole response").text(), "done");
    wait_for("the one place to be free again", || {
        (get(gateway.address(), "/").status() == 200).then_some(())
    });
}

#[test]
fn a_backend_that_is_down_stays_down_over_a_reload() {
    let mut down = Origin::always(Reply::ok("was down"));
    let up = Origin::always(Reply::ok("up"));
    let settings = "max_fails = 1\nfail_timeout = \"1h\"\nbalance = \"round-robin\"";
    let both = |rest: &str| {
        let one = config(&up, settings, rest);
        one.replace(
            "backends = [",
            &format!("backends = [\"{}\", ", down.address()),
        )
    };
    let (before, after) = (both(""), both("[log]\nslow_after = \"9s\""));
    let gateway = Gateway::start(&before);
    down.refuse();
    for _ in 0..2 {
        assert_eq!(get(gateway.address(), "/").text(), "up");
    }
    down.accept_again();
    assert!(reload(&gateway, &after).contains("\"reloaded\""));
    for _ in 0..4 {
        assert_eq!(get(gateway.address(), "/").text(), "up");
    }
    assert_eq!(down.received().len(), 0);
}

#[test]
fn the_probes_of_a_removed_upstream_stop() {
    let [app, gone] = ["app", "gone"].map(|text| Origin::always(Reply::ok(text)));
    let health = "health = { every = \"10ms\", timeout = \"10ms\" }";
    let without = config(&app, health, "");
    let with = format!(
        "{without}\n[upstream.gone]\nbackends = [\"{}\"]\n{health}\n\
         [[route]]\npath = \"/gone\"\nupstream = \"gone\"\n",
        gone.address()
    );
    let gateway = Gateway::start(&with);
    gone.wait_for_requests(3);
    assert!(reload(&gateway, &without).contains("\"reloaded\""));
    let (probes, of_app) = (gone.received().len(), app.received().len());
    app.wait_for_requests(of_app + 20);
    // One may have been on its way when the reload was logged.
    assert!(gone.received().len() <= probes + 1);
    assert_eq!(get(gateway.address(), "/gone").text(), "app");
}

#[test]
fn the_log_changes_with_a_reload() {
    let origin = Origin::always(Reply::ok("x"));
    let gateway = Gateway::start(&config(&origin, "", "[log]\naccess = \"off\""));
    get(gateway.address(), "/before");
    let all = config(&origin, "", "[log]\naccess = \"all\"");
    assert!(reload(&gateway, &all).contains("\"reloaded\""));
    get(gateway.address(), "/after");
    gateway.wait_for_log("the request after", |line| line.contains("/after"));
    let lines = gateway.log().lines();
    assert!(!lines.iter().any(|line| line.contains("/before")));

    let file = config(
        &origin,
        "",
        "[log]\naccess = \"all\"\nformat = \"text\"\noutput = \"access.log\"",
    );
    gateway.write_config(&file);
    gateway.signal(Signal::Hangup);
    let path = gateway.folder().join("access.log");
    let text = || std::fs::read_to_string(&path).unwrap_or_default();
    wait_for("the log in its file", || {
        text().contains("reloaded").then_some(())
    });
    get(gateway.address(), "/in-the-file");
    wait_for("the request in the file", || {
        text().contains("/in-the-file").then_some(())
    });
}

// Three seconds: the one that watches looks at its file once a second.
#[test]
fn a_log_that_cannot_be_opened_refuses_the_reload_whole() {
    let (old, new) = (
        Origin::always(Reply::ok("old")),
        Origin::always(Reply::ok("new")),
    );
    let gateway = Gateway::start(&config(&old, "", "[log]\naccess = \"all\""));
    // A directory is in the way; the folder of the file is there, so the text alone is right.
    std::fs::create_dir(gateway.folder().join("taken")).expect("there is space");
    let log = "[log]\naccess = \"all\"\noutput = \"taken\"";
    let line = reload(&gateway, &config(&new, "", log));
    assert!(line.contains("reload refused"), "{line}");
    assert!(line.contains("taken"), "{line}");
    let position = gateway.log().position();
    assert_eq!(get(gateway.address(), "/x").text(), "old");
    gateway.wait_for_log_after(position, "the request", |line| line.contains("\"/x\""));
}

#[test]
fn variables_are_those_of_the_process_at_the_start_and_at_a_reload() {
    let (a, b) = (
        Origin::always(Reply::ok("a")),
        Origin::always(Reply::ok("b")),
    );
    let file = |origin: &str| {
        format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\n[upstream.app]\nbackends = [\"{origin}\"]\n\
             max_fails = \"${{FAILS}}\"\n[[route]]\nupstream = \"app\"\n"
        )
    };
    let address = a.address().to_string();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let env = [("BACKEND", address.as_ref()), ("FAILS", "0".as_ref())];
    let gateway = Gateway::start_with_env(folder, &file("${BACKEND}"), &env);
    assert_eq!(get(gateway.address(), "/").text(), "a");

    let other = file(&format!("${{UNSET_BACKEND:-{}}}", b.address()));
    assert!(reload(&gateway, &other).contains("\"reloaded\""));
    assert_eq!(get(gateway.address(), "/").text(), "b");

    let missing = reload(&gateway, &file("${UNSET_BACKEND}"));
    assert!(missing.contains("reload refused"), "{missing}");
    assert!(missing.contains("UNSET_BACKEND"), "{missing}");
    assert_eq!(get(gateway.address(), "/").text(), "b");
}

#[test]
fn without_watch_only_a_signal_reloads() {
    let origins = ["old", "new"].map(|text| Origin::always(Reply::ok(text)));
    let [old, new] = origins.each_ref().map(|origin| config(origin, "", ""));
    let unwatched = |text: &str| text.replace("[server]", "[server]\nwatch = false");
    let watching = Gateway::start(&old);
    let deaf = Gateway::start(&unwatched(&old));
    for gateway in [&watching, &deaf] {
        gateway.wait_for_log("that it is ready", |line| line.contains("\"ready\""));
    }
    deaf.write_config(&unwatched(&new));
    for text in [&new, &old] {
        let position = watching.log().position();
        watching.write_config(text);
        watching.wait_for_log_after(position, "the reload", |line| {
            line.contains("file changed") && line.contains("\"reloaded\"")
        });
    }
    assert_eq!(get(deaf.address(), "/").text(), "old");
    reload(&deaf, &unwatched(&new));
    assert_eq!(get(deaf.address(), "/").text(), "new");
}

#[test]
fn connections_to_backends_are_kept_over_a_reload() {
    let origin = Origin::always(Reply::ok("x"));
    let gateway = Gateway::start(&config(&origin, "", ""));
    let mut client = gateway.connect();
    for slow in ["1s", "2s", "3s"] {
        client.get("/").expect("a response");
        reload(
            &gateway,
            &config(&origin, "", &format!("[log]\nslow_after = \"{slow}\"")),
        );
    }
    client.get("/").expect("a response");
    assert_eq!(origin.accepted(), 1);
    assert_eq!(stats::connections_to(gateway.address().port()), 1);
}
