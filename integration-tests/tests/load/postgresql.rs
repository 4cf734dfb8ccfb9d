//! What PostgreSQL clients count when their sessions are closed, and when they are not.

use std::time::Duration;

use integration_tests::{
    load::{Ending, LoadReport, Think, Work},
    process::wait_for,
    standin::Engine,
};

use crate::{BUSY, Bench, MIXED, PATIENCE};

/// Closes sessions without any guard, and returns how many.
pub async fn terminate(bench: &Bench, which: &str) -> u32 {
    let closed = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE application_name LIKE 'load-%' AND {which}"
    );
    bench.sql(&closed).await.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn undisturbed_clients_of_every_kind_work_and_lose_nothing() {
    let bench = Bench::set_up(Engine::Postgresql).await;
    let legacy = bench.app.clone().password("legacy", bench.standin.legacy_password()).application("reports");
    bench.load.add(BUSY, 3);
    bench.load.add(MIXED, 3);
    bench.load.add(Work::Reads { think: Think::Busy }, 1);
    bench.load.add(Work::Autocommit { think: Think::Busy }, 2);
    bench.load.add(Work::Hold { open_for: Duration::from_secs(1) }, 1);
    bench.load.add(Work::Idle, 3);
    bench.load.add(Work::Listen, 1);
    bench.load.add(Work::AdvisoryLock, 1);
    bench.load.add_to(&legacy, BUSY, 1);
    bench.load.all_in(PATIENCE).await.unwrap();

    // What each kind is, as the server sees it.
    let count = |which: &str| format!("SELECT count(*) FROM pg_stat_activity WHERE {which}");
    let is = async |number: &str, sql: String| {
        wait_for(&sql, PATIENCE, async || match bench.sql(&sql).await {
            found if found == number => Ok(()),
            other => Err(other),
        })
        .await
        .unwrap();
    };
    is("3", count("application_name = 'load-idle' AND state = 'idle'")).await;
    is("1", count("application_name = 'load-listen' AND query LIKE 'LISTEN%' AND state = 'idle'")).await;
    is("1", count("application_name = 'load-hold' AND state = 'idle in transaction'")).await;
    is("1", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted".to_owned()).await;
    is("1", count("application_name = 'reports' AND usename = 'legacy'")).await;
    is(
        "16",
        "SELECT count(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE ssl AND client_port > 0"
            .to_owned(),
    )
    .await;

    let held = |report: &LoadReport| report.steady.iter().any(|session| session.committed_s.is_some());
    let worked = |report: &LoadReport| report.transactions >= 100 && report.rows_inserted >= 50;
    bench.until("work", |report| worked(report) && held(report), async || ()).await;
    let report = bench.load.stop().await.unwrap();
    assert_eq!(report.causes.len(), 0, "{report:?}");
    assert_eq!((report.logins, report.clients, report.max_relogins_per_s), (16, 16, 0));
    assert_eq!((report.retirements(), report.steady_closed, report.rows_failed), (0, 0, 0));
    let holder = report.steady.iter().find(|session| session.work == "hold").unwrap();
    assert!(holder.committed_s.unwrap() - holder.opened_s >= 1.0, "{holder:?}");
    assert!(report.connect.p50_ms > 0.0 && report.transaction.p99_ms > 0.0, "{report:?}");

    let verified = bench.load.verify(&bench.app).await.unwrap();
    assert!(verified.is_exact(), "{verified:?}");
    assert_eq!(verified.rows_in_table, report.rows_inserted);
    assert!(verified.commits_in_table >= 50, "{verified:?}");
    bench.tear_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_before_the_first_transaction_is_no_retirement() {
    let bench = Bench::set_up(Engine::Postgresql).await;
    bench.sql("ALTER TABLE load_counters ADD CONSTRAINT nobody CHECK (run = 0) NOT VALID").await;
    bench.load.add(BUSY, 1);
    let refused = |report: &LoadReport| report.causes.get("in preparation 23514").is_some_and(|n| *n >= 2);
    bench.until("refused first rows", refused, async || ()).await;
    assert_eq!(bench.load.report().retirements(), 0, "{:?}", bench.load.report());

    bench.sql("ALTER TABLE load_counters DROP CONSTRAINT nobody").await;
    bench.until("work", |report| report.transactions >= 10, async || ()).await;
    let report = bench.load.stop().await.unwrap();
    assert_eq!((report.retirements(), report.clean_retirements), (0, 0), "{report:?}");
    assert!(report.ended_unprepared >= 2, "{report:?}");
    assert!(bench.load.verify(&bench.app).await.unwrap().is_exact());
    bench.tear_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unacknowledged_commits_are_found_in_the_tables() {
    let bench = Bench::set_up(Engine::Postgresql).await;
    bench.load.add(BUSY, 3);
    bench.load.add(Work::Autocommit { think: Think::Busy }, 2);
    bench.load.all_in(PATIENCE).await.unwrap();
    bench.until("work", |report| report.transactions > 10 && report.rows_inserted > 10, async || ()).await;

    // Every commit now waits for a replica that will never come; it has taken place before.
    bench.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await;
    bench.sql("SELECT pg_reload_conf()").await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    wait_for("all commits to wait", PATIENCE, async || match bench.sql(waiting).await.as_str() {
        "5" => Ok(()),
        other => Err(other.to_owned()),
    })
    .await
    .unwrap();
    assert_eq!(terminate(&bench, "wait_event = 'SyncRep'").await, 5);
    let counted = |report: &LoadReport| report.broken_at_commit >= 3 && report.rows_failed >= 2;
    bench.until("clients to see it", counted, async || ()).await;
    bench.sql("ALTER SYSTEM RESET synchronous_standby_names").await;
    bench.sql("SELECT pg_reload_conf()").await;

    let report = bench.load.stop().await.unwrap();
    assert_eq!((report.broken_at_commit, report.rows_failed), (3, 2), "{report:?}");
    let verified = bench.load.verify(&bench.app).await.unwrap();
    assert_eq!((verified.commits_unacknowledged, verified.rows_present_after_error), (3, 2), "{verified:?}");
    assert!(!verified.is_exact());
    assert_eq!((verified.commits_lost, verified.rows_lost), (0, 0), "{verified:?}");
    bench.tear_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_retry_at_begin_cures_what_the_look_misses() {
    let bench = Bench::set_up(Engine::Postgresql).await;
    bench.load.add(Work::Transactions { think: Think::Busy, retry_begin: true }, 6);
    bench.load.all_in(PATIENCE).await.unwrap();
    // A session that is that old is not the one of the retry.
    let old = "state = 'idle' AND backend_start < clock_timestamp() - interval '1 second'";
    let retried = |report: &LoadReport| report.begins_retried >= 2;
    bench.until("retries", retried, || terminate(&bench, old)).await;
    let report = bench.load.stop().await.unwrap();
    assert_eq!(report.broken_at_begin, 0, "{report:?}");
    assert!(bench.load.verify(&bench.app).await.unwrap().is_exact());
    bench.tear_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_sessions_are_reported_one_by_one() {
    let bench = Bench::set_up(Engine::Postgresql).await;
    bench.load.add(Work::Idle, 2);
    bench.load.add(Work::Listen, 1);
    bench.load.add(Work::AdvisoryLock, 1);
    bench.load.add(Work::Hold { open_for: PATIENCE }, 1);
    bench.load.all_in(PATIENCE).await.unwrap();
    let cut = |report: &LoadReport| report.broken_inside >= 1;
    bench.until("a cut holder", cut, || terminate(&bench, "state = 'idle in transaction'")).await;
    let closed = |report: &LoadReport| report.steady_closed >= 2;
    let idle = "application_name = 'load-idle' AND backend_start < now() - interval '1 second'";
    bench.until("closed idle sessions", closed, || terminate(&bench, idle)).await;

    bench.until("new logins", |report| report.logins >= 5 + 3, async || ()).await;
    let report = bench.load.stop().await.unwrap();
    for session in &report.steady {
        let ended = session.closed_s.is_some();
        assert_eq!(ended, session.ending.is_some());
        assert_eq!(session.in_transaction, ended && session.work == "hold", "{session:?}");
        if ended {
            assert_eq!(session.ending, Some(Ending::Told("57P01".to_owned())));
            assert!(session.closed_s > Some(session.opened_s) && session.backend > 0, "{session:?}");
        }
    }
    let untouched =
        |work: &str| report.steady.iter().filter(|s| s.work == work).all(|s| s.closed_s.is_none());
    assert!(untouched("listen") && untouched("advisory-lock"));
    bench.tear_down().await;
}
