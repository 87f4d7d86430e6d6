//! What a person sees who starts the gateway in a terminal.

use std::process::Command;

use tempfile::TempDir;

use crate::harness::origin::{Origin, Reply};
use crate::harness::port::{free_port, loopback};
use crate::harness::process::Process;
use crate::harness::tls::TestCa;

#[test]
fn the_banner_says_where_it_listens_what_it_serves_and_what_is_on() {
    let origins = [(); 2].map(|()| Origin::always(Reply::ok("x")));
    let backends = origins.each_ref().map(|one| one.address().to_string());
    let listen = [(); 4].map(|()| loopback(free_port()));
    let folder = TempDir::new().expect("a temporary folder");
    TestCa::new().issue_into(&folder.path().join("certs"), "site", &["test.example"]);
    let path = folder.path().join("gateway.toml");
    let [plain, h2c, redirecting, tls] = listen;
    let config = format!(
        r#"
        [server]
        listen = [
            "{plain}",
            {{ address = "{h2c}", h2c = true, proxy_protocol = true }},
            {{ address = "{redirecting}", redirect_https = true }},
            {{ address = "{tls}", tls = "certs/" }},
        ]
        [clients]
        trusted_proxies = ["127.0.0.1", "10.0.0.0/8"]
        [log]
        slow_after = "2s"
        [upstream.app]
        backends = ["{}", "{}"]
        [upstream.probed]
        backends = ["{}"]
        health = {{ kind = "tcp" }}
        [[route]]
        upstream = "app"
        [[route]]
        path = "/x"
        upstream = "probed"
        "#,
        backends[0], backends[1], backends[0]
    );
    std::fs::write(&path, config).expect("there is space");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.arg("run").arg("--config").arg(&path);
    let gateway = Process::spawn_on_terminal("tollgate", &mut command);

    // The first line of the log after it.
    gateway.wait_for_log("that it is ready", |line| line.contains("\"ready\""));
    let lines = gateway.log().lines();
    let first = lines.iter().position(|line| line == "Tollgate 0.1.0");
    let first = first.unwrap_or_else(|| panic!("no banner in {lines:?}"));
    let wanted = [
        format!("  listens on  http://{plain}"),
        format!("  listens on  http://{h2c} (h2c) (PROXY protocol)"),
        format!("  listens on  http://{redirecting} (redirects to https)"),
        format!("  listens on  https://{tls}"),
        format!("  upstream    app = {} (not probed)", backends.join(", ")),
        format!("  upstream    probed = {} (probed)", backends[0]),
        "  routes      2".to_owned(),
        "  trusts      2 networks of proxies".to_owned(),
        "  slow        WARN above 2s".to_owned(),
        "  cache       off".to_owned(),
        "  limits      off".to_owned(),
    ];
    assert_eq!(lines[first + 1..][..wanted.len()], wanted);
}

#[test]
fn without_a_terminal_there_is_no_banner() {
    let origin = Origin::always(Reply::ok("x"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(["run", "--upstream", &origin.address().to_string()]);
    command.args(["--listen", &loopback(free_port()).to_string()]);
    let gateway = Process::spawn("tollgate", &mut command);
    gateway.wait_for_log("that it is ready", |line| line.contains("\"ready\""));
    for line in gateway.log().lines() {
        assert!(line.starts_with('{'), "{line}");
    }
}
