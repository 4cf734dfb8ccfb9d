//! One variant, from an empty stand-in to its summary.

use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{Closer, Summary, Variant, closers, closes, closes::AGENT, summary::Kind, watch};
use crate::{
    bench::Error,
    envoy::Envoy,
    haproxy::Haproxy,
    load::{Interval, Load, Think, Work},
    process::wait_for,
    scene::{PATIENCE, Proxy, Scene, Setting},
    standin::{Options, busiest_second},
};

/// Clients with pauses up to 2 s.
const MIXED: usize = 40;

/// Clients that insert single rows, with the same pauses.
const AUTOCOMMIT: usize = 5;

/// `max_age`: short, so that many sessions are retired.
const MAX_AGE_S: f64 = 5.0;

/// Each session's own limit differs by so much.
const JITTER: f64 = 0.1;

const BUDGET: u32 = 20;

/// Closes come at least at this pace, or the trial ends without them.
const SLOWEST: Duration = Duration::from_secs(1);

/// The clients with pauses, as the database knows them.
const APPLICATION: &str = "bench-mixed";

/// Runs until clients with transactions have met so many closes.
pub(super) async fn run(variant: &Variant, retirements: u64) -> Result<Summary, Error> {
    if variant.behind_envoy {
        behind::<Envoy>(variant, retirements).await
    } else {
        behind::<Haproxy>(variant, retirements).await
    }
}

async fn behind<P: Proxy>(variant: &Variant, retirements: u64) -> Result<Summary, Error> {
    let sessions = match variant.closer {
        Closer::Agent(words) => {
            format!("{{mode: retire, max_age: {MAX_AGE_S:.0}s, login_budget: {BUDGET}, {words}}}")
        }
        Closer::Shutdown | Closer::Terminate | Closer::LooseGuard => "{mode: observe}".to_owned(),
    };
    let standin = Options {
        engine: variant.engine,
        replicas: 0,
        max_connections: 1_300,
        performance_schema: variant.performance_schema,
        ..Options::default()
    };
    let database = if variant.performance_schema { "" } else { "    open_transactions: innodb_trx\n" };
    let setting = Setting { standin, sessions, database: database.to_owned(), ..Setting::default() };
    let scene = Scene::<P>::with(setting).await?;
    let app = scene.writer("app")?;
    // Another user: so the agent's log tells who is who.
    let app2 = scene.writer("app2")?;

    let idle = Load::new(app.clone(), 1).await?;
    if variant.idle > 0 {
        idle.add_to(
            &app.clone().password("legacy", scene.standin.legacy_password()),
            Work::Idle,
            variant.idle,
        );
        idle.all_in(PATIENCE * 2).await?;
    }
    let mixed = Load::new(app.clone(), 2).await?;
    let busy = Load::new(app.clone(), 3).await?;
    let transactions = |think| Work::Transactions { think, retry_begin: variant.retry };
    mixed.add_to(&app.clone().application(APPLICATION), transactions(Think::Mixed), MIXED);
    mixed.add(Work::Autocommit { think: Think::Mixed }, AUTOCOMMIT);
    busy.add_to(&app2.clone().application("bench-busy"), transactions(Think::Busy), variant.busy);

    mixed.all_in(PATIENCE).await?;
    busy.all_in(PATIENCE).await?;
    let all_in = Timestamp::now();

    let stop = CancellationToken::new();
    let enough = async {
        let patience = PATIENCE + SLOWEST * u32::try_from(retirements).unwrap_or(u32::MAX);
        let reached = wait_for("closes", patience, async || {
            let met = mixed.report().retirements() + busy.report().retirements();
            if met >= retirements { Ok(()) } else { Err(format!("{met} of {retirements}")) }
        });
        let reached = reached.await;
        stop.cancel();
        reached.map_err(Error::from)
    };
    let looked_at = watch::sessions(variant.engine, variant.performance_schema, APPLICATION);
    // Where one fails the others are dropped, and so is the scene.
    let ((), oldest, ()) = tokio::try_join!(
        enough,
        watch::watch(&looked_at, MAX_AGE_S * (1.0 + JITTER), &scene, &stop),
        closers::close(variant.closer, &scene, &stop),
    )?;

    let holds = scene.agent.state().await?.pointer("/state/sessions/holds").cloned().unwrap_or_default();
    let closes = closes::of(&scene);
    let logins = scene.standin.journal().attempts_since(all_in);
    let max_relogins_per_s =
        busiest_second(logins.iter().filter(|login| login.user != AGENT).map(|login| login.at));
    let (of_mixed, of_busy, of_idle) = tokio::try_join!(mixed.stop(), busy.stop(), idle.stop())?;
    let tables_mixed = mixed.verify(&app).await?;
    let tables_busy = busy.verify(&app2).await?;
    drop((mixed, busy, idle, app, app2));
    scene.clear().await?;

    let by_agent = matches!(variant.closer, Closer::Agent(_));
    let broken = [&of_mixed, &of_busy]
        .iter()
        .map(|report| report.broken_at_begin + report.broken_inside + report.broken_at_commit)
        .sum();
    let mut causes = of_mixed.causes.clone();
    for (cause, count) in &of_busy.causes {
        *causes.entry(format!("busy: {cause}")).or_default() += count;
    }
    Ok(Summary {
        seconds: of_mixed.seconds,
        broken: Interval::of(broken, of_mixed.retirements() + of_busy.retirements()),
        autocommit_failed: Interval::of(
            of_mixed.rows_failed,
            of_mixed.rows_failed + of_mixed.rows_clean_retirements,
        ),
        autocommit_present_after_error: tables_mixed.rows_present_after_error,
        exact: tables_mixed.is_exact() && tables_busy.is_exact(),
        tables_mixed,
        tables_busy,
        limit_s: if by_agent { MAX_AGE_S * (1.0 + JITTER) } else { 0.0 },
        oldest_s: oldest.age,
        longest_after_pause_s: variant.performance_schema.then_some(oldest.after_pause),
        most_overdue_s: closes.most_overdue_s,
        agent_closes: closes.count,
        budget_per_s: if by_agent { BUDGET } else { 0 },
        max_closes_and_own_logins_per_s: closes.max_with_own_logins_per_s,
        max_relogins_per_s,
        failed_logins: of_mixed.failed_logins + of_busy.failed_logins,
        connect: of_mixed.connect,
        transaction: of_mixed.transaction,
        idle_closed: of_idle.steady_closed,
        mixed: Kind::of(&of_mixed),
        busy: Kind::of(&of_busy),
        causes,
        holds,
    })
}
