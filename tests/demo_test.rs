//! The first minute: what the demonstration promises.

use std::process::Command;

use crate::harness::load::Load;
use crate::harness::port::{free_port, loopback};
use crate::harness::process::{Process, Signal};

// About ten seconds: two lives and two deaths, as short as the probes can follow.
#[test]
fn nobody_notices_that_mortal_dies_and_comes_back() {
    let listen = loopback(free_port());
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(["demo", "--alive", "3s", "--dead", "1500ms"]);
    command.args(["--listen", &listen.to_string()]);
    let mut demo = Process::spawn("tollgate demo", &mut command);
    demo.wait_for_log("mortal's rhythm", |line| {
        line.contains("lives for 3s and is then gone for 1.5s")
    });
    demo.wait_for_log("that it is ready", |line| line.contains(" ready "));
    // Swift, slow, mortal: the third of the upstream.
    let ready = demo.wait_for_log("its backends", |line| line.contains("upstreams"));
    let mortal = ready
        .split_once(" (probed)")
        .and_then(|(before, _)| before.rsplit(", ").next())
        .unwrap_or_else(|| panic!("no backends in {ready}"))
        .to_owned();

    let load = Load::start(listen, "/", 8);
    let mut position = demo.log().position();
    for _ in 0..2 {
        for event in ["backend is down", "backend is up"] {
            demo.wait_for_log_after(position, &format!("{event}: {mortal}"), |line| {
                line.contains(event) && line.contains(&mortal)
            });
            position = demo.log().position();
        }
    }
    let tally = load.stop();
    assert_eq!(tally.failures, [""; 0]);
    assert!(tally.statuses.keys().eq([&200]), "{:?}", tally.statuses);
    assert_eq!(tally.replayed, 0);
    for name in ["swift", "slow", "mortal"] {
        let title = format!("<title>{name}: ");
        assert!(tally.bodies.keys().any(|page| page.contains(&title)));
    }

    demo.signal(Signal::Interrupt);
    assert_eq!(demo.wait_for_exit().code(), Some(0));
}
