//! MariaDB with and without `performance_schema`: what the agent relies on, and what it reports about
//! what it cannot see.

use integration_tests::{
    process::wait_for,
    scene::{PATIENCE, Scene, Setting},
    standin::{Engine, Options},
};
use serde_json::Value;

use crate::{
    client::{Login, retired},
    rights::RIGHT_MISSING,
    view::{held, holds},
};

fn relying_on(open_transactions: &str, performance_schema: bool) -> Setting {
    Setting {
        standin: Options { engine: Engine::Mariadb, replicas: 0, performance_schema, ..Options::default() },
        sessions: "{mode: retire, max_age: 5s, quiet_min: 1s}".into(),
        database: format!("    open_transactions: {open_transactions}\n"),
        ..Setting::default()
    }
}

/// Waits until `/state` shows this sight of open transactions; gives what it says is missing.
async fn sight(scene: &Scene, expected: &str) -> String {
    wait_for(expected, PATIENCE, async || {
        let state = scene.agent.state().await.map_err(|error| error.to_string())?;
        let rights = &state["state"]["rights"]["orders/a"];
        if rights["sight"]["open_transactions"] == expected {
            Ok(rights["missing"].to_string())
        } else {
            Err(rights.to_string())
        }
    })
    .await
    .unwrap()
}

/// What was said aloud of missing rights, with these words in it.
fn warned(scene: &Scene, words: &str) -> usize {
    let events = scene.agent.events();
    let loud = |event: &&Value| event["message"] == RIGHT_MISSING && event["level"] == "WARN";
    events.iter().filter(loud).filter(|event| event["advice"].as_str().unwrap().contains(words)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_performance_schema_all_sessions_are_held_unless_innodb_trx_is_configured() {
    let scene = Scene::set(relying_on("strict", false)).await.unwrap();
    let client = Login::through(&scene).open(&scene).await;
    let row = held(&scene, &client, "activity_unknown", 2.0).await;
    assert_eq!(row.activity, "unknown");
    holds(&scene, "activity_unknown", 1..).await;
    sight(&scene, "nothing").await;

    let turn_to = async |open_transactions: &str| {
        let setting = relying_on(open_transactions, false);
        let config = scene.agent.config_for(&scene.standin, &scene.proxy, &setting);
        scene.agent.write_config(&config).unwrap();
    };
    turn_to("performance_schema").await;
    wait_for("the default to be logged", PATIENCE, async || {
        match warned(&scene, "performance_schema is off, so every session is held") {
            0 => Err(scene.agent.log()),
            _ => Ok(()),
        }
    })
    .await
    .unwrap();
    held(&scene, &client, "activity_unknown", 4.0).await;
    assert!(client.is_open());

    let said = "`open_transactions: innodb_trx` is set";
    assert_eq!(warned(&scene, said), 0);
    turn_to("innodb_trx").await;
    let missing = sight(&scene, "touching").await;
    assert!(missing.contains(said), "{missing}");
    assert_eq!(client.closed().await.as_deref(), retired(Engine::Mariadb));
    assert_eq!(warned(&scene, said), 1, "{}", scene.agent.log());

    // So is a new agent's start.
    let mut scene = scene;
    scene.agent.stop().await.unwrap();
    scene.agent.start().await.unwrap();
    wait_for("it to be said again", PATIENCE, async || match warned(&scene, said) {
        2.. => Ok(()),
        _ => Err(scene.agent.log()),
    })
    .await
    .unwrap();
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_closes_where_both_witnesses_can_be_asked() {
    let scene = Scene::set(relying_on("strict", true)).await.unwrap();
    let begun = Login::through(&scene).application("begun").open(&scene).await;
    begun.execute("START TRANSACTION").await;
    let quiet = Login::through(&scene).open(&scene).await;
    assert_eq!(quiet.closed().await.as_deref(), retired(Engine::Mariadb));
    held(&scene, &begun, "in_transaction", 2.0).await;
    begun.execute("COMMIT").await;
    assert_eq!(begun.closed().await.as_deref(), retired(Engine::Mariadb));
    sight(&scene, "all").await;
    scene.clear().await.unwrap();
}
