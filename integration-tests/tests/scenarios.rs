//! The main job, on real servers.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use integration_tests::{
    load::{Load, Think, Work},
    on_each_engine,
    process::wait_for,
    scene::{PATIENCE, Scene, Setting},
    standin::{Engine, Options},
};

on_each_engine!(haproxy_routes_by_the_role_that_a_login_has_proved);

async fn haproxy_routes_by_the_role_that_a_login_has_proved(engine: Engine) {
    let standin = Options { engine, ..Options::default() };
    let scene = Scene::set(Setting { standin, ..Setting::default() }).await.unwrap();
    scene.up("orders_write", &["a"]).await.unwrap();
    scene.up("orders_read", &["b", "c"]).await.unwrap();
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_retired_between_transactions_before_their_limit() {
    let sessions = "{mode: retire, max_age: 6s, login_budget: 20}";
    let scene = Scene::set(Setting { sessions: sessions.into(), ..Setting::default() }).await.unwrap();
    let load = Load::new(scene.writer("app").unwrap(), 1).await.unwrap();
    load.add(Work::Transactions { think: Think::Mixed, retry_begin: false }, 20);
    load.all_in(PATIENCE).await.unwrap();
    wait_for("60 retirements", PATIENCE * 2, async || match load.report().retirements() {
        60.. => Ok(()),
        few => Err(format!("{few}; {}", scene.agent.state().await.unwrap()["state"]["sessions"])),
    })
    .await
    .unwrap();
    let report = load.stop().await.unwrap();
    assert!(load.verify(&scene.writer("app").unwrap()).await.unwrap().is_exact());
    assert_eq!((report.broken_at_commit, report.rows_failed), (0, 0), "{report:?}");
    // The race is microseconds wide: `make bench` judges how often it is lost. Blind closes would break
    // far more than a tenth.
    assert!(report.broken_inside * 10 <= report.retirements(), "{report:?}");
    drop(load);
    scene.clear().await.unwrap();
}
