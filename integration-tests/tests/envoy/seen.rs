//! What the agent sees of the real Envoy: its settings, what it took, and clients that it
//! could not hand to a server, those of the agent's absence included.

use std::time::Duration;

use integration_tests::{
    envoy::Envoy,
    process::wait_for,
    scene::{Scene, Setting},
    standin::StopMode,
};
use serde_json::Value;
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::lab::PATIENCE;

/// Envoy writes its file log every 10 s.
const FILE: Duration = Duration::from_secs(25);

/// The agent's events with this message.
fn events(scene: &Scene<Envoy>, message: &str) -> Vec<Value> {
    scene.agent.events().into_iter().filter(|event| event["message"] == message).collect()
}

/// A client that gets nowhere; its own address.
async fn lost_client(scene: &Scene<Envoy>) -> String {
    let mut client = TcpStream::connect(scene.proxy.address("write")).await.unwrap();
    let own = client.local_addr().unwrap().to_string();
    assert_eq!(client.read(&mut [0; 16]).await.unwrap_or_default(), 0, "nobody answers it");
    own
}

async fn told(scene: &Scene<Envoy>, client: &str, patience: Duration) -> Value {
    wait_for("the agent to tell of the client", patience, async || {
        let told = events(scene, "client not handed to a server");
        let mut own = told.iter().filter(|event| event["source"] == client);
        match (own.next(), own.next()) {
            (Some(one), None) => Ok(one.clone()),
            _ => Err(format!("{told:?}")),
        }
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", scene.agent.log()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shipped_settings_are_safe_and_what_is_sent_is_taken() {
    let scene = Scene::<Envoy>::with(Setting::default()).await.unwrap();
    scene.up("orders_read", &["b", "c"]).await.unwrap();
    scene.standin.failover("b").await.unwrap();
    scene.up("orders_write", &["b"]).await.unwrap();
    let looked = async || {
        let (_, metrics) = scene.agent.get("/metrics").await.map_err(|error| error.to_string())?;
        let value = |name: &str| {
            metrics
                .lines()
                .find(|line| line.starts_with(name))
                .and_then(|line| line.rsplit(' ').next()?.parse().ok())
        };
        match (value("rdslb_envoy_advice"), value("rdslb_envoy_differences")) {
            (Some(advice), Some(differences)) => Ok::<(u32, u32), String>((advice, differences)),
            _ => Err(metrics),
        }
    };
    let seen = wait_for("the agent to have looked", PATIENCE, looked).await.unwrap();
    assert_eq!(seen, (0, 0), "{}", scene.agent.log());
    assert_eq!(events(&scene, "admin interface answers")[0]["version"], "1.40.0");
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_reach_nobody_are_told_of_also_those_of_an_absence() {
    let mut scene = Scene::<Envoy>::with(Setting::default()).await.unwrap();
    scene.routed().await.unwrap();
    // What is fallen back to is the same instance here.
    scene.standin.stop("a", StopMode::Immediate).await.unwrap();
    let present = lost_client(&scene).await;
    let event = told(&scene, &present, PATIENCE).await;
    assert!(matches!(event["reason"].as_str(), Some("refused" | "no_healthy_host")), "{event}");
    assert!(event["advice"].as_str().is_some_and(|advice| !advice.is_empty()));
    // It has read on in the file since, and wrote down how far.
    let noted = scene.agent.state_dir().join("access_log.0.json");
    wait_for("the agent to note how far it has read", FILE, async || {
        if noted.exists() { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await
    .unwrap();
    scene.agent.kill();
    let absent = lost_client(&scene).await;
    scene.agent.start().await.unwrap();
    let event = told(&scene, &absent, FILE).await;
    assert!(event["reason"] == "refused" || event["reason"] == "no_healthy_host", "{event}");
    scene.standin.start_server("a").await.unwrap();
    scene.clear().await.unwrap();
}
