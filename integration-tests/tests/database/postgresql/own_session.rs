//! Settings, limits and encodings of the agent's own session never decide about other users, and
//! what is lost in it is reported.

use std::time::Duration;

use agent_core::{Evidence, FaultKind, Phase, session::Activity};
use agent_database::{Method, RetireOutcome, Scope, Session as _, postgresql};
use integration_tests::process::wait_for;
use tokio_postgres::Client;

use super::lab::{Lab, PATIENCE, row_that, target_of};

/// Waits until the replica has replayed what the writer has in this catalog.
async fn replayed(lab: &Lab, query: &str) {
    let expected = lab.standin.value("a", query).await.unwrap();
    wait_for("the replica to replay the change", PATIENCE, || async {
        let found = lab.standin.value("b", query).await.unwrap();
        if found == expected { Ok(()) } else { Err(found) }
    })
    .await
    .unwrap();
}

const SETTINGS: &str = "SELECT count(*)::text || max(setconfig::text) FROM pg_db_role_setting";

#[tokio::test]
async fn only_a_read_only_default_of_the_whole_server_makes_it_read_only() {
    let lab = Lab::start(0).await;
    for own in [
        "ALTER ROLE lb_agent SET default_transaction_read_only = on",
        "ALTER DATABASE orders SET default_transaction_read_only = on",
        "ALTER ROLE lb_agent IN DATABASE orders SET default_transaction_read_only = on",
    ] {
        // The last of them holds for this test's own sessions as well.
        lab.sql(&format!("BEGIN READ WRITE; {own}; COMMIT")).await;
        let role = lab.session("a", "lb_agent").await.role().await.unwrap();
        assert!(role.claims_writer(), "{own}: {role:?}");
    }
    lab.sql(
        "BEGIN READ WRITE; ALTER ROLE lb_agent RESET ALL; ALTER DATABASE orders RESET ALL; \
         ALTER ROLE lb_agent IN DATABASE orders RESET ALL; COMMIT",
    )
    .await;

    let kept = tokio::sync::Mutex::new(lab.session("a", "lb_agent").await);
    assert!(kept.lock().await.role().await.unwrap().claims_writer());
    lab.sql("ALTER ROLE ALL SET default_transaction_read_only = on").await;
    let role = lab.session("a", "lb_agent").await.role().await.unwrap();
    assert!(role.read_only && !role.in_recovery && !role.claims_writer(), "{role:?}");

    // The server's own default, under an open session.
    lab.sql("ALTER SYSTEM SET default_transaction_read_only = on").await;
    lab.sql("SELECT pg_reload_conf()").await;
    wait_for("the session to see the new default", PATIENCE, || async {
        let role = kept.lock().await.role().await.unwrap();
        if role.read_only && !role.in_recovery { Ok(()) } else { Err(format!("{role:?}")) }
    })
    .await
    .unwrap();
    lab.shutdown().await;
}

#[tokio::test]
async fn a_serializable_default_does_not_silence_a_replica() {
    let lab = Lab::start(1).await;
    lab.sql("ALTER ROLE lb_agent SET default_transaction_isolation = 'serializable'").await;
    replayed(&lab, SETTINGS).await;
    let mut replica = lab.session("b", "lb_agent").await;
    assert!(replica.role().await.unwrap().in_recovery);
    replica.activity(Scope::All).await.unwrap();
    lab.shutdown().await;
}

#[tokio::test]
async fn the_agent_keeps_its_privileges_and_its_session_whatever_its_role_is_set_to() {
    let lab = Lab::start(0).await;
    lab.sql("GRANT app2 TO lb_agent").await;
    lab.sql("ALTER ROLE lb_agent SET role = 'app2'").await;
    lab.sql("ALTER ROLE lb_agent SET idle_session_timeout = '300ms'").await;
    lab.sql("ALTER ROLE lb_agent SET statement_timeout = '1ms'").await;
    lab.sql("ALTER ROLE app SET idle_session_timeout = '300ms'").await;
    let mut agent = lab.session("a", "lb_agent").await;
    assert!(agent.rights().await.unwrap().sees_all_activity);
    // A client that connected later and has the same timeout is disconnected first.
    let client = lab.client("app", "client").await;
    wait_for("the client's timeout", PATIENCE, || async {
        if client.is_closed() { Ok(()) } else { Err("it is connected") }
    })
    .await
    .unwrap();
    agent.role().await.unwrap();
    lab.shutdown().await;
}

#[tokio::test]
async fn the_agents_own_connection_limit_is_not_taken_for_a_full_server() {
    let lab = Lab::start(0).await;
    lab.sql("ALTER ROLE lb_agent CONNECTION LIMIT 1").await;
    let _only = lab.session("a", "lb_agent").await;
    let fault = lab.try_login("a", "lb_agent").await.0.err().unwrap();
    assert_eq!((fault.kind, fault.code.as_deref()), (FaultKind::PermissionDenied, Some("53300")), "{fault}");
    assert_eq!(fault.evidence(), Evidence::Alive);
    lab.shutdown().await;
}

/// A database whose encoding is not that of the agent's, and a client in it.
async fn latin1_client(lab: &Lab, user: &str, application: &str) -> Client {
    let mut login = lab.standin.login("a", user).unwrap();
    login.dbname("latin").application_name(application);
    let (client, connection) = login.connect(lab.standin.tls().unwrap()).await.unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn a_statement_in_another_encoding_does_not_hide_the_sessions() {
    let lab = Lab::start(0).await;
    lab.sql(postgresql::RETIRE_SQL).await;
    lab.sql("GRANT lb_agent_retire TO lb_agent_plain").await;
    lab.sql("CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0").await;
    let mut agent = lab.session("a", "lb_agent").await;
    let mut plain = lab.session("a", "lb_agent_plain").await;
    for method in [Method::Signal, Method::Function] {
        let _other = lab.client("app", "other").await;
        let client = latin1_client(&lab, "app", "latin").await;
        client.batch_execute("SELECT 'd\u{e9}j\u{e0} vu, listen'").await.unwrap();
        row_that(&mut agent, "other", |row| matches!(row.activity, Activity::Idle(_))).await;
        let is_idle = |row: &agent_core::session::ActivityRow| matches!(row.activity, Activity::Idle(_));
        let target = target_of(&row_that(&mut agent, "latin", is_idle).await);
        let closer = if method == Method::Signal { &mut agent } else { &mut plain };
        let closer = tokio::sync::Mutex::new(closer);
        wait_for("the session to be closed", PATIENCE, || async {
            match closer.lock().await.retire(&target, method, Duration::from_millis(200)).await {
                RetireOutcome::Closed => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
        .unwrap();
    }
    lab.shutdown().await;
}

#[tokio::test]
async fn a_name_that_is_not_valid_in_the_agents_encoding_does_not_hide_the_sessions() {
    let lab = Lab::start(0).await;
    lab.sql("CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0").await;
    lab.sql("ALTER ROLE app CREATEROLE").await;
    // From PostgreSQL 16 on, that alone does not allow to rename another role.
    lab.sql("GRANT app2 TO app WITH ADMIN OPTION").await;
    let mut agent = lab.session("a", "lb_agent").await;
    let _odd = lab.client("app2", "odd").await;
    // In the shared catalog the name now has LATIN1 bytes.
    let client = latin1_client(&lab, "app", "latin").await;
    client.batch_execute("ALTER ROLE app2 RENAME TO \"ren\u{e9}\"").await.unwrap();
    let rows = agent.activity(Scope::All).await.unwrap();
    let user = |application: &str| {
        rows.iter().find(|row| &*row.application == application).map(|row| row.user.to_string())
    };
    assert_eq!(user("latin").as_deref(), Some("app"));
    assert_eq!(user("odd").as_deref(), Some("ren\u{fffd}"));
    lab.shutdown().await;
}

#[tokio::test]
async fn a_query_that_fails_after_a_login_reports_what_it_was_and_leaves_the_session() {
    let lab = Lab::start(0).await;
    lab.sql("REVOKE EXECUTE ON FUNCTION pg_stat_get_activity(int4) FROM PUBLIC").await;
    let mut agent = lab.session("a", "lb_agent").await;
    let fault = agent.activity(Scope::All).await.unwrap_err();
    assert_eq!((fault.phase, fault.code.as_deref()), (Phase::Query, Some("42501")));
    assert!(fault.message.starts_with("reading the connection table: "), "{fault}");
    assert_eq!(fault.evidence(), Evidence::Alive);
    // The role is still known: only the number of agents is not.
    let role = agent.role().await.unwrap();
    assert!(role.claims_writer() && role.agents == 1, "{role:?}");
    assert_eq!(role.timeline, Some(1));
    lab.shutdown().await;
}
