//! The real agent beside a HAProxy whose address the server is about to block.

use futures_util::future::join_all;
use integration_tests::{
    process::wait_for,
    scene::{Scene, Setting},
    standin::{Engine, Options},
};
use serde_json::Value;
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::lab::{AGENT, LIMIT, PATIENCE};

/// A client that hears the server's greeting through the proxy, and goes.
async fn half_way(scene: &Scene) {
    let mut stream = TcpStream::connect(scene.proxy.address("write")).await.unwrap();
    stream.read_exact(&mut [0; 4]).await.unwrap();
}

/// Waits for an event of the agent's with these words, of the proxy's address.
async fn said(scene: &Scene, words: &str) -> Value {
    wait_for(words, PATIENCE, async || {
        let events = scene.agent.events();
        let of_address = |event: &&Value| event.pointer("/address").and_then(Value::as_str) == Some(AGENT);
        let found = events.iter().filter(of_address).find(|event| event.to_string().contains(words));
        found.cloned().ok_or_else(|| scene.agent.log())
    })
    .await
    .unwrap()
}

/// Waits for a line of `/metrics`.
async fn metric(scene: &Scene, name: &str, value: u64) {
    let what = format!("{name} to be {value}");
    wait_for(&what, PATIENCE, async || {
        let (_, text) = scene.agent.get("/metrics").await.map_err(|error| error.to_string())?;
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(&format!("{name}{{"))).collect();
        let found = lines.iter().any(|line| line.ends_with(&format!(" {value}")));
        if found { Ok(()) } else { Err(format!("{}\n{}", lines.join("\n"), scene.agent.log())) }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_agent_keeps_the_proxys_address_from_being_blocked_and_names_it_when_it_is() {
    let setting = Setting {
        standin: Options {
            engine: Engine::Mariadb,
            replicas: 0,
            max_connect_errors: LIMIT,
            ..Options::default()
        },
        // It is the agent's host's, and not the one that the agent's own logins come from.
        server_words: format!("source {AGENT}"),
        ..Setting::default()
    };
    let scene = Scene::set(setting).await.unwrap();
    metric(&scene, "rdslb_host_connect_errors_limit", LIMIT.into()).await;

    // Three times as many as block an address, each few of them followed by the agent's login.
    let errors = "SELECT coalesce(sum(SUM_CONNECT_ERRORS), 0) FROM performance_schema.host_cache";
    for round in 1..=3 {
        for _ in 0..3 {
            half_way(&scene).await;
        }
        metric(&scene, "rdslb_host_resets_total", round).await;
    }
    assert_eq!(scene.standin.execute_sql("a", errors).await.unwrap(), [[Some("0".to_owned())]]);
    let near = said(&scene, "half-way to blocking the proxy's address").await;
    assert!(near.to_string().contains("max_connect_errors"), "{near}");
    said(&scene, "has reset the count of failed connections").await;
    metric(&scene, "rdslb_host_connect_errors", 0).await;
    metric(&scene, "rdslb_host_blocked", 0).await;

    // So many at once that one login in between does not help.
    join_all((0..2 * LIMIT).map(|_| half_way(&scene))).await;
    let blocked = said(&scene, "no client of the proxy can log in there").await;
    for cure in ["1129", "FLUSH HOSTS", "max_connect_errors"] {
        assert!(blocked.to_string().contains(cure), "{blocked}");
    }
    metric(&scene, "rdslb_host_blocked", 1).await;
    assert_eq!(scene.proxy.operational_state("orders_write", "a").await.unwrap(), 2, "it is not down");

    scene.standin.execute_sql("a", "FLUSH HOSTS").await.unwrap();
    said(&scene, "does not block the proxy's address any more").await;
    metric(&scene, "rdslb_host_blocked", 0).await;
    scene.clear().await.unwrap();
}
