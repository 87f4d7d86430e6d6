//! A process that may open few files: it says so, waits, and goes on.

use std::process::Command;

use crate::harness::client::{Connection, get};
use crate::harness::origin::{Origin, Reply};
use crate::harness::port::{free_port, loopback};
use crate::harness::process::Process;

/// Enough for the gateway itself and some connections.
const FILES: usize = 64;

#[test]
fn a_gateway_without_descriptors_says_so_and_serves_again_when_there_are_some() {
    let origin = Origin::always(Reply::ok("hello"));
    let listen = loopback(free_port());
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!(
        "ulimit -n {FILES} && exec {} run --upstream {} --listen {listen}",
        env!("CARGO_BIN_EXE_tollgate"),
        origin.address()
    ));
    let gateway = Process::spawn("tollgate", &mut command);
    gateway.wait_for_log("that it is ready", |line| line.contains("\"ready\""));
    gateway.wait_for_log("what it was not given", |line| {
        line.contains("raise LimitNOFILE") && line.contains(&format!("\"limit\":{FILES}"))
    });

    // The kernel takes them, as long as its own queue has room; the gateway cannot.
    let held: Vec<_> = (0..FILES).map(|_| Connection::open(listen)).collect();
    gateway.wait_for_log("why it does not accept", |line| {
        line.contains("cannot accept; waiting")
    });
    drop(held);
    assert_eq!(get(listen, "/").text(), "hello");
}
