//! What the agent does with fewer rights.

use std::sync::Arc;

use integration_tests::{
    scene::{Scene, Setting},
    standin::{Options, StandIn},
};

use crate::{
    client::Login,
    view::{held, holds, said},
};

const RIGHT_MISSING: &str = "something is missing at the database: sessions are held, or not seen whole";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_user_of_the_agent_does_what_its_rights_allow_and_says_what_is_missing() {
    let standin = StandIn::start(Options { replicas: 0, ..Options::default() }).await.unwrap();
    let roles = "CREATE ROLE lb_agent_bare LOGIN IN ROLE rds_iam, pg_monitor; \
                 CREATE ROLE lb_agent_blind LOGIN IN ROLE rds_iam, pg_signal_backend";
    standin.execute_sql("a", roles).await.unwrap();
    let standin = Arc::new(standin);
    tokio::join!(
        by_the_function_until_its_right_is_revoked(&standin),
        without_a_right_to_close(&standin),
        without_a_right_to_see(&standin),
    );
    Arc::into_inner(standin).unwrap().shutdown().await.unwrap();
}

async fn with_user(standin: &Arc<StandIn>, user: &str) -> Scene {
    let sessions = "{mode: retire, max_age: 5s}".into();
    let setting = Setting { user: user.into(), sessions, ..Setting::default() };
    Scene::around(Arc::clone(standin), setting).await.unwrap()
}

async fn by_the_function_until_its_right_is_revoked(standin: &Arc<StandIn>) {
    let scene = with_user(standin, "lb_agent_plain").await;
    let client = Login::through(&scene).application("function").open(&scene).await;
    assert_eq!(client.closed().await.as_deref(), Some("57P01"), "by the function, since it cannot signal");
    assert_eq!(said(&scene, RIGHT_MISSING), 0);

    standin.execute_sql("a", "REVOKE lb_agent_retire FROM lb_agent_plain").await.unwrap();
    let client = Login::through(&scene).application("revoked").open(&scene).await;
    held(&scene, &client, "denied", 2.0).await;
    assert!(client.is_open());
    assert_eq!(said(&scene, RIGHT_MISSING), 1, "{}", scene.agent.log());
    scene.clear().await.unwrap();
}

async fn without_a_right_to_close(standin: &Arc<StandIn>) {
    let scene = with_user(standin, "lb_agent_bare").await;
    let client = Login::through(&scene).application("denied").open(&scene).await;
    held(&scene, &client, "denied", 2.0).await;
    assert!(holds(&scene, "denied").await >= 1);
    assert_eq!(said(&scene, RIGHT_MISSING), 1, "{}", scene.agent.log());
    let events = scene.agent.events();
    let event = events.iter().find(|event| event["message"] == RIGHT_MISSING).unwrap();
    assert!(event["advice"].as_str().unwrap().contains("pg_signal_backend"), "{event}");
    assert!(client.is_open());

    standin.execute_sql("a", "GRANT pg_signal_backend TO lb_agent_bare").await.unwrap();
    let control = scene.agent.control();
    let resumed = scene.agent.command(&["resume", "--control", control.to_str().unwrap()]).await.unwrap();
    assert_eq!(resumed.0, 0, "{resumed:?}");
    assert_eq!(client.closed().await.as_deref(), Some("57P01"), "the advice was followed");
    scene.clear().await.unwrap();
}

async fn without_a_right_to_see(standin: &Arc<StandIn>) {
    let scene = with_user(standin, "lb_agent_blind").await;
    let client = Login::through(&scene).application("unseen").open(&scene).await;
    held(&scene, &client, "activity_unknown", 2.0).await;
    assert_eq!(said(&scene, RIGHT_MISSING), 1, "{}", scene.agent.log());
    assert!(client.is_open());
    scene.clear().await.unwrap();
}
