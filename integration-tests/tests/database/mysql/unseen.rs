//! What cannot be seen: without `performance_schema`, or without its parts.

use std::time::{Duration, Instant};

use agent_database::{Method, RetireOutcome, Session as _, mysql::OpenTransactions};
use integration_tests::standin::Options;

use super::{
    clients::row_that,
    retirement::{ALL, QUIET, Retirement, lives},
};

#[tokio::test]
async fn without_performance_schema_nothing_is_closed_unless_configured() {
    let options = || Options { replicas: 0, performance_schema: false, ..Options::default() };
    for mode in [OpenTransactions::PerformanceSchema, OpenTransactions::Strict] {
        let mut retirement = Retirement::start_with(options(), mode).await;
        let mut client = retirement.lab.client("app").await;
        let target = retirement.target(&client).await;
        retirement.held_by_all(&target, "not visible").await;
        assert!(lives(&mut client).await);
        retirement.lab.shutdown().await;
    }
    let mut retirement = Retirement::start_with(options(), OpenTransactions::InnodbTrx).await;
    let mut open = retirement.lab.client("app").await;
    let mut states =
        vec!["START TRANSACTION; SELECT * FROM stock LIMIT 1", "START TRANSACTION WITH CONSISTENT SNAPSHOT"];
    // In MySQL a prepared one is not its session's any more.
    if retirement.lab.is_mariadb().await {
        states.push("XA START 'x'; SELECT * FROM stock LIMIT 1; XA END 'x'; XA PREPARE 'x'");
    }
    for begin in states {
        let mut client = retirement.lab.client("app").await;
        client.query(begin).await.unwrap();
        let target = retirement.target(&client).await;
        row_that(&mut retirement.signal, client.id(), |row| row.age.at_least() > Duration::from_secs(1))
            .await;
        retirement.held_by_all(&target, begin).await;
    }
    for method in ALL {
        let client = retirement.lab.client("app").await;
        let target = retirement.target(&client).await;
        let began = Instant::now();
        // A second of quiet, whatever was asked for; and nothing to catch freshly.
        assert_eq!(retirement.agent(method).catch(&target, method).await, RetireOutcome::NeverIdle);
        assert_eq!(retirement.retire_when_quiet(method, &target).await, RetireOutcome::Closed, "{method:?}");
        assert!(began.elapsed() > Duration::from_millis(900), "{:?}", began.elapsed());
    }
    assert!(lives(&mut open).await);
    retirement.lab.shutdown().await;
}

/// The cache behind `innodb_trx` is not refilled while it is read all the time: then
/// it proves nothing, however empty it looks.
#[tokio::test]
async fn a_witness_that_is_out_of_date_closes_nothing() {
    let options = Options { replicas: 0, performance_schema: false, ..Options::default() };
    let mut retirement = Retirement::start_with(options, OpenTransactions::InnodbTrx).await;
    let mut client = retirement.lab.client("app").await;
    let mut reader = retirement.lab.client("lb_agent_plain").await;
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let starving = tokio::spawn(async move {
        while matches!(stopped.try_recv(), Err(tokio::sync::oneshot::error::TryRecvError::Empty)) {
            reader.query("SELECT COUNT(*) FROM information_schema.INNODB_TRX; DO SLEEP(0.01)").await.unwrap();
        }
    });
    // It begins while the cache cannot be filled: it never shows.
    client.query("START TRANSACTION; SELECT * FROM stock LIMIT 1").await.unwrap();
    let target = retirement.target(&client).await;
    row_that(&mut retirement.signal, client.id(), |row| row.age.at_least() > Duration::from_millis(1_500))
        .await;
    for _ in 0..5 {
        let outcome = retirement.signal.retire(&target, Method::Signal, QUIET).await;
        assert_eq!(outcome, RetireOutcome::NotIdle);
    }
    client.query("COMMIT").await.unwrap();
    stop.send(()).unwrap();
    starving.await.unwrap();
    retirement.lab.shutdown().await;
}

/// The table of `deploy/mysql/README.md`, row by row.
#[tokio::test]
async fn reasons_to_hold_and_their_visibility_are_as_the_readme_states() {
    const ENGINES: &str = "CREATE TABLE orders.notes (note INT) ENGINE = MyISAM";
    const ALWAYS_SEEN: [&str; 4] = [
        "START TRANSACTION WITH CONSISTENT SNAPSHOT",
        "START TRANSACTION; SELECT * FROM stock LIMIT 1",
        "XA START 'touching'; SELECT * FROM stock LIMIT 1; XA END 'touching'",
        "SET autocommit = 0; SELECT * FROM stock LIMIT 1",
    ];
    const BY_EVENTS: [&str; 3] =
        ["START TRANSACTION", "START TRANSACTION; INSERT INTO notes VALUES (1)", "XA START 'alone'"];
    const LOCKS: [&str; 2] = ["LOCK TABLES stock READ", "DO GET_LOCK('mine', 1)"];
    const NEVER_SEEN: [&str; 1] = ["CREATE TEMPORARY TABLE mine (mine INT)"];
    let seen = |states: &[&'static str]| states.iter().map(|state| (*state, true)).collect::<Vec<_>>();
    let unseen = |states: &[&'static str]| states.iter().map(|state| (*state, false)).collect::<Vec<_>>();

    // Without the instrument of locks.
    let mut retirement = Retirement::start().await;
    retirement.lab.sql(ENGINES).await;
    retirement
        .lab
        .sql("UPDATE performance_schema.setup_instruments SET ENABLED = 'NO' WHERE NAME LIKE '%/sql/mdl'")
        .await;
    let states = [seen(&ALWAYS_SEEN), seen(&BY_EVENTS), unseen(&LOCKS), unseen(&NEVER_SEEN)].concat();
    holds_what_is_seen(&mut retirement, states).await;
    retirement.lab.shutdown().await;

    let options = Options { replicas: 0, performance_schema: false, ..Options::default() };
    let mut retirement = Retirement::start_with(options, OpenTransactions::InnodbTrx).await;
    retirement.lab.sql(ENGINES).await;
    let states = [seen(&ALWAYS_SEEN), unseen(&BY_EVENTS), unseen(&LOCKS), unseen(&NEVER_SEEN)].concat();
    holds_what_is_seen(&mut retirement, states).await;
    retirement.lab.shutdown().await;
}

/// A session in each state at once: those that are seen are held, all others closed.
async fn holds_what_is_seen(retirement: &mut Retirement, states: Vec<(&'static str, bool)>) {
    let mut sessions = Vec::new();
    for (state, seen) in states {
        let mut client = retirement.lab.client("app").await;
        client.query(state).await.unwrap();
        sessions.push((retirement.target(&client).await, client, state, seen));
    }
    for (target, client, state, seen) in &mut sessions {
        row_that(&mut retirement.signal, client.id(), |row| {
            row.age.at_least() > Duration::from_millis(1_200)
        })
        .await;
        if *seen {
            let outcome = retirement.signal.retire(target, Method::Signal, QUIET).await;
            assert_eq!(outcome, RetireOutcome::NotIdle, "{state}");
            assert!(lives(client).await, "{state}");
        } else {
            let outcome = retirement.retire_when_quiet(Method::Signal, target).await;
            assert_eq!(outcome, RetireOutcome::Closed, "{state}");
        }
    }
}
