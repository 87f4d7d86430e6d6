//! The deployment files say what they promise, and the gateway accepts the configurations in them.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::harness::apps::{expect_success, python_program};
use crate::harness::gateway::tollgate;
use crate::harness::repository;

#[test]
fn the_compose_file_is_valid() {
    deploy_check("compose");
    let file = repository("docker-compose.yml");
    if docker_has_compose() {
        let mut client = Command::new("docker");
        client
            .args(["compose", "--file"])
            .arg(file)
            .args(["config", "--quiet"]);
        expect_success("docker compose config", &mut client);
        announce("checked by its structure and by docker compose config");
    } else {
        announce("checked by its structure alone: there is no docker compose here");
    }
}

#[test]
fn the_kubernetes_manifests_fit_together() {
    deploy_check("kubernetes");
}

#[test]
fn the_gateway_accepts_the_configuration_of_compose() {
    let path = repository("deploy/compose/gateway.toml");
    assert_accepted(&tollgate(&[
        "check",
        "--config",
        path.to_str().expect("UTF-8 paths"),
    ]));
}

#[test]
fn the_gateway_accepts_the_configuration_of_kubernetes() {
    let config = deploy_check("kubernetes-config").stdout;
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(&config).expect("there is space");
    let path = file.path().to_str().expect("UTF-8 paths");
    assert_accepted(&tollgate(&["check", "--config", path]));
}

fn assert_accepted(output: &Output) {
    let said = [&output.stdout[..], &output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{}: {said}", output.status);
}

fn deploy_check(what: &str) -> Output {
    let mut check = Command::new(python_program("python"));
    check.arg(repository("tests/deploy_check.py")).arg(what);
    expect_success(&format!("deploy_check.py {what}"), &mut check)
}

fn docker_has_compose() -> bool {
    Command::new("docker")
        .args(["compose", "version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Past the capture of test output: which check ran must be visible when it succeeds, too.
fn announce(how: &str) {
    writeln!(std::io::stderr(), "docker-compose.yml: {how}").expect("stderr is open");
}
