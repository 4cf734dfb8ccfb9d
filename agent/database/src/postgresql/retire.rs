//! Closing one session between two transactions.
//!
//! Check and signal are one statement, `guard.sql`, which looks twice and reads
//! this one backend only (`pg_stat_get_activity(pid)`; the view would first format
//! all of them). First everything is checked: identity, user, state, pause, last
//! statement, advisory locks. If nothing forbids the close, the state is read anew,
//! and the signal follows at once if it is still the same pause of the same session
//! (`state_change` unchanged), so that all that was found before still holds. Only
//! what lies between that second look and the signal is open to a race: some 10 µs,
//! and about 50 µs more with 1,000 sessions. With one look it would be the whole
//! check, which takes milliseconds when a session of the agent's does it first.
//!
//! The order is forced by the joins: each look is asked for with an argument made of
//! what has to come before it. A session that became idle after its locks were
//! counted (`state_change` later than `known.at`) is left alone, because the count
//! may miss a lock it took since. PostgreSQL has no signal that says "only if still
//! idle": a statement that arrives within these microseconds is lost, which a pause
//! asked for beforehand (`quiet`) makes rare.
//!
//! The function of `deploy/postgresql/retire.sql` contains the same text.

use std::time::{Duration, Instant};

use agent_core::{Fault, FaultKind, Phase};

use super::{
    session::{PostgresqlSession, column, only_row},
    types::{duration, microseconds, moment},
};
use crate::engine::{Method, RetireOutcome, RetireTarget};

/// The guarded statement. Parameters: pid, its start, client address, client port,
/// user, whether any user may be closed, and the least and the greatest idle time
/// in microseconds (no greatest if null).
const GUARD: &str = include_str!("guard.sql");

const RETIRE_FUNCTION: &str = "\
    SELECT outcome, idle_for_us \
      FROM rds_lb_agent.retire($1::int4, $2::timestamptz, $3::inet, $4::int4, $5::name, $6::int8)";

const CATCH_FUNCTION: &str = "\
    SELECT outcome, idle_for_us \
      FROM rds_lb_agent.catch($1::int4, $2::timestamptz, $3::inet, $4::int4, $5::name)";

/// The script that installs the closing function, for members of `lb_agent_retire`.
pub const RETIRE_SQL: &str = include_str!("../../../../deploy/postgresql/retire.sql");

/// The script that installs the function for the fresh catch, after [`RETIRE_SQL`].
pub const CATCH_SQL: &str = include_str!("../../../../deploy/postgresql/catch.sql");

/// The script that removes what both have installed.
pub const UNINSTALL_SQL: &str = include_str!("../../../../deploy/postgresql/uninstall.sql");

/// How fresh an idle session must be to be caught.
const FRESH: Duration = Duration::from_millis(5);

/// How long to wait for such a moment.
const PATIENCE: Duration = Duration::from_millis(150);

pub(super) async fn retire(
    session: &mut PostgresqlSession,
    target: &RetireTarget,
    method: Method,
    quiet: Duration,
) -> RetireOutcome {
    attempt(session, target, method, Idle::AtLeast(quiet)).await.unwrap_or_else(|outcome| outcome)
}

pub(super) async fn catch(
    session: &mut PostgresqlSession,
    target: &RetireTarget,
    method: Method,
) -> RetireOutcome {
    let started = Instant::now();
    loop {
        match attempt(session, target, method, Idle::Fresh).await {
            // Try again at once: each attempt takes a round trip, which is the pace.
            Ok(RetireOutcome::NotIdle) if started.elapsed() < PATIENCE => {}
            Ok(RetireOutcome::NotIdle) => return RetireOutcome::NeverIdle,
            Ok(outcome) | Err(outcome) => return outcome,
        }
    }
}

/// How long the session must have been idle.
#[derive(Copy, Clone)]
enum Idle {
    AtLeast(Duration),
    Fresh,
}

/// One try. `Err` is an outcome too: that of a try that could not be made.
async fn attempt(
    session: &mut PostgresqlSession,
    target: &RetireTarget,
    method: Method,
    idle: Idle,
) -> Result<RetireOutcome, RetireOutcome> {
    let Ok(pid) = i32::try_from(target.key.pid) else { return Ok(RetireOutcome::Gone) };
    let start = moment(target.key.started_us);
    let address = target.client.ip();
    let port = i32::from(target.client.port());
    let user = &*target.user;
    let rows = match (method, idle) {
        (Method::Signal, idle) => {
            let (least, greatest) = match idle {
                Idle::AtLeast(quiet) => (microseconds(quiet), None),
                Idle::Fresh => (0, Some(microseconds(FRESH))),
            };
            session
                .rows(GUARD, &[&pid, &start, &address, &port, &user, &target.any_user, &least, &greatest])
                .await
        }
        (Method::Function, Idle::AtLeast(quiet)) => {
            session.rows(RETIRE_FUNCTION, &[&pid, &start, &address, &port, &user, &microseconds(quiet)]).await
        }
        (Method::Function, Idle::Fresh) => {
            session.rows(CATCH_FUNCTION, &[&pid, &start, &address, &port, &user]).await
        }
        // The configuration refuses it; there is nothing to call.
        (Method::Platform, _) => return Ok(RetireOutcome::NotAllowed),
    }
    .map_err(RetireOutcome::Failed)?;
    let row = only_row(&rows).map_err(RetireOutcome::Failed)?;
    let verdict: &str = column(row, 0).map_err(RetireOutcome::Failed)?;
    let idle_us: Option<i64> = column(row, 1).map_err(RetireOutcome::Failed)?;
    Ok(outcome(verdict, duration(idle_us.unwrap_or(0))))
}

fn outcome(verdict: &str, idle_for: Duration) -> RetireOutcome {
    match verdict {
        "closed" => RetireOutcome::Closed,
        "gone" => RetireOutcome::Gone,
        // Idle for longer than is fresh: as good as busy to a catch.
        "not_idle" | "not_fresh" => RetireOutcome::NotIdle,
        "not_quiet" => RetireOutcome::NotQuiet(idle_for),
        "changed" => RetireOutcome::Changed,
        "advisory_lock" => RetireOutcome::AdvisoryLock,
        "listening" => RetireOutcome::Listening,
        "not_allowed" => RetireOutcome::NotAllowed,
        "hidden" => RetireOutcome::Failed(Fault::new(
            Phase::Query,
            FaultKind::PermissionDenied,
            "the agent's user does not see what this session does: grant it pg_read_all_stats",
        )),
        other => RetireOutcome::Failed(Fault::new(
            Phase::Query,
            FaultKind::Protocol,
            format!("unknown outcome {other:?}: is the function of this agent's version installed?"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::rights::FUNCTION_VERSION, *};

    #[test]
    fn the_function_repeats_the_guard_word_for_word() {
        assert!(RETIRE_SQL.contains(GUARD), "deploy/postgresql/retire.sql differs from guard.sql");
    }

    #[test]
    fn the_functions_carry_the_version_this_agent_looks_for() {
        for script in [RETIRE_SQL, CATCH_SQL] {
            assert!(script.contains(&format!("IS '{FUNCTION_VERSION}")), "no version in a comment");
        }
    }

    #[test]
    fn the_functions_and_the_agent_agree_on_what_is_fresh() {
        assert!(CATCH_SQL.contains(&format!("false, 0, {})", FRESH.as_micros())), "{CATCH_SQL}");
    }

    #[test]
    fn every_verdict_of_the_guard_has_its_outcome() {
        let words = GUARD.split("THEN '").skip(1).filter_map(|rest| rest.split('\'').next());
        let mut seen = 0;
        for verdict in words.filter(|verdict| *verdict != "close" && *verdict != "hidden") {
            seen += 1;
            let outcome = outcome(verdict, Duration::ZERO);
            assert!(!matches!(outcome, RetireOutcome::Failed(_)), "{verdict}: {outcome:?}");
        }
        assert!(seen >= 9, "{seen}");
    }
}
