//! `routing: observe`: what the proxy does is not the agent's doing, and what it would do is shown.

use std::sync::Arc;

use integration_tests::{
    haproxy::Haproxy,
    process::wait_for,
    scene::{PATIENCE, Scene, Setting},
    standin::{StandIn, StopMode},
};
use serde_json::Value;

const ALL: [&str; 3] = ["a", "b", "c"];

/// Waits until the agent would have given this verdict.
async fn observed(scene: &Scene, server: &str, state: &str, reason: &str) {
    wait_for(&format!("{server} observed as {state}"), PATIENCE, async || {
        let all = scene.agent.state().await.map_err(|error| error.to_string())?;
        let fleet = &all["state"]["fleet"];
        let verdict = &fleet["observed"][server];
        assert_eq!(fleet["servers"][server]["state"].as_str().unwrap_or("unknown"), "unknown");
        let fits = verdict["state"] == state && verdict["reason"] == reason;
        if fits { Ok(()) } else { Err(verdict.to_string()) }
    })
    .await
    .unwrap();
}

async fn all_up(scene: &Scene) {
    for backend in ["orders_write", "orders_read"] {
        scene.up(backend, &ALL).await.unwrap();
        for server in ALL {
            assert_eq!(scene.proxy.admin_bits(backend, server).await.unwrap(), 0, "{backend}/{server}");
        }
    }
}

/// Agent checks that were answered.
async fn answers(scene: &Scene) -> u64 {
    let (_, metrics) = scene.agent.get("/metrics").await.unwrap();
    let line = metrics.lines().find(|line| line.contains(r#"{answer="server"}"#));
    line.and_then(|line| line.split(' ').nth(1)).and_then(|number| number.parse().ok()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verdicts_are_shown_and_counted_and_the_proxy_gets_none() {
    let standin = Arc::new(StandIn::start(Setting::default().standin).await.unwrap());
    let setting = Setting { more: "routing: observe\n".into(), waiting_room: true, ..Setting::default() };
    let scene = Scene::<Haproxy>::begin(standin, setting.clone()).await.unwrap();
    observed(&scene, "orders_write/a", "up", "proved").await;
    observed(&scene, "orders_write/b", "down", "not_writer").await;
    observed(&scene, "orders_read/a", "down", "not_reader").await;
    scene.standin.stop("c", StopMode::Fast).await.unwrap();
    observed(&scene, "orders_read/c", "down", "refusing").await;
    all_up(&scene).await;
    let before = answers(&scene).await;
    wait_for("HAProxy to ask about each server again", PATIENCE, async || {
        let now = answers(&scene).await;
        // Six servers, several times each.
        if now >= before + 30 { Ok(()) } else { Err(now) }
    })
    .await
    .unwrap();
    all_up(&scene).await;
    let (_, metrics) = scene.agent.get("/metrics").await.unwrap();
    assert!(
        metrics.contains(r#"rdslb_verdicts_observed_total{backend="orders_read",server="c",state="down"} 1"#),
        "{metrics}"
    );
    let logged = scene.agent.events().iter().any(|event: &Value| {
        let text = event.to_string();
        text.contains("orders_read/c") && text.contains("routing: observe")
    });
    assert!(logged, "{}", scene.agent.log());
    let (status, body) = scene.agent.get("/orders/b/primary").await.unwrap();
    assert_eq!(status, 503, "questions are answered truthfully: {body}");

    let acting = Setting { more: String::new(), ..setting };
    scene.agent.write_config(&scene.agent.config_for(&scene.standin, &scene.proxy, &acting)).unwrap();
    scene.up("orders_write", &["a"]).await.unwrap();
    scene.up("orders_read", &["b"]).await.unwrap();
    scene.clear().await.unwrap();
}
