//! Closing by the proxy, before and after a reload.

use integration_tests::{
    load::{Load, Think, Work},
    process::wait_for,
    scene::{PATIENCE, Scene, Setting},
    standin::Options,
};

use crate::client::Login;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxy_closes_sessions_and_after_a_reload_those_of_its_old_worker_too() {
    let mut scene = Scene::set(Setting {
        standin: Options { replicas: 0, ..Options::default() },
        sessions: "{mode: retire, max_age: 6s, close_via: proxy, login_budget: 20}".into(),
        ..Setting::default()
    })
    .await
    .unwrap();
    let load = Load::new(scene.writer("app").unwrap(), 7).await.unwrap();
    load.add(Work::Transactions { think: Think::Mixed, retry_begin: false }, 8);
    load.all_in(PATIENCE).await.unwrap();
    // It is kept in the old worker by a transaction, until the reload is over.
    let old = Login::through(&scene).open(&scene).await;
    old.execute("BEGIN").await;
    scene.proxy.reload().await.unwrap();
    let (_, old_workers) = scene.proxy.workers().await.unwrap();
    assert_eq!(old_workers.len(), 1);
    old.execute("COMMIT").await;
    assert_eq!(old.closed().await, None, "the end of the stream, without a word");

    wait_for("30 retirements", PATIENCE, async || match load.report().retirements() {
        30.. => Ok(()),
        few => Err(format!("{few}; {}", scene.agent.state().await.unwrap()["state"]["sessions"])),
    })
    .await
    .unwrap();
    let report = load.stop().await.unwrap();
    println!(
        "closed by the proxy {}: clean {}, at BEGIN {}, inside {}, at COMMIT {}; {:?}",
        report.retirements(),
        report.clean_retirements,
        report.broken_at_begin,
        report.broken_inside,
        report.broken_at_commit,
        report.causes
    );
    assert!(load.verify(&scene.writer("app").unwrap()).await.unwrap().is_exact());
    drop(load);
    scene.clear().await.unwrap();
}
