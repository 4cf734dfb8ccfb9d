//! What clients meet while every server is down.

use integration_tests::{haproxy::HaproxyBinary, process::wait_for};

use crate::{
    databases::{connect, waiting},
    lab::{Lab, PATIENCE},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_wait_while_every_server_is_down_and_reach_the_next_writer() {
    for binary in HaproxyBinary::all().unwrap() {
        let lab = Lab::with("haproxy.cfg", &binary).await;
        lab.routed().await;
        lab.agent.say("orders_write", "a", "down #stopped");
        lab.usable("orders_write", &[]).await;

        let clients = waiting(lab.haproxy.address("postgres_write"), 20).await;
        lab.databases.promote("b");
        lab.agent.writer_is("b");
        for client in clients {
            let reached = client.await.unwrap().unwrap();
            assert!(reached.writer && reached.server == "b", "{}: {reached:?}", binary.version().text);
        }
    }
}

/// Why the waiting room is in every recipe.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_waiting_room_clients_are_closed_at_once() {
    for binary in HaproxyBinary::all().unwrap() {
        let lab = Lab::with_changed("haproxy.cfg", &binary, |recipe| recipe.without("server wait")).await;
        lab.routed().await;
        lab.agent.say("orders_write", "a", "down #stopped");
        lab.usable("orders_write", &[]).await;
        assert!(connect(lab.haproxy.address("postgres_write")).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_agent_changes_nothing() {
    for binary in HaproxyBinary::all().unwrap() {
        let mut lab = Lab::with("haproxy.cfg", &binary).await;
        lab.routed().await;
        let before = [lab.states("orders_write").await, lab.states("orders_read").await];
        lab.agent.kill().await;
        wait_for("failed agent checks", PATIENCE, async || {
            let stat = lab.open().await.stat().await.unwrap();
            let checked = stat.iter().filter(|row| ["a", "b"].contains(&&*row.server));
            let statuses: Vec<_> = checked.map(|row| &*row.agent_status).collect();
            if statuses.iter().all(|status| status.starts_with("L4")) {
                Ok(())
            } else {
                Err(format!("{statuses:?}"))
            }
        })
        .await
        .unwrap();
        assert_eq!([lab.states("orders_write").await, lab.states("orders_read").await], before);
        lab.right_roles("the agent is dead").await;
    }
}
