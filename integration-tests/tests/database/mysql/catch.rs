//! The fresh catch: what a moment too late must not do.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use agent_database::{
    Method, RetireOutcome, RetireTarget, Session as _,
    mysql::{self, OpenTransactions},
};
use integration_tests::standin::Options;

use super::{
    clients::{eventually, row, row_that},
    retirement::{ALL, Retirement, lives},
};
use crate::lab::{caught, insert_until_closed};

#[tokio::test]
async fn a_session_that_never_pauses_is_caught_right_after_its_work() {
    let mut retirement = Retirement::start().await;
    for method in ALL {
        if method == Method::Platform {
            continue;
        }
        let mut client = retirement.lab.client("app").await;
        client.query("DELETE FROM orders").await.unwrap();
        let target = retirement.target(&client).await;
        let id = client.id();
        let work = tokio::spawn(insert_until_closed(async move |sql| client.query(sql).await.is_ok()));
        let outcome = caught(retirement.agent(method), &target, method).await;
        assert_eq!(outcome, RetireOutcome::Closed);
        let (acknowledged, broken) = work.await.unwrap();
        // Caught between two transactions: nothing acknowledged is missing, nothing else is there.
        let stored = retirement.lab.standin.value("a", "SELECT COUNT(*) FROM orders").await.unwrap();
        assert_eq!(stored, acknowledged.to_string(), "broken {broken}");
        retirement.gone(id).await;
        assert!(row(&mut retirement.signal, id).await.is_none());
    }
    retirement.lab.shutdown().await;
}

#[tokio::test]
async fn a_catch_checks_what_a_close_checks_and_has_a_time_limit() {
    let mut retirement = Retirement::start().await;
    let mut client = retirement.lab.client("app").await;
    let target = retirement.target(&client).await;
    for method in [Method::Signal, Method::Function] {
        // Idle for long is not fresh: waited for, not closed.
        row_that(&mut retirement.signal, client.id(), |row| row.age.at_least() > Duration::from_millis(10))
            .await;
        let started = Instant::now();
        assert_eq!(retirement.agent(method).catch(&target, method).await, RetireOutcome::NeverIdle);
        assert!(started.elapsed() >= Duration::from_millis(150), "{:?}", started.elapsed());
        client.query("BEGIN").await.unwrap();
        assert_eq!(retirement.agent(method).catch(&target, method).await, RetireOutcome::NeverIdle);
        client.query("ROLLBACK").await.unwrap();
        let port = target.client.port() ^ 1;
        let other = RetireTarget { client: SocketAddr::new(target.client.ip(), port), ..target.clone() };
        assert_eq!(retirement.agent(method).catch(&other, method).await, RetireOutcome::Changed);
    }
    assert!(lives(&mut client).await);
    retirement.lab.shutdown().await;
}

/// The locks are counted before the process list is read, whose pause has to be older, and once more right
/// before the last look. A lock that is taken after the first count is noticed, in whatever step of
/// the guard: the shipped procedure stops there until the client has it.
#[tokio::test]
async fn a_lock_taken_during_the_guard_is_noticed() {
    const COUNTS: &str = "  SELECT COUNT(*)\n    INTO @lb_locks";
    const STOP: &str = "  DO GET_LOCK('stop', 60);\n  DO RELEASE_LOCK('stop');\n";
    let mut retirement = Retirement::start().await;
    let mut gate = retirement.lab.client("app2").await;
    // Before the process list is read, and before the locks are counted once more.
    let before = |at: usize| format!("{}{STOP}{}", &mysql::RETIRE_SQL[..at], &mysql::RETIRE_SQL[at..]);
    let process_list = mysql::RETIRE_SQL.find("  SELECT COUNT(*)\n    INTO @lb_socket").unwrap();
    let second_count = mysql::RETIRE_SQL.rfind(COUNTS).unwrap();
    assert!(mysql::RETIRE_SQL.find(COUNTS).unwrap() < process_list && process_list < second_count);
    for (step, script) in [("process list", before(process_list)), ("second count", before(second_count))] {
        retirement.lab.script(&script).await;
        // Fresh however slow the machine is.
        retirement.lab.script(&mysql::CATCH_SQL.replace("@lb_most = 5000", "@lb_most = NULL")).await;
        retirement.lab.sql("GRANT EXECUTE ON PROCEDURE rds_lb_agent.catch TO lb_agent_plain").await;
        for takes_a_lock in [true, false] {
            let mut client = retirement.lab.client("app").await;
            // Its events begin with a first transaction.
            retirement.run(&mut client, "SELECT * FROM stock LIMIT 1").await;
            let target = retirement.target(&client).await;
            gate.query("DO GET_LOCK('stop', 60)").await.unwrap();
            let in_the_stop = async {
                let waiting = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE STATE = 'User lock'";
                eventually("the guard to stop", || async {
                    match retirement.lab.standin.value("a", waiting).await.unwrap() {
                        one if one == "1" => Ok(()),
                        other => Err(other),
                    }
                })
                .await;
                if takes_a_lock {
                    client.query("DO GET_LOCK('last', 1)").await.unwrap();
                }
                gate.query("DO RELEASE_LOCK('stop')").await.unwrap();
            };
            let catch = retirement.function.catch(&target, Method::Function);
            let (outcome, ()) = tokio::join!(catch, in_the_stop);
            if takes_a_lock {
                // Noticed by the pause that is too young, or by the second count; a further attempt
                // sees the lock itself.
                let noticed = matches!(outcome, RetireOutcome::NeverIdle | RetireOutcome::AdvisoryLock);
                assert!(noticed && lives(&mut client).await, "{step}: {outcome:?}");
            } else {
                assert_eq!(outcome, RetireOutcome::Closed, "{step}: the stop itself keeps nothing open");
            }
        }
    }
    retirement.lab.shutdown().await;
}

/// What proves a pause is how the clock goes on from one statement to the next.
#[tokio::test]
async fn a_clock_that_stands_still_within_a_statement_is_enough() {
    let settings = vec![("sysdate_is_now".to_owned(), "ON".to_owned())];
    let options = Options { replicas: 0, settings, ..Options::default() };
    let mut retirement = Retirement::start_with(options, OpenTransactions::default()).await;
    let still = retirement.lab.standin.value("a", "SELECT NOW(6) = SYSDATE(6) + INTERVAL SLEEP(0.01) SECOND");
    assert_eq!(still.await.unwrap(), "1", "it stands still");
    let goes_on = "\
        CREATE PROCEDURE orders.clock() BEGIN SET @at = SYSDATE(6); DO SLEEP(0.01); \
        SELECT TIMESTAMPDIFF(MICROSECOND, @at, SYSDATE(6)) >= 10000; END; CALL orders.clock()";
    assert_eq!(retirement.lab.standin.value("a", goes_on).await.unwrap(), "1", "and goes on");
    for method in ALL {
        let client = retirement.lab.client("app").await;
        let target = retirement.target(&client).await;
        assert_eq!(retirement.retire_when_quiet(method, &target).await, RetireOutcome::Closed, "{method:?}");
    }
    retirement.lab.shutdown().await;
}
