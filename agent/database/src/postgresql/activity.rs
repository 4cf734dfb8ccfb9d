//! The connection table: user, client address, start, state and idle time of each session.
//!
//! Only `state = 'idle'` means idle: `xact_start` is null in an aborted transaction too. A null
//! state means that the agent lacks the privilege to see it. Ages and idle times are differences
//! on the database's clock, by `clock_timestamp()`: `now()` does not advance within a query.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use agent_core::{
    Fault,
    session::{Activity, ActivityRow, Age, BackendKey, LastStatement},
};
use tokio_postgres::Row;

use super::{
    memory::{Ages, uptime},
    session::{PostgresqlSession, column},
    types::{Text, duration, unix_us},
};
use crate::engine::Scope;

/// The query over the sessions in `$from`.
///
/// LISTEN is matched as in `guard.sql`, after a cheaper search for the word. The match is on bytes:
/// a statement has the encoding of its session's database, and one that is invalid in the
/// agent's would make the whole query fail (22021). `pg_locks` does not
/// show whether an advisory lock belongs to the session or to its transaction; one that is held
/// while idle is the session's.
macro_rules! activity_query {
    ($from:literal, $locks:literal) => {
        concat!(
            "SELECT s.pid, s.backend_start, s.client_addr, s.client_port, \
                    u.rolname::text, coalesce(u.rolsuper, false), \
                    coalesce(NOT u.rolsuper AND pg_has_role(u.oid, iam.oid, 'MEMBER'), false), \
                    d.datname::text, s.application_name, s.backend_type, s.state, \
                    (extract(epoch FROM clock_timestamp() - s.backend_start) * 1000000)::int8, \
                    (extract(epoch FROM clock_timestamp() - s.state_change) * 1000000)::int8, \
                    last.query ILIKE '%listen%' AND last.query ~* \
                        E'(^|;)(\\\\s|--[^\\\\n]*\\\\n|/\\\\*.*\\\\*/)*listen\\\\M', \
                    locks.pid IS NOT NULL \
               FROM ",
            $from,
            " AS s \
              CROSS JOIN LATERAL ( \
                   SELECT encode(substring(textsend(s.query) FROM 1 FOR 1024), 'escape') COLLATE \"C\" \
                   OFFSET 0) AS last (query) \
               LEFT JOIN (SELECT DISTINCT pid FROM pg_locks WHERE locktype = 'advisory'",
            $locks,
            ") AS locks ON locks.pid = s.pid \
               LEFT JOIN pg_roles AS u ON u.oid = s.usesysid \
               LEFT JOIN pg_roles AS iam ON iam.rolname = 'rds_iam' \
               LEFT JOIN pg_database AS d ON d.oid = s.datid \
              WHERE s.pid <> pg_backend_pid() \
                AND (s.backend_type IN ('client backend', 'walsender') \
                     OR s.backend_type IS NULL AND s.usesysid IS NOT NULL)"
        )
    };
}

const ALL: &str = activity_query!("pg_stat_get_activity(NULL)", "");

/// What the queries do, for the message of a fault.
const WHAT: &str = "reading the connection table";

/// Reads only the entries of these processes.
const ONLY: &str = activity_query!(
    "(SELECT one.* FROM unnest($1::int4[]) AS wanted (pid) \
        CROSS JOIN LATERAL pg_stat_get_activity(wanted.pid) AS one)",
    " AND pid = ANY ($1::int4[])"
);

pub(super) async fn activity(
    session: &mut PostgresqlSession,
    scope: Scope<'_>,
) -> Result<Vec<ActivityRow>, Fault> {
    match scope {
        Scope::All => {
            let mut rows = read_all(&session.rows(WHAT, ALL, &[]).await?)?;
            correct_ages(&mut session.ages, &mut rows);
            session.ages.retain(&rows.iter().map(|row| row.key).collect());
            Ok(rows)
        }
        Scope::Only([]) => Ok(Vec::new()),
        Scope::Only(keys) => {
            // A null pid would select all sessions; these come from numbers.
            let pids: Vec<i32> = keys.iter().filter_map(|key| i32::try_from(key.pid).ok()).collect();
            let rows = session.rows(WHAT, ONLY, &[&pids]).await?;
            let mut found = read_all(&rows)?;
            correct_ages(&mut session.ages, &mut found);
            // A process id may belong to another session by now.
            Ok(found.into_iter().filter(|row| keys.contains(&row.key)).collect())
        }
    }
}

/// Takes steps of the database's clock out of the ages.
fn correct_ages(ages: &mut Ages, rows: &mut [ActivityRow]) {
    let now = uptime();
    for row in rows {
        // Hidden sessions have no start and no age.
        if let Age::Exactly(by_clock) = row.age
            && row.key.started_us != 0
        {
            row.age = Age::Exactly(ages.age(row.key, by_clock, now));
        }
    }
}

/// Leaves out rows that cannot be read, whose sessions are then not joined and so held. An error if
/// none can be read.
fn read_all(rows: &[Row]) -> Result<Vec<ActivityRow>, Fault> {
    let mut unreadable = None;
    let read: Vec<_> =
        rows.iter().filter_map(|row| read(row).map_err(|fault| unreadable = Some(fault)).ok()).collect();
    match unreadable {
        Some(fault) if read.is_empty() => Err(fault),
        _ => Ok(read),
    }
}

fn read(row: &Row) -> Result<ActivityRow, Fault> {
    let pid: i32 = column(row, 0)?;
    let started: Option<SystemTime> = column(row, 1)?;
    let address: Option<IpAddr> = column(row, 2)?;
    let port: Option<i32> = column(row, 3)?;
    let state: Option<&str> = column(row, 10)?;
    let listening: Option<bool> = column(row, 13)?;
    Ok(ActivityRow {
        key: BackendKey {
            pid: u64::try_from(pid).unwrap_or(0),
            // Hidden when the state is hidden.
            started_us: started.map_or(0, unix_us),
        },
        client: address
            .zip(port.and_then(|port| u16::try_from(port).ok()))
            .map(|(address, port)| SocketAddr::new(address, port)),
        user: text(row, 4)?,
        superuser: column(row, 5)?,
        iam_user: column(row, 6)?,
        database_name: text(row, 7)?,
        application: text(row, 8)?,
        client_backend: column::<Option<&str>>(row, 9)? == Some("client backend"),
        age: Age::Exactly(since(row, 11)?),
        activity: doing(state, since(row, 12)?),
        last_statement: match (state, listening) {
            (None | Some("disabled"), _) | (_, None) => LastStatement::Unknown,
            (_, Some(true)) => LastStatement::Listening,
            (_, Some(false)) => LastStatement::Other,
        },
        advisory_lock: Some(column(row, 14)?),
    })
}

/// The activity of a state. `idle_for` is the time since it was entered.
fn doing(state: Option<&str>, idle_for: Duration) -> Activity {
    match state {
        Some("idle") => Activity::Idle(idle_for),
        Some("idle in transaction" | "idle in transaction (aborted)") => Activity::InTransaction,
        Some("active" | "fastpath function call" | "starting") => Activity::Running,
        _ => Activity::Unknown,
    }
}

fn text(row: &Row, position: usize) -> Result<Arc<str>, Fault> {
    Ok(column::<Option<Text>>(row, position)?.map_or_else(Arc::default, |text| text.0))
}

fn since(row: &Row, position: usize) -> Result<Duration, Fault> {
    Ok(duration(column::<Option<i64>>(row, position)?.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_idle_is_idle() {
        let idle_for = Duration::from_secs(1);
        assert_eq!(doing(Some("idle"), idle_for), Activity::Idle(idle_for));
        for state in ["idle in transaction", "idle in transaction (aborted)"] {
            assert_eq!(doing(Some(state), idle_for), Activity::InTransaction);
        }
        assert_eq!(doing(Some("active"), idle_for), Activity::Running);
        for state in [None, Some("disabled"), Some("a word of PostgreSQL 25")] {
            assert_eq!(doing(state, idle_for), Activity::Unknown);
        }
    }

    #[test]
    fn listen_is_matched_as_in_the_guard() {
        let guard = include_str!("guard.sql");
        let pattern = guard.lines().find_map(|line| line.split("E'").nth(1)?.split('\'').next()).unwrap();
        for query in [ALL, ONLY] {
            assert!(query.contains(&format!("E'{pattern}'")), "{pattern}");
        }
    }
}
