//! Clients that reach HAProxy over a Unix socket, as those of another HAProxy in front of it do.

use std::path::PathBuf;

use integration_tests::{
    process::wait_for,
    scene::{PATIENCE, Scene, Setting},
    standin::{Engine, Options},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, UnixStream},
    task::JoinHandle,
};

use crate::{
    client::{Login, retired},
    view::{held, sessions},
};

/// Connects each client to a Unix socket.
async fn relay(socket: PathBuf) -> (std::net::SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let socket = socket.clone();
            tokio::spawn(async move {
                let mut server = UnixStream::connect(socket).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (address, task)
}

async fn is_joined_and_retired(engine: Engine) {
    let setting = |sessions: &str| Setting {
        standin: Options { engine, replicas: 0, ..Options::default() },
        sessions: sessions.into(),
        ..Setting::default()
    };
    let exempt = setting("{mode: retire, max_age: 5s, exempt: {networks: [10.0.0.0/8]}}");
    let scene = Scene::set(exempt).await.unwrap();
    let (to, relay) = relay(scene.proxy.front_socket("write")).await;
    let client = Login { to, ..Login::through(&scene) }.open(&scene).await;
    wait_for("the session to be joined", PATIENCE, async || {
        let rows = sessions(&scene).await;
        let joined = rows.iter().any(|row| row.pid == client.pid && row.join == "joined");
        if joined { Ok(()) } else { Err(format!("{rows:?}")) }
    })
    .await
    .unwrap();
    // Its client may be in an exempt network, in front of the socket.
    held(&scene, &client, "exempt", 1.0).await;

    let config =
        scene.agent.config_for(&scene.standin, &scene.proxy, &setting("{mode: retire, max_age: 5s}"));
    scene.agent.write_config(&config).unwrap();
    assert_eq!(client.closed().await.as_deref(), retired(engine));
    relay.abort();
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgresql_session_of_a_client_on_a_unix_socket_is_joined_and_retired() {
    is_joined_and_retired(Engine::Postgresql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mariadb_session_of_a_client_on_a_unix_socket_is_joined_and_retired() {
    is_joined_and_retired(Engine::Mariadb).await;
}
