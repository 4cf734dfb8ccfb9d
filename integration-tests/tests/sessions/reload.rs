//! A changed configuration, and modes in which nothing is closed.

use integration_tests::{
    process::{Signal, wait_for},
    scene::{PATIENCE, Scene, Setting},
    standin::Options,
};
use serde_json::Value;

use crate::{
    client::Login,
    view::{held, holds, row, said},
};

const TAKEN: &str = "configuration reloaded";
const REFUSED: &str = "new configuration refused, the old one stays in force";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_file_is_in_force_at_once_and_a_bad_one_is_refused() {
    let setting = |sessions: &str| Setting {
        standin: Options { replicas: 0, ..Options::default() },
        sessions: sessions.into(),
        ..Setting::default()
    };
    let scene = Scene::set(setting("{max_age: 10m}")).await.unwrap();
    let config = |sessions: &str| scene.agent.config_for(&scene.standin, &scene.proxy, &setting(sessions));
    let until_said = async |message: &str, times: usize| {
        let what = format!("{times} times {message:?}");
        let look = async || if said(&scene, message) >= times { Ok(()) } else { Err(scene.agent.log()) };
        wait_for(&what, PATIENCE, look).await.unwrap();
    };
    until_said("agent started", 1).await;
    let started = scene.agent.events().into_iter().find(|event| event["message"] == "agent started").unwrap();
    assert_eq!(started["mode"], "observe", "the default");
    let client = Login::through(&scene).open(&scene).await;
    wait_for("the session to be known", PATIENCE, async || match row(&scene, &client).await {
        Some(row) if row.limit_s > 60.0 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await
    .unwrap();

    scene.agent.write_config(&config("{max_age: 5s}")).unwrap();
    held(&scene, &client, "observing", 2.0).await;
    assert_eq!(said(&scene, TAKEN), 1);
    holds(&scene, "observing", 1..).await;

    scene.agent.write_config(&config("{max_age: 5s, mod: retire}")).unwrap();
    until_said(REFUSED, 1).await;
    let refused: Vec<Value> =
        scene.agent.events().into_iter().filter(|event| event["message"] == REFUSED).collect();
    let error = refused[0]["error"].as_str().unwrap();
    assert!(["config.yaml:", ":25: unknown key `mod`"].iter().all(|part| error.contains(part)), "{error}");
    held(&scene, &client, "observing", 3.0).await;

    scene.agent.write_config(&config("{max_age: 5s, mode: drain}")).unwrap();
    held(&scene, &client, "capacity_floor", 5.0).await;
    assert_eq!(scene.proxy.admin_bits("orders_write", "a").await.unwrap(), 0, "a single writer stays");
    assert_eq!(said(&scene, REFUSED), 1, "a bad file is logged once");
    assert_eq!(said(&scene, TAKEN), 2);
    assert!(client.is_open());

    scene.agent.write_config(&config("{max_age: 5s, mode: retire}")).unwrap();
    assert_eq!(client.closed().await.as_deref(), Some("57P01"));
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_looks_at_the_file_again() {
    let mut scene =
        Scene::set(Setting { standin: Options { replicas: 0, ..Options::default() }, ..Setting::default() })
            .await
            .unwrap();
    scene.agent.write_config("databases: []\n").unwrap();
    let refusals = async |scene: &Scene, times: usize| {
        wait_for("the refusals", PATIENCE, async || match said(scene, REFUSED) {
            said if said == times => Ok(()),
            said => Err(format!("{said} refusals")),
        })
        .await
        .unwrap();
    };
    refusals(&scene, 1).await;
    scene.agent.signal(Signal::HUP).unwrap();
    refusals(&scene, 2).await;
    scene.clear().await.unwrap();
}
