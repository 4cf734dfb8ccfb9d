//! The closing procedure: what its caller cannot get it to do, and what its definer needs.

use std::time::Duration;

use agent_core::FaultKind;
use agent_database::{Method, RetireOutcome, RetireTarget, Session as _, mysql};

use super::{
    clients::{row, row_that, target_of},
    retirement::{QUIET, Retirement, lives},
};

#[tokio::test]
async fn the_procedure_has_floors_that_its_caller_cannot_lower() {
    let mut retirement = Retirement::start().await;
    let mut client = retirement.lab.client("app").await;
    let target = retirement.target(&client).await;
    let call = |quiet_us: i64, by_events: bool, by_trx: bool| {
        let (id, ip, port) = (target.key.pid, target.client.ip(), target.client.port());
        format!("CALL rds_lb_agent.retire({id}, '{ip}', {port}, 'app', {quiet_us}, {by_events}, {by_trx})")
    };
    let mut caller = retirement.lab.client("lb_agent_plain").await;
    for (call, why) in [(call(0, true, false), "200 ms"), (call(0, false, true), "one second")] {
        retirement.run(&mut client, "DO 1").await;
        let rows = caller.query(&call).await.unwrap();
        assert_eq!(rows.last().and_then(|row| row[0].clone()).as_deref(), Some("not_quiet"), "{why}");
    }
    // Nothing to rely on is not to be had.
    retirement
        .lab
        .sql("UPDATE performance_schema.setup_instruments SET ENABLED = 'NO' WHERE NAME = 'transaction'")
        .await;
    let rows = caller.query(&call(0, false, false)).await.unwrap();
    assert_eq!(rows.last().and_then(|row| row[0].clone()).as_deref(), Some("not_shown"));
    // No user may execute the guard itself.
    assert!(caller.query("CALL rds_lb_agent.guarded_close()").await.is_err());
    assert!(lives(&mut client).await);
    retirement.lab.shutdown().await;
}

/// What is not said is not the same as anything.
#[tokio::test]
async fn incomplete_parameters_close_no_session() {
    let mut retirement = Retirement::start().await;
    let mut client = retirement.lab.client("app").await;
    let target = retirement.target(&client).await;
    let (id, ip, port) = (target.key.pid, target.client.ip(), target.client.port());
    let mut caller = retirement.lab.client("lb_agent_plain").await;
    // The fields beside them have every value on the way.
    let long = Duration::from_millis(3_200);
    loop {
        let seen = row(&mut retirement.signal, client.id()).await.unwrap();
        for who in [
            format!("{id}, NULL, {port}, 'app'"),
            format!("{id}, '{ip}', NULL, 'app'"),
            format!("{id}, '{ip}', {port}, NULL"),
            format!("{id}, NULL, NULL, NULL"),
        ] {
            let rows =
                caller.query(&format!("CALL rds_lb_agent.retire({who}, 0, TRUE, FALSE)")).await.unwrap();
            let said = rows.last().and_then(|row| row[0].clone());
            assert_eq!(said.as_deref(), Some("changed"), "{who}");
        }
        if seen.age.at_least() > long {
            break;
        }
    }
    assert!(lives(&mut client).await);
    retirement.lab.shutdown().await;
}

const BROKEN_RDS_KILL: &str = "\
    DROP PROCEDURE mysql.rds_kill; \
    CREATE PROCEDURE mysql.rds_kill(IN thread BIGINT) SIGNAL SQLSTATE '45000'; \
    GRANT EXECUTE ON PROCEDURE mysql.rds_kill TO master";

/// Who installs it may have no more than `deploy/mysql/retire.sql` asks for, and who calls it
/// nothing but the right to.
#[tokio::test]
async fn the_procedure_is_installed_without_a_superuser() {
    let retirement = Retirement::start().await;
    let lab = &retirement.lab;
    let kill = lab.right_to_kill().await;
    lab.sql(
        "CREATE USER master IDENTIFIED BY 'of RDS'; GRANT PROCESS ON *.* TO master; \
         GRANT SELECT ON performance_schema.* TO master; GRANT SELECT ON mysql.user TO master; \
         GRANT EXECUTE ON rds_lb_agent.* TO master",
    )
    .await;
    for script in [mysql::RETIRE_SQL, mysql::CATCH_SQL] {
        lab.script(&script.replace("CREATE PROCEDURE", "CREATE DEFINER = master PROCEDURE")).await;
    }
    lab.sql("GRANT EXECUTE ON PROCEDURE rds_lb_agent.retire TO app2").await;
    let mut caller = lab.session("a", "app2").await;
    let mut eyes = lab.session("a", "lb_agent").await;
    for (grant, revoke, may) in [
        (String::new(), String::new(), false),
        (format!("GRANT {kill} ON *.* TO master"), format!("REVOKE {kill} ON *.* FROM master"), true),
        // RDS's own way, where it is the only one.
        ("GRANT EXECUTE ON PROCEDURE mysql.rds_kill TO master".to_owned(), String::new(), true),
        // And not where `KILL` is another: one that is broken does not matter then.
        (format!("{BROKEN_RDS_KILL}; GRANT {kill} ON *.* TO master"), String::new(), true),
    ] {
        if !grant.is_empty() {
            lab.sql(&grant).await;
        }
        let client = lab.client("app").await;
        let target = target_of(&row_that(&mut eyes, client.id(), |row| row.age.at_least() > QUIET).await);
        let outcome = caller.retire(&target, Method::Function, QUIET).await;
        match outcome {
            RetireOutcome::Closed => assert!(may, "{grant}"),
            RetireOutcome::Failed(fault) => {
                assert!(!may && fault.kind == FaultKind::PermissionDenied, "{grant}: {fault}");
            }
            other => panic!("{grant}: {other:?}"),
        }
        if may {
            retirement.gone(client.id()).await;
        }
        if !revoke.is_empty() {
            lab.sql(&revoke).await;
        }
    }
    retirement.lab.shutdown().await;
}

/// From MariaDB 11.5 on, a user variable takes the collation of the column it is compared with. Here
/// the variables get that collation themselves.
#[tokio::test]
async fn names_are_compared_exactly_whatever_the_collation_of_a_variable_is() {
    let mut retirement = Retirement::start().await;
    let weak = |name: &str| format!("CONVERT({name} USING utf8mb3) COLLATE utf8mb3_general_ci");
    let script = mysql::RETIRE_SQL
        .replace("@lb_ip = client_address", &format!("@lb_ip = {}", weak("client_address")))
        .replace("@lb_user = user_name", &format!("@lb_user = {}", weak("user_name")));
    assert_eq!(script.matches("utf8mb3_general_ci").count(), 2);
    retirement.lab.script(&script).await;
    retirement.lab.sql("GRANT EXECUTE ON PROCEDURE rds_lb_agent.retire TO lb_agent_plain").await;
    let mut client = retirement.lab.client("app").await;
    let target = retirement.target(&client).await;
    for user in ["APP", "App", "app "] {
        let wrong = RetireTarget { user: user.into(), ..target.clone() };
        let outcome = retirement.retire_when_quiet(Method::Function, &wrong).await;
        assert_eq!(outcome, RetireOutcome::Changed, "{user:?}");
    }
    assert!(lives(&mut client).await);
    assert_eq!(retirement.retire_when_quiet(Method::Function, &target).await, RetireOutcome::Closed);
    retirement.lab.shutdown().await;
}
