//! `state_file`: HAProxy starts in the last state although no agent runs.

use std::fs;

use integration_tests::{
    load::{Load, Work},
    process::wait_for,
    scene::{PATIENCE, Scene, Setting},
};

/// `srv_op_state` and `srv_admin_state` of a server in the file.
fn states(file: &str, backend: &str, server: &str) -> Option<(String, String)> {
    let rows = file.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    rows.filter(|fields| fields.len() > 6 && fields[1] == backend && fields[3] == server)
        .map(|fields| (fields[5].to_owned(), fields[6].to_owned()))
        .next()
}

async fn file_shows(scene: &Scene, expected: &[(&str, &str, bool)]) {
    wait_for(&format!("the file to show {expected:?}"), PATIENCE, async || {
        let file = fs::read_to_string(scene.agent.folder().join("server-state")).unwrap_or_default();
        let fits = expected.iter().all(|(backend, server, up)| {
            let running = if *up { "2" } else { "0" };
            states(&file, backend, server) == Some((running.into(), "0".into()))
        });
        if fits { Ok(()) } else { Err(file) }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_starts_in_the_last_state_after_a_failover_though_the_agent_is_dead() {
    let setting = Setting { state_file: true, waiting_room: true, ..Setting::default() };
    let mut scene = Scene::set(setting).await.unwrap();
    file_shows(&scene, &[("orders_write", "a", true), ("orders_write", "b", false)]).await;
    scene.standin.failover("b").await.unwrap();
    scene.up("orders_write", &["b"]).await.unwrap();
    scene.up("orders_read", &["a", "c"]).await.unwrap();

    file_shows(
        &scene,
        &[
            ("orders_write", "a", false),
            ("orders_write", "b", true),
            ("orders_write", "c", false),
            ("orders_read", "a", true),
            ("orders_read", "b", false),
        ],
    )
    .await;
    scene.agent.kill();
    for crash in [false, true] {
        if crash {
            scene.proxy.kill();
        } else {
            scene.proxy.stop().await.unwrap();
        }
        scene.proxy.start_again().await.unwrap();
        assert_eq!(up(&scene, "orders_write").await, ["b"], "HAProxy knows it from the file alone");
        assert_eq!(up(&scene, "orders_read").await, ["a", "c"]);
    }
    scene.proxy.reload().await.unwrap();
    assert_eq!(up(&scene, "orders_write").await, ["b"]);
    scene.clear().await.unwrap();
}

async fn up(scene: &Scene, backend: &str) -> Vec<&'static str> {
    let mut up = Vec::new();
    for server in ["a", "b", "c"] {
        if scene.proxy.operational_state(backend, server).await.unwrap() != 0 {
            up.push(server);
        }
    }
    up
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_of_the_agents_own_is_not_in_the_file() {
    // Idle sessions are due soon, and a drain for them lasts.
    let sessions = "{mode: drain, max_age: 5s, drain_deadline: 10m}".into();
    let setting = Setting { state_file: true, waiting_room: true, sessions, ..Setting::default() };
    let mut scene = Scene::set(setting).await.unwrap();
    scene.up("orders_read", &["b", "c"]).await.unwrap();
    let load = Load::new(scene.writer("app").unwrap(), 1).await.unwrap();
    load.add_to(&scene.readers("app").unwrap(), Work::Idle, 4);
    load.all_in(PATIENCE).await.unwrap();
    let drained = wait_for("a drain for due sessions", PATIENCE, async || {
        for server in ["b", "c"] {
            if scene.proxy.admin_bits("orders_read", server).await.unwrap() != 0 {
                return Ok(server);
            }
        }
        Err("none is drained")
    })
    .await
    .unwrap();
    written_since(&scene, if drained == "b" { "c" } else { "b" }).await;
    file_shows(&scene, &[("orders_read", "b", true), ("orders_read", "c", true)]).await;
    scene.agent.kill();
    scene.proxy.reload().await.unwrap();
    assert_eq!(scene.proxy.admin_bits("orders_read", drained).await.unwrap(), 0);
    assert_eq!(up(&scene, "orders_read").await, ["b", "c"]);
    load.stop().await.unwrap();
    drop(load);
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_drain_is_in_the_file_until_it_ends() {
    let setting = Setting { state_file: true, waiting_room: true, ..Setting::default() };
    let mut scene = Scene::set(setting).await.unwrap();
    scene.up("orders_read", &["b", "c"]).await.unwrap();
    let (code, out, err) = scene.agent.command(&["drain", "orders_read/c"]).await.unwrap();
    assert_eq!(code, 0, "{out}{err}");
    written_since(&scene, "b").await;
    scene.agent.stop().await.unwrap();
    scene.proxy.reload().await.unwrap();
    assert_eq!(up(&scene, "orders_read").await, ["a", "b", "c"]);
    assert_ne!(scene.proxy.admin_bits("orders_read", "c").await.unwrap(), 0, "drained without an agent too");
    scene.agent.start().await.unwrap();
    wait_for("the next agent to take it over and end it", PATIENCE, async || {
        let (code, out, err) = scene.agent.command(&["undrain", "orders_read/c"]).await.unwrap();
        if code == 0 { Ok(()) } else { Err(out + &err) }
    })
    .await
    .unwrap();
    written_since(&scene, "b").await;
    scene.proxy.reload().await.unwrap();
    assert_eq!(scene.proxy.admin_bits("orders_read", "c").await.unwrap(), 0);
    scene.clear().await.unwrap();
}

/// Changes the weight of a server, and waits until the file has it: what came before is in it too.
async fn written_since(scene: &Scene, server: &str) {
    let weight = |file: &str| {
        let line =
            file.lines().find(|line| line.contains(" orders_read ") && line.contains(&format!(" {server} ")));
        line.and_then(|line| line.split(' ').nth(7)?.parse::<u32>().ok())
    };
    let read = || fs::read_to_string(scene.agent.folder().join("server-state")).unwrap_or_default();
    let new = weight(&read()).unwrap_or(1) + 1;
    scene.proxy.cli(&format!("set server orders_read/{server} weight {new}")).await.unwrap();
    wait_for("the file to be written since", PATIENCE, async || {
        let file = read();
        if weight(&file) == Some(new) { Ok(()) } else { Err(file) }
    })
    .await
    .unwrap();
}
