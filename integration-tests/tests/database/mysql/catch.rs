//! The fresh catch: what a moment too late must not do.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use agent_database::{Method, RetireOutcome, RetireTarget, Session as _, mysql::OpenTransactions};
use integration_tests::standin::Options;

use super::{
    clients::{row, row_that},
    lab::PATIENCE,
    retirement::{ALL, Retirement, lives},
};

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
        let work = tokio::spawn(async move {
            let mut acknowledged = 0_u32;
            loop {
                let insert = format!("INSERT INTO orders (client, number) VALUES (1, {acknowledged})");
                if client.query("BEGIN").await.is_err() {
                    return (acknowledged, "at BEGIN");
                }
                if client.query(&insert).await.is_err() {
                    return (acknowledged, "inside");
                }
                if client.query("COMMIT").await.is_err() {
                    return (acknowledged, "at COMMIT");
                }
                acknowledged += 1;
                tokio::time::sleep(Duration::from_millis(u64::from(3 + acknowledged % 20))).await;
            }
        });
        let deadline = Instant::now() + PATIENCE;
        let outcome = loop {
            match retirement.agent(method).catch(&target, method).await {
                RetireOutcome::NeverIdle => assert!(Instant::now() < deadline, "it was never caught"),
                outcome => break outcome,
            }
        };
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
async fn a_catch_has_the_guards_of_a_close_and_an_end() {
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

/// The locks are counted before the process list is read, whose pause has to be older, and once
/// more right before the last look. Two in thirty may be lost to the microseconds that are left,
/// when the machine is busy; without that care it is several.
#[tokio::test]
async fn a_lock_taken_at_the_last_moment_is_noticed() {
    let mut retirement = Retirement::start().await;
    // Only the procedure of a MySQL says nothing to the agent between look and `KILL`.
    let by_signal = if retirement.lab.is_mariadb().await { Method::Signal } else { Method::Function };
    let methods = [by_signal, Method::Function];
    let mut with_a_lock = 0;
    for round in 0..30 {
        let method = methods[round % 2];
        let mut client = retirement.lab.client("app").await;
        // Its events begin with a first transaction.
        client.query("SELECT * FROM stock LIMIT 1").await.unwrap();
        let target = retirement.target(&client).await;
        let work = tokio::spawn(async move {
            loop {
                if client.query("DO GET_LOCK('last', 1)").await.is_err() {
                    return "without";
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
                if client.query("DO RELEASE_LOCK('last')").await.is_err() {
                    return "with";
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let deadline = Instant::now() + PATIENCE;
        loop {
            match retirement.agent(method).catch(&target, method).await {
                RetireOutcome::Closed => break,
                RetireOutcome::NeverIdle | RetireOutcome::AdvisoryLock => {
                    assert!(Instant::now() < deadline, "never caught");
                }
                other => panic!("{other:?}"),
            }
        }
        with_a_lock += usize::from(work.await.unwrap() == "with");
    }
    assert!(with_a_lock <= 2, "{with_a_lock} of 30 were closed with a lock");
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
