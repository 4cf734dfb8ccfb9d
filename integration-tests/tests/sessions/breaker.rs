//! Clients that do not come back.

use futures_util::future::join_all;
use integration_tests::{
    load::{Load, Work},
    on_each_engine,
    process::wait_for,
    scene::{PATIENCE, Scene, Setting},
    standin::{Engine, Options},
};

use crate::{
    client::{Client, Login, retired},
    view::{held, said},
};

on_each_engine!(retirement_stops_if_clients_do_not_reconnect_until_an_operator_resumes_it);

async fn retirement_stops_if_clients_do_not_reconnect_until_an_operator_resumes_it(engine: Engine) {
    let scene = Scene::set(Setting {
        standin: Options { engine, replicas: 0, ..Options::default() },
        sessions: "{mode: retire, max_age: 5s, login_budget: 20}".into(),
        ..Setting::default()
    })
    .await
    .unwrap();
    let load = Load::new(scene.writer("app").unwrap(), 8).await.unwrap();
    load.add(Work::Idle, 4);
    let one_shot = || Login::through(&scene).application("one-shot");
    // Three that return at once, each time one is closed: often enough, whichever are closed together.
    let mut lonely = Vec::new();
    for _ in 0..3 {
        lonely.push(one_shot().open(&scene).await);
    }
    for _ in 0..2 {
        let back = std::mem::take(&mut lonely).into_iter().map(async |client| {
            client.closed().await;
            one_shot().open(&scene).await
        });
        lonely = join_all(back).await;
    }
    // These are held for now. Those do not return any more.
    let mut left = Vec::new();
    for _ in 0..3 {
        let client = one_shot().open(&scene).await;
        client.execute("BEGIN").await;
        left.push(client);
    }
    for client in lonely {
        client.closed().await;
    }
    let paused = wait_for("their group to be paused", PATIENCE, async || {
        let state = scene.agent.state().await.unwrap();
        match state["state"]["paused_groups"].as_array().map(Vec::as_slice) {
            Some([group]) => Ok(group.as_str().unwrap().to_owned()),
            _ => Err(state["state"]["sessions"].to_string()),
        }
    });
    assert_eq!(paused.await.unwrap(), "app one-shot 127.0.0.0/24");
    let line = "clients whose sessions were closed did not log in again; no more sessions of this group are closed \
                until they do, or until `rds-lb-agent resume`";
    assert_eq!(said(&scene, line), 1, "{}", scene.agent.log());
    for client in &left {
        client.execute("COMMIT").await;
    }
    for client in &left {
        held(&scene, client, "breaker", 2.0).await;
    }

    let others = load.report().steady_closed;
    wait_for("those who come back to go on", PATIENCE, async || match load.report().steady_closed {
        now if now >= others + 4 => Ok(()),
        now => Err(format!("{now} after {others}")),
    })
    .await
    .unwrap();
    assert!(left.iter().all(Client::is_open));

    let control = scene.agent.control();
    let resumed = scene.agent.command(&["resume", "--control", control.to_str().unwrap()]).await.unwrap();
    assert_eq!(resumed.0, 0, "{resumed:?}");
    for client in left {
        assert_eq!(client.closed().await.as_deref(), retired(engine));
    }
    load.stop().await.unwrap();
    drop(load);
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_reconnects_at_its_next_use_is_retired_whole() {
    let scene = Scene::set(Setting {
        standin: Options { replicas: 0, ..Options::default() },
        sessions: "{mode: retire, max_age: 10s, login_budget: 20, breaker: {return_within: 3s}}".into(),
        ..Setting::default()
    })
    .await
    .unwrap();
    let mut pool = Vec::new();
    for _ in 0..20 {
        pool.push(Login::through(&scene).application("lazy").open(&scene).await);
    }
    for client in pool {
        client.closed().await;
    }
    let state = scene.agent.state().await.unwrap();
    assert_eq!(state["state"]["paused_groups"], serde_json::json!([]), "{}", scene.agent.log());
    scene.clear().await.unwrap();
}
