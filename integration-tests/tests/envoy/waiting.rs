//! Clients that come while no endpoint is usable wait, and reach the next writer: the whole agent.

use std::sync::Arc;

use integration_tests::{
    envoy::Envoy,
    process::wait_for,
    scene::{PATIENCE, Scene, Setting},
    standin::StopMode,
};
use tokio::task::JoinHandle;

use crate::client::Client;

const CLIENTS: usize = 10;

/// The only writer has stopped, and clients wait. By DNS they would go to `c`, a reader.
async fn waiting() -> (Scene<Envoy>, Vec<JoinHandle<Result<Client, String>>>) {
    let scene = Scene::<Envoy>::with(Setting { dns: Some("c"), ..Setting::default() }).await.unwrap();
    scene.standin.stop("a", StopMode::Fast).await.unwrap();
    wait_for("the waiting room", PATIENCE, async || {
        let hosts = scene.proxy.hosts("orders_write").await.map_err(|error| error.to_string())?;
        let usable: Vec<_> = hosts.iter().filter(|host| host.eds == "HEALTHY").collect();
        let servers = scene.standin.servers();
        let room = |address| servers.iter().all(|server| server.connect() != address);
        if usable.len() == 1 && room(usable[0].address) { Ok(()) } else { Err(format!("{hosts:?}")) }
    })
    .await
    .unwrap();
    let write = scene.proxy.address("write");
    let login = |standin: Arc<_>| tokio::spawn(async move { Client::login(&standin, write).await });
    let clients = (0..CLIENTS).map(|_| login(scene.standin.clone())).collect();
    (scene, clients)
}

async fn served_by(instance: &str, clients: Vec<JoinHandle<Result<Client, String>>>) {
    for client in clients {
        assert_eq!(client.await.unwrap().map(|client| client.instance).as_deref(), Ok(instance));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_wait_for_the_only_writer_that_restarts() {
    let (scene, clients) = waiting().await;
    scene.standin.start_server("a").await.unwrap();
    served_by("a", clients).await;
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_wait_for_the_successor_of_a_writer_that_is_gone() {
    let (scene, clients) = waiting().await;
    scene.standin.promote("b").await.unwrap();
    served_by("b", clients).await;
    scene.clear().await.unwrap();
}
