//! The guarded close: it closes what it should, and every guard is seen to refuse.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use agent_core::{
    FaultKind,
    session::{Activity, BackendKey},
};
use agent_database::{
    Method, RetireOutcome, RetireTarget, Session as _,
    mysql::{self, MySqlSession, OpenTransactions},
};
use integration_tests::{mysql::Session, standin::Options};

use super::{
    clients::{eventually, row, row_that, target_of},
    lab::{Lab, PATIENCE},
};

const QUIET: Duration = Duration::from_millis(250);
const ALL: [Method; 3] = [Method::Signal, Method::Function, Method::Platform];

/// A stand-in with all ways to close, and an agent for each: `lb_agent` may kill,
/// `lb_agent_plain` may execute the procedures, this agent's and the platform's.
struct Retirement {
    lab: Lab,
    signal: MySqlSession,
    function: MySqlSession,
}

impl Retirement {
    async fn start() -> Self {
        Self::start_with(Options { replicas: 0, ..Options::default() }, OpenTransactions::default()).await
    }

    async fn start_with(options: Options, mode: OpenTransactions) -> Self {
        let lab = Lab::start_with(options).await;
        lab.script(mysql::RETIRE_SQL).await;
        lab.script(mysql::CATCH_SQL).await;
        // RDS's is not to be had, but for its name.
        lab.sql(
            "CREATE DATABASE platform; \
             CREATE PROCEDURE mysql.rds_kill(IN thread BIGINT) KILL CONNECTION thread; \
             GRANT EXECUTE ON PROCEDURE rds_lb_agent.retire TO lb_agent_plain; \
             GRANT EXECUTE ON PROCEDURE rds_lb_agent.catch TO lb_agent_plain; \
             GRANT EXECUTE ON PROCEDURE mysql.rds_kill TO lb_agent_plain",
        )
        .await;
        let signal = lab.session("a", "lb_agent").await.relying_on(mode);
        let function = lab.session("a", "lb_agent_plain").await.relying_on(mode);
        Self { lab, signal, function }
    }

    fn agent(&mut self, method: Method) -> &mut MySqlSession {
        match method {
            Method::Signal => &mut self.signal,
            Method::Function | Method::Platform => &mut self.function,
        }
    }

    async fn target(&mut self, client: &Session) -> RetireTarget {
        target_of(&row_that(&mut self.signal, client.id(), |row| row.client.is_some()).await)
    }

    /// Runs a statement, and waits until the server has the session asleep again: its answer is
    /// out a moment before.
    async fn run(&mut self, client: &mut Session, sql: &str) {
        client.query(sql).await.unwrap();
        row_that(&mut self.signal, client.id(), |row| row.activity != Activity::Running).await;
    }

    /// Tries until the last statement is over and the pause is long enough; any other refusal is
    /// the outcome.
    async fn retire_when_quiet(&mut self, method: Method, target: &RetireTarget) -> RetireOutcome {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.agent(method).retire(target, method, QUIET).await {
                RetireOutcome::NotQuiet(_) | RetireOutcome::NotIdle if Instant::now() < deadline => {}
                outcome => return outcome,
            }
        }
    }

    /// All refuse it in the end for this reason.
    async fn refused_by_all(&mut self, target: &RetireTarget, expected: &RetireOutcome, why: &str) {
        for method in ALL {
            assert_eq!(&self.retire_when_quiet(method, target).await, expected, "{why}, by {method:?}");
        }
    }

    /// All take it to be at work, however long it has been quiet.
    async fn held_by_all(&mut self, target: &RetireTarget, why: &str) {
        for method in ALL {
            let outcome = self.agent(method).retire(target, method, QUIET).await;
            assert_eq!(outcome, RetireOutcome::NotIdle, "{why}, by {method:?}");
        }
    }

    async fn gone(&self, client: u32) {
        let count = format!("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = {client}");
        eventually("the session to be gone", || async {
            let count = self.lab.standin.value("a", &count).await.unwrap();
            if count == "0" { Ok(()) } else { Err(count) }
        })
        .await;
    }
}

/// Whether the session is still there and works.
async fn lives(client: &mut Session) -> bool {
    client.query("DO 1").await.is_ok()
}

#[tokio::test]
async fn a_quiet_session_is_closed() {
    let mut retirement = Retirement::start().await;
    for method in ALL {
        let mut client = retirement.lab.client("app").await;
        let target = retirement.target(&client).await;
        let refused = retirement.agent(method).retire(&target, method, Duration::from_hours(1)).await;
        assert!(matches!(refused, RetireOutcome::NotQuiet(_)), "{refused:?}");
        assert_eq!(retirement.retire_when_quiet(method, &target).await, RetireOutcome::Closed, "{method:?}");
        assert!(client.unasked().await.is_closed());
        retirement.gone(client.id()).await;
        assert_eq!(retirement.retire_when_quiet(method, &target).await, RetireOutcome::Gone);
        assert_eq!(retirement.agent(method).fault(), None);
    }
    retirement.lab.shutdown().await;
}

#[tokio::test]
async fn work_is_never_cut() {
    let mut retirement = Retirement::start().await;
    let mut client = retirement.lab.client("app").await;
    let target = retirement.target(&client).await;
    for (begin, end) in [
        ("START TRANSACTION", "COMMIT"),
        ("START TRANSACTION WITH CONSISTENT SNAPSHOT", "COMMIT"),
        ("START TRANSACTION READ ONLY", "ROLLBACK"),
        ("BEGIN; UPDATE stock SET amount = amount WHERE item = 1", "ROLLBACK"),
        ("SET autocommit = 0; SELECT * FROM stock LIMIT 1", "COMMIT; SET autocommit = 1"),
        ("XA START 'x'", "XA END 'x'; XA ROLLBACK 'x'"),
        ("XA START 'x'; XA END 'x'", "XA ROLLBACK 'x'"),
        ("XA START 'x'; XA END 'x'; XA PREPARE 'x'", "XA ROLLBACK 'x'"),
    ] {
        retirement.run(&mut client, begin).await;
        tokio::time::sleep(QUIET).await;
        retirement.held_by_all(&target, begin).await;
        retirement.run(&mut client, end).await;
    }
    for (lock, unlock) in [
        ("LOCK TABLES stock READ", "UNLOCK TABLES"),
        ("LOCK TABLES stock WRITE", "UNLOCK TABLES"),
        ("DO GET_LOCK('mine', 1)", "DO RELEASE_LOCK('mine')"),
    ] {
        retirement.run(&mut client, lock).await;
        retirement.refused_by_all(&target, &RetireOutcome::AdvisoryLock, lock).await;
        retirement.run(&mut client, unlock).await;
    }
    let mut busy = retirement.lab.client("app").await;
    let busy_target = retirement.target(&busy).await;
    let running = tokio::spawn(async move { busy.query("DO SLEEP(60)").await });
    let id = u32::try_from(busy_target.key.pid).unwrap();
    row_that(&mut retirement.signal, id, |row| row.activity == Activity::Running).await;
    retirement.held_by_all(&busy_target, "running").await;
    running.abort();

    assert!(lives(&mut client).await);
    assert_eq!(retirement.retire_when_quiet(Method::Signal, &target).await, RetireOutcome::Closed);
    retirement.lab.shutdown().await;
}

#[tokio::test]
async fn only_the_session_that_was_meant_is_closed() {
    let mut retirement = Retirement::start().await;
    let mut client = retirement.lab.client("app").await;
    let other = retirement.lab.client_from([127, 0, 0, 9], "app").await;
    let target = retirement.target(&client).await;
    let port = target.client.port();
    for (wrong, why) in [
        (SocketAddr::new(target.client.ip(), port ^ 1), "another port"),
        (SocketAddr::new("127.0.0.9".parse().unwrap(), port), "another balancer with the same port"),
        (SocketAddr::new("::1".parse().unwrap(), port), "another family"),
    ] {
        let wrong = RetireTarget { client: wrong, ..target.clone() };
        retirement.refused_by_all(&wrong, &RetireOutcome::Changed, why).await;
    }
    for user in ["app2", "App", "app ", "", "' OR 1 OR '"] {
        let wrong = RetireTarget { user: user.into(), ..target.clone() };
        retirement.refused_by_all(&wrong, &RetireOutcome::Changed, user).await;
    }
    let reused = BackendKey { pid: other.id().into(), started_us: 0 };
    let wrong = RetireTarget { key: reused, ..target.clone() };
    retirement.refused_by_all(&wrong, &RetireOutcome::Changed, "another id").await;
    let wrong = RetireTarget { key: BackendKey { pid: u64::MAX, started_us: 0 }, ..target.clone() };
    retirement.refused_by_all(&wrong, &RetireOutcome::Gone, "no such id").await;
    assert!(lives(&mut client).await);
    retirement.lab.shutdown().await;
}

#[tokio::test]
async fn users_without_iam_are_left_alone_unless_the_operator_names_them() {
    let mut retirement = Retirement::start().await;
    let mut client = retirement.lab.password_client().await;
    let target = retirement.target(&client).await;
    retirement.refused_by_all(&target, &RetireOutcome::NotAllowed, "a password").await;
    let any = RetireTarget { any_user: true, ..target.clone() };
    // The procedure never.
    let refused = retirement.retire_when_quiet(Method::Function, &any).await;
    assert_eq!(refused, RetireOutcome::NotAllowed);
    // A superuser never either.
    retirement.lab.sql("GRANT SUPER ON *.* TO legacy").await;
    retirement.refused_by_all(&any, &RetireOutcome::NotAllowed, "a superuser").await;
    retirement.lab.sql("REVOKE SUPER ON *.* FROM legacy").await;
    assert!(lives(&mut client).await);
    assert_eq!(retirement.retire_when_quiet(Method::Signal, &any).await, RetireOutcome::Closed);

    // An IAM user who has a second account with a password.
    let mut client = retirement.lab.client("app").await;
    let target = retirement.target(&client).await;
    retirement.lab.sql("CREATE USER app@'10.%' IDENTIFIED BY 'something'").await;
    retirement.refused_by_all(&target, &RetireOutcome::NotAllowed, "an account with a password").await;
    assert!(lives(&mut client).await);
    retirement.lab.shutdown().await;
}

#[tokio::test]
async fn an_agent_without_the_right_is_told_so_and_goes_on() {
    let mut retirement = Retirement::start().await;
    let mut client = retirement.lab.client("app2").await;
    let target = retirement.target(&client).await;
    let denied = |outcome: RetireOutcome| match outcome {
        RetireOutcome::Failed(fault) => fault.kind == FaultKind::PermissionDenied,
        other => panic!("{other:?}"),
    };
    row_that(&mut retirement.signal, client.id(), |row| row.age.at_least() > QUIET).await;
    assert!(denied(retirement.function.retire(&target, Method::Signal, QUIET).await));
    for method in [Method::Function, Method::Platform] {
        assert!(denied(retirement.signal.retire(&target, method, QUIET).await), "{method:?}");
    }
    assert!(denied(retirement.signal.catch(&target, Method::Function).await));
    // Blind: it may not even see what there is.
    let mut onlooker = retirement.lab.session("a", "app").await;
    assert!(denied(onlooker.retire(&target, Method::Signal, QUIET).await));
    retirement.lab.sql("REVOKE PROCESS ON *.* FROM lb_agent").await;
    let mut unseeing = retirement.lab.session("a", "lb_agent").await;
    assert!(denied(unseeing.retire(&target, Method::Signal, QUIET).await));

    for agent in [&mut retirement.function, &mut retirement.signal, &mut onlooker, &mut unseeing] {
        assert_eq!(agent.fault(), None);
        agent.role().await.unwrap();
    }
    assert!(lives(&mut client).await);

    // One word stops the agents, one gives the right back, under open sessions.
    retirement.lab.sql("REVOKE EXECUTE ON PROCEDURE rds_lb_agent.retire FROM lb_agent_plain").await;
    assert!(denied(retirement.retire_when_quiet(Method::Function, &target).await));
    retirement.lab.sql("GRANT EXECUTE ON PROCEDURE rds_lb_agent.retire TO lb_agent_plain").await;
    assert_eq!(retirement.retire_when_quiet(Method::Function, &target).await, RetireOutcome::Closed);
    retirement.lab.shutdown().await;
}

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
    // And the guard itself is nobody's to execute.
    assert!(caller.query("CALL rds_lb_agent.guarded_close()").await.is_err());
    assert!(lives(&mut client).await);
    retirement.lab.shutdown().await;
}

#[tokio::test]
async fn without_performance_schema_nothing_is_closed_unless_the_operator_chose_so() {
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
    for begin in [
        "START TRANSACTION; SELECT * FROM stock LIMIT 1",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT",
        "XA START 'x'; SELECT * FROM stock LIMIT 1; XA END 'x'; XA PREPARE 'x'",
    ] {
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

/// The cache behind `innodb_trx` is not filled anew while somebody reads it all the time: then
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
