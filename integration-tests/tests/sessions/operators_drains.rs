//! Drains by an operator: answered after the outcome, never in effect later, and lasting longer than the agent.

use std::{os::unix::fs::PermissionsExt, path::Path};

use integration_tests::{
    process::{Signal, wait_for},
    scene::{PATIENCE, Scene, Setting},
    standin::Options,
};

use crate::client::Login;

const SERVER: &str = "orders_read/b";

async fn scene(sessions: &str) -> Scene {
    let setting = Setting {
        standin: Options { replicas: 2, ..Options::default() },
        sessions: sessions.into(),
        ..Setting::default()
    };
    let scene = Scene::set(setting).await.unwrap();
    scene.up("orders_read", &["b", "c"]).await.unwrap();
    scene
}

/// A command to the running agent: exit code and all output.
async fn ask(scene: &Scene, arguments: &[&str]) -> (i32, String) {
    let control = scene.agent.control();
    let arguments = [arguments, &["--control", control.to_str().unwrap()]].concat();
    let (code, out, err) = scene.agent.command(&arguments).await.unwrap();
    (code, out + &err)
}

async fn bits(scene: &Scene) -> u8 {
    scene.proxy.admin_bits("orders_read", "b").await.unwrap()
}

/// Waits until the agent has no drain under way or on record.
async fn nothing_pending(scene: &Scene) {
    wait_for("no drain under way", PATIENCE, async || {
        let state = scene.agent.state().await.map_err(|error| error.to_string())?;
        let recorded = scene.agent.state_dir().join("drains.json").exists();
        let drains = state["state"]["drains"].clone();
        if drains == serde_json::json!({}) && !recorded {
            Ok(())
        } else {
            Err(format!("{drains} {recorded}"))
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_haproxy_refuses_fails_with_the_cause() {
    let scene = scene("{mode: observe}").await;
    let config = std::fs::read_to_string(scene.agent.config_file()).unwrap();
    let (admin, operator) = (scene.proxy.admin_socket(), scene.proxy.socket("operator"));
    let config = config.replace(admin.to_str().unwrap(), operator.to_str().unwrap());
    scene.agent.write_config(&config).unwrap();
    wait_for("the socket of level operator", PATIENCE, async || {
        let (code, output) = ask(&scene, &["drain", SERVER]).await;
        match code {
            1 if output.contains("level admin") => Ok(()),
            _ => Err(format!("{code}: {output}")),
        }
    })
    .await
    .unwrap();
    nothing_pending(&scene).await;
    let (code, output) = ask(&scene, &["undrain", SERVER]).await;
    assert!(code == 1 && output.contains("is not drained by the agent"), "{code}: {output}");
    assert_eq!(bits(&scene).await, 0);
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_while_haproxy_is_frozen_fails_and_does_not_come_later() {
    let mut scene = scene("{mode: observe}").await;
    scene.proxy.signal(Signal::STOP).unwrap();
    let (code, output) = ask(&scene, &["drain", SERVER]).await;
    scene.proxy.signal(Signal::CONT).unwrap();
    assert!([1, 2].contains(&code) && output.contains("is not drained"), "{code}: {output}");
    nothing_pending(&scene).await;
    assert_eq!(bits(&scene).await, 0);
    scene.proxy.stop().await.unwrap();
    let (code, output) = ask(&scene, &["drain", SERVER]).await;
    assert!([1, 2].contains(&code) && output.contains("is not drained"), "{code}: {output}");
    scene.proxy.start_again().await.unwrap();
    nothing_pending(&scene).await;
    assert_eq!(bits(&scene).await, 0);
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_cannot_be_recorded_fails_with_the_cause() {
    let scene = scene("{mode: observe}").await;
    let allow = |mode| {
        std::fs::set_permissions(scene.agent.state_dir(), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    allow(0o500);
    let (code, output) = ask(&scene, &["drain", SERVER]).await;
    assert!(code == 1 && output.contains("the record cannot be written"), "{code}: {output}");
    let (code, output) = ask(&scene, &["pause"]).await;
    assert!(code == 1 && output.contains("not after a restart"), "{code}: {output}");
    allow(0o700);
    nothing_pending(&scene).await;
    assert_eq!(bits(&scene).await, 0);
    let missing = scene.agent.folder().join("missing");
    let (code, output) = ask(&scene, &["release", "--state-dir", missing.to_str().unwrap()]).await;
    assert!(code == 2 && output.contains("no such state directory") && !missing.exists(), "{code}: {output}");
    scene.clear().await.unwrap();
}

/// The same request as from a client that gave up long ago.
async fn late(control: &Path, path: &str) -> u16 {
    let client = reqwest::Client::builder().unix_socket(control).no_proxy().build().unwrap();
    client.post(format!("http://agent{path}by=1000")).send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_client_no_longer_waits_has_no_effect() {
    let scene = scene("{mode: observe}").await;
    let control = scene.agent.control();
    assert_eq!(late(&control, "/pause?").await, 503);
    assert_eq!(late(&control, &format!("/drain?server={SERVER}&")).await, 503);
    let state = scene.agent.state().await.unwrap();
    assert!(state["state"]["paused"].is_null() && bits(&scene).await == 0, "{state}");
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_drain_survives_kill_restart_and_reload() {
    let mut scene = scene("{mode: retire, max_age: 14m}").await;
    let (code, output) = ask(&scene, &["drain", SERVER]).await;
    assert!(code == 0 && output.contains("draining"), "{code}: {output}");
    assert_eq!(bits(&scene).await, 8, "it is answered after the effect");
    let kept = async |scene: &Scene| {
        wait_for("the drain in the new agent", PATIENCE, async || {
            assert_eq!(bits(scene).await, 8, "{}", scene.agent.log());
            let state = scene.agent.state().await.map_err(|error| error.to_string())?;
            let drain = &state["state"]["drains"][SERVER];
            let known = state["state"]["fleet"]["servers"]["orders_read/c"]["reason"] == "proved";
            if known && drain["held"]["reason"] == "operator" { Ok(()) } else { Err(drain.to_string()) }
        })
        .await
        .unwrap();
    };
    scene.agent.kill();
    scene.agent.start().await.unwrap();
    kept(&scene).await;
    for signal in [Signal::TERM, Signal::USR1] {
        scene.agent.signal(signal).unwrap();
        scene.agent.ended().await.unwrap();
        assert_eq!(bits(&scene).await, 8);
        scene.agent.start().await.unwrap();
        kept(&scene).await;
    }
    let config = std::fs::read_to_string(scene.agent.config_file()).unwrap();
    scene.agent.write_config(&config.replace("max_age: 14m", "max_age: 13m")).unwrap();
    wait_for("the reload", PATIENCE, async || {
        assert_eq!(bits(&scene).await, 8, "{}", scene.agent.log());
        if scene.agent.log().contains("configuration reloaded") { Ok(()) } else { Err("not yet") }
    })
    .await
    .unwrap();
    kept(&scene).await;
    // No state file: a new process knows nothing of the drain.
    scene.proxy.reload().await.unwrap();
    wait_for("the drain in the new HAProxy", PATIENCE, async || {
        if bits(&scene).await == 8 { Ok(()) } else { Err("not drained") }
    })
    .await
    .unwrap();
    kept(&scene).await;
    let (code, output) =
        ask(&scene, &["release", "--state-dir", scene.agent.state_dir().to_str().unwrap()]).await;
    assert!(code == 0 && output.contains("drained by an operator"), "{code}: {output}");
    assert_eq!(bits(&scene).await, 8, "it is not the agent's own");
    let (code, output) = ask(&scene, &["undrain", SERVER]).await;
    assert!(code == 0 && output.contains("no longer drained"), "{code}: {output}");
    assert_eq!(bits(&scene).await, 0, "it is answered after the effect");
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_with_a_duration_ends_by_itself_also_after_a_restart() {
    let mut scene = scene("{mode: observe}").await;
    let (code, output) = ask(&scene, &["drain", SERVER, "--for", "3s"]).await;
    assert_eq!(code, 0, "{output}");
    scene.agent.kill();
    scene.agent.start().await.unwrap();
    nothing_pending(&scene).await;
    assert_eq!(bits(&scene).await, 0);
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_until_empty_retires_idle_sessions_and_names_what_is_left() {
    let scene = scene("{mode: retire, max_age: 14m, login_budget: 20}").await;
    // Both readers get sessions.
    let mut clients = Vec::new();
    for _ in 0..6 {
        let login = Login { to: scene.proxy.address("read"), ..Login::through(&scene) };
        clients.push(login.open(&scene).await);
    }
    let busy = &clients[0];
    busy.execute("BEGIN").await;
    let on = |pid: u64, rows: &serde_json::Value| {
        let row = rows.as_array().unwrap().iter().find(|row| row["pid"] == pid).cloned();
        row.and_then(|row| row["instance"].as_str().map(str::to_owned))
    };
    let instance = wait_for("the session of the transaction", PATIENCE, async || {
        let (_, rows) = ask(&scene, &["sessions", "--output", "json"]).await;
        on(busy.pid, &serde_json::from_str(&rows).unwrap()).ok_or(rows)
    })
    .await
    .unwrap();
    let server = instance.replace("orders/", "orders_read/");
    let drain = ["drain", &server, "--until-empty"];
    let (code, output) = ask(&scene, &[&drain[..], &["--timeout", "10s"]].concat()).await;
    assert!(code == 1 && output.contains("in_transaction"), "{code}: {output}");
    assert!(
        output.contains(&format!("pid {}", busy.pid)) && output.matches("  pid").count() == 1,
        "{output}"
    );
    busy.execute("COMMIT").await;
    let (code, output) = ask(&scene, &drain).await;
    assert!(code == 0 && output.contains("no session is left"), "{code}: {output}");
    assert!(!busy.is_open());
    scene.clear().await.unwrap();
}
