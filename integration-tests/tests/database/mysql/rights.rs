//! What an agent's user may do, as the server tells it.

use agent_database::{
    FunctionState, Lacks, Method, Rights, Session as _, TransactionSight,
    mysql::{self, OpenTransactions},
};
use integration_tests::standin::Options;

use super::lab::Lab;

fn lacks(rights: &Rights) -> Vec<Lacks> {
    rights.missing.iter().map(|missing| missing.lacks).collect()
}

#[tokio::test]
async fn rights_are_what_was_granted() {
    let lab = Lab::start(0).await;
    lab.script(mysql::UNINSTALL_SQL).await;
    let mut agent = lab.session("a", "lb_agent").await;
    let rights = agent.rights().await.unwrap();
    assert!(rights.sees_all_activity && rights.may_signal && rights.iam_known && rights.iam_user);
    assert!(!rights.superuser && !rights.platform);
    let (known, versions) =
        if lab.is_mariadb().await { ("MariaDB", 100_500..130_000) } else { ("9.", 80_000..100_000) };
    assert!(versions.contains(&rights.version_number), "{rights:?}");
    assert!(rights.version.contains(known), "{rights:?}");
    assert_eq!(rights.sight.open_transactions, TransactionSight::All);
    assert!(rights.sight.table_locks && rights.sight.user_locks);
    assert_eq!((rights.method(), lacks(&rights)), (Some(Method::Signal), vec![]));

    let mut app = lab.session("a", "app").await;
    let rights = app.rights().await.unwrap();
    assert!(!rights.sees_all_activity && !rights.may_signal && !rights.iam_user, "{rights:?}");
    assert_eq!(rights.sight.open_transactions, TransactionSight::Nothing);
    assert_eq!(
        lacks(&rights),
        [
            Lacks::Activity,
            Lacks::Transactions,
            Lacks::Users,
            Lacks::Replication,
            Lacks::Addresses,
            Lacks::Closing
        ]
    );
    assert!(rights.advice(true).any(|advice| advice.contains("GRANT PROCESS")));
    assert_eq!(rights.advice(true).count(), rights.advice(false).count() + 1);

    let mut plain = lab.session("a", "lb_agent_plain").await;
    assert_eq!(plain.rights().await.unwrap().method(), None);
    lab.script(mysql::RETIRE_SQL).await;
    assert_eq!(plain.rights().await.unwrap().function, FunctionState::Missing);
    lab.sql("GRANT EXECUTE ON PROCEDURE rds_lb_agent.retire TO lb_agent_plain").await;
    let rights = plain.rights().await.unwrap();
    assert_eq!((rights.function, rights.catch_function), (FunctionState::Ready, FunctionState::Missing));
    assert_eq!(rights.method(), Some(Method::Function));
    lab.script(mysql::CATCH_SQL).await;
    lab.sql("GRANT EXECUTE ON PROCEDURE rds_lb_agent.catch TO lb_agent_plain").await;
    assert_eq!(plain.rights().await.unwrap().catch_function, FunctionState::Ready);
    lab.sql("ALTER PROCEDURE rds_lb_agent.catch COMMENT 'other'").await;
    assert_eq!(plain.rights().await.unwrap().catch_function, FunctionState::OtherVersion);

    // One word stops a fleet.
    lab.sql("REVOKE EXECUTE ON PROCEDURE rds_lb_agent.retire FROM lb_agent_plain").await;
    assert_eq!(plain.rights().await.unwrap().function, FunctionState::Missing);
    for _ in 0..2 {
        lab.script(mysql::UNINSTALL_SQL).await;
    }
    assert_eq!(plain.rights().await.unwrap().catch_function, FunctionState::Missing);

    // RDS has a procedure of its own.
    lab.sql("CREATE PROCEDURE mysql.rds_kill(IN thread BIGINT) KILL CONNECTION thread").await;
    assert!(!plain.rights().await.unwrap().platform);
    lab.sql("GRANT EXECUTE ON PROCEDURE mysql.rds_kill TO lb_agent_plain").await;
    assert_eq!(plain.rights().await.unwrap().method(), Some(Method::Platform));
    // Who has both kills by itself, closer to its look.
    lab.sql("GRANT EXECUTE ON PROCEDURE mysql.rds_kill TO lb_agent").await;
    let rights = agent.rights().await.unwrap();
    assert!(rights.platform && rights.method() == Some(Method::Signal), "{rights:?}");
    lab.shutdown().await;
}

#[tokio::test]
async fn missing_visibility_is_reported() {
    let lab = Lab::start_with(Options { replicas: 0, performance_schema: false, ..Options::default() }).await;
    for (mode, sight) in [
        (OpenTransactions::PerformanceSchema, TransactionSight::Nothing),
        (OpenTransactions::InnodbTrx, TransactionSight::Touching),
        (OpenTransactions::Strict, TransactionSight::Nothing),
    ] {
        let mut agent = lab.session("a", "lb_agent").await.relying_on(mode);
        let rights = agent.rights().await.unwrap();
        assert_eq!(rights.sight.open_transactions, sight);
        assert!(!rights.sight.table_locks && !rights.sight.user_locks);
        assert_eq!(lacks(&rights), [Lacks::Transactions, Lacks::Locks, Lacks::Addresses]);
        assert!(rights.advice(true).any(|advice| advice.contains("innodb_trx")), "{rights:?}");
    }
    lab.shutdown().await;
}
