//! The check follows the address that HAProxy dials.

use std::net::{Ipv4Addr, SocketAddr};

use integration_tests::{
    process::{free_port, wait_for},
    scene::{PATIENCE, Scene, Setting},
};

/// HAProxy dials this address for a server from now on.
async fn readdress(scene: &Scene, server: &str, to: SocketAddr) {
    for backend in ["orders_write", "orders_read"] {
        let command = format!("set server {backend}/{server} addr {} port {}", to.ip(), to.port());
        scene.proxy.cli(&command).await.unwrap();
    }
}

/// Waits until `/state` shows this of the address of a server; `null` where it is the agent's own.
async fn shown(scene: &Scene, server: &str, state: Option<&str>) {
    wait_for(&format!("the address of {server} as {state:?}"), PATIENCE, async || {
        let all = scene.agent.state().await.map_err(|error| error.to_string())?;
        let view = &all["state"]["fleet"]["addresses"][server];
        if view["state"].as_str() == state { Ok(()) } else { Err(view.to_string()) }
    })
    .await
    .unwrap();
}

fn warned(scene: &Scene, server: &str, what: &str) -> bool {
    let events = scene.agent.events();
    events.iter().map(ToString::to_string).any(|event| event.contains(server) && event.contains(what))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_with_swapped_addresses_get_the_sessions_of_the_instances_behind_them() {
    let scene = Scene::set(Setting { waiting_room: true, ..Setting::default() }).await.unwrap();
    let [a, b] = ["a", "b"].map(|name| scene.standin.server(name).unwrap().connect());
    readdress(&scene, "a", b).await;
    readdress(&scene, "b", a).await;
    scene.up("orders_write", &["b"]).await.unwrap();
    scene.up("orders_read", &["a", "c"]).await.unwrap();
    shown(&scene, "orders_write/a", Some("other_instance")).await;
    assert!(warned(&scene, "orders_write/a", "address of another instance"), "{}", scene.agent.log());
    readdress(&scene, "a", a).await;
    readdress(&scene, "b", b).await;
    scene.up("orders_write", &["a"]).await.unwrap();
    shown(&scene, "orders_write/a", None).await;
    scene.clear().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_no_login_proves_gets_no_verdict() {
    let scene = Scene::set(Setting { waiting_room: true, ..Setting::default() }).await.unwrap();
    let c = scene.standin.server("c").unwrap().connect();
    let dead = (Ipv4Addr::LOCALHOST, free_port().unwrap()).into();
    readdress(&scene, "c", dead).await;
    shown(&scene, "orders_read/c", Some("unproved")).await;
    wait_for("the WARN", PATIENCE, async || {
        if warned(&scene, "orders_read/c", "not proved") { Ok(()) } else { Err("not yet") }
    })
    .await
    .unwrap();
    let state = scene.agent.state().await.unwrap();
    assert_eq!(state["state"]["fleet"]["servers"]["orders_read/c"]["reason"], "address_unproved");
    readdress(&scene, "c", c).await;
    shown(&scene, "orders_read/c", None).await;
    scene.clear().await.unwrap();
}
