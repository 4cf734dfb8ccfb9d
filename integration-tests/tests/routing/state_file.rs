//! `state_file`: HAProxy starts in the last state although no agent runs.

use std::fs;

use integration_tests::{
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
    let setting = Setting { state_file: true, waiting_room: true, ..Setting::default() };
    let mut scene = Scene::set(setting).await.unwrap();
    scene.up("orders_read", &["b", "c"]).await.unwrap();
    let control = scene.agent.control();
    let drain = ["drain", "--control", control.to_str().unwrap(), "orders_read/c"];
    let drained = async || {
        let (code, out, err) = scene.agent.command(&drain).await.unwrap();
        if code == 0 { Ok(()) } else { Err(out + &err) }
    };
    wait_for("the drain to be taken", PATIENCE, drained).await.unwrap();
    wait_for("HAProxy to show the drain", PATIENCE, async || {
        let bits = scene.proxy.admin_bits("orders_read", "c").await.unwrap();
        if bits == 0 { Err("not drained") } else { Ok(()) }
    })
    .await
    .unwrap();
    // A change after the drain, so that the file was written with it in force.
    scene.proxy.cli("set server orders_read/b weight 2").await.unwrap();
    wait_for("the file to be written since", PATIENCE, async || {
        let file = fs::read_to_string(scene.agent.folder().join("server-state")).unwrap_or_default();
        let weight = file.lines().find(|line| line.contains(" orders_read ") && line.contains(" b "));
        let weight = weight.and_then(|line| line.split(' ').nth(7)).map(str::to_owned);
        if weight.as_deref() == Some("2") { Ok(()) } else { Err(file) }
    })
    .await
    .unwrap();
    file_shows(&scene, &[("orders_read", "b", true), ("orders_read", "c", true)]).await;
    scene.agent.kill();
    scene.proxy.reload().await.unwrap();
    assert_eq!(scene.proxy.admin_bits("orders_read", "c").await.unwrap(), 0);
    assert_eq!(up(&scene, "orders_read").await, ["b", "c"]);
    scene.clear().await.unwrap();
}
