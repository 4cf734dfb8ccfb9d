//! Who is routed to when the writer changes, and when servers freeze or stop.

use std::time::Instant;

use integration_tests::{
    load::{Load, Think, Work},
    on_each_engine,
    process::wait_for,
    scene::{PATIENCE, Scene},
    standin::{Engine, StopMode},
};

use crate::{nothing_was_down, set, set_on, watch::Watch};

on_each_engine!(
    new_sessions_follow_a_failover,
    a_silent_writer_stays_and_so_does_a_stopped_one_without_another,
);

/// Waits for a verdict's reason in `/state`.
async fn reason(scene: &Scene, server: &str, reason: &str) {
    wait_for(&format!("{server} {reason}"), PATIENCE, async || {
        let verdicts = scene.verdicts().await;
        if verdicts[server]["reason"] == reason { Ok(()) } else { Err(verdicts.to_string()) }
    })
    .await
    .unwrap();
}

/// Waits until clients have written again.
async fn writing(load: &Load) {
    let before = load.report().transactions;
    wait_for("clients to write", PATIENCE, async || match load.report().transactions - before {
        50.. => Ok(()),
        few => Err(format!("{few}; {:?}", load.report().causes)),
    })
    .await
    .unwrap();
}

async fn new_sessions_follow_a_failover(engine: Engine) {
    let scene = set_on(engine, "{mode: observe}", "").await;
    let load = Load::new(scene.writer("app").unwrap(), 1).await.unwrap();
    load.add(Work::Transactions { think: Think::Busy, retry_begin: false }, 8);
    load.all_in(PATIENCE).await.unwrap();
    writing(&load).await;
    for (from, to) in [("a", "b"), ("b", "c")] {
        let began = Instant::now();
        let done = scene.standin.failover(to);
        let routed = async {
            scene.up("orders_write", &[to]).await.unwrap();
            println!("{from} to {to}: routed {:.1} s after it began", began.elapsed().as_secs_f64());
        };
        let (done, ()) = tokio::join!(done, routed);
        done.unwrap();
        writing(&load).await;
        let readers: Vec<&str> = ["a", "b", "c"].into_iter().filter(|server| *server != to).collect();
        scene.up("orders_read", &readers).await.unwrap();
        scene.up("orders_write", &[to]).await.unwrap();
    }
    load.stop().await.unwrap();
    drop(load);
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_replica_takes_no_writes_while_the_writer_goes_on_until_an_operator_chooses_it() {
    let scene = set("{mode: observe}", "").await;
    scene.standin.promote("b").await.unwrap();
    reason(&scene, "orders_write/a", "conflict_kept").await;
    scene.up("orders_write", &["a"]).await.unwrap();
    let control = scene.agent.control();
    let words = ["writer", "orders", "b", "--control", control.to_str().unwrap()];
    let chosen = scene.agent.command(&words).await.unwrap();
    assert_eq!(chosen.0, 0, "{chosen:?}");
    reason(&scene, "orders_write/b", "conflict_kept").await;
    scene.up("orders_write", &["b"]).await.unwrap();
    scene.clear().await.unwrap();
}

async fn a_silent_writer_stays_and_so_does_a_stopped_one_without_another(engine: Engine) {
    let scene = set_on(engine, "{mode: observe}", "").await;
    let watch = Watch::begin(scene.proxy.admin_socket());
    scene.standin.freeze("a").await.unwrap();
    reason(&scene, "orders_write/a", "silent_kept").await;
    // Long after the misses that would count against a reader.
    let misses = async || {
        let state = scene.agent.state().await.unwrap();
        let status = state["state"]["fleet"]["instances"]["orders/a"]["status"].clone();
        if status["silent"].as_u64() >= Some(6) { Ok(()) } else { Err(status.to_string()) }
    };
    wait_for("six misses", PATIENCE, misses).await.unwrap();
    scene.standin.thaw("a").await.unwrap();
    reason(&scene, "orders_write/a", "proved").await;
    nothing_was_down(watch).await;

    scene.standin.stop("a", StopMode::Immediate).await.unwrap();
    // HAProxy would close the clients of an empty backend at once, and this one has no fallback.
    reason(&scene, "orders_write/a", "only_server_kept").await;
    scene.up("orders_write", &["a"]).await.unwrap();
    scene.standin.start_server("a").await.unwrap();
    reason(&scene, "orders_write/a", "proved").await;
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_frozen_or_stopped_goes_and_comes_back() {
    let scene = set("{mode: observe}", "").await;
    scene.standin.freeze("c").await.unwrap();
    scene.up("orders_read", &["b"]).await.unwrap();
    scene.standin.thaw("c").await.unwrap();
    scene.up("orders_read", &["b", "c"]).await.unwrap();
    scene.standin.stop("c", StopMode::Immediate).await.unwrap();
    scene.up("orders_read", &["b"]).await.unwrap();
    // With no replica left, the writer reads.
    scene.standin.stop("b", StopMode::Immediate).await.unwrap();
    scene.up("orders_read", &["a"]).await.unwrap();
    scene.standin.start_server("b").await.unwrap();
    scene.standin.start_server("c").await.unwrap();
    scene.up("orders_read", &["b", "c"]).await.unwrap();
    scene.clear().await.unwrap();
}
