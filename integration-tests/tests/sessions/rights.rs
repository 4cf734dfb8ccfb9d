//! What the agent does with fewer rights.

use std::sync::Arc;

use integration_tests::{
    on_each_engine,
    process::wait_for,
    scene::{PATIENCE, Scene, Setting},
    standin::{Engine, Options, StandIn},
};

use crate::{
    client::{Login, retired},
    view::{held, holds, said, sessions},
};

pub const RIGHT_MISSING: &str = "something is missing at the database: sessions are held, or not seen whole";

/// What an operator gives and takes.
struct Sql {
    /// Makes `lb_agent_bare`, who may see and not close, and `lb_agent_blind`, who may close and
    /// not see.
    users: &'static str,
    /// From `lb_agent_plain`.
    revoke: &'static str,
    /// What the agent advises to grant, and to `lb_agent_bare`.
    to_close: (&'static str, &'static str),
    /// The same for `lb_agent_blind`.
    to_see: (&'static str, &'static str),
}

fn sql(engine: Engine) -> Sql {
    match engine {
        Engine::Postgresql => Sql {
            users: "CREATE ROLE lb_agent_bare LOGIN IN ROLE rds_iam, pg_monitor; \
                    CREATE ROLE lb_agent_blind LOGIN IN ROLE rds_iam, pg_signal_backend",
            revoke: "REVOKE lb_agent_retire FROM lb_agent_plain",
            to_close: ("pg_signal_backend", "GRANT pg_signal_backend TO lb_agent_bare"),
            to_see: ("pg_monitor", "GRANT pg_monitor TO lb_agent_blind"),
        },
        Engine::Mariadb => Sql {
            users: "CREATE USER lb_agent_bare, lb_agent_blind IDENTIFIED VIA pam USING 'rds_iam' REQUIRE SSL; \
                    GRANT PROCESS ON *.* TO lb_agent_bare; \
                    GRANT CONNECTION ADMIN ON *.* TO lb_agent_blind; \
                    GRANT SELECT ON performance_schema.* TO lb_agent_bare, lb_agent_blind; \
                    GRANT SELECT (User, Host, plugin, Super_priv) ON mysql.user TO lb_agent_bare, lb_agent_blind",
            revoke: "REVOKE EXECUTE ON PROCEDURE rds_lb_agent.retire FROM lb_agent_plain",
            to_close: ("retire.sql", "GRANT EXECUTE ON PROCEDURE rds_lb_agent.retire TO lb_agent_bare"),
            to_see: ("GRANT PROCESS", "GRANT PROCESS ON *.* TO lb_agent_blind"),
        },
    }
}

on_each_engine!(each_agent_user_acts_within_its_rights_and_missing_ones_are_logged);

async fn each_agent_user_acts_within_its_rights_and_missing_ones_are_logged(engine: Engine) {
    let standin = StandIn::start(Options { engine, replicas: 0, ..Options::default() }).await.unwrap();
    standin.execute_sql("a", sql(engine).users).await.unwrap();
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
    let engine = standin.engine();
    let scene = with_user(standin, "lb_agent_plain").await;
    let client = Login::through(&scene).application("function").open(&scene).await;
    assert_eq!(client.closed().await.as_deref(), retired(engine), "by the function, since it cannot signal");
    assert_eq!(said(&scene, RIGHT_MISSING), 0);

    standin.execute_sql("a", sql(engine).revoke).await.unwrap();
    let client = Login::through(&scene).application("revoked").open(&scene).await;
    held(&scene, &client, "denied", 2.0).await;
    assert!(client.is_open());
    assert_eq!(said(&scene, RIGHT_MISSING), 1, "{}", scene.agent.log());
    scene.clear().await.unwrap();
}

async fn without_a_right_to_close(standin: &Arc<StandIn>) {
    let (advised, grant) = sql(standin.engine()).to_close;
    let scene = with_user(standin, "lb_agent_bare").await;
    let client = Login::through(&scene).application("denied").open(&scene).await;
    held(&scene, &client, "denied", 2.0).await;
    holds(&scene, "denied", 1..).await;
    advises(&scene, advised).await;
    assert!(client.is_open());

    standin.execute_sql("a", grant).await.unwrap();
    let control = scene.agent.control();
    let resumed = scene.agent.command(&["resume", "--control", control.to_str().unwrap()]).await.unwrap();
    assert_eq!(resumed.0, 0, "{resumed:?}");
    assert_eq!(client.closed().await.as_deref(), retired(standin.engine()), "the advice was followed");
    scene.clear().await.unwrap();
}

async fn without_a_right_to_see(standin: &Arc<StandIn>) {
    let (advised, grant) = sql(standin.engine()).to_see;
    let mut scene = with_user(standin, "lb_agent_blind").await;
    let client = Login::through(&scene).application("unseen").open(&scene).await;
    match standin.engine() {
        Engine::Postgresql => drop(held(&scene, &client, "activity_unknown", 2.0).await),
        // What is not shown at all has no age: one who sees it says when it would have gone.
        Engine::Mariadb => {
            let seeing = with_user(standin, "lb_agent").await;
            let later = Login::through(&seeing).application("seen").open(&seeing).await;
            assert_eq!(later.closed().await.as_deref(), retired(Engine::Mariadb));
            seeing.clear().await.unwrap();
        }
    }
    advises(&scene, advised).await;
    assert!(client.is_open() && said(&scene, "session retired") == 0, "{:?}", sessions(&scene).await);

    standin.execute_sql("a", grant).await.unwrap();
    // A server shows it to new sessions.
    scene.agent.stop().await.unwrap();
    scene.agent.start().await.unwrap();
    assert_eq!(client.closed().await.as_deref(), retired(standin.engine()), "the advice was followed");
    scene.clear().await.unwrap();
}

/// Waits until what is missing was said, once in the log, and is in `/state`.
async fn advises(scene: &Scene, words: &str) {
    wait_for(words, PATIENCE, async || {
        let state = scene.agent.state().await.map_err(|error| error.to_string())?;
        let missing = state["state"]["rights"]["orders/a"]["missing"].to_string();
        if missing.contains(words) { Ok(()) } else { Err(missing) }
    })
    .await
    .unwrap();
    let events = scene.agent.events();
    let advice = events.iter().filter(|event| event["message"] == RIGHT_MISSING);
    let logged = advice.filter(|event| event["advice"].as_str().unwrap().contains(words)).count();
    assert_eq!(logged, 1, "{}", scene.agent.log());
}
