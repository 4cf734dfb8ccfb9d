//! What a supervisor hears from the agent by systemd's notification protocol.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    net::TcpListener,
    os::unix::net::UnixDatagram,
    process::{Child, Command},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

const DEADLINE: Duration = Duration::from_secs(30);

/// The next message; watchdog messages are counted and left out unless they are waited for.
fn wait_for(wanted: &str, socket: &UnixDatagram) {
    let mut buffer = [0; 256];
    loop {
        let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("no {wanted}: {error}"));
        match String::from_utf8_lossy(buffer.get(..length).unwrap()).trim() {
            heard if heard == wanted => return,
            "WATCHDOG=1" => {}
            other => panic!("{other} before {wanted}"),
        }
    }
}

fn signal(agent: &Child, signal: Signal) {
    kill_process(Pid::from_child(agent), signal).unwrap();
}

#[test]
fn a_supervisor_hears_that_the_agent_is_ready_decides_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = format!(
        "databases:
  - name: orders
    engine: postgresql
    user: lb_agent
    instances:
      - {{name: a, endpoint: 'orders-a.abc.eu-west-1.rds.amazonaws.com:5432', connect: '127.0.0.1:9'}}
proxies:
  - haproxy: {{socket: /nonexistent/admin.sock}}
    backends:
      orders_write: {{database: orders, role: writer, servers: {{a: a}}}}
listen: {{agent_check: '{}', http: '{}', control: '{folder}/control.sock'}}
state_dir: '{folder}/state'
",
        port(),
        port(),
        folder = folder.path().display(),
    );
    let config = folder.path().join("config.yaml");
    std::fs::write(&config, text).unwrap();

    let mut agent = Command::new(env!("CARGO_BIN_EXE_rds-lb-agent"))
        .args(["run", "--config"])
        .arg(&config)
        .env("NOTIFY_SOCKET", folder.path().join("notify"))
        .env("WATCHDOG_USEC", "300000")
        .spawn()
        .unwrap();
    wait_for("READY=1", &socket);
    wait_for("WATCHDOG=1", &socket);
    wait_for("WATCHDOG=1", &socket);
    signal(&agent, Signal::TERM);
    wait_for("STOPPING=1", &socket);
    assert!(agent.wait().unwrap().success());
}
