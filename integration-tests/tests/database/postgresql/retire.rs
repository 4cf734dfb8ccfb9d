//! The guarded close: it closes what it should, and every guard is seen to refuse.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use agent_core::{FaultKind, session::BackendKey};
use agent_database::{
    Method, RetireOutcome, RetireTarget, Session as _,
    postgresql::{self, PostgresqlSession},
};
use integration_tests::process::wait_for;
use tokio_postgres::Client;

use super::lab::{Lab, PATIENCE, row, row_that, target_of};
use crate::lab::{caught, insert_until_closed};

const QUIET: Duration = Duration::from_millis(250);
const BOTH: [Method; 2] = [Method::Signal, Method::Function];

/// A stand-in with both ways to close, and an agent for each: `lb_agent` may signal,
/// `lb_agent_plain` may execute the functions.
struct Retirement {
    lab: Lab,
    signal: PostgresqlSession,
    function: PostgresqlSession,
}

impl Retirement {
    async fn start() -> Self {
        Self::with_replicas(0).await
    }

    async fn with_replicas(replicas: usize) -> Self {
        let lab = Lab::start(replicas).await;
        lab.sql(postgresql::RETIRE_SQL).await;
        lab.sql(postgresql::CATCH_SQL).await;
        lab.sql("GRANT lb_agent_retire TO lb_agent_plain").await;
        let signal = lab.session("a", "lb_agent").await;
        let function = lab.session("a", "lb_agent_plain").await;
        Self { lab, signal, function }
    }

    fn agent(&mut self, method: Method) -> &mut PostgresqlSession {
        match method {
            Method::Signal => &mut self.signal,
            Method::Function | Method::Platform => &mut self.function,
        }
    }

    /// What identifies the session of this application name now.
    async fn target(&mut self, application: &str) -> RetireTarget {
        target_of(&row_that(&mut self.signal, application, |row| row.client.is_some()).await)
    }

    async fn retire(&mut self, method: Method, target: &RetireTarget) -> RetireOutcome {
        self.agent(method).retire(target, method, QUIET).await
    }

    /// Tries until the pause is long enough; any other refusal is the outcome.
    async fn retire_when_quiet(&mut self, method: Method, target: &RetireTarget) -> RetireOutcome {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.retire(method, target).await {
                RetireOutcome::NotQuiet(_) if Instant::now() < deadline => {}
                outcome => return outcome,
            }
        }
    }

    /// By both methods, once it is quiet.
    async fn refused_by_both(&mut self, target: &RetireTarget, expected: &RetireOutcome, why: &str) {
        for method in BOTH {
            assert_eq!(&self.retire_when_quiet(method, target).await, expected, "{why}, by {method:?}");
        }
    }

    async fn gone(&mut self, application: &str) {
        let deadline = Instant::now() + PATIENCE;
        while row(&mut self.signal, application).await.is_some() {
            assert!(Instant::now() < deadline, "the session of {application} does not end");
        }
    }
}

/// Whether the session is still there and works.
async fn lives(client: &Client) -> bool {
    client.simple_query("SELECT 1").await.is_ok()
}

#[tokio::test]
async fn a_quiet_session_is_closed_and_its_client_reads_why() {
    let mut retirement = Retirement::start().await;
    for method in BOTH {
        let mut login = retirement.lab.standin.login("a", "app").unwrap();
        login.application_name("quiet");
        let (client, connection) = login.connect(retirement.lab.standin.tls().unwrap()).await.unwrap();
        let connection = tokio::spawn(connection);
        let target = retirement.target("quiet").await;
        assert_eq!(retirement.retire_when_quiet(method, &target).await, RetireOutcome::Closed);
        let end = connection.await.unwrap().unwrap_err();
        assert_eq!(end.code().map(tokio_postgres::error::SqlState::code), Some("57P01"));
        assert!(!lives(&client).await);
        retirement.gone("quiet").await;
        assert_eq!(retirement.retire(method, &target).await, RetireOutcome::Gone);
    }
    retirement.lab.shutdown().await;
}

#[tokio::test]
async fn work_is_never_cut() {
    let mut retirement = Retirement::start().await;

    let open = retirement.lab.client("app", "open").await;
    open.batch_execute("BEGIN").await.unwrap();
    let target = retirement.target("open").await;
    retirement.refused_by_both(&target, &RetireOutcome::NotIdle, "in a transaction").await;
    open.batch_execute("SELECT 1/0").await.unwrap_err();
    retirement.refused_by_both(&target, &RetireOutcome::NotIdle, "in an aborted transaction").await;
    open.batch_execute("ROLLBACK").await.unwrap();

    open.batch_execute("SELECT pg_advisory_lock(7)").await.unwrap();
    retirement.refused_by_both(&target, &RetireOutcome::AdvisoryLock, "with an advisory lock").await;
    open.batch_execute("SELECT pg_advisory_unlock(7)").await.unwrap();

    open.batch_execute("/* events */ LISTEN news").await.unwrap();
    retirement.refused_by_both(&target, &RetireOutcome::Listening, "listening").await;
    open.batch_execute("UNLISTEN *").await.unwrap();

    let busy = retirement.lab.client("app", "busy").await;
    let target = retirement.target("busy").await;
    let running = tokio::spawn(async move { busy.batch_execute("SELECT pg_sleep(60)").await });
    row_that(&mut retirement.signal, "busy", |row| row.activity == agent_core::session::Activity::Running)
        .await;
    retirement.refused_by_both(&target, &RetireOutcome::NotIdle, "running").await;
    assert!(!running.is_finished());

    let blind = retirement.lab.client("app", "blind").await;
    retirement.lab.sql("ALTER ROLE app2 SET track_activities = off").await;
    let unseen = retirement.lab.client("app2", "unseen").await;
    let target = retirement.target("unseen").await;
    retirement.refused_by_both(&target, &RetireOutcome::NotIdle, "does not show what it does").await;
    assert!(lives(&open).await && lives(&blind).await && lives(&unseen).await);
    retirement.lab.shutdown().await;
}

#[tokio::test]
async fn a_session_that_was_idle_too_briefly_is_reported_and_kept() {
    let mut retirement = Retirement::start().await;
    let client = retirement.lab.client("app", "hasty").await;
    let target = retirement.target("hasty").await;
    for method in BOTH {
        assert!(lives(&client).await);
        let hour = Duration::from_secs(3_600);
        let outcome = retirement.agent(method).retire(&target, method, hour).await;
        let RetireOutcome::NotQuiet(idle_for) = outcome else { panic!("{outcome:?}") };
        assert!(idle_for < PATIENCE, "{idle_for:?}");
    }
    // The function has a floor that its caller cannot lower.
    let started = Instant::now();
    assert!(lives(&client).await);
    let outcome = retirement.function.retire(&target, Method::Function, Duration::ZERO).await;
    let RetireOutcome::NotQuiet(idle_for) = outcome else {
        panic!("{outcome:?} {:?} after a statement", started.elapsed())
    };
    assert!(idle_for < Duration::from_millis(200), "{idle_for:?}");
    assert!(lives(&client).await);
    // The agent's own statement has none: that is for the planner to say.
    let outcome = retirement.signal.retire(&target, Method::Signal, Duration::ZERO).await;
    assert_eq!(outcome, RetireOutcome::Closed);
    retirement.lab.shutdown().await;
}

#[tokio::test]
async fn a_session_is_closed_by_its_whole_identity_or_not_at_all() {
    let mut retirement = Retirement::with_replicas(1).await;
    let client = retirement.lab.client("app", "one").await;
    let target = retirement.target("one").await;
    let BackendKey { pid, started_us } = target.key;
    let (ip, port) = (target.client.ip(), target.client.port());
    let changed = [
        RetireTarget { key: BackendKey { pid, started_us: started_us + 1 }, ..target.clone() },
        RetireTarget { key: BackendKey { pid, started_us: started_us - 1 }, ..target.clone() },
        RetireTarget { client: SocketAddr::new(ip, port ^ 1), ..target.clone() },
        RetireTarget { client: SocketAddr::new("127.0.0.2".parse().unwrap(), port), ..target.clone() },
        RetireTarget { client: SocketAddr::new("::1".parse().unwrap(), port), ..target.clone() },
        RetireTarget { user: "app2".into(), ..target.clone() },
        RetireTarget { user: "nobody".into(), ..target.clone() },
    ];
    for other in &changed {
        retirement.refused_by_both(other, &RetireOutcome::Changed, &format!("{other:?}")).await;
    }
    for pid in [u64::from(u32::MAX), 0, 1] {
        let nobody = RetireTarget { key: BackendKey { pid, started_us }, ..target.clone() };
        retirement.refused_by_both(&nobody, &RetireOutcome::Gone, &format!("process {pid}")).await;
    }
    // Replication is no client, whatever its user.
    let mut walsender = retirement.target("b").await;
    walsender.any_user = true;
    retirement.refused_by_both(&walsender, &RetireOutcome::Changed, "a walsender").await;
    // The agent does not close itself.
    let own = retirement.target_of_agent().await;
    let outcome = retirement.signal.retire(&own, Method::Signal, Duration::ZERO).await;
    assert_eq!(outcome, RetireOutcome::NotAllowed);

    assert!(lives(&client).await);
    assert_eq!(retirement.retire_when_quiet(Method::Function, &target).await, RetireOutcome::Closed);
    retirement.lab.shutdown().await;
}

impl Retirement {
    /// The session of the agent that signals, as the other agent sees it.
    async fn target_of_agent(&mut self) -> RetireTarget {
        let rows = self.function.activity(agent_database::Scope::All).await.unwrap();
        target_of(rows.iter().find(|row| &*row.user == "lb_agent").unwrap())
    }
}

#[tokio::test]
async fn users_without_iam_and_superusers_are_never_closed() {
    let mut retirement = Retirement::start().await;
    let legacy = retirement.lab.password_client("legacy").await;
    let mut target = retirement.target("legacy").await;
    retirement.refused_by_both(&target, &RetireOutcome::NotAllowed, "a password user").await;

    let superuser = retirement.lab.client("app2", "superuser").await;
    retirement.lab.sql("ALTER ROLE app2 SUPERUSER").await;
    let mut boss = retirement.target("superuser").await;
    retirement.refused_by_both(&boss, &RetireOutcome::NotAllowed, "a superuser").await;
    // Whatever the operator says.
    boss.any_user = true;
    retirement.refused_by_both(&boss, &RetireOutcome::NotAllowed, "a superuser").await;
    assert!(lives(&superuser).await);

    // Users that the operator named: by the agent's own right only.
    target.any_user = true;
    assert_eq!(retirement.retire_when_quiet(Method::Function, &target).await, RetireOutcome::NotAllowed);
    assert!(lives(&legacy).await);
    assert_eq!(retirement.retire_when_quiet(Method::Signal, &target).await, RetireOutcome::Closed);

    // Without the role, no user logs in by IAM.
    let client = retirement.lab.client("app", "one").await;
    let target = retirement.target("one").await;
    retirement.lab.sql("ALTER ROLE rds_iam RENAME TO something_else").await;
    retirement.refused_by_both(&target, &RetireOutcome::NotAllowed, "no rds_iam").await;
    assert!(lives(&client).await);
    retirement.lab.shutdown().await;
}

#[tokio::test]
async fn a_missing_privilege_is_reported_and_the_session_stays_usable() {
    let mut retirement = Retirement::start().await;
    let client = retirement.lab.client("app2", "one").await;
    let target = retirement.target("one").await;
    let denied = |outcome: RetireOutcome| match outcome {
        RetireOutcome::Failed(fault) => fault.kind == FaultKind::PermissionDenied,
        other => panic!("{other:?}"),
    };

    // No pg_signal_backend, and not a member of lb_agent_retire.
    assert!(denied(retirement.function.retire(&target, Method::Signal, Duration::ZERO).await));
    assert!(denied(retirement.signal.retire(&target, Method::Function, QUIET).await));
    assert!(denied(retirement.signal.catch(&target, Method::Function).await));
    // Blind: it may not even see what the session does.
    let mut onlooker = retirement.lab.session("a", "app").await;
    assert!(denied(onlooker.retire(&target, Method::Signal, Duration::ZERO).await));

    for agent in [&mut retirement.function, &mut retirement.signal, &mut onlooker] {
        assert_eq!(agent.fault(), None);
        agent.role().await.unwrap();
    }
    assert!(lives(&client).await);

    // One word stops the agents, one gives the right back, under open sessions.
    retirement.lab.sql("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA rds_lb_agent FROM lb_agent_retire").await;
    assert!(denied(retirement.retire_when_quiet(Method::Function, &target).await));
    retirement.lab.sql(postgresql::RETIRE_SQL).await;
    assert_eq!(retirement.retire_when_quiet(Method::Function, &target).await, RetireOutcome::Closed);
    retirement.lab.shutdown().await;
}

#[tokio::test]
async fn the_function_looks_anew_each_time_even_inside_one_transaction() {
    let mut retirement = Retirement::start().await;
    let client = retirement.lab.client("app", "one").await;
    let target = retirement.target("one").await;
    let caller = retirement.lab.client("lb_agent_plain", "caller").await;
    let call = format!(
        "SELECT outcome FROM rds_lb_agent.retire({}, \
           (SELECT backend_start FROM pg_stat_activity WHERE pid = {0}), '{}', {}, 'app', 3600000000)",
        target.key.pid,
        target.client.ip(),
        target.client.port(),
    );
    let outcome = || async {
        let rows = caller.simple_query(&call).await.unwrap();
        let mut rows = rows.iter().filter_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        rows.next().unwrap()
    };
    caller.batch_execute("BEGIN").await.unwrap();
    assert_eq!(outcome().await, "not_quiet");
    client.batch_execute("BEGIN").await.unwrap();
    assert_eq!(outcome().await, "not_idle");
    assert!(lives(&client).await);
    retirement.lab.shutdown().await;
}

#[tokio::test]
async fn a_session_that_never_pauses_is_caught_right_after_its_work() {
    let mut retirement = Retirement::start().await;
    for method in BOTH {
        let client = retirement.lab.client("app", "restless").await;
        client.batch_execute("TRUNCATE orders").await.unwrap();
        let target = retirement.target("restless").await;
        let work =
            tokio::spawn(insert_until_closed(async move |sql| client.batch_execute(sql).await.is_ok()));
        let outcome = caught(retirement.agent(method), &target, method).await;
        assert_eq!(outcome, RetireOutcome::Closed);
        let (acknowledged, broken) = work.await.unwrap();
        // Caught between two transactions: nothing acknowledged is missing, nothing else is there.
        let stored = retirement.lab.standin.value("a", "SELECT count(*) FROM orders").await.unwrap();
        assert_eq!(stored, acknowledged.to_string(), "broken {broken}");
        retirement.gone("restless").await;
        assert_eq!(retirement.agent(method).catch(&target, method).await, RetireOutcome::Gone);
    }
    retirement.lab.shutdown().await;
}

#[tokio::test]
async fn a_catch_checks_what_a_close_checks_and_has_a_time_limit() {
    let mut retirement = Retirement::start().await;
    let idle = retirement.lab.client("app", "idle").await;
    let target = retirement.target("idle").await;
    for method in BOTH {
        // Idle for long is not fresh: waited for, not closed.
        row_that(&mut retirement.signal, "idle", |row| {
            matches!(row.activity, agent_core::session::Activity::Idle(pause) if pause.as_millis() > 10)
        })
        .await;
        let started = Instant::now();
        let outcome = retirement.agent(method).catch(&target, method).await;
        assert_eq!(outcome, RetireOutcome::NeverIdle);
        assert!(started.elapsed() >= Duration::from_millis(150), "{:?}", started.elapsed());

        // In a transaction: the same.
        idle.batch_execute("BEGIN").await.unwrap();
        assert_eq!(retirement.agent(method).catch(&target, method).await, RetireOutcome::NeverIdle);
        idle.batch_execute("ROLLBACK").await.unwrap();

        // Not the session that was meant: no reason to wait for a fresh moment.
        let other = RetireTarget {
            client: SocketAddr::new(target.client.ip(), target.client.port() ^ 1),
            ..target.clone()
        };
        assert_eq!(retirement.agent(method).catch(&other, method).await, RetireOutcome::Changed);
    }
    // Freshly idle, and with a lock: refused for the lock, if it was seen fresh at all.
    idle.batch_execute("SELECT pg_advisory_lock(1)").await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let working = idle.batch_execute("SELECT 1");
        let (worked, outcome) = tokio::join!(working, retirement.signal.catch(&target, Method::Signal));
        worked.unwrap();
        match outcome {
            RetireOutcome::AdvisoryLock => break,
            RetireOutcome::NeverIdle => assert!(Instant::now() < deadline, "never seen fresh"),
            other => panic!("{other:?}"),
        }
    }
    assert!(lives(&idle).await);
    retirement.lab.shutdown().await;
}

/// The locks are counted before the state is read. A lock that is taken after the count is noticed, in
/// whatever step of the guard: the shipped functions stop there until the client has it.
#[tokio::test]
async fn a_lock_taken_during_the_guard_is_noticed() {
    const WAITS: &str = "pg_advisory_xact_lock_shared(7)::text";
    let mut retirement = Retirement::start().await;
    let gate = retirement.lab.client("app2", "gate").await;
    let steps = [
        // Before the state is read, and before it is read once more.
        (
            "CASE WHEN known.advisory_locks >= 0 THEN",
            format!("CASE WHEN known.advisory_locks >= 0 AND {WAITS} = '' THEN"),
        ),
        (
            "pg_stat_clear_snapshot()::text AS cleared",
            format!("{WAITS} || pg_stat_clear_snapshot()::text AS cleared"),
        ),
    ];
    for (step, with_a_stop) in steps {
        assert_eq!(postgresql::RETIRE_SQL.matches(step).count(), 1, "{step}");
        retirement.lab.sql(&postgresql::RETIRE_SQL.replace(step, &with_a_stop)).await;
        // Fresh however slow the machine is.
        retirement.lab.sql(&postgresql::CATCH_SQL.replace("false, 0, 5000)", "false, 0, NULL)")).await;
        for takes_a_lock in [true, false] {
            let client = retirement.lab.client("app", "locker").await;
            let target = retirement.target("locker").await;
            gate.batch_execute("SELECT pg_advisory_lock(7)").await.unwrap();
            let in_the_stop = async {
                let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
                wait_for("the guard to stop", PATIENCE, async || {
                    match retirement.lab.standin.value("a", waiting).await.unwrap().as_str() {
                        "1" => Ok(()),
                        other => Err(other.to_owned()),
                    }
                })
                .await
                .unwrap();
                if takes_a_lock {
                    client.batch_execute("SELECT pg_advisory_lock(1)").await.unwrap();
                }
                gate.batch_execute("SELECT pg_advisory_unlock(7)").await.unwrap();
            };
            let catch = retirement.function.catch(&target, Method::Function);
            let (outcome, ()) = tokio::join!(catch, in_the_stop);
            if takes_a_lock {
                // Noticed by the pause that is too young; a further attempt sees the lock itself.
                let noticed = matches!(outcome, RetireOutcome::NeverIdle | RetireOutcome::AdvisoryLock);
                assert!(noticed && lives(&client).await, "{step}: {outcome:?}");
                drop(client);
            } else {
                assert_eq!(outcome, RetireOutcome::Closed, "{step}: the stop itself keeps nothing open");
            }
            retirement.gone("locker").await;
        }
    }
    retirement.lab.shutdown().await;
}
