//! Sessions that fail, each in its phase.

use std::net::{SocketAddr, TcpListener, TcpStream};

use integration_tests::{
    on_each_engine,
    process::wait_for,
    scene::{PATIENCE, Scene, SessionLog, Setting},
    standin::{Engine, Options, StopMode},
};

use crate::{
    client::Login,
    journal::{journal, line, lost_client, received, refused_client, row},
};

on_each_engine!(each_phase_is_named,);

/// A listener that answers no one: its backlog is full.
fn silent() -> (TcpListener, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let patience = std::time::Duration::from_millis(100);
    let mut waiting = Vec::new();
    // The kernel takes as many as `listen` allows; the next gets no answer.
    while let Ok(stream) = TcpStream::connect_timeout(&address, patience) {
        waiting.push(stream);
    }
    (listener, waiting)
}

async fn lead_to(scene: &Scene, address: SocketAddr) {
    let command = format!("set server orders_write/a addr {} port {}", address.ip(), address.port());
    let answer = scene.proxy.cli(&command).await.unwrap();
    assert!(answer.contains("changed"), "{answer}");
}

async fn each_phase_is_named(engine: Engine) {
    let scene = Scene::set(Setting {
        standin: Options { engine, replicas: 0, ..Options::default() },
        session_log: Some(if engine == Engine::Postgresql { SessionLog::Udp } else { SessionLog::Unix }),
        ..Setting::default()
    })
    .await
    .unwrap();
    received(&scene).await;
    let report = |row: &serde_json::Value| println!("{engine:?} {} {}", row["phase"], line(&scene, row));

    refused_client(&scene).await;
    let refused = row(&scene, "login_refused", |_| true).await;
    assert_eq!((&refused["certainty"], &refused["instance"]), (&"suspected".into(), &"orders/a".into()));
    report(&refused);

    let client = Login::through(&scene).open(&scene).await;
    scene.proxy.cli("shutdown sessions server orders_write/a").await.unwrap();
    client.closed().await;
    let cut = row(&scene, "cut_by_proxy", |_| true).await;
    assert_eq!((&cut["state"], &cut["certainty"]), (&"K-".into(), &"certain".into()));
    assert!(cut["bytes_to_client"].as_u64().unwrap() > 500, "{cut}");
    report(&cut);

    scene.proxy.cli("set server orders_write/a state maint").await.unwrap();
    let client = lost_client(&scene).await;
    let without = row(&scene, "no_server", |row| row["source"] == *client).await;
    assert_eq!((&without["state"], &without["server"]), (&"SC".into(), &serde_json::Value::Null));
    report(&without);
    scene.proxy.cli("set server orders_write/a state ready").await.unwrap();

    // Without the agent's answers, the server stays up at addresses that are not its own.
    scene.proxy.cli("disable agent orders_write/a").await.unwrap();
    let own = scene.standin.server("a").unwrap().connect();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    lead_to(&scene, closed).await;
    let client = lost_client(&scene).await;
    let refused = row(&scene, "connect_refused", |row| row["source"] == *client).await;
    assert_eq!((&refused["server"], &refused["retries"]), (&"a".into(), &3.into()));
    report(&refused);

    let (listener, waiting) = silent();
    lead_to(&scene, listener.local_addr().unwrap()).await;
    let client = lost_client(&scene).await;
    let silent = row(&scene, "connect_timed_out", |row| row["source"] == *client).await;
    assert_eq!(silent["state"], "sC");
    report(&silent);
    drop((listener, waiting));

    lead_to(&scene, own).await;
    scene.proxy.cli("enable agent orders_write/a").await.unwrap();
    scene.routed().await.unwrap();
    let client = Login::through(&scene).open(&scene).await;
    // Longer than a refused login takes.
    client.execute(if engine == Engine::Postgresql { "SELECT pg_sleep(4)" } else { "DO SLEEP(4)" }).await;
    scene.standin.stop("a", StopMode::Immediate).await.unwrap();
    client.closed().await;
    let gone = row(&scene, "server_gone", |_| true).await;
    assert_eq!((&gone["certainty"], &gone["instance"]), (&"likely".into(), &"orders/a".into()));
    report(&gone);

    let events = scene.agent.events();
    let event = events.iter().find(|event| event["phase"] == "connect_refused").unwrap();
    assert_eq!((&event["message"], &event["level"]), (&"client session failed".into(), &"WARN".into()));
    assert_eq!((&event["agent_login"], &event["agent_tls_version"]), (&"accepted".into(), &"TLSv1.3".into()));
    assert!(event["agent_token_age_s"].is_f64() && !event["advice"].as_str().unwrap().is_empty(), "{event}");
    assert!(!events.iter().any(|event| event["phase"] == "login_refused"), "one suspicion is no event");

    let (code, screen, error) = scene.agent.command(&["handoffs", "--since", "1h"]).await.unwrap();
    println!("{screen}");
    assert!(
        code == 0 && screen.contains("connect_timed_out") && screen.contains("login_refused?"),
        "{screen}{error}"
    );
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    let (_, metrics) = scene.agent.get("/metrics").await.unwrap();
    let counted = "rdslb_session_failures_total{proxy=\"";
    let of =
        |line: &&str| line.starts_with(counted) && line.contains("server=\"a\",phase=\"connect_refused\"");
    assert!(metrics.lines().any(|line| of(&line)), "{metrics}");
    assert!(
        metrics.lines().all(|line| !line.starts_with(counted) || !line.contains("127.0.0.1:")),
        "{metrics}"
    );
    scene.standin.start_server("a").await.unwrap();
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_login_is_likely_while_the_agent_is_refused_too() {
    let setting = Setting {
        standin: Options { replicas: 0, ..Options::default() },
        user: "stranger".into(),
        session_log: Some(SessionLog::Tcplog),
        ..Setting::default()
    };
    let standin = std::sync::Arc::new(
        integration_tests::standin::StandIn::start(setting.standin.clone()).await.unwrap(),
    );
    let scene: Scene = Scene::begin(standin, setting).await.unwrap();
    wait_for("the agent's own login to be refused", PATIENCE, async || {
        let refused = scene.agent.events().iter().any(|event| event["kind"] == "login_refused");
        if refused { Ok(()) } else { Err(scene.agent.log()) }
    })
    .await
    .unwrap();
    received(&scene).await;
    refused_client(&scene).await;
    let refused = row(&scene, "login_refused", |row| row["certainty"] == "likely").await;
    assert_eq!(refused["instance"], "orders/a");
    let events = scene.agent.events();
    let event = events.iter().find(|event| event["phase"] == "login_refused").unwrap();
    assert_eq!((&event["agent_login"], &event["certainty"]), (&"refused".into(), &"likely".into()));
    assert_eq!(journal(&scene).await["failed"], 1);
    scene.clear().await.unwrap();
}
