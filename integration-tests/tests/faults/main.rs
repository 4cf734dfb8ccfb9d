//! Faults of everything around the agent, and of the agent itself: it is never worse than having none.
//!
//! - `long`: faults that last, and credentials that rotate or expire
//! - `failover`: another writer, frozen and stopped servers
//! - `bad_database`: a CA file or a region that is missing
//! - `bad_input`: sockets that are missing, denied or answer nonsense, refused logins

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod bad_database;
mod bad_input;
mod failover;
mod long;
#[path = "../support/watch.rs"]
mod watch;

use std::time::{Duration, Instant};

use integration_tests::{
    load::{Load, LoadReport, Think, Work},
    process::wait_for,
    scene::{PATIENCE, Scene, Setting},
    standin::{Engine, Options},
};
use serde_json::Value;
use watch::Watch;

/// Transactional clients think for up to two seconds before they look at their socket.
const SETTLES: Duration = Duration::from_secs(3);

const RETIRE: &str = "{mode: retire, max_age: 6s, login_budget: 20}";

async fn set(sessions: &str, database: &str) -> Scene {
    set_on(Engine::Postgresql, sessions, database).await
}

async fn set_on(engine: Engine, sessions: &str, database: &str) -> Scene {
    // Sessions are opened for as long as a fault lasts, and none is closed meanwhile.
    let standin = Options { engine, max_connections: 1_300, ..Options::default() };
    let setting =
        Setting { standin, sessions: sessions.into(), database: database.into(), ..Setting::default() };
    let scene = Scene::set(setting).await.unwrap();
    scene.up("orders_read", &["b", "c"]).await.unwrap();
    scene
}

/// Clients that work, some that are idle, on writer and replicas.
async fn clients(scene: &Scene) -> Load {
    let load = Load::new(scene.writer("app").unwrap(), 1).await.unwrap();
    load.add(Work::Transactions { think: Think::Mixed, retry_begin: false }, 8);
    load.add(Work::Idle, 5);
    load.add_to(&scene.readers("app").unwrap(), Work::Idle, 5);
    load.all_in(PATIENCE).await.unwrap();
    load
}

/// Sessions that ended without their clients' doing.
fn closed(report: &LoadReport) -> u64 {
    report.ended_unprepared + report.retirements() + report.steady_closed
}

/// Waits until so many more sessions were retired.
async fn retiring(scene: &Scene, load: &Load, more: u64) {
    let before = closed(&load.report());
    wait_for("more sessions to be retired", PATIENCE, async || match closed(&load.report()) - before {
        enough if enough >= more => Ok(()),
        few => Err(format!("{few}; {}", scene.agent.state().await.unwrap()["state"]["sessions"])),
    })
    .await
    .unwrap();
}

/// Looks on for a while: no session is closed, and each new one is let in.
async fn nothing_closed_nothing_refused(scene: &Scene, load: &Load, during: Duration) {
    let before = load.report();
    let began = Instant::now();
    let mut settled = None;
    while began.elapsed() < SETTLES + during {
        load.add(Work::Idle, 1);
        load.add_to(&scene.readers("app").unwrap(), Work::Idle, 1);
        load.all_in(PATIENCE).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let report = load.report();
        assert_eq!(report.failed_logins, before.failed_logins, "{:?}", report.causes);
        if began.elapsed() >= SETTLES {
            let settled = settled.get_or_insert_with(|| closed(&report));
            assert_eq!(closed(&report), *settled, "{:?}\n{}", report.causes, scene.agent.log());
        }
    }
    let late = closed(&load.report()) - closed(&before);
    println!("{} sessions, {late} closed while it settled, none in {during:?}", load.report().clients);
}

async fn nothing_was_down(watch: Watch) {
    let seen = watch.stop().await;
    for server in ["orders_write/a", "orders_read/b", "orders_read/c"] {
        assert!(!seen.was_down(server), "{server} was down: {:?}", seen.operation);
    }
}

async fn end(scene: Scene, load: Load) {
    let report = load.stop().await.unwrap();
    println!("{:?}", report.causes);
    assert_eq!(report.broken_at_commit, 0, "{:?}", report.causes);
    drop(load);
    scene.clear().await.unwrap();
}

/// Waits until the agent has noticed that its logins are refused everywhere.
async fn refused_everywhere(scene: &Scene) {
    wait_for("the agent to notice", PATIENCE, async || {
        let state = scene.agent.state().await.unwrap();
        let instances = state["state"]["fleet"]["instances"].as_object().cloned().unwrap_or_default();
        let well: Vec<&String> = instances
            .iter()
            .filter(|(_, view)| view["auth_refused_since"].is_null())
            .map(|(instance, _)| instance)
            .collect();
        if well.is_empty() && !instances.is_empty() { Ok(()) } else { Err(format!("{well:?} accept it")) }
    })
    .await
    .unwrap();
}

/// The lines that the agent wrote with this message.
fn of(scene: &Scene, message: &str) -> Vec<Value> {
    scene.agent.events().into_iter().filter(|event| event["message"] == message).collect()
}
