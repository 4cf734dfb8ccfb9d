//! Sessions that the agent closes are no failures.

use integration_tests::{
    on_each_engine,
    process::wait_for,
    scene::{PATIENCE, Scene, SessionLog, Setting},
    standin::{Engine, Options},
};

use crate::{
    client::Login,
    journal::{journal, received},
};

on_each_engine!(sessions_that_the_agent_closes_are_no_failures,);

async fn sessions_that_the_agent_closes_are_no_failures(engine: Engine) {
    let setting = |sessions: &str| Setting {
        standin: Options { engine, replicas: 0, ..Options::default() },
        sessions: sessions.into(),
        session_log: Some(if engine == Engine::Postgresql { SessionLog::Tcplog } else { SessionLog::Udp }),
        ..Setting::default()
    };
    let scene = Scene::set(setting("{mode: retire, max_age: 5s}")).await.unwrap();
    received(&scene).await;
    Login::through(&scene).open(&scene).await.closed().await;
    logged(&scene, 1).await;
    // The log stays open over a reload.
    let by_proxy = setting("{mode: retire, max_age: 5s, close_via: proxy}");
    let config = scene.agent.config_for(&scene.standin, &scene.proxy, &by_proxy);
    scene.agent.write_config(&config).unwrap();
    let client = Login::through(&scene).open(&scene).await;
    client.closed().await;
    logged(&scene, 2).await;
    let journal = journal(&scene).await;
    assert_eq!((&journal["failed"], &journal["last"]), (&0.into(), &serde_json::json!([])), "{journal}");
    let killed = scene.proxy.logged().lines().iter().any(|line| line.contains("K-"));
    assert!(killed, "the second was closed by the proxy: {:?}", scene.proxy.logged().lines());
    let retired = scene.agent.events().iter().filter(|event| event["message"] == "session retired").count();
    assert_eq!(retired, 2);
    scene.clear().await.unwrap();
}

/// Waits until the agent has read this many sessions in HAProxy's log.
async fn logged(scene: &Scene, sessions: u64) {
    wait_for("the lines of all sessions", PATIENCE, async || {
        let journal = journal(scene).await;
        let read = journal["logs"][0]["sessions"].as_u64().unwrap_or(0);
        if read >= sessions { Ok(()) } else { Err(journal.to_string()) }
    })
    .await
    .unwrap_or_else(|error| panic!("{error}\n{:?}", scene.proxy.logged().lines()));
}
