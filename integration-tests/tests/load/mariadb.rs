//! What MariaDB clients count when their sessions are closed, and when they are not.

use std::time::Duration;

use integration_tests::{
    load::{Ending, LoadReport, Think, Work},
    process::wait_for,
    standin::Engine,
};

use crate::{BUSY, Bench, MIXED, PATIENCE};

/// Kills sessions without any guard.
pub async fn kill(bench: &Bench, which: &str) {
    let sessions = format!(
        "SELECT p.id FROM information_schema.processlist p \
         JOIN performance_schema.threads t ON t.processlist_id = p.id \
         LEFT JOIN performance_schema.events_transactions_current e \
         ON e.thread_id = t.thread_id AND e.state = 'ACTIVE' \
         WHERE p.user = 'app' AND {which}"
    );
    let sessions = bench.standin.execute_sql("a", &sessions).await.unwrap();
    for session in sessions.iter().flatten().flatten() {
        // A session that has ended cannot be killed.
        let _ = bench.standin.execute_sql("a", &format!("KILL {session}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn undisturbed_clients_of_every_kind_work_and_lose_nothing() {
    let bench = Bench::set_up(Engine::Mariadb).await;
    let legacy = bench.app.clone().password("legacy", bench.standin.legacy_password());
    bench.load.add(BUSY, 3);
    bench.load.add(MIXED, 3);
    bench.load.add(Work::Reads { think: Think::Busy }, 1);
    bench.load.add(Work::Autocommit { think: Think::Busy }, 2);
    bench.load.add(Work::Hold { open_for: Duration::from_secs(1) }, 1);
    bench.load.add(Work::Idle, 3);
    bench.load.add(Work::AdvisoryLock, 1);
    bench.load.add_to(&legacy, BUSY, 1);
    bench.load.all_in(PATIENCE).await.unwrap();

    // What each kind is, as the server sees it.
    let is = async |number: &str, sql: &str| {
        wait_for(sql, PATIENCE, async || match bench.sql(sql).await {
            found if found == number => Ok(()),
            other => Err(other),
        })
        .await
        .unwrap();
    };
    is("14", "SELECT count(*) FROM information_schema.processlist WHERE user = 'app'").await;
    is("1", "SELECT count(*) FROM information_schema.processlist WHERE user = 'legacy'").await;
    is("1", "SELECT IS_USED_LOCK('load 13') IS NOT NULL").await;
    // All of them, over TLS: who logs in by token is refused without.
    assert_eq!(bench.sql("SELECT count(*) FROM mysql.user WHERE ssl_type = '' AND host = '%'").await, "0");

    let held = |report: &LoadReport| report.steady.iter().any(|session| session.committed_s.is_some());
    let worked = |report: &LoadReport| report.transactions >= 100 && report.rows_inserted >= 50;
    bench.until("work", |report| worked(report) && held(report), async || ()).await;
    let report = bench.load.stop().await.unwrap();
    assert_eq!(report.causes.len(), 0, "{report:?}");
    assert_eq!((report.logins, report.clients, report.max_relogins_per_s), (15, 15, 0));
    assert_eq!((report.retirements(), report.steady_closed, report.rows_failed), (0, 0, 0));

    let verified = bench.load.verify(&bench.app).await.unwrap();
    assert!(verified.is_exact(), "{verified:?}");
    assert_eq!(verified.rows_in_table, report.rows_inserted);
    assert!(verified.commits_in_table >= 50, "{verified:?}");
    bench.tear_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unacknowledged_commits_are_found_in_the_tables() {
    let bench = Bench::set_up(Engine::Mariadb).await;
    bench.load.add(BUSY, 3);
    bench.load.add(Work::Autocommit { think: Think::Busy }, 2);
    bench.load.all_in(PATIENCE).await.unwrap();
    bench.until("work", |report| report.transactions > 10 && report.rows_inserted > 10, async || ()).await;

    // Every commit now waits for a replica that will never come; it has taken place before.
    let wait = "SET GLOBAL rpl_semi_sync_master_wait_point = 'AFTER_COMMIT', \
                rpl_semi_sync_master_timeout = 600000, rpl_semi_sync_master_enabled = ON";
    bench.standin.execute_sql("a", wait).await.unwrap();
    let waiting = "SELECT count(*) FROM information_schema.processlist WHERE state LIKE '%semi-sync ACK%'";
    wait_for("all commits to wait", PATIENCE, async || match bench.sql(waiting).await.as_str() {
        "5" => Ok(()),
        other => Err(other.to_owned()),
    })
    .await
    .unwrap();
    bench.haproxy.cli("shutdown sessions server orders/a").await.unwrap();
    let counted = |report: &LoadReport| report.broken_at_commit >= 3 && report.rows_failed >= 2;
    bench.until("clients to see it", counted, async || ()).await;
    bench.standin.execute_sql("a", "SET GLOBAL rpl_semi_sync_master_enabled = OFF").await.unwrap();

    let report = bench.load.stop().await.unwrap();
    let verified = bench.load.verify(&bench.app).await.unwrap();
    assert_eq!(
        (verified.commits_unacknowledged, verified.rows_present_after_error),
        (report.broken_at_commit, report.rows_failed),
        "{verified:?}"
    );
    assert!(!verified.is_exact());
    assert_eq!((verified.commits_lost, verified.rows_lost), (0, 0), "{verified:?}");
    bench.tear_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_sessions_are_reported_one_by_one() {
    let bench = Bench::set_up(Engine::Mariadb).await;
    bench.load.add(Work::Idle, 2);
    bench.load.add(Work::AdvisoryLock, 1);
    bench.load.add(Work::Hold { open_for: PATIENCE }, 1);
    bench.load.all_in(PATIENCE).await.unwrap();
    let cut = |report: &LoadReport| report.broken_inside >= 1;
    bench.until("a cut holder", cut, || kill(&bench, "e.state = 'ACTIVE'")).await;
    let report = bench.load.stop().await.unwrap();
    for session in &report.steady {
        let ended = session.closed_s.is_some();
        assert_eq!(ended, session.ending.is_some());
        assert_eq!(session.in_transaction, ended, "{session:?}");
        assert!(!ended || session.work == "hold", "{session:?}");
        assert!(session.backend > 0, "{session:?}");
        if let Some(ending) = &session.ending {
            println!("a killed session read {ending}");
            assert!([Ending::Closed, Ending::Told("1927".to_owned())].contains(ending), "{ending}");
        }
    }
    bench.tear_down().await;
}
