//! What the agent sees of the real Envoy: its settings, what it took, and clients that it
//! could not hand to a server, those of the agent's absence included.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use integration_tests::{
    envoy::{Envoy, EnvoyConfig},
    process::wait_for,
    scene::{Scene, Setting},
    standin::StopMode,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, copy_bidirectional},
    net::{TcpListener, TcpStream, UnixStream},
};
use tokio_util::task::AbortOnDropHandle;

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
    assert_eq!(client.read(&mut [0; 16]).await.unwrap_or_default(), 0, "it gets no answer");
    own
}

async fn logged(scene: &Scene<Envoy>, client: &str, patience: Duration) -> Value {
    wait_for("a log line of the client", patience, async || {
        let logged = events(scene, "client session failed");
        let mut own = logged.iter().filter(|event| event["source"] == client);
        match (own.next(), own.next()) {
            (Some(one), None) => Ok(one.clone()),
            _ => Err(format!("{logged:?}")),
        }
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{}", scene.agent.log()))
}

/// More of the agent's polls than a difference has to last to be logged.
const LOOKS: u64 = 6;

/// How many warnings of settings, and how many differences, the agent counts.
async fn counted(scene: &Scene<Envoy>) -> Result<(u32, u32), String> {
    let (_, metrics) = scene.agent.get("/metrics").await.map_err(|error| error.to_string())?;
    let value = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name))?;
        line.rsplit(' ').next()?.parse().ok()
    };
    match (value("rdslb_envoy_advice"), value("rdslb_envoy_differences")) {
        (Some(advice), Some(differences)) => Ok((advice, differences)),
        _ => Err(metrics),
    }
}

/// Waits until the agent has asked the admin interface so often that a difference would count.
async fn looked_long_enough(scene: &Scene<Envoy>) {
    let answers = async || scene.proxy.stat("http.admin.downstream_rq_2xx").await.unwrap();
    let before = answers().await;
    // Of the answers since, those to this test.
    let own = AtomicU64::new(0);
    wait_for("the agent's looks", PATIENCE, async || {
        let own = own.fetch_add(1, Ordering::Relaxed) + 1;
        match answers().await.saturating_sub(before + own) {
            LOOKS.. => Ok(()),
            few => Err(format!("{few} of {LOOKS}")),
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shipped_settings_are_safe_and_envoy_accepts_all_endpoints() {
    let scene = Scene::<Envoy>::with(Setting::default()).await.unwrap();
    scene.up("orders_read", &["b", "c"]).await.unwrap();
    scene.standin.failover("b").await.unwrap();
    scene.up("orders_write", &["b"]).await.unwrap();
    looked_long_enough(&scene).await;
    assert_eq!(counted(&scene).await, Ok((0, 0)), "{}", scene.agent.log());
    assert_eq!(events(&scene, "Envoy does not have what it was sent").len(), 0);
    let version = events(&scene, "admin interface answers")[0]["version"].clone();
    assert!(version.as_str().is_some_and(|version| version.starts_with("1.")), "{version}");
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsafe_settings_and_endpoints_that_envoy_lacks_are_logged() {
    let config = EnvoyConfig::shipped()
        .unwrap()
        // Envoy's defaults: half of the endpoints, and a second.
        .set("orders_write", "/common_lb_config", json!({}))
        // It asks for endpoints that the agent has not.
        .set("orders_read", "/eds_cluster_config/service_name", json!("elsewhere"));
    let setting = Setting { envoy: Some(config), ..Setting::default() };
    let scene = Scene::<Envoy>::with(setting).await.unwrap();
    wait_for("the differences", PATIENCE, async || match counted(&scene).await? {
        (_, 1..) => Ok(()),
        other => Err(format!("{other:?}; {}", scene.agent.log())),
    })
    .await
    .unwrap();
    let differ = events(&scene, "Envoy does not have what it was sent");
    let of_read =
        |event: &Value| event["difference"].as_str().is_some_and(|it| it.starts_with("orders_read"));
    assert!(!differ.is_empty() && differ.iter().all(of_read), "{differ:?}");

    let warned = events(&scene, "a setting of Envoy's is not safe");
    let of_write: Vec<&str> = warned
        .iter()
        .filter(|event| event["subject"] == "orders_write")
        .filter_map(|event| event["advice"].as_str())
        .collect();
    assert_eq!(of_write.len(), 2, "{warned:?}");
    assert!(of_write.iter().any(|advice| advice.contains("healthy_panic_threshold")), "{of_write:?}");
    assert!(of_write.iter().any(|advice| advice.contains("update_merge_window")), "{of_write:?}");
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_interface_may_be_a_port_as_well() {
    let scene = Scene::<Envoy>::with(Setting::default()).await.unwrap();
    wait_for("the admin interface by its socket", PATIENCE, async || {
        if events(&scene, "admin interface answers").is_empty() { Err(scene.agent.log()) } else { Ok(()) }
    })
    .await
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap();
    let socket = scene.proxy.admin_socket();
    let config = scene.agent.config_for(&scene.standin, &scene.proxy, &Setting::default());
    let passes = AbortOnDropHandle::new(tokio::spawn(async move {
        while let Ok((mut agent, _)) = listener.accept().await {
            let mut admin = UnixStream::connect(&socket).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut agent, &mut admin).await });
        }
    }));
    let by_socket = scene.proxy.admin_socket().display().to_string();
    scene.agent.write_config(&config.replace(&by_socket, &port.to_string())).unwrap();
    wait_for("the admin interface by its port", PATIENCE, async || {
        if events(&scene, "admin interface answers").len() == 2 { Ok(()) } else { Err(scene.agent.log()) }
    })
    .await
    .unwrap();
    looked_long_enough(&scene).await;
    assert_eq!(counted(&scene).await, Ok((0, 0)), "{}", scene.agent.log());
    drop(passes);
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_reach_no_server_are_logged_even_if_the_agent_was_down() {
    let mut scene = Scene::<Envoy>::with(Setting::default()).await.unwrap();
    scene.routed().await.unwrap();
    // What is fallen back to is the same instance here.
    scene.standin.stop("a", StopMode::Immediate).await.unwrap();
    let present = lost_client(&scene).await;
    let event = logged(&scene, &present, PATIENCE).await;
    assert!(matches!(event["phase"].as_str(), Some("connect_refused" | "no_server")), "{event}");
    assert!(event["advice"].as_str().is_some_and(|advice| !advice.is_empty()));
    let (_, journal) = scene.agent.get("/handoffs").await.unwrap();
    let journal: Value = serde_json::from_str(&journal).unwrap();
    let rows = journal["last"].as_array().unwrap();
    assert!(rows.iter().any(|row| row["source"] == *present && row["phase"] == event["phase"]), "{journal}");
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
    let event = logged(&scene, &absent, FILE).await;
    assert!(event["phase"] == "connect_refused" || event["phase"] == "no_server", "{event}");
    scene.standin.start_server("a").await.unwrap();
    scene.clear().await.unwrap();
}
