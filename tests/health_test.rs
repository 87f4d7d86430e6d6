//! Which backends are used: what traffic and probes find out, and what happens when none is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use crate::harness::client::get;
use crate::harness::gateway::Gateway;
use crate::harness::origin::{Origin, Reply};
use crate::harness::tls::TestCa;
use crate::harness::tls_origin::TlsOrigin;
use crate::harness::wait_for;

fn config(backends: &[String], more: &str, tables: &str) -> String {
    format!(
        r#"
        [server]
        listen = ["127.0.0.1:0"]
        [upstream.app]
        backends = {backends:?}
        balance = "round-robin"
        {more}
        {tables}
        [[route]]
        upstream = "app"
        "#
    )
}

fn start(backends: &[&Origin], more: &str, tables: &str) -> Gateway {
    let addresses: Vec<_> = backends
        .iter()
        .map(|one| one.address().to_string())
        .collect();
    Gateway::start(&config(&addresses, more, tables))
}

/// A backend that says `503` on the path of the probe whenever `ill` is set, and counts its probes.
struct Patient {
    origin: Origin,
    probe_status: Arc<AtomicU16>,
}

impl Patient {
    fn new(name: &str) -> Self {
        let probe_status = Arc::new(AtomicU16::new(200));
        let (status, name) = (Arc::clone(&probe_status), name.to_owned());
        let origin = Origin::with(move |request| {
            if request.head_text().starts_with("GET /up ") {
                return Reply::status(status.load(Ordering::Relaxed), "probed").then_close();
            }
            Reply::ok(&name)
        });
        Self {
            origin,
            probe_status,
        }
    }

    fn says(&self, status: u16) {
        self.probe_status.store(status, Ordering::Relaxed);
    }

    fn address(&self) -> String {
        self.origin.address().to_string()
    }

    fn probes(&self) -> Vec<String> {
        let received = self.origin.received();
        let heads = received.iter().map(|request| request.head_text());
        heads.filter(|head| head.starts_with("GET /up ")).collect()
    }
}

const PROBE: &str = r#"
    [upstream.app.health]
    path = "/up"
    host = "probe.example"
    every = "30ms"
    timeout = "30ms"
    healthy_after = 3
    unhealthy_after = 2
"#;

fn only(gateway: &Gateway, name: &str, requests: usize) {
    for _ in 0..requests {
        assert_eq!(get(gateway.address(), "/").text(), name);
    }
}

#[test]
fn a_backend_is_down_after_max_fails_and_tried_by_one_request_at_a_time() {
    let ill = Arc::new(AtomicBool::new(true));
    let origin = {
        let ill = Arc::clone(&ill);
        Origin::with(move |_| match ill.load(Ordering::Relaxed) {
            true => Reply::nothing().then_reset(),
            false => Reply::ok("a"),
        })
    };
    let well = Origin::always(Reply::ok("b"));
    let gateway = start(
        &[&origin, &well],
        "max_fails = 2\nfail_timeout = \"700ms\"",
        "",
    );
    let address = origin.address().to_string();
    only(&gateway, "b", 6);
    // Two failures take it down; the retries answered all the same.
    assert_eq!(origin.received().len(), 2);
    gateway.wait_for_state(2, &address, "Failed");
    gateway.wait_for_log("that it is down", |line| {
        line.contains("backend is down")
            && line.contains(&address)
            && line.contains("connection lost")
    });
    // When its time is over one request tries, and fails: down again, without a second.
    wait_for("the trial", || {
        only(&gateway, "b", 1);
        (origin.received().len() == 3).then_some(())
    });
    only(&gateway, "b", 6);
    assert_eq!(origin.received().len(), 3);
    ill.store(false, Ordering::Relaxed);
    wait_for("the recovery", || {
        (get(gateway.address(), "/").text() == "a").then_some(())
    });
    gateway.wait_for_log("the recovery", |line| {
        line.contains("backend is up") && line.contains(&address)
    });
    gateway.wait_for_state(2, &address, "Up");
}

#[test]
fn while_a_trial_is_under_way_others_go_elsewhere() {
    let hangs = Origin::always(Reply::nothing().then_reset());
    let well = Origin::always(Reply::ok("b"));
    let more = "max_fails = 1\nfail_timeout = \"1s\"";
    let gateway = start(&[&hangs, &well], more, "");
    only(&gateway, "b", 2);
    hangs.reply_with(Reply::nothing().then_stall());
    let mut trials = Vec::new();
    wait_for("the trial", || {
        let arrived = || hangs.received().len() + well.received().len();
        let before = arrived();
        let mut client = gateway.connect();
        client
            .send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .expect("the gateway reads");
        wait_for("it to arrive", || (arrived() > before).then_some(()));
        trials.push(client);
        (hangs.received().len() == 2).then_some(())
    });
    only(&gateway, "b", 3);
    assert_eq!(hangs.received().len(), 2);
}

#[test]
fn max_fails_of_nothing_takes_nobody_down() {
    let ill = Origin::always(Reply::nothing().then_reset());
    let well = Origin::always(Reply::ok("b"));
    let gateway = start(&[&ill, &well], "max_fails = 0", "");
    only(&gateway, "b", 12);
    assert_eq!(ill.received().len(), 6);
    gateway.wait_for_state(2, &ill.address().to_string(), "Up");
}

#[test]
fn probes_take_a_backend_down_and_bring_it_up() {
    let patients = ["a", "b"].map(Patient::new);
    let gateway = start(&[&patients[0].origin, &patients[1].origin], "", PROBE);
    wait_for("both to be probed", || {
        patients
            .iter()
            .all(|one| one.probes().len() > 2)
            .then_some(())
    });
    let probe = &patients[0].probes()[0];
    assert!(probe.contains("\r\nHost: probe.example\r\n"), "{probe}");
    let address = patients[0].address();
    for why in [503, 404, 199] {
        patients[0].says(why);
        gateway.wait_for_log("why it is down", |line| {
            line.contains("until probes succeed")
                && line.contains(&address)
                && line.contains(&format!("status {why}"))
        });
        gateway.wait_for_state(2, &address, "Unhealthy");
        only(&gateway, "b", 4);
        let position = gateway.log().position();
        patients[0].says(302);
        gateway.wait_for_log_after(position, "the recovery", |line| {
            line.contains("backend is up") && line.contains(&address)
        });
        wait_for("it to be used", || {
            (get(gateway.address(), "/").text() == "a").then_some(())
        });
    }
}

#[test]
fn one_bad_probe_changes_nothing() {
    let patient = Patient::new("a");
    let count = Arc::new(AtomicU16::new(0));
    let flapping = {
        let count = Arc::clone(&count);
        Origin::with(move |_| match count.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => Reply::status(503, "").then_close(),
            _ => Reply::status(200, "").then_close(),
        })
    };
    let gateway = start(&[&flapping, &patient.origin], "", PROBE);
    wait_for("twenty probes", || {
        (count.load(Ordering::Relaxed) >= 20).then_some(())
    });
    gateway.wait_for_state(2, &flapping.address().to_string(), "Up");
    assert!(
        !gateway
            .log()
            .lines()
            .iter()
            .any(|line| line.contains("until probes succeed"))
    );
}

#[test]
fn a_status_is_healthy_where_it_is_named() {
    let patient = Patient::new("a");
    patient.says(418);
    let probe = PROBE.replace("every", "status = \"200,418\"\nevery");
    let gateway = start(&[&patient.origin], "", &probe);
    wait_for("six probes", || (patient.probes().len() >= 6).then_some(()));
    gateway.wait_for_state(1, &patient.address(), "Up");
    patient.says(302);
    gateway.wait_for_state(1, &patient.address(), "Unhealthy");
}

#[test]
fn a_probe_that_is_not_answered_in_time_or_not_in_http_is_a_bad_one() {
    for (reply, why) in [
        (Reply::nothing().then_stall(), "30ms"),
        (Reply::raw("220 smtp\r\n\r\n").then_close(), "HTTP"),
    ] {
        let origin = Origin::always(reply);
        let gateway = start(&[&origin], "", PROBE);
        gateway.wait_for_log("why it is down", |line| {
            line.contains("until probes succeed") && line.contains(why)
        });
    }
}

#[test]
fn a_tcp_probe_asks_only_for_a_connection() {
    let mut origin = Origin::always(Reply::ok("a"));
    let probe = PROBE.replace(
        "path = \"/up\"\n    host = \"probe.example\"",
        "kind = \"tcp\"",
    );
    let gateway = start(&[&origin], "", &probe);
    let address = origin.address().to_string();
    wait_for("probes", || (origin.accepted() > 3).then_some(()));
    assert!(origin.received().is_empty());
    origin.refuse();
    gateway.wait_for_state(1, &address, "Unhealthy");
    let refused = get(gateway.address(), "/");
    assert_eq!(refused.status(), 503);
    origin.accept_again();
    gateway.wait_for_state(1, &address, "Up");
    assert_eq!(get(gateway.address(), "/").text(), "a");
}

#[test]
fn probes_are_made_over_the_tls_of_the_upstream() {
    let ca = TestCa::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("ca.pem"), ca.certificate()).expect("there is space");
    let right = TlsOrigin::start(&ca, "app.example", &["http/1.1"]);
    let wrong = TlsOrigin::start(&ca, "other.example", &["http/1.1"]);
    let backends = [right.address().to_string(), wrong.address().to_string()];
    let tls = "tls = { sni = \"app.example\", ca = \"ca.pem\" }";
    // A handshake takes its time.
    let probe = PROBE.replace("30ms", "200ms");
    let gateway = Gateway::start_in(folder, &config(&backends, tls, &probe));
    gateway.wait_for_state(2, &backends[1], "Unhealthy");
    gateway.wait_for_state(2, &backends[0], "Up");
    only(&gateway, "hello", 4);
}

#[test]
fn when_all_are_down_clients_are_told_when_to_come_back() {
    let mut origins = [
        Origin::always(Reply::ok("a")),
        Origin::always(Reply::ok("b")),
    ];
    let more = "max_fails = 1\nfail_timeout = \"1m\"";
    let tables = "[errors]\nretry_after = \"7s\"\n";
    let gateway = start(&[&origins[0], &origins[1]], more, tables);
    origins.iter_mut().for_each(Origin::refuse);
    assert_eq!(get(gateway.address(), "/").status(), 502);
    let refused = get(gateway.address(), "/");
    assert_eq!(refused.status(), 503);
    assert!(
        refused.text().contains("upstream_unavailable"),
        "{}",
        refused.text()
    );
    assert_eq!(refused.field("retry-after"), Some("7"));
    // It does not ask them: they would answer.
    origins.iter_mut().for_each(Origin::accept_again);
    assert_eq!(get(gateway.address(), "/").status(), 503);
}

#[test]
fn as_a_last_resort_all_are_asked_and_who_answers_is_up() {
    let mut origins = [
        Origin::always(Reply::ok("a")),
        Origin::always(Reply::ok("b")),
    ];
    let more = "max_fails = 1\nfail_timeout = \"1m\"\nlast_resort = \"try-anyway\"";
    let gateway = start(&[&origins[0], &origins[1]], more, "");
    origins.iter_mut().for_each(Origin::refuse);
    for _ in 0..3 {
        assert_eq!(get(gateway.address(), "/").status(), 502);
    }
    origins[1].accept_again();
    wait_for("an answer", || {
        (get(gateway.address(), "/").status() == 200).then_some(())
    });
    gateway.wait_for_state(2, &origins[1].address().to_string(), "Up");
    only(&gateway, "b", 4);
}

#[test]
fn the_only_backend_is_asked_whatever_it_did() {
    let mut origin = Origin::always(Reply::ok("a"));
    let gateway = start(&[&origin], "max_fails = 1\nfail_timeout = \"1m\"", "");
    origin.refuse();
    for _ in 0..5 {
        assert_eq!(get(gateway.address(), "/").status(), 502);
    }
    origin.accept_again();
    assert_eq!(get(gateway.address(), "/").text(), "a");
}
