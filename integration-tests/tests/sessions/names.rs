//! Sessions of which the server shows a resolved name in place of the proxy's address.

use std::net::Ipv4Addr;

use integration_tests::{
    scene::{Scene, Setting},
    standin::{Engine, Options},
};

use crate::{
    client::{Client, Login, retired},
    view::{held, said, sessions},
};

/// A proxy that the server knows by its name, and a client of it.
async fn behind_a_name(performance_schema: bool, setting: Setting) -> (Scene, Client) {
    let scene = Scene::set(Setting {
        standin: Options {
            engine: Engine::Mariadb,
            replicas: 0,
            performance_schema,
            names: vec![(Ipv4Addr::new(127, 0, 0, 8), "balancer.internal".to_owned())],
            ..Options::default()
        },
        server_words: "source 127.0.0.8".to_owned(),
        ..setting
    })
    .await
    .unwrap();
    let client = Login::through(&scene).open(&scene).await;
    let host = format!("SELECT HOST FROM information_schema.PROCESSLIST WHERE ID = {}", client.pid);
    let host = scene.standin.value("a", &host).await.unwrap();
    assert!(host.starts_with("balancer.internal:"), "{host}");
    (scene, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_shows_a_name_goes_where_its_address_is_proved_to_be_the_proxys() {
    let sessions = "{mode: retire, max_age: 5s}".into();
    let (scene, client) = behind_a_name(true, Setting { sessions, ..Setting::default() }).await;
    assert_eq!(client.closed().await.as_deref(), retired(Engine::Mariadb));
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_shows_nothing_but_a_name_is_held() {
    let setting = Setting {
        sessions: "{mode: retire, max_age: 5s, quiet_min: 1s}".into(),
        database: "    open_transactions: innodb_trx\n".into(),
        ..Setting::default()
    };
    let (scene, client) = behind_a_name(false, setting).await;
    let row = held(&scene, &client, "not_joined", 3.0).await;
    assert_eq!(row.activity, "idle", "its name alone holds it");
    assert!(client.is_open() && said(&scene, "session retired") == 0, "{:?}", sessions(&scene).await);
    let log = scene.agent.log();
    assert!(log.contains("sessions that show a name are held: set skip_name_resolve=1"), "{log}");
    scene.clear().await.unwrap();
}
