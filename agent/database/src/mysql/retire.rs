//! Closing one session between two transactions.
//!
//! One round trip: the statements of `guard.sql` and `last_look.sql`, then `KILL`. The server has
//! no single statement for check and close, so their order has to make up for it. First comes
//! everything that changes only when the session does something: its transaction, its locks, how
//! its user logs in. Then comes the process list: identity, `Sleep`, and the time in that state. An
//! idle period that began before the first statement proves that everything read since then still
//! holds; a session with a younger one is left alone. Finally, where `performance_schema` is on,
//! the locks are counted again and the session's own row is read once more (`Sleep`, no
//! transaction), and `KILL` follows at once: about 100 µs are open to a race. Without
//! `performance_schema` the last read is of the process list, which copies the rows of all
//! sessions: 1 to 2 ms with 1,000 of them. `mysql.rds_kill` reads that list itself before it kills,
//! which takes another 1 to 2 ms, so `KILL` is used wherever the agent, or the procedure's
//! definer, has the privilege.
//!
//! MariaDB accepts all of this as one compound statement, and a procedure is one in MySQL too:
//! nothing is sent to the agent between check and `KILL`. Outside procedures MySQL has no compound
//! statements; there `KILL` takes its number from a variable, and the server refuses NULL with
//! 1094. So the procedure is the better choice there.
//!
//! `innodb_trx` (`witness.sql`) is a cache. A transaction of the agent's own has to appear in it,
//! which proves that it was refreshed; the idle period must have begun before the second in which
//! that transaction started. Where others read the cache more often than every 100 ms it is never
//! refreshed, and nothing is closed in that mode. `pace` limits the agent's own reads.
//!
//! Names and addresses are compared as `CAST(... AS BINARY)`. Since MariaDB 11.5 the collation of a
//! column takes precedence over that of a user variable, so that a plain comparison with `USER` or
//! `HOST` would ignore case and trailing spaces, even of a binary string.
//!
//! Written for MariaDB 10.5 to 11 and MySQL 8.0 to 9.7, and tested on MariaDB 10.11 and MySQL
//! 9.7. `TIME_MS` exists in MariaDB only: where the process list has no such column, the name
//! resolves to that of the outer query, which is NULL.
//!
//! The procedures of `deploy/mysql` contain the same text.

use std::time::{Duration, Instant};

use agent_core::{Fault, FaultKind, Phase};

use super::{
    classify,
    memory::OpenTransactions,
    session::MySqlSession,
    types::literal,
    wire::{Answered, ResultSet, ServerError},
};
use crate::{
    dial::during,
    engine::{Method, RetireOutcome, RetireTarget},
};

/// The guard. Its parameters are user variables; so are its results: the verdict (`@lb_verdict`)
/// and the idle time in microseconds (`@lb_idle`).
const GUARD: &str = include_str!("guard.sql");

/// After the guard, right before `KILL`: sets `@lb_kill` to the connection id, or to NULL.
const LAST_LOOK: &str = include_str!("last_look.sql");

/// Before the guard, where `innodb_trx` has to show that there is no transaction.
const WITNESS: &str = include_str!("witness.sql");

/// The script that installs the closing procedure.
pub const RETIRE_SQL: &str = include_str!("../../../../deploy/mysql/retire.sql");

/// The script that installs the procedure for the fresh catch, after [`RETIRE_SQL`].
pub const CATCH_SQL: &str = include_str!("../../../../deploy/mysql/catch.sql");

/// The script that removes what both have installed.
pub const UNINSTALL_SQL: &str = include_str!("../../../../deploy/mysql/uninstall.sql");

/// The minimum idle time where `innodb_trx` is the source. Its `trx_started` has whole seconds,
/// so a shorter idle period cannot be proved to be older than the cache.
const UNHURRIED: Duration = Duration::from_secs(1);

/// What the statements do, for the message of a fault.
const WHAT: &str = "closing a session";

/// The longest idle time at which a session is caught; see `postgresql::retire`.
const FRESH: Duration = Duration::from_millis(5);

/// How long a catch waits for such a moment.
const PATIENCE: Duration = Duration::from_millis(150);

/// "Unknown thread id": there was nothing to kill.
const NO_SUCH_THREAD: u16 = 1094;

/// "Out of range": an unsigned difference below 0. Only a statement of the session itself changes
/// the guard's numbers while it runs.
const OUT_OF_RANGE: u16 = 1690;

/// No such procedure, no such database.
const NO_PROCEDURE: [u16; 2] = [1305, 1049];

pub(super) async fn retire(
    session: &mut MySqlSession,
    target: &RetireTarget,
    method: Method,
    quiet: Duration,
) -> RetireOutcome {
    let by_trx = session.memory.open_transactions.by_trx();
    let idle = Idle::AtLeast(if by_trx { quiet.max(UNHURRIED) } else { quiet });
    let mut waits = by_trx;
    for _ in 0..2 {
        if waits {
            tokio::time::sleep(session.memory.trx.wait(Instant::now())).await;
        }
        match attempt(session, target, method, idle).await {
            // Another reader prevented the refresh, or it was not the agent's turn to read.
            // Try once more, no longer.
            Verdict::Stale | Verdict::NotAsked => waits = true,
            Verdict::Outcome(outcome) => return outcome,
        }
    }
    RetireOutcome::NotIdle
}

pub(super) async fn catch(
    session: &mut MySqlSession,
    target: &RetireTarget,
    method: Method,
) -> RetireOutcome {
    if session.memory.open_transactions.by_trx() {
        // This source needs a second of idle time: the opposite of a catch.
        return RetireOutcome::NeverIdle;
    }
    let started = Instant::now();
    loop {
        match attempt(session, target, method, Idle::Fresh).await {
            // Try again at once: each attempt takes a round trip, which is the pace.
            Verdict::Outcome(RetireOutcome::NotIdle) | Verdict::Stale | Verdict::NotAsked => {
                if started.elapsed() >= PATIENCE {
                    return RetireOutcome::NeverIdle;
                }
            }
            Verdict::Outcome(outcome) => return outcome,
        }
    }
}

/// The required idle time.
#[derive(Copy, Clone)]
enum Idle {
    AtLeast(Duration),
    Fresh,
}

/// The result of one attempt.
enum Verdict {
    Outcome(RetireOutcome),
    /// `innodb_trx` was not refreshed.
    Stale,
    /// `innodb_trx` had to be read, and it was not the agent's turn.
    NotAsked,
}

async fn attempt(session: &mut MySqlSession, target: &RetireTarget, method: Method, idle: Idle) -> Verdict {
    let mode = session.memory.open_transactions;
    let may_ask = session.memory.trx.is_due(Instant::now());
    let parameters = Parameters { target, method, idle, mode, may_ask };
    let answered = session.ask(WHAT, &statements(&parameters, session.server().mariadb)).await;
    if mode.by_trx() || may_ask && answered.as_ref().map_or(true, has_asked) {
        session.memory.trx.read(Instant::now());
    }
    if mode.by_trx() {
        // An error in the middle leaves the agent's own transaction open.
        if !matches!(&answered, Ok(Answered { refused: None, .. })) {
            let _ = session.ask(WHAT, "ROLLBACK").await;
        }
    }
    let verdict = match answered {
        Ok(answered) => judge(&answered, method),
        Err(fault) => Verdict::Outcome(RetireOutcome::Failed(fault)),
    };
    if !matches!(verdict, Verdict::Outcome(RetireOutcome::Gone)) {
        return verdict;
    }
    // Without the privilege to see it, a session looks as if it had ended.
    match session.facts().await {
        Ok(facts) if !facts.process => Verdict::Outcome(RetireOutcome::Failed(Fault::new(
            Phase::Query,
            FaultKind::PermissionDenied,
            "the agent's user does not see the sessions of others: GRANT PROCESS ON *.* to it",
        ))),
        Ok(_) => verdict,
        Err(fault) => Verdict::Outcome(RetireOutcome::Failed(fault)),
    }
}

/// The parameters of one attempt.
struct Parameters<'a> {
    target: &'a RetireTarget,
    method: Method,
    idle: Idle,
    mode: OpenTransactions,
    /// Whether `innodb_trx` may be read for a session without any recorded transaction.
    may_ask: bool,
}

fn statements(parameters: &Parameters<'_>, mariadb: bool) -> String {
    let Parameters { target, method, idle, mode, may_ask } = *parameters;
    let id = target.key.pid;
    let user = literal(&target.user);
    let ip = literal(&target.client.ip().to_canonical().to_string());
    let port = target.client.port();
    let (by_events, by_trx) = (mode.by_events(), mode.by_trx());
    let (least, most) = match idle {
        Idle::AtLeast(quiet) => (quiet.as_micros().min(u128::from(u64::MAX >> 1)), "NULL".to_owned()),
        Idle::Fresh => (0, FRESH.as_micros().to_string()),
    };
    let kill = match method {
        Method::Function => {
            return match idle {
                Idle::AtLeast(_) => format!(
                    "SET @lb_may_ask = {may_ask}; \
                     CALL rds_lb_agent.retire({id}, {ip}, {port}, {user}, {least}, {by_events}, {by_trx})"
                ),
                Idle::Fresh => format!(
                    "SET @lb_may_ask = {may_ask}; CALL rds_lb_agent.catch({id}, {ip}, {port}, {user})"
                ),
            };
        }
        Method::Signal => "KILL CONNECTION @lb_kill",
        Method::Platform => "CALL mysql.rds_kill(COALESCE(@lb_kill, 0))",
    };
    let witness = if by_trx { WITNESS } else { "" };
    let any_user = target.any_user;
    let parameters = format!(
        "SET @lb_id = {id}, @lb_ip = {ip}, @lb_port = {port}, @lb_user = {user}, @lb_any_user = {any_user}, \
             @lb_least = {least}, @lb_most = {most}, @lb_by_events = {by_events}, @lb_by_trx = {by_trx}, \
             @lb_may_ask = {may_ask}, @lb_second = NULL, @lb_touching = 0, @lb_fresh = 0;\n"
    );
    if mariadb {
        format!(
            "{parameters}BEGIN NOT ATOMIC\n{witness}{GUARD}{LAST_LOOK}\
             IF @lb_kill IS NULL THEN \
               SELECT IF(@lb_verdict = 'close', 'not_idle', @lb_verdict), @lb_idle, @lb_transactions; \
             ELSE {kill}; SELECT 'closed', @lb_idle, @lb_transactions; END IF; \
             END"
        )
    } else {
        format!(
            "{parameters}{witness}{GUARD}SELECT @lb_verdict, @lb_idle, @lb_transactions;\n{LAST_LOOK}{kill}"
        )
    }
}

/// The last result with a row: a procedure ends with its outcome.
fn guard_result(answered: &Answered) -> Option<(&str, &ResultSet)> {
    answered.results.iter().rev().find_map(|result| Some((result.cell(0, 0)?, result)))
}

/// Whether the guard may have read `innodb_trx`, which it does as its last step for a session
/// without any recorded transaction.
fn has_asked(answered: &Answered) -> bool {
    guard_result(answered).is_none_or(|(verdict, result)| {
        let came_so_far = matches!(verdict, "close" | "closed" | "touching" | "not_idle" | "gone");
        came_so_far && result.cell(0, 2).is_none_or(|transactions| transactions == "0")
    })
}

fn judge(answered: &Answered, method: Method) -> Verdict {
    let Some((verdict, result)) = guard_result(answered) else {
        let fault = match &answered.refused {
            // It ended between the last read and `KILL`.
            Some(error) if error.number == NO_SUCH_THREAD => return Verdict::Outcome(RetireOutcome::Gone),
            Some(error) if error.number == OUT_OF_RANGE => return Verdict::Outcome(RetireOutcome::NotIdle),
            Some(error) => refused(error, method),
            None => Fault::new(Phase::Query, FaultKind::Protocol, "the guard gave no verdict"),
        };
        return Verdict::Outcome(RetireOutcome::Failed(fault));
    };
    match (verdict, &answered.refused) {
        ("stale", _) => Verdict::Stale,
        ("not_asked", _) => Verdict::NotAsked,
        ("close", None) => Verdict::Outcome(RetireOutcome::Closed),
        // The last read found it active.
        ("close", Some(error)) if error.number == NO_SUCH_THREAD => Verdict::Outcome(RetireOutcome::NotIdle),
        ("close", Some(error)) => Verdict::Outcome(RetireOutcome::Failed(refused(error, method))),
        // `KILL NULL` is refused as well.
        (verdict, _) => Verdict::Outcome(outcome(verdict, result.cell(0, 1))),
    }
}

fn refused(error: &ServerError, method: Method) -> Fault {
    let fault = during(WHAT, classify::refused(Phase::Query, error));
    match method {
        Method::Function if NO_PROCEDURE.contains(&error.number) => Fault::new(
            Phase::Query,
            FaultKind::PermissionDenied,
            format!("{}: install deploy/mysql/retire.sql of this version of the agent", error.message),
        )
        .with_code(error.number.to_string()),
        _ => fault,
    }
}

fn outcome(verdict: &str, pause: Option<&str>) -> RetireOutcome {
    match verdict {
        "closed" => RetireOutcome::Closed,
        "gone" => RetireOutcome::Gone,
        // Idle for longer than `FRESH`: busy, as far as a catch is concerned.
        "not_idle" | "not_shown" | "not_fresh" | "touching" => RetireOutcome::NotIdle,
        "not_quiet" => RetireOutcome::NotQuiet(super::types::microseconds(pause).unwrap_or_default()),
        "changed" => RetireOutcome::Changed,
        "advisory_lock" => RetireOutcome::AdvisoryLock,
        "not_allowed" => RetireOutcome::NotAllowed,
        other => RetireOutcome::Failed(Fault::new(
            Phase::Query,
            FaultKind::Protocol,
            format!(
                "unknown outcome {other:?}: check that the installed procedure belongs to this version of the agent"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use agent_core::session::BackendKey;

    use super::{super::rights::PROCEDURE_VERSION, *};

    fn target() -> RetireTarget {
        RetireTarget {
            key: BackendKey { pid: 7, started_us: 0 },
            client: "10.0.0.7:81".parse().unwrap(),
            user: "o'app\\".into(),
            any_user: false,
        }
    }

    fn answered(verdict: &str, refused: Option<u16>) -> Answered {
        let row = vec![Some(verdict.to_owned()), Some("150000".to_owned())];
        let result = ResultSet { columns: vec!["v".into(), "p".into()], rows: vec![row], affected: 0 };
        let error =
            |number| ServerError { number, sqlstate: None, message: "the server's message".to_owned() };
        Answered { results: vec![ResultSet::default(), result], refused: refused.map(error) }
    }

    fn judged(verdict: &str, refused: Option<u16>) -> RetireOutcome {
        match judge(&answered(verdict, refused), Method::Signal) {
            Verdict::Outcome(outcome) => outcome,
            Verdict::Stale | Verdict::NotAsked => panic!("once more"),
        }
    }

    /// Without indentation, which differs in the procedure's body.
    fn lines(text: &str) -> String {
        text.lines().map(str::trim).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_procedure_repeats_the_guard_word_for_word() {
        for part in [GUARD, LAST_LOOK, WITNESS] {
            assert!(lines(RETIRE_SQL).contains(&lines(part)), "deploy/mysql/retire.sql differs from {part}");
        }
    }

    #[test]
    fn the_procedures_carry_the_version_that_the_agent_expects() {
        for script in [RETIRE_SQL, CATCH_SQL] {
            assert!(script.contains(&format!("COMMENT '{PROCEDURE_VERSION}")), "no version in a comment");
        }
    }

    #[test]
    fn the_catch_procedure_has_the_same_maximum_idle_time() {
        assert!(CATCH_SQL.contains(&format!("@lb_most = {}", FRESH.as_micros())), "{CATCH_SQL}");
    }

    #[test]
    fn every_verdict_of_the_guard_has_an_outcome() {
        let words = GUARD.split("THEN '").skip(1).filter_map(|rest| rest.split('\'').next());
        let mut seen = 0;
        for verdict in words.filter(|verdict| !["stale", "not_asked"].contains(verdict)) {
            seen += 1;
            let outcome = outcome(verdict, Some("150000"));
            assert!(!matches!(outcome, RetireOutcome::Failed(_)), "{verdict}: {outcome:?}");
        }
        assert!(seen >= 10, "{seen}");
    }

    #[test]
    fn a_kill_without_a_target_closed_nothing() {
        assert_eq!(judged("close", None), RetireOutcome::Closed);
        assert_eq!(judged("close", Some(1094)), RetireOutcome::NotIdle);
        assert_eq!(judged("gone", Some(1094)), RetireOutcome::Gone);
        assert_eq!(judged("not_quiet", Some(1094)), RetireOutcome::NotQuiet(Duration::from_millis(150)));
        assert_eq!(judged("not_idle", Some(1644)), RetireOutcome::NotIdle);
        let RetireOutcome::Failed(fault) = judged("close", Some(1095)) else { panic!("not owner") };
        assert_eq!(fault.kind, FaultKind::PermissionDenied);
        assert!(matches!(judge(&answered("stale", Some(1094)), Method::Signal), Verdict::Stale));
        assert!(matches!(judge(&answered("not_asked", Some(1094)), Method::Signal), Verdict::NotAsked));
    }

    #[test]
    fn an_out_of_range_error_means_an_active_session() {
        let error = ServerError { number: 1690, sqlstate: None, message: "out of range".to_owned() };
        let broken = Answered { results: vec![ResultSet::default()], refused: Some(error) };
        for method in [Method::Signal, Method::Function] {
            assert!(matches!(judge(&broken, method), Verdict::Outcome(RetireOutcome::NotIdle)));
        }
    }

    #[test]
    fn a_read_of_innodb_trx_is_recorded() {
        let answered = |verdict: &str, transactions: Option<&str>| {
            let row = vec![Some(verdict.to_owned()), None, transactions.map(str::to_owned)];
            let result = ResultSet { rows: vec![row], ..ResultSet::default() };
            Answered { results: vec![result], refused: None }
        };
        for verdict in ["close", "closed", "touching", "not_idle"] {
            assert!(has_asked(&answered(verdict, Some("0"))), "{verdict}");
            assert!(!has_asked(&answered(verdict, Some("1"))), "{verdict}");
        }
        // A verdict before that step; a result without the count.
        assert!(!has_asked(&answered("not_quiet", Some("0"))));
        assert!(!has_asked(&answered("not_asked", Some("0"))));
        assert!(has_asked(&answered("gone", None)));
        assert!(has_asked(&Answered { results: Vec::new(), refused: None }));
    }

    #[test]
    fn a_missing_procedure_is_a_missing_privilege() {
        let error =
            |number| ServerError { number, sqlstate: None, message: "the server's message".to_owned() };
        let nothing = |number| Answered { results: Vec::new(), refused: Some(error(number)) };
        for number in [1305, 1049, 1370] {
            let Verdict::Outcome(RetireOutcome::Failed(fault)) = judge(&nothing(number), Method::Function)
            else {
                panic!("{number}");
            };
            assert_eq!(fault.kind, FaultKind::PermissionDenied, "{number}");
        }
    }

    #[test]
    fn names_are_never_interpreted_as_sql() {
        for method in [Method::Signal, Method::Platform, Method::Function] {
            for mariadb in [true, false] {
                let parameters = Parameters {
                    target: &target(),
                    method,
                    idle: Idle::AtLeast(Duration::MAX),
                    mode: OpenTransactions::Strict,
                    may_ask: true,
                };
                let sql = statements(&parameters, mariadb);
                assert!(!sql.contains("o'app"), "{sql}");
                assert!(sql.contains("X'6f276170705c'"), "{sql}");
            }
        }
    }
}
