//! Roles of a real writer and a real replica, through a promotion.

use std::time::Duration;

use agent_database::Session as _;

use super::{
    clients::eventually,
    lab::Lab,
    scripted::{Script, TOKEN, and_more, begin, error, ok, rows, switch},
};

#[tokio::test]
async fn a_writer_and_a_replica_report_their_roles() {
    let lab = Lab::start(1).await;
    let mut writer = lab.session("a", "lb_agent").await;
    let facts = writer.role().await.unwrap();
    assert!(facts.claims_writer() && !facts.in_recovery && !facts.read_only);
    assert_eq!((facts.timeline, facts.lag), (None, None));

    let mut replica = lab.session("b", "lb_agent").await;
    let facts = replica.role().await.unwrap();
    assert!(facts.in_recovery && !facts.read_only && !facts.claims_writer(), "{facts:?}");
    assert!(facts.lag.is_some_and(|lag| lag < Duration::from_secs(30)), "{facts:?}");
    assert_eq!(facts.agents, 1);

    // Without the right to ask how far it is, it still is a replica.
    let mut onlooker = lab.session("b", "app").await;
    let facts = onlooker.role().await.unwrap();
    assert!(facts.in_recovery);
    assert_eq!(facts.lag, None);
    assert!(onlooker.fault().is_none());

    // A stopped replica cannot say its lag.
    lab.standin.execute_sql("b", "STOP REPLICA").await.unwrap();
    assert_eq!(replica.role().await.unwrap().lag, None);
    assert!(replica.role().await.unwrap().in_recovery);

    // A writer that takes no writes is none, and no replica either.
    lab.sql("SET GLOBAL read_only = ON").await;
    let facts = writer.role().await.unwrap();
    assert!(facts.read_only && !facts.in_recovery && !facts.claims_writer(), "{facts:?}");
    lab.shutdown().await;
}

#[tokio::test]
async fn the_kept_sessions_see_a_promotion() {
    let lab = Lab::start(1).await;
    let mut replica = lab.session("b", "lb_agent").await;
    assert!(replica.role().await.unwrap().in_recovery);
    lab.standin.promote("b").await.unwrap();
    let replica = tokio::sync::Mutex::new(replica);
    eventually("b to be a writer", || async {
        let facts = replica.lock().await.role().await.unwrap();
        if facts.claims_writer() { Ok(()) } else { Err(format!("{facts:?}")) }
    })
    .await;
    lab.shutdown().await;
}

/// Aurora is not available here: its answers are those of its manual.
#[tokio::test]
async fn aurora_reports_its_role_and_lag_by_its_own_variables_and_tables() {
    const LAG: [&str; 1] = ["lag_ms"];
    let missing = error(8, 1146, "42S02", "Table 'information_schema.REPLICA_HOST_STATUS' doesn't exist");
    for (innodb_read_only, status, in_recovery, lag) in [
        ("0", rows(8, &LAG, &[&["0"]]), false, None),
        ("1", rows(8, &LAG, &[&["18.5"]]), true, Some(Duration::from_micros(18_500))),
        ("1", missing, true, None),
    ] {
        let who = [&["aurora_version", "3.08.0"][..], &["version_comment", "Source distribution"]];
        let set_up = [ok(1, true), rows(2, &["Variable_name", "Value"], &who)].concat();
        let own = rows(1, &["innodb_read_only", "read_only", "agents"], &[&[innodb_read_only, "0", "3"]]);
        let role = [and_more(own), status].concat();
        let login = [switch(3, "mysql_clear_password", b""), ok(5, false), set_up, role];
        let (session, _, server) = begin(Script::answers(login), TOKEN).await;
        let mut session = session.unwrap();
        let facts = session.role().await.unwrap();
        assert_eq!((facts.in_recovery, facts.lag, facts.agents), (in_recovery, lag, 3), "{facts:?}");
        assert_eq!(facts.claims_writer(), !in_recovery);
        assert!(session.fault().is_none());
        session.close().await;
        let asked = String::from_utf8_lossy(&server.await.unwrap().inside).into_owned();
        assert!(asked.contains("REPLICA_HOST_STATUS") && !asked.contains("SHOW REPLICA"), "{asked}");
    }
}

#[tokio::test]
async fn agents_are_counted() {
    let lab = Lab::start(0).await;
    let _one = lab.session("a", "lb_agent").await;
    let mut two = lab.session("a", "lb_agent").await;
    let _other = lab.session("a", "lb_agent_plain").await;
    assert_eq!(two.role().await.unwrap().agents, 2);
    lab.shutdown().await;
}

#[tokio::test]
async fn a_user_whose_name_differs_in_case_is_another_user() {
    let lab = Lab::start(0).await;
    if lab.is_mariadb().await {
        lab.sql("CREATE USER LB_AGENT IDENTIFIED VIA pam USING 'rds_iam' REQUIRE SSL").await;
    } else {
        lab.sql("CREATE USER LB_AGENT IDENTIFIED WITH AWSAuthenticationPlugin AS 'RDS' REQUIRE SSL").await;
    }
    let _other = lab.session("a", "LB_AGENT").await;
    let facts = lab.session("a", "lb_agent").await.role().await.unwrap();
    assert_eq!(facts.agents, 1);
    lab.shutdown().await;
}
