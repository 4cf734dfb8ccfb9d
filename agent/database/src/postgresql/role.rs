//! The role query, which is also the liveness query: one statement, one round trip.

use std::time::{Duration, Instant};

use agent_core::{Fault, health::RoleFacts};

use super::{
    session::{PostgresqlSession, column, only_row},
    types::duration,
};

/// How often agents are counted. Counting reads the whole connection table; the rest of the
/// query reads nothing larger than the control file.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// One query in two variants. A parameter instead would make the server plan the query at
/// every execution, which takes longer than running it.
struct RoleQuery {
    quick: &'static str,
    /// Also counts the agents.
    counting: &'static str,
}

/// The role query around the parts that not every server allows.
///
/// `recovering` is read once, because functions for writers fail on a replica and a promotion
/// may happen during the query.
///
/// Read-only counts only if it is the default of the whole server. A default of the agent's role or
/// database says nothing about other users; where it hides the server's own default, the server
/// is taken to be writable, since clients may be. `pg_settings` is read only while the default is
/// on.
macro_rules! role_query {
    ($timeline:literal, $caught_up:literal, $replayed_us:literal) => {
        RoleQuery {
            quick: role_query!($timeline, $caught_up, $replayed_us, "NULL"),
            counting: role_query!(
                $timeline,
                $caught_up,
                $replayed_us,
                "(SELECT count(*) FROM pg_stat_get_activity(NULL) \
                   WHERE application_name = current_setting('application_name'))"
            ),
        }
    };
    ($timeline:literal, $caught_up:literal, $replayed_us:literal, $agents:literal) => {
        concat!(
            "SELECT here.recovering, \
                    CASE WHEN here.recovering OR current_setting('default_transaction_read_only') = 'off' \
                      THEN false \
                      ELSE (SELECT source NOT IN ('database', 'user', 'database user', 'client', 'session') \
                              FROM pg_settings WHERE name = 'default_transaction_read_only') END, \
                    (",
            $timeline,
            ")::int4, \
                    here.recovering AND (",
            $caught_up,
            "), \
                    CASE WHEN here.recovering THEN (",
            $replayed_us,
            ")::int8 END, \
                    ",
            $agents,
            "::int4 \
             FROM (SELECT pg_is_in_recovery() AS recovering OFFSET 0) AS here"
        )
    };
}

/// From the most detailed to the one that works everywhere (Aurora has no WAL functions; some
/// servers revoke them from PUBLIC).
///
/// A writer's timeline is taken from its WAL file name, since that of its checkpoint is out of
/// date for a while after a promotion; a replica's is the newest it has seen.
const QUERIES: [RoleQuery; 3] = [
    role_query!(
        "CASE WHEN here.recovering \
            THEN greatest((SELECT timeline_id FROM pg_control_checkpoint()), \
                          (SELECT received_tli FROM pg_stat_get_wal_receiver())) \
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int4 END",
        "coalesce(pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() \
            AND (SELECT pid FROM pg_stat_get_wal_receiver()) IS NOT NULL, false)",
        "extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) * 1000000"
    ),
    role_query!(
        "CASE WHEN here.recovering THEN NULL \
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int4 END",
        "false",
        "extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) * 1000000"
    ),
    role_query!("NULL", "false", "NULL"),
];

pub(super) async fn role(session: &mut PostgresqlSession) -> Result<RoleFacts, Fault> {
    loop {
        let now = Instant::now();
        let count = session.role.agents.is_none_or(|(_, at)| now.duration_since(at) >= COUNT_EVERY);
        let Some(query) = QUERIES.get(session.role.query) else {
            session.role.query = 0;
            continue;
        };
        let wording = if count { query.counting } else { query.quick };
        let rows = match session.rows("reading the role", wording, &[]).await {
            Err(fault) if not_here(&fault) && session.role.query + 1 < QUERIES.len() => {
                session.role.query += 1;
                continue;
            }
            // Agents cannot be counted here; the role is worth more than their number.
            Err(fault) if not_here(&fault) && count => {
                session.role.agents = Some((1, now));
                session.role.query = 0;
                continue;
            }
            outcome => outcome?,
        };
        let row = only_row(&rows)?;
        let in_recovery: bool = column(row, 0)?;
        let caught_up: bool = column(row, 3)?;
        let replayed_ago: Option<i64> = column(row, 4)?;
        let agents: Option<i32> = column(row, 5)?;
        if let Some(agents) = agents {
            session.role.agents = Some((u32::try_from(agents).unwrap_or(0), now));
        }
        if caught_up {
            session.role.caught_up = Some(now);
        }
        return Ok(RoleFacts {
            in_recovery,
            read_only: column(row, 1)?,
            follows_source: in_recovery,
            timeline: column::<Option<i32>>(row, 2)?.and_then(|timeline| u32::try_from(timeline).ok()),
            lag: in_recovery
                .then(|| lag(caught_up, replayed_ago.map(duration), session.role.caught_up, now))
                .flatten(),
            agents: session.role.agents.map_or(1, |(agents, _)| agents),
        });
    }
}

/// Whether the server lacks, forbids or does not support a function of the query. Other errors
/// are temporary and no reason to fall back.
fn not_here(fault: &Fault) -> bool {
    let code = fault.code.as_deref().unwrap_or_default();
    // Syntax error or access rule, feature not supported, object state, internal error.
    ["42", "0A", "55", "XX"].iter().any(|class| code.starts_with(class))
}

/// The lag of a replica, at most the time since it was last caught up.
fn lag(
    caught_up: bool,
    replayed_ago: Option<Duration>,
    last_caught_up: Option<Instant>,
    now: Instant,
) -> Option<Duration> {
    if caught_up {
        return Some(Duration::ZERO);
    }
    // A replica that has replayed no transaction since its start has no timestamp of one.
    let since_caught_up = last_caught_up.map(|at| now.duration_since(at));
    [replayed_ago, since_caught_up].into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caught_up_replica_has_no_lag_however_long_the_writer_was_idle() {
        let now = Instant::now();
        assert_eq!(lag(true, Some(Duration::from_secs(600)), None, now), Some(Duration::ZERO));
    }

    #[test]
    fn the_first_write_after_an_idle_time_does_not_count_the_idle_time_as_lag() {
        let start = Instant::now();
        let now = start + Duration::from_secs(1);
        assert_eq!(
            lag(false, Some(Duration::from_secs(600)), Some(start), now),
            Some(Duration::from_secs(1))
        );
        assert_eq!(
            lag(false, Some(Duration::from_millis(40)), Some(start), now),
            Some(Duration::from_millis(40))
        );
    }

    #[test]
    fn a_replica_without_replayed_transactions_counts_lag_from_when_it_was_caught_up() {
        let start = Instant::now();
        let now = start + Duration::from_secs(1);
        assert_eq!(lag(false, None, Some(start), now), Some(Duration::from_secs(1)));
    }

    #[test]
    fn only_missing_or_forbidden_functions_select_a_simpler_query() {
        let fault = |code: &str| {
            Fault::new(agent_core::Phase::Query, agent_core::FaultKind::DatabaseError, "").with_code(code)
        };
        for code in ["42501", "42883", "0A000", "55000", "XX000"] {
            assert!(not_here(&fault(code)), "{code}");
        }
        for code in ["57014", "53200", "57P01", "28000"] {
            assert!(!not_here(&fault(code)), "{code}");
        }
    }

    #[test]
    fn unknown_lag_stays_unknown() {
        assert_eq!(lag(false, None, None, Instant::now()), None);
    }
}
