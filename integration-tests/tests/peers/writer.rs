//! Two instances claim to be the writer. The one that an operator names to one agent reaches the other agent by the
//! database, and agents to which different ones are named report it.

use integration_tests::{
    process::wait_for,
    scene::{PATIENCE, Scene, Setting},
    standin::{Engine, Options},
};
use serde_json::Value;

use super::{clear, hosts};

const DISAGREE: &str =
    "agents take different instances for the writer; `rds-lb-agent writer DATABASE INSTANCE` decides";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_word_reaches_all_agents_on_postgresql() {
    run(Engine::Postgresql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_word_reaches_all_agents_on_mariadb() {
    run(Engine::Mariadb).await;
}

async fn run(engine: Engine) {
    let options = Options { engine, replicas: 1, ..Options::default() };
    let (standin, scenes) = hosts(2, options, Setting::default()).await;
    standin.promote("b").await.unwrap();
    for scene in &scenes {
        wait_for("the conflict", PATIENCE, async || {
            let state = scene.agent.state().await.unwrap();
            let views = ["a", "b"].map(|name| {
                state["state"]["fleet"]["instances"][format!("orders/{name}")]["conflict"].clone()
            });
            if views.iter().all(|conflict| conflict == true) { Ok(()) } else { Err(format!("{views:?}")) }
        })
        .await
        .unwrap();
        scene.up("orders_write", &["a"]).await.unwrap();
    }
    tell(&scenes[0], "b").await;
    for scene in &scenes {
        scene.up("orders_write", &["b"]).await.unwrap();
    }
    // Another operator at the other host.
    tell(&scenes[1], "a").await;
    scenes[1].up("orders_write", &["a"]).await.unwrap();
    for (scene, own, other) in [(&scenes[0], "b", "a"), (&scenes[1], "a", "b")] {
        wait_for("the disagreement to be reported", PATIENCE, async || {
            let (_, body) = scene.agent.get("/state").await.unwrap();
            let status: Value = serde_json::from_str(&body).unwrap();
            let seen = &status["disagreements"][0];
            let reported = seen["own"] == own && seen["others"][other] == 1;
            if reported { Ok(()) } else { Err(status.to_string()) }
        })
        .await
        .unwrap();
        assert!(scene.agent.events().iter().any(|event| event["message"] == DISAGREE));
        let (_, metrics) = scene.agent.get("/metrics").await.unwrap();
        assert!(metrics.contains("rdslb_agents_disagree{database=\"orders\"} 1"), "{metrics}");
    }
    tell(&scenes[0], "a").await;
    for scene in &scenes {
        scene.up("orders_write", &["a"]).await.unwrap();
        wait_for("the agents to agree", PATIENCE, async || {
            let (_, metrics) = scene.agent.get("/metrics").await.unwrap();
            if metrics.contains("rdslb_agents_disagree{database=\"orders\"} 0") {
                Ok(())
            } else {
                Err(metrics)
            }
        })
        .await
        .unwrap();
    }
    clear(standin, scenes).await;
}

async fn tell(scene: &Scene, instance: &str) {
    let control = scene.agent.control().display().to_string();
    let words = ["writer", "orders", instance, "--control", &control];
    let (code, output, error) = scene.agent.command(&words).await.unwrap();
    assert_eq!(code, 0, "{output}{error}");
}
