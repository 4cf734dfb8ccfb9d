//! What clients of both engines count when their sessions are closed or their logins are refused.

use integration_tests::{
    load::{Load, LoadReport},
    on_each_engine,
    process::wait_for,
    standin::Engine,
};

use crate::{BUSY, Bench, MIXED, PATIENCE, mariadb::kill, postgresql::terminate};

on_each_engine!(
    a_close_during_a_long_pause_is_a_clean_retirement,
    blind_closes_are_counted_in_the_phase_they_hit,
    a_refused_login_is_counted_with_its_reason_and_tried_again,
);

#[derive(Clone, Copy)]
enum State {
    InTransaction,
    Idle,
    /// Idle for much longer than a short pause, so in the first part of a long one.
    LongIdle,
}

/// Closes all sessions in a state without any guard.
async fn close(engine: Engine, bench: &Bench, state: State) {
    match engine {
        Engine::Postgresql => {
            let which = match state {
                State::InTransaction => "state = 'idle in transaction'",
                State::Idle => "state = 'idle'",
                State::LongIdle => "state = 'idle' AND state_change < clock_timestamp() - interval '200 ms'",
            };
            terminate(bench, which).await;
        }
        Engine::Mariadb => {
            let which = match state {
                State::InTransaction => "p.command = 'Sleep' AND e.state = 'ACTIVE'",
                State::Idle => "p.command = 'Sleep' AND e.state IS NULL",
                State::LongIdle => "p.command = 'Sleep' AND e.state IS NULL AND p.time_ms > 200",
            };
            kill(bench, which).await;
        }
    }
}

async fn a_close_during_a_long_pause_is_a_clean_retirement(engine: Engine) {
    let bench = Bench::set_up(engine).await;
    bench.load.add(MIXED, 12);
    bench.load.all_in(PATIENCE).await.unwrap();
    let enough = |report: &LoadReport| match engine {
        // The client reads the server's message at its next look.
        Engine::Postgresql => report.causes.get("clean 57P01").is_some_and(|n| *n >= 20),
        Engine::Mariadb => report.clean_retirements >= 20,
    };
    bench.until("clean retirements", enough, || close(engine, &bench, State::LongIdle)).await;

    let report = bench.load.stop().await.unwrap();
    let broken = report.broken_at_begin + report.broken_inside + report.broken_at_commit;
    assert!(broken * 5 <= report.clean_retirements, "{report:?}");
    // The last clients may not log in again: the load stops.
    assert!(report.logins > 12 && report.max_relogins_per_s > 0, "{report:?}");
    assert!(bench.load.verify(&bench.app).await.unwrap().is_exact());
    bench.tear_down().await;
}

async fn blind_closes_are_counted_in_the_phase_they_hit(engine: Engine) {
    let bench = Bench::set_up(engine).await;
    bench.load.add(BUSY, 6);
    bench.load.all_in(PATIENCE).await.unwrap();

    let in_transaction = |report: &LoadReport| match engine {
        // The message can be lost: a reset overtakes it if the client was just sending.
        Engine::Postgresql => report.causes.get("inside 57P01").is_some_and(|n| *n >= 10),
        Engine::Mariadb => report.broken_inside >= 10,
    };
    bench.until("closes inside", in_transaction, || close(engine, &bench, State::InTransaction)).await;

    // Clients that pause so briefly are sometimes hit between their look and BEGIN.
    let at_begin = |report: &LoadReport| report.broken_at_begin >= 3;
    bench.until("closes at BEGIN", at_begin, || close(engine, &bench, State::Idle)).await;

    // A close by the proxy carries no message.
    let by_proxy = |report: &LoadReport| report.causes.contains_key("inside closed");
    let shut_down = async || {
        bench.haproxy.cli("shutdown sessions server orders/a").await.unwrap();
        // Closing faster than the clients log in would leave no transaction to hit.
        let before = bench.load.report().transactions;
        let worked = async || {
            let now = bench.load.report().transactions;
            if now > before + 6 { Ok(()) } else { Err(format!("{before} transactions before, now {now}")) }
        };
        wait_for("work after a close by the proxy", PATIENCE, worked).await.unwrap();
    };
    bench.until("closes by the proxy", by_proxy, shut_down).await;

    let report = bench.load.stop().await.unwrap();
    assert_eq!(report.rate_inside().events, report.broken_inside);
    assert!(report.rate_inside().low > 0.0 && report.rate_inside().high < 1.0);
    let verified = bench.load.verify(&bench.app).await.unwrap();
    assert_eq!(verified.commits_lost, 0, "{verified:?}");
    assert!(verified.commits_unacknowledged <= report.broken_at_commit, "{verified:?} {report:?}");
    bench.tear_down().await;
}

async fn a_refused_login_is_counted_with_its_reason_and_tried_again(engine: Engine) {
    let bench = Bench::set_up(engine).await;
    bench.standin.refuse_tokens(None, None).unwrap();
    bench.load.add(BUSY, 1);
    bench.until("refusals", |report| report.failed_logins >= 2, async || ()).await;
    let cause = if engine == Engine::Postgresql { "login: 28000" } else { "login: 1045" };
    assert!(bench.load.report().causes[cause] >= 2, "{:?}", bench.load.report());
    bench.standin.accept_tokens();
    bench.load.all_in(PATIENCE).await.unwrap();
    bench.load.stop().await.unwrap();

    // A server whose certificate does not have the name gets no token.
    let mut wrong = bench.app.clone();
    "orders.elsewhere.rds.amazonaws.com".clone_into(&mut wrong.endpoint);
    let seen = bench.standin.journal().attempts().len();
    let refused = Load::new(wrong, 1).await.err().unwrap().to_string();
    let tls = engine == Engine::Postgresql && refused.contains("TLS");
    assert!(tls || refused.contains("certificate"), "{refused}");
    assert_eq!(bench.standin.journal().attempts().len(), seen, "a token was sent");
    bench.tear_down().await;
}
