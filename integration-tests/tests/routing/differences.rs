//! HAProxy compared with the configuration, and its own state beside the verdict, by the real program.

use integration_tests::{
    process::wait_for,
    scene::{PATIENCE, Scene, Setting},
};
use serde_json::Value;

async fn status(scene: &Scene) -> Value {
    let (_, body) = scene.agent.get("/state").await.unwrap();
    serde_json::from_str(&body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_haproxy_lacks_and_a_server_in_maintenance_are_shown() {
    let setting = Setting::default();
    let scene = Scene::set(setting.clone()).await.unwrap();
    let good = scene.agent.config_for(&scene.standin, &scene.proxy, &setting);
    assert_eq!(status(&scene).await["differences"], serde_json::json!([]));

    scene.agent.write_config(&good.replace("orders_read", "orders_raed")).unwrap();
    let difference = "HAProxy has no backend `orders_raed`; did you mean `orders_read`?";
    wait_for("the difference in status", PATIENCE, async || {
        let status = status(&scene).await;
        let found = status["differences"].as_array().unwrap().iter().any(|one| one["message"] == difference);
        if found { Ok(()) } else { Err(status["differences"].to_string()) }
    })
    .await
    .unwrap();
    let warned = scene.agent.events().iter().any(|event| {
        event["level"] == "WARN" && event["difference"] == difference && event["kind"] == "backend_missing"
    });
    assert!(warned, "{}", scene.agent.log());
    let config = scene.agent.config_file();
    let config = config.to_str().unwrap();
    let live = scene.agent.command(&["validate", config, "--live"]).await.unwrap();
    assert!(live.0 == 1 && live.2.contains(difference), "{live:?}");
    // The servers that HAProxy still asks for are not the agent's any more.
    assert!(live.2.contains("HAProxy asks for orders_read/"), "{live:?}");

    scene.agent.write_config(&good).unwrap();
    wait_for("no difference", PATIENCE, async || {
        let status = status(&scene).await;
        if status["differences"] == serde_json::json!([]) {
            Ok(())
        } else {
            Err(status["differences"].to_string())
        }
    })
    .await
    .unwrap();
    wait_for("the metric", PATIENCE, async || {
        let (_, metrics) = scene.agent.get("/metrics").await.unwrap();
        let none =
            metrics.lines().any(|line| line.starts_with("rdslb_proxy_differences{") && line.ends_with(" 0"));
        if none { Ok(()) } else { Err(metrics) }
    })
    .await
    .unwrap();

    scene.proxy.cli("set server orders_write/a state maint").await.unwrap();
    wait_for("maintenance beside the verdict", PATIENCE, async || {
        let status = status(&scene).await;
        let servers = status["servers"].as_array().unwrap();
        let server = servers.iter().find(|server| server["server"] == "orders_write/a").unwrap();
        let fits = server["verdict"] == "up" && server["shown"]["state"] == "maint";
        if fits { Ok(()) } else { Err(server.to_string()) }
    })
    .await
    .unwrap();
    let control = scene.agent.control();
    let control = ["--control", control.to_str().unwrap()];
    let screen = scene.agent.command(&[&["status"], &control[..]].concat()).await.unwrap();
    assert!(screen.0 == 0 && screen.1.contains("MAINT"), "{screen:?}");
    assert!(screen.1.lines().all(|line| line.chars().count() <= 80), "{}", screen.1);
    let explained =
        scene.agent.command(&[&["explain", "orders_write/a"], &control[..]].concat()).await.unwrap();
    assert!(explained.0 == 0 && explained.1.contains("shows MAINT"), "{explained:?}");
    let history = scene.agent.command(&[&["explain", "--history"], &control[..]].concat()).await.unwrap();
    assert!(history.1.contains("HAProxy differs from the configuration"), "{history:?}");
    scene.clear().await.unwrap();
}
