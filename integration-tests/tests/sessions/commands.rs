//! What an operator says to a running agent, through the real binary.

use integration_tests::{
    mysql::Secret,
    on_each_engine,
    process::wait_for,
    scene::{PATIENCE, Scene, Setting},
    standin::{Engine, Options},
};
use serde_json::{Value, json};

use crate::{
    client::{Login, retired},
    view::{held, row},
};

/// Runs a command of the binary: exit code, standard output, standard error.
async fn run(scene: &Scene, arguments: &[&str]) -> (i32, String, String) {
    scene.agent.command(arguments).await.unwrap()
}

/// The same, asking the running agent.
async fn ask(scene: &Scene, arguments: &[&str]) -> (i32, String, String) {
    let control = scene.agent.control();
    let arguments: Vec<&str> =
        arguments.iter().copied().chain(["--control", control.to_str().unwrap()]).collect();
    run(scene, &arguments).await
}

fn parsed(output: &(i32, String, String)) -> Value {
    serde_json::from_str(&output.1).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

on_each_engine!(
    an_operator_can_look_pause_resume_drain_and_undrain,
    check_has_its_exit_codes_and_a_printed_token_logs_in,
);

async fn an_operator_can_look_pause_resume_drain_and_undrain(engine: Engine) {
    let scene = Scene::set(Setting {
        standin: Options { engine, replicas: 2, ..Options::default() },
        sessions: "{mode: retire, max_age: 5s}".into(),
        ..Setting::default()
    })
    .await
    .unwrap();
    scene.up("orders_read", &["b", "c"]).await.unwrap();

    let paused = ask(&scene, &["pause", "--reason", "deploying", "--output", "json"]).await;
    assert_eq!((paused.0, parsed(&paused)), (0, json!({"paused": true})));
    assert_eq!(scene.agent.state().await.unwrap()["state"]["paused"]["reason"], "deploying");
    let client = Login::through(&scene).open(&scene).await;
    held(&scene, &client, "paused", 2.0).await;

    let table = ask(&scene, &["sessions"]).await;
    assert_eq!(table.0, 0, "{table:?}");
    let line = table.1.lines().find(|line| line.contains(&client.pid.to_string())).unwrap();
    assert!(["app", "orders_write/a", "idle"].iter().all(|word| line.contains(word)), "{line}");
    let rows = parsed(&ask(&scene, &["sessions", "--output", "json"]).await);
    assert!(rows.as_array().unwrap().iter().any(|row| row["pid"] == client.pid), "{rows}");

    let socket = scene.proxy.admin_socket();
    let observe = ["observe", "--socket", socket.to_str().unwrap(), "--max-age", "5s"];
    let table = run(&scene, &observe).await;
    assert!(
        table.0 == 0 && table.1.contains("orders_write/a") && table.1.contains("past max_age"),
        "{table:?}"
    );
    let seen = parsed(&run(&scene, &[&observe[..], &["--output", "json"]].concat()).await);
    assert_eq!(seen["sessions"][0]["past_max_age"], true, "{seen}");
    assert!(table.1.contains("due") && table.1.contains("would be held"), "{table:?}");
    // In its window, the last two sevenths before the limit, it is due and not past it.
    let age = seen["sessions"][0]["age_s"].as_f64().unwrap();
    for (max_age, due) in [(age * 1.35, true), (age * 10.0, false)] {
        let max_age = format!("{}ms", (max_age * 1_000.0).round());
        let observe = ["observe", "--socket", socket.to_str().unwrap(), "--max-age", &max_age];
        let seen = parsed(&run(&scene, &[&observe[..], &["--output", "json"]].concat()).await);
        let session = &seen["sessions"][0];
        assert_eq!((&session["due"], &session["past_max_age"]), (&json!(due), &json!(false)), "{seen}");
    }

    let resumed = ask(&scene, &["resume"]).await;
    assert_eq!((resumed.0, resumed.1.trim()), (0, "resumed"));
    let again = ask(&scene, &["resume"]).await;
    assert_eq!((again.0, again.1.trim()), (0, "it was not paused; closes that were refused are tried again"));
    assert_eq!(client.closed().await.as_deref(), retired(engine));

    let drain = ask(&scene, &["drain", "orders_read/b"]).await;
    assert!(drain.0 == 0 && drain.1.contains("draining"), "{drain:?}");
    admin(&scene, "orders_read", "b", 8).await;
    let floor = ask(&scene, &["drain", "orders_read/c"]).await;
    assert!(floor.0 == 1 && floor.2.contains("too few other servers would be left"), "{floor:?}");
    let unknown = ask(&scene, &["drain", "orders_read/x"]).await;
    assert!(unknown.0 == 1 && unknown.2.contains("orders_read/b"), "{unknown:?}");
    let undrain = ask(&scene, &["undrain", "orders_read/b", "--output", "json"]).await;
    assert_eq!((undrain.0, parsed(&undrain)), (0, json!({"undraining": 1})));
    admin(&scene, "orders_read", "b", 0).await;

    let away = run(&scene, &["sessions", "--control", "/nonexistent/control.sock"]).await;
    assert!(away.0 == 2 && away.2.contains("is the agent running"), "{away:?}");
    let away = run(&scene, &["observe", "--socket", "/nonexistent/admin.sock"]).await;
    assert!(away.0 == 2 && !away.2.is_empty(), "{away:?}");
    scene.clear().await.unwrap();
}

/// Waits until a server's admin state, as HAProxy counts it, is this.
async fn admin(scene: &Scene, backend: &str, server: &str, bits: u8) {
    wait_for("the admin state", PATIENCE, async || {
        match scene.proxy.admin_bits(backend, server).await.unwrap() {
            now if now == bits => Ok(()),
            now => Err(format!("{now}; {}", scene.agent.log())),
        }
    })
    .await
    .unwrap();
}

async fn check_has_its_exit_codes_and_a_printed_token_logs_in(engine: Engine) {
    let standin = Options { engine, replicas: 1, ..Options::default() };
    let mut scene = Scene::set(Setting { standin, ..Setting::default() }).await.unwrap();
    let config = scene.agent.config_file();
    let check = ["check", "--config", config.to_str().unwrap()];
    let all = run(&scene, &check).await;
    assert!(
        all.0 == 0 && all.1.contains("orders/a: ok writer") && all.1.contains("orders/b: ok reader"),
        "{all:?}"
    );
    let role = [&check[..], &["--instance", "orders/b", "--role", "writer", "--output", "json"]].concat();
    let role = run(&scene, &role).await;
    assert_eq!((role.0, &parsed(&role)[0]["role"]), (1, &json!("reader")));

    let server = scene.standin.server("a").unwrap();
    let endpoint = format!("{}:{}", scene.standin.cluster_endpoint(), server.connect().port());
    let token = run(&scene, &["token", "--endpoint", &endpoint, "--user", "app"]).await;
    assert_eq!((token.0, token.1.lines().count(), &*token.2), (0, 1, ""), "the token alone");
    let secret = Some(Secret::Token(token.1.trim_end().to_owned()));
    let client = Login { secret, ..Login::through(&scene) }.open(&scene).await;
    wait_for("its session to be known", PATIENCE, async || row(&scene, &client).await.ok_or("not yet"))
        .await
        .unwrap();

    scene.standin.refuse_tokens(None, Some("lb_agent")).unwrap();
    let refused = run(&scene, &check).await;
    assert!(refused.0 == 1 && refused.1.contains("rds_iam"), "{refused:?}");
    // There are no credentials: nothing is known about the database.
    let nowhere = "http://127.0.0.1:1/";
    for (name, value) in &mut scene.agent.environment {
        if name == "AWS_CONTAINER_CREDENTIALS_FULL_URI" {
            *value = nowhere.into();
        }
    }
    let could_not = run(&scene, &check).await;
    assert!(could_not.0 == 2 && could_not.1.contains("AWS credentials"), "{could_not:?}");
    let usage = run(&scene, &[&check[..], &["--instance", "orders/z"]].concat()).await;
    assert!(usage.0 == 64 && usage.2.contains("orders/a"), "{usage:?}");
    scene.clear().await.unwrap();
}
