//! A backend with a single usable server: it is never drained, and what an operator can do instead.

use std::sync::Arc;

use integration_tests::{
    process::wait_for,
    scene::{PATIENCE, Scene, Setting},
    standin::{Options, StandIn},
};

use crate::{client::Login, view::held};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_server_in_mode_drain_is_held_with_a_way_out_that_needs_no_right_to_close() {
    let standin = StandIn::start(Options { replicas: 0, ..Options::default() }).await.unwrap();
    let bare = "CREATE ROLE lb_agent_bare LOGIN IN ROLE rds_iam, pg_monitor";
    standin.execute_sql("a", bare).await.unwrap();
    let setting = |sessions: &str| Setting {
        user: "lb_agent_bare".into(),
        sessions: sessions.into(),
        ..Setting::default()
    };
    let scene = Scene::around(Arc::new(standin), setting("{mode: drain, max_age: 5s}")).await.unwrap();
    let client = Login::through(&scene).open(&scene).await;
    held(&scene, &client, "capacity_floor", 2.0).await;
    let control = scene.agent.control();
    let control = ["sessions", "--control", control.to_str().unwrap()];
    wait_for("the way out", PATIENCE, async || {
        let (code, out, _) = scene.agent.command(&control).await.unwrap();
        let said = out.contains("capacity_floor") && out.contains("close_via: proxy");
        if code == 0 && said { Ok(()) } else { Err(out) }
    })
    .await
    .unwrap();
    assert!(client.is_open());

    let way_out = setting("{mode: retire, max_age: 5s, close_via: proxy}");
    scene.agent.write_config(&scene.agent.config_for(&scene.standin, &scene.proxy, &way_out)).unwrap();
    assert_eq!(client.closed().await, None, "the end of the stream, by the proxy");
    scene.clear().await.unwrap();
}
