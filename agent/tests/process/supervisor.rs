//! systemd's notification protocol.

use std::{os::unix::net::UnixDatagram, time::Duration};

use crate::Agent;

const DEADLINE: Duration = Duration::from_secs(30);

/// Reads up to the message, past messages to the watchdog and no others.
fn wait_for(wanted: &str, socket: &UnixDatagram) {
    let mut buffer = [0; 256];
    loop {
        let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("no {wanted}: {error}"));
        match String::from_utf8_lossy(&buffer[..length]).trim() {
            heard if heard == wanted => return,
            "WATCHDOG=1" => {}
            other => panic!("{other} before {wanted}"),
        }
    }
}

#[test]
fn a_supervisor_hears_that_the_agent_is_ready_decides_and_stops() {
    let supervisor = tempfile::tempdir().unwrap();
    let path = supervisor.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut agent = Agent::start("", |command, _| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000");
    });
    for message in ["READY=1", "WATCHDOG=1", "WATCHDOG=1"] {
        wait_for(message, &socket);
    }
    assert!(agent.stop().success());
    wait_for("STOPPING=1", &socket);
}
