//! What the agent has said ends with the agent: a reader that is down comes up in the proxy when the agent
//! stops, is paused, or no longer has the server in its configuration. In a writer backend it stays.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use integration_tests::{
    envoy::Envoy,
    on_each_engine,
    process::{Signal, wait_for},
    scene::{PATIENCE, Proxy, Scene, Setting},
    standin::{Engine, Options, StopMode},
};

/// A scene whose reader `b` refuses connections and is DOWN.
async fn with_a_dead_reader(engine: Engine) -> Scene {
    let standin = Options { engine, ..Options::default() };
    let setting = Setting { standin, state_file: true, ..Setting::default() };
    let scene = Scene::set(setting).await.unwrap();
    scene.standin.stop("b", StopMode::Immediate).await.unwrap();
    scene.up("orders_read", &["c"]).await.unwrap();
    recorded(&scene, &["orders_read/a", "orders_read/b", "orders_write/b", "orders_write/c"]).await;
    scene
}

/// Waits until exactly these servers are on record as down.
async fn recorded(scene: &Scene, servers: &[&str]) {
    let file = scene.agent.state_dir().join("downs.json");
    wait_for("the record of downs", PATIENCE, async || {
        let text = std::fs::read_to_string(&file).unwrap_or_else(|_| "[]".into());
        let records: serde_json::Value = serde_json::from_str(&text).unwrap();
        let field = |row: &serde_json::Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let mut names: Vec<String> = records
            .as_array()
            .unwrap()
            .iter()
            .map(|row| format!("{}/{}", field(row, "backend"), field(row, "server")))
            .collect();
        names.sort();
        if names == servers { Ok(()) } else { Err(text) }
    })
    .await
    .unwrap();
}

async fn operational(scene: &Scene, backend: &str, server: &str) -> u8 {
    scene.proxy.operational_state(backend, server).await.unwrap()
}

/// `release` without a running agent: exit code and standard output.
async fn release(scene: &Scene) -> (i32, String) {
    let (config, control) = (scene.agent.config_file(), scene.agent.control());
    let arguments = ["release", "--config", config.to_str().unwrap(), "--control", control.to_str().unwrap()];
    let (code, out, err) = scene.agent.command(&arguments).await.unwrap();
    (code, out + &err)
}

on_each_engine!(
    a_stop_lifts_readers_and_leaves_the_writer_backend,
    after_a_failover_a_stop_does_not_bring_the_old_writer_back,
);

async fn a_stop_lifts_readers_and_leaves_the_writer_backend(engine: Engine) {
    let mut scene = with_a_dead_reader(engine).await;
    scene.agent.stop().await.unwrap();
    scene.up("orders_read", &["a", "b", "c"]).await.unwrap();
    scene.up("orders_write", &["a"]).await.unwrap();
    let log = scene.agent.log();
    assert!(log.contains("set server orders_write/b agent up"), "what to type is logged: {log}");
    scene.clear().await.unwrap();
}

async fn after_a_failover_a_stop_does_not_bring_the_old_writer_back(engine: Engine) {
    let standin = Options { engine, ..Options::default() };
    let mut scene = Scene::set(Setting { standin, ..Setting::default() }).await.unwrap();
    scene.standin.failover("b").await.unwrap();
    scene.up("orders_write", &["b"]).await.unwrap();
    scene.standin.stop("a", StopMode::Immediate).await.unwrap();
    scene.up("orders_read", &["c"]).await.unwrap();
    scene.agent.stop().await.unwrap();
    scene.up("orders_read", &["a", "b", "c"]).await.unwrap();
    scene.up("orders_write", &["b"]).await.unwrap();
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_too_may_use_a_dead_reader_again_after_a_stop() {
    let mut scene = Scene::<Envoy>::with(Setting::default()).await.unwrap();
    scene.up("orders_read", &["b", "c"]).await.unwrap();
    scene.standin.stop("b", StopMode::Immediate).await.unwrap();
    scene.up("orders_read", &["c"]).await.unwrap();
    scene.agent.stop().await.unwrap();
    scene.up("orders_read", &["a", "b", "c"]).await.unwrap();
    scene.up("orders_write", &["a"]).await.unwrap();
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_keeps_its_endpoints_at_a_hand_over() {
    let mut scene = Scene::<Envoy>::with(Setting::default()).await.unwrap();
    scene.up("orders_read", &["b", "c"]).await.unwrap();
    scene.standin.stop("b", StopMode::Immediate).await.unwrap();
    scene.up("orders_read", &["c"]).await.unwrap();
    scene.agent.signal(Signal::USR1).unwrap();
    assert_eq!(scene.agent.ended().await.unwrap().unwrap().code(), Some(0));
    assert_eq!(scene.proxy.up("orders_read", &scene.standin).await.unwrap(), ["c"]);
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_lifts_readers_until_it_ends() {
    let scene = with_a_dead_reader(Engine::Postgresql).await;
    let control = scene.agent.control();
    let control = ["--control", control.to_str().unwrap()];
    let command = async |name: &str| scene.agent.command(&[&[name], &control[..]].concat()).await.unwrap();
    assert_eq!(command("pause").await.0, 0);
    scene.up("orders_read", &["a", "b", "c"]).await.unwrap();
    scene.up("orders_write", &["a"]).await.unwrap();
    assert_eq!(command("resume").await.0, 0);
    scene.up("orders_read", &["c"]).await.unwrap();
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_down_for_a_moment_only_is_on_record_when_the_agent_is_killed() {
    let mut scene = with_a_dead_reader(Engine::Postgresql).await;
    assert_eq!(scene.agent.command(&["pause"]).await.unwrap().0, 0);
    scene.up("orders_read", &["a", "b", "c"]).await.unwrap();
    assert_eq!(scene.agent.command(&["resume"]).await.unwrap().0, 0);
    scene.up("orders_read", &["c"]).await.unwrap();
    scene.agent.kill();
    let (code, output) = release(&scene).await;
    assert_eq!(code, 0, "{output}");
    scene.up("orders_read", &["a", "b", "c"]).await.unwrap();
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_lifts_nothing_that_the_next_agent_takes_over() {
    let mut scene = with_a_dead_reader(Engine::Postgresql).await;
    scene.agent.signal(Signal::USR1).unwrap();
    assert_eq!(scene.agent.ended().await.unwrap().unwrap().code(), Some(0));
    assert_eq!(operational(&scene, "orders_read", "b").await, 0);
    scene.agent.start().await.unwrap();
    wait_for("the next agent's verdict", PATIENCE, async || {
        assert_eq!(operational(&scene, "orders_read", "b").await, 0, "{}", scene.agent.log());
        let verdicts = scene.verdicts().await;
        if verdicts["orders_read/b"]["state"] == "down" { Ok(()) } else { Err(verdicts.to_string()) }
    })
    .await
    .unwrap();
    // It also knows what to lift when it stops.
    scene.agent.stop().await.unwrap();
    scene.up("orders_read", &["a", "b", "c"]).await.unwrap();
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn release_lifts_what_a_killed_agent_left_and_says_what_stays() {
    let mut scene = with_a_dead_reader(Engine::Postgresql).await;
    scene.agent.kill();
    assert_eq!(operational(&scene, "orders_read", "b").await, 0);
    let (code, output) = release(&scene).await;
    assert_eq!(code, 0, "{output}");
    assert!(output.contains("orders_read/b") && output.contains("up again"), "{output}");
    let socket = scene.proxy.admin_socket();
    let typed = format!("echo 'set server orders_write/b agent up' | socat - {}", socket.display());
    assert!(output.contains("stays DOWN for its role") && output.contains(&typed), "{output}");
    scene.up("orders_read", &["a", "b", "c"]).await.unwrap();
    scene.up("orders_write", &["a"]).await.unwrap();
    // HAProxy's server state file knows it too.
    scene.proxy.reload().await.unwrap();
    scene.up("orders_read", &["a", "b", "c"]).await.unwrap();
    scene.up("orders_write", &["a"]).await.unwrap();
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_leaves_the_configuration_is_lifted() {
    for killed in [false, true] {
        let mut scene = with_a_dead_reader(Engine::Postgresql).await;
        let config = std::fs::read_to_string(scene.agent.config_file()).unwrap();
        let (before, readers) = config.split_once("role: reader, servers: {").unwrap();
        let without = format!("{before}role: reader, servers: {{{}", readers.replacen("b: b, ", "", 1));
        if killed {
            scene.agent.kill();
            scene.agent.write_config(&without).unwrap();
            scene.agent.start().await.unwrap();
        } else {
            scene.agent.write_config(&without).unwrap();
        }
        scene.up("orders_read", &["b", "c"]).await.unwrap();
        scene.up("orders_write", &["a"]).await.unwrap();
        recorded(&scene, &["orders_read/a", "orders_write/b", "orders_write/c"]).await;
        scene.clear().await.unwrap();
    }
}
