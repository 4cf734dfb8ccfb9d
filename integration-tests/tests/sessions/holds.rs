//! Which sessions are held, for which reason, and which are closed.

use std::{net::Ipv4Addr, time::Instant};

use integration_tests::{
    mysql::Secret,
    on_each_engine,
    process::wait_for,
    scene::{PATIENCE, Scene, Setting},
    standin::{Engine, Options},
};

use crate::{
    client::{Login, retired},
    view::{held, holds, row},
};

on_each_engine!(
    a_transaction_open_past_the_limit_is_never_cut_and_its_session_goes_after_its_commit,
    force_after_closes_a_session_inside_a_transaction,
);

async fn a_transaction_open_past_the_limit_is_never_cut_and_its_session_goes_after_its_commit(
    engine: Engine,
) {
    let scene = Scene::set(Setting {
        standin: Options { engine, replicas: 0, ..Options::default() },
        sessions: "{mode: retire, max_age: 5s}".into(),
        ..Setting::default()
    })
    .await
    .unwrap();
    let client = Login::through(&scene).open(&scene).await;
    client.execute("BEGIN; UPDATE stock SET amount = amount - 1 WHERE item = 1").await;

    let row = held(&scene, &client, "in_transaction", 3.0).await;
    assert_eq!(row.activity, "in_transaction");
    holds(&scene, "in_transaction", 1..).await;

    client.execute("COMMIT").await;
    let committed = Instant::now();
    assert_eq!(client.closed().await.as_deref(), retired(engine));
    println!("{engine:?}: {:.2} s after its COMMIT", committed.elapsed().as_secs_f64());
    scene.clear().await.unwrap();
}

async fn force_after_closes_a_session_inside_a_transaction(engine: Engine) {
    let scene = Scene::set(Setting {
        standin: Options { engine, replicas: 0, ..Options::default() },
        sessions: "{mode: retire, max_age: 5s, force_after: 3s}".into(),
        ..Setting::default()
    })
    .await
    .unwrap();
    let client = Login::through(&scene).open(&scene).await;
    client.execute("BEGIN").await;
    held(&scene, &client, "in_transaction", 1.0).await;
    client.closed().await;
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_to_be_left_alone_are_held_past_their_limit_each_with_its_reason() {
    let setting = |sessions: &str| Setting {
        standin: Options { replicas: 1, ..Options::default() },
        sessions: sessions.into(),
        ..Setting::default()
    };
    let exempt = "{mode: retire, max_age: 5s, exempt: {users: [app2], databases: [reports], \
                  applications: [\"load-*\", exactly], networks: [127.0.0.9/32]}}";
    let scene = Scene::set(setting(exempt)).await.unwrap();
    scene.standin.execute_sql("a", "CREATE DATABASE reports").await.unwrap();
    let app = || Login::through(&scene);
    let secret = Some(Secret::Password(scene.standin.legacy_password().to_owned()));
    let direct = scene.standin.server("a").unwrap().connect();
    let ordinary = app().application("exactly-not").open(&scene).await;
    let held_as = [
        ("not_iam_user", Login { secret, ..app().user("legacy") }.open(&scene).await),
        ("exempt", app().user("app2").open(&scene).await),
        ("exempt", app().application("load-of-the-night").open(&scene).await),
        ("exempt", app().application("exactly").open(&scene).await),
        ("exempt", Login { from: Ipv4Addr::new(127, 0, 0, 9), ..app() }.open(&scene).await),
        ("exempt", Login { database: "reports", ..app() }.open(&scene).await),
        ("listening", app().open(&scene).await),
        ("advisory_lock", app().open(&scene).await),
        ("not_joined", Login { to: direct, ..app() }.open(&scene).await),
    ];
    held_as[6].1.execute("LISTEN news").await;
    held_as[7].1.execute("SELECT pg_advisory_lock(1)").await;

    assert_eq!(ordinary.closed().await.as_deref(), Some("57P01"), "the one without a reason goes");
    for (reason, client) in &held_as {
        held(&scene, client, reason, 2.0).await;
    }
    for reason in ["not_iam_user", "exempt", "listening", "advisory_lock", "not_joined", "not_client_backend"]
    {
        let expected = held_as.iter().filter(|(held_as, _)| *held_as == reason).count().max(1) as u64;
        holds(&scene, reason, expected..=expected).await;
    }
    assert!(held_as.iter().all(|(_, client)| client.is_open()));

    held_as[6].1.execute("UNLISTEN news").await;
    held_as[7].1.execute("SELECT pg_advisory_unlock(1)").await;
    let named = setting("{mode: retire, max_age: 5s, users: [legacy]}");
    let mut held_as = held_as.into_iter();
    let legacy = held_as.next().unwrap().1;
    for (reason, client) in held_as.filter(|(reason, _)| ["listening", "advisory_lock"].contains(reason)) {
        assert_eq!(client.closed().await.as_deref(), Some("57P01"), "{reason} no more");
    }
    scene.agent.write_config(&scene.agent.config_for(&scene.standin, &scene.proxy, &named)).unwrap();
    assert_eq!(legacy.closed().await.as_deref(), Some("57P01"), "named by the operator");
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_mariadb_shows_of_its_sessions_is_held_past_their_limit_each_with_its_reason() {
    let setting = |sessions: &str| Setting {
        standin: Options { engine: Engine::Mariadb, replicas: 0, ..Options::default() },
        sessions: sessions.into(),
        ..Setting::default()
    };
    let exempt = "{mode: retire, max_age: 5s, \
                  exempt: {users: [app2], databases: [reports], \
                  applications: [\"load-*\", exactly], networks: [127.0.0.9/32]}}";
    let scene = Scene::set(setting(exempt)).await.unwrap();
    let reports = "CREATE DATABASE reports; GRANT SELECT ON reports.* TO app";
    scene.standin.execute_sql("a", reports).await.unwrap();
    let app = || Login::through(&scene);
    let secret = Some(Secret::Password(scene.standin.legacy_password().to_owned()));
    let direct = scene.standin.server("a").unwrap().connect();
    let ordinary = app().application("exactly-not").open(&scene).await;
    // Each of an application of its own: none of them comes back, which the breaker minds.
    let with = async |application: &'static str, statement: &str| {
        let client = app().application(application).open(&scene).await;
        client.execute(statement).await;
        client
    };
    let held_as = [
        ("not_iam_user", Login { secret, ..app().user("legacy") }.open(&scene).await),
        ("exempt", app().user("app2").open(&scene).await),
        ("exempt", app().application("load-of-the-night").open(&scene).await),
        ("exempt", app().application("exactly").open(&scene).await),
        ("exempt", Login { from: Ipv4Addr::new(127, 0, 0, 9), ..app() }.open(&scene).await),
        ("exempt", Login { database: "reports", ..app() }.open(&scene).await),
        ("not_joined", Login { to: direct, ..app() }.open(&scene).await),
        ("in_transaction", with("begun", "START TRANSACTION").await),
        ("in_transaction", with("snapshot", "START TRANSACTION WITH CONSISTENT SNAPSHOT").await),
        (
            "in_transaction",
            with("no-autocommit", "SET autocommit = 0; SELECT amount FROM stock WHERE item = 1").await,
        ),
        ("in_transaction", with("xa", "XA START 'branch'; UPDATE stock SET amount = 0 WHERE item = 2").await),
        ("advisory_lock", with("table-lock", "LOCK TABLES orders READ").await),
        ("advisory_lock", with("user-lock", "SELECT GET_LOCK('nightly', 0)").await),
    ];

    assert_eq!(ordinary.closed().await, None, "the one without a reason goes");
    for (reason, client) in &held_as {
        held(&scene, client, reason, 2.0).await;
    }
    assert!(held_as.iter().all(|(_, client)| client.is_open()));

    let over = [
        (7, "COMMIT"),
        (8, "COMMIT"),
        (9, "COMMIT; SET autocommit = 1"),
        (10, "XA END 'branch'; XA ROLLBACK 'branch'"),
        (11, "UNLOCK TABLES"),
        (12, "SELECT RELEASE_LOCK('nightly')"),
    ];
    for (which, statement) in over {
        held_as[which].1.execute(statement).await;
    }
    for (reason, client) in held_as.into_iter().skip(7) {
        let what = format!("the session {} that is no longer {reason} to go", client.pid);
        wait_for(&what, PATIENCE, async || match row(&scene, &client).await {
            Some(row) if client.is_open() => Err(format!("{row:?}")),
            _ => Ok(()),
        })
        .await
        .unwrap();
        assert_eq!(client.closed().await, None);
    }
    scene.clear().await.unwrap();
}
