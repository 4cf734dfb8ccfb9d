//! A database that cannot be logged in to: the others run, it starts when it can, and HTTP answers by what is
//! remembered.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use integration_tests::{
    process::wait_for,
    scene::{PATIENCE, Scene, Setting},
};

use crate::of;

const UNUSABLE: &str = "database not started; the others run, and this one is tried again every 5 s";

/// The configuration of the scene, with the instance `c` as a database of its own that trusts `ca`, and
/// one without any region.
fn divided(scene: &Scene, ca: &Path) -> String {
    let config = scene.agent.config_for(&scene.standin, &scene.proxy, &Setting::default());
    let c = config.lines().find(|line| line.contains("- {name: c,")).unwrap().to_owned() + "\n";
    let more = format!(
        "  - name: more\n    engine: postgresql\n    user: lb_agent\n    database_name: orders\n    \
         ca_file: \"{}\"\n    instances:\n{c}\
         {{indent}}- name: nowhere\n    engine: postgresql\n    user: lb_agent\n    instances:\n      \
         - {{name: a, endpoint: \"db.example:5432\"}}\n",
        ca.display()
    );
    let more = more.replace("{indent}", "  ");
    let config = config.replace(&c, "").replace(", c: c}", "}");
    config.replace("proxies:\n", &format!("{more}proxies:\n"))
}

async fn logged(scene: &Scene, database: &str, message: &str, error: &str) {
    wait_for(&format!("{message}: {error}"), PATIENCE, async || {
        let of = of(scene, message);
        let found = of.iter().any(|event| {
            event["database"] == database && event["error"].as_str().unwrap_or_default().contains(error)
        });
        if found { Ok(()) } else { Err(scene.agent.log()) }
    })
    .await
    .unwrap();
}

async fn role_of(scene: &Scene, instance: &str, role: &str) {
    wait_for(&format!("{instance} to be a {role}"), PATIENCE, async || {
        let state = scene.agent.state().await.unwrap();
        let view = state["state"]["fleet"]["instances"][instance].clone();
        if view["role"] == role { Ok(()) } else { Err(view) }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_without_its_ca_file_or_region_stops_only_itself_at_start_and_at_reload() {
    let mut scene = Scene::set(Setting::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // In a folder that does not exist, which cannot be watched.
    let ca = folder.path().join("later/ca.pem");
    let config = divided(&scene, &ca);
    let line = |words: &str| 1 + config.lines().position(|line| line.contains(words)).unwrap();

    // At start.
    scene.agent.stop().await.unwrap();
    scene.agent.environment.retain(|(name, _)| name != "AWS_REGION");
    scene.agent.write_config(&config).unwrap();
    scene.agent.start().await.unwrap();
    scene.routed().await.unwrap();
    logged(&scene, "more", UNUSABLE, "later/ca.pem: cannot be read").await;
    logged(&scene, "nowhere", UNUSABLE, "no AWS region is known").await;
    for (database, line) in [("more", line("later/ca.pem")), ("nowhere", line("name: nowhere"))] {
        let events = of(&scene, UNUSABLE);
        let event = events.iter().find(|event| event["database"] == database).unwrap();
        assert_eq!((&event["line"], &event["level"]), (&line.into(), &"ERROR".into()));
    }
    wait_for("the fault of the database without a region", PATIENCE, async || {
        let state = scene.agent.state().await.unwrap()["state"]["fleet"]["instances"].clone();
        if state["nowhere/a"]["last_fault"]["kind"] == "no_token" { Ok(()) } else { Err(state) }
    })
    .await
    .unwrap();
    let (_, metrics) = scene.agent.get("/metrics").await.unwrap();
    assert!(metrics.contains("rdslb_database_ready{database=\"orders\"} 1"), "{metrics}");
    assert!(metrics.contains("rdslb_database_ready{database=\"more\"} 0"), "{metrics}");

    assert_eq!(of(&scene, UNUSABLE).len(), 2, "the same error is logged once: {}", scene.agent.log());

    // The file appears.
    fs::create_dir(ca.parent().unwrap()).unwrap();
    fs::set_permissions(ca.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(scene.standin.ca_file(), &ca).unwrap();
    role_of(&scene, "more/c", "reader").await;

    // At a reload.
    let moved = config.replace("later/ca.pem", "elsewhere/ca.pem");
    scene.agent.write_config(&moved).unwrap();
    logged(&scene, "more", UNUSABLE, "elsewhere/ca.pem: cannot be read").await;
    role_of(&scene, "orders/a", "writer").await;
    scene.routed().await.unwrap();
    scene.agent.write_config(&config).unwrap();
    role_of(&scene, "more/c", "reader").await;

    // A file that is not a configuration is still refused, and the agent goes on as before.
    scene.agent.write_config("databases: [\n").unwrap();
    wait_for("the refusal", PATIENCE, async || {
        let refused = of(&scene, "new configuration refused, the old one stays in force");
        if refused.is_empty() { Err(scene.agent.log()) } else { Ok(()) }
    })
    .await
    .unwrap();
    scene.routed().await.unwrap();
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_without_credentials_http_answers_by_the_remembered_roles() {
    let mut scene = Scene::set(Setting::default()).await.unwrap();
    let memory = scene.agent.state_dir().join("instances.json");
    wait_for("the roles to be written", PATIENCE, async || {
        let text = fs::read_to_string(&memory).unwrap_or_default();
        let all = text.matches("\"role\"").count() == 3;
        if all { Ok(()) } else { Err(text) }
    })
    .await
    .unwrap();
    scene.agent.stop().await.unwrap();
    scene.agent.environment.retain(|(name, _)| {
        !name.contains("CREDENTIALS") && !name.contains("CONTAINER") && !name.contains("KEY")
    });
    scene.agent.start().await.unwrap();
    wait_for("a login without a token", PATIENCE, async || {
        let state = scene.agent.state().await.unwrap();
        let view = state["state"]["fleet"]["instances"]["orders/b"].clone();
        if view["last_fault"]["kind"] == "no_token" { Ok(()) } else { Err(view) }
    })
    .await
    .unwrap();
    for (path, expected) in [
        ("/orders/a/primary", 200),
        ("/orders/b/primary", 503),
        ("/orders/c/leader", 503),
        ("/orders/b/replica", 200),
        ("/orders/b/read-only", 200),
        ("/readyz", 200),
    ] {
        let (status, body) = scene.agent.get(path).await.unwrap();
        assert_eq!(status, expected, "{path}: {body}");
    }
    scene.clear().await.unwrap();
}
