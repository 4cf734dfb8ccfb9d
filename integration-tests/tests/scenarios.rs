//! The main job, on real servers.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use integration_tests::scene::{Scene, Setting};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_routes_by_the_role_that_a_login_has_proved() {
    let scene = Scene::set(Setting::default()).await.unwrap();
    scene.up("orders_write", &["a"]).await.unwrap();
    scene.up("orders_read", &["b", "c"]).await.unwrap();
    scene.clear().await.unwrap();
}
