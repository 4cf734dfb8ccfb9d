//! Closing one session between two transactions.
//!
//! Check and signal are one statement, `guard.sql`. It reads this one backend only
//! (`pg_stat_get_activity(pid)`; the view would format every backend first), and reads it twice.
//! The first read checks everything: identity, user, state, idle time, last statement, advisory
//! locks. If nothing forbids the close, the state is read again, and the signal follows at once
//! if the session is still in the same idle period (`state_change` unchanged), so that all
//! earlier checks still hold. Only the time between the second read and the signal is open to a
//! race: about 10 µs, and 50 µs more with 1,000 sessions. With a single read it would be the
//! whole check, which takes milliseconds at its first execution in a session.
//!
//! The joins force this order: each read takes an argument computed by the step that has to come
//! before it. A session that became idle after its locks were counted (`state_change` later than
//! `known.at`) is left alone, because it may have taken a lock since. PostgreSQL has no signal
//! that applies only to an idle session: a statement that arrives within these microseconds is
//! lost, which the required idle time (`quiet`) makes rare.
//!
//! The function of `deploy/postgresql/retire.sql` contains the same text.

use std::time::{Duration, Instant};

use agent_core::{Fault, FaultKind, Phase};

use super::{
    session::{PostgresqlSession, column, only_row},
    types::{duration, microseconds, moment},
};
use crate::engine::{Method, RetireOutcome, RetireTarget};

/// The guarded statement. Parameters: pid, start, client address, client port, user, whether
/// users without IAM may be closed, and the minimum and maximum idle time in microseconds (no
/// maximum if null).
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

/// What the statements do, for the message of a fault.
const WHAT: &str = "closing a session";

/// The longest idle time at which a session is caught. A client that has just received its
/// result is the least likely to have sent the next statement already: closing within 5 ms of
/// becoming idle broke 2 % of sessions that never pause, closing at any idle moment 6 to 9 %.
const FRESH: Duration = Duration::from_millis(5);

/// How long a catch waits for such a moment. It keeps one of the agent's sessions and one
/// backend of the database busy, so it has to be short.
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

/// The required idle time.
#[derive(Copy, Clone)]
enum Idle {
    AtLeast(Duration),
    Fresh,
}

/// One attempt. `Err` is the outcome of an attempt that could not be made.
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
                .rows(
                    WHAT,
                    GUARD,
                    &[&pid, &start, &address, &port, &user, &target.any_user, &least, &greatest],
                )
                .await
        }
        (Method::Function, Idle::AtLeast(quiet)) => {
            session
                .rows(WHAT, RETIRE_FUNCTION, &[&pid, &start, &address, &port, &user, &microseconds(quiet)])
                .await
        }
        (Method::Function, Idle::Fresh) => {
            session.rows(WHAT, CATCH_FUNCTION, &[&pid, &start, &address, &port, &user]).await
        }
        // Not available on PostgreSQL; the configuration refuses it.
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
        // Idle for longer than `FRESH`: busy, as far as a catch is concerned.
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
            format!(
                "unknown outcome {other:?}: check that the installed function belongs to this version of the agent"
            ),
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
    fn the_functions_carry_the_version_that_the_agent_expects() {
        for script in [RETIRE_SQL, CATCH_SQL] {
            assert!(script.contains(&format!("IS '{FUNCTION_VERSION}")), "no version in a comment");
        }
    }

    #[test]
    fn the_catch_function_has_the_same_maximum_idle_time() {
        assert!(CATCH_SQL.contains(&format!("false, 0, {})", FRESH.as_micros())), "{CATCH_SQL}");
    }

    #[test]
    fn every_verdict_of_the_guard_has_an_outcome() {
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
