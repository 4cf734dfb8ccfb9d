//! Role and liveness on a writer and a replica.

use std::time::Duration;

use agent_database::Session as _;
use integration_tests::process::wait_for;
use tokio::sync::Mutex;

use super::lab::{Lab, PATIENCE};

#[tokio::test]
async fn a_kept_session_follows_the_role_of_its_server() {
    let lab = Lab::start(1).await;
    let mut writer = lab.session("a", "lb_agent").await;
    let role = writer.role().await.unwrap();
    assert!(role.claims_writer(), "{role:?}");
    assert_eq!((role.timeline, role.lag, role.agents), (Some(1), None, 1));

    let replica = Mutex::new(lab.session("b", "lb_agent").await);
    let role = replica.lock().await.role().await.unwrap();
    assert!(role.in_recovery && !role.read_only && !role.claims_writer(), "{role:?}");
    assert_eq!(role.timeline, Some(1));

    // Whatever was written before, a replica that has it all is not behind.
    lab.sql("INSERT INTO orders (client, number) VALUES (1, 1)").await;
    wait_for("the replica to have caught up", PATIENCE, || async {
        match replica.lock().await.role().await.unwrap().lag {
            Some(Duration::ZERO) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    // One that does not replay is behind by the time since.
    lab.standin.execute_sql("b", "SELECT pg_wal_replay_pause()").await.unwrap();
    lab.sql("INSERT INTO orders (client, number) VALUES (1, 2)").await;
    wait_for("the replica to be behind", PATIENCE, || async {
        match replica.lock().await.role().await.unwrap().lag {
            Some(lag) if lag > Duration::from_millis(100) && lag < PATIENCE => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    lab.standin.execute_sql("b", "SELECT pg_wal_replay_resume()").await.unwrap();

    // Promoted under the open session: a writer, on a higher timeline.
    lab.standin.promote("b").await.unwrap();
    let role = replica.lock().await.role().await.unwrap();
    assert!(role.claims_writer(), "{role:?}");
    assert_eq!((role.timeline, role.lag), (Some(2), None));
    lab.shutdown().await;
}

#[tokio::test]
async fn agents_are_counted_by_name() {
    let lab = Lab::start(0).await;
    let _first = lab.session("a", "lb_agent").await;
    let _second = lab.session("a", "lb_agent_plain").await;
    let _client = lab.client("app", "somebody").await;
    let mut third = lab.session("a", "lb_agent").await;
    assert_eq!(third.role().await.unwrap().agents, 3);
    lab.shutdown().await;
}

#[tokio::test]
async fn the_role_is_read_with_minimal_privileges() {
    let lab = Lab::start(1).await;
    // Taken away under the open session, which goes on with what is left.
    lab.sql("REVOKE EXECUTE ON FUNCTION pg_control_checkpoint() FROM PUBLIC").await;
    let mut writer = lab.session("a", "lb_agent_plain").await;
    lab.sql("REVOKE EXECUTE ON FUNCTION pg_control_checkpoint() FROM pg_monitor").await;
    let role = writer.role().await.unwrap();
    assert!(role.claims_writer());
    assert_eq!(role.timeline, Some(1));

    lab.sql("REVOKE EXECUTE ON FUNCTION pg_walfile_name(pg_lsn) FROM PUBLIC").await;
    let mut writer = lab.session("a", "lb_agent_plain").await;
    let role = writer.role().await.unwrap();
    assert!(role.claims_writer());
    assert_eq!((role.timeline, role.lag), (None, None));
    assert!(writer.role().await.unwrap().claims_writer());

    let replica = Mutex::new(lab.session("b", "lb_agent_plain").await);
    wait_for("the replica to have the same rights", PATIENCE, || async {
        let role = replica.lock().await.role().await.unwrap();
        assert!(role.in_recovery);
        if role.timeline.is_none() { Ok(()) } else { Err("it has its timeline") }
    })
    .await
    .unwrap();
    lab.shutdown().await;
}
