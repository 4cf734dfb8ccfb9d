//! The role query, which is also the liveness query: one round trip.
//!
//! A server that is read-only and has a replication source is a replica; one that is read-only
//! without a source takes no writes for another reason. Aurora reports its role itself
//! (`innodb_read_only`). Where the replication status is not visible, the last visible one counts;
//! without any, a read-only server is taken for a replica of unknown lag.
//!
//! Only global settings count as read-only: they hold for every user. The session's own settings
//! say nothing about others.

use std::time::{Duration, Instant};

use agent_core::{Fault, FaultKind, Phase, health::RoleFacts};

use super::{
    classify,
    session::MySqlSession,
    types::is_on,
    version::ServerVersion,
    wire::{ResultSet, ServerError},
};
use crate::dial::during;

/// What the query does, for the message of a fault.
const WHAT: &str = "reading the role";

/// How often agents are counted. Counting reads the whole process list; the rest of the query reads
/// nothing large.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// Sessions of the agent's own user, since `program_name` is not visible everywhere. Names of users are
/// case-sensitive, while the column's collation is not.
const AGENTS: &str = "(SELECT COUNT(*) FROM information_schema.PROCESSLIST \
     WHERE USER = CAST(SUBSTRING_INDEX(USER(), '@', 1) AS BINARY))";

/// Aurora's view of its readers.
const AURORA_STATUS: &str = "\
    SELECT MAX(REPLICA_LAG_IN_MILLISECONDS) AS lag_ms \
      FROM information_schema.REPLICA_HOST_STATUS WHERE SERVER_ID = @@aurora_server_id";

pub(super) async fn role(session: &mut MySqlSession) -> Result<RoleFacts, Fault> {
    let now = Instant::now();
    let count = session.memory.agents.is_none_or(|(_, at)| now.duration_since(at) >= COUNT_EVERY);
    let aurora = session.server().aurora.is_some();
    let agents = if count { AGENTS } else { "NULL" };
    let status = if aurora { AURORA_STATUS } else { replication_status(session.server()) };
    let default = session.server().read_only_default;
    let default = default.map_or_else(|| "NULL".to_owned(), |name| format!("@@global.{name}"));
    let sql = format!("SELECT @@global.innodb_read_only, @@global.read_only, {agents}, {default};{status}");
    let answered = session.ask(WHAT, &sql).await?;
    let Some(role) = answered.results.first() else {
        let fault = answered.refused.map_or_else(|| incomplete("no result"), |error| refused(&error));
        return Err(fault);
    };
    // An error of the second statement hides the status and never changes the role.
    let status = answered.results.get(1).filter(|_| answered.refused.is_none());
    if let Some(agents) = role.cell(0, 2).and_then(|agents| agents.parse().ok()) {
        session.memory.agents = Some((agents, now));
    }
    // A missing value must not be read as "off", which would make a replica a writer.
    let global =
        |column, name| role.cell(0, column).ok_or_else(|| incomplete(name)).map(|value| is_on(Some(value)));
    let innodb_read_only = global(0, "no innodb_read_only")?;
    let read_only = global(1, "no read_only")? || is_on(role.cell(0, 3));
    if let Some(status) = status.filter(|_| !aurora) {
        session.memory.follows_source = Some(!status.rows.is_empty());
    }
    let follows = session.memory.follows_source;
    let role = if aurora {
        Role { in_recovery: innodb_read_only, read_only, lag: status.and_then(aurora_lag) }
    } else {
        by_replication(innodb_read_only || read_only, follows, status)
    };
    Ok(RoleFacts {
        in_recovery: role.in_recovery,
        read_only: role.read_only && !role.in_recovery,
        follows_source: follows.unwrap_or(role.in_recovery),
        timeline: None,
        lag: role.lag.filter(|_| role.in_recovery),
        agents: session.memory.agents.map_or(1, |(agents, _)| agents),
    })
}

fn refused(error: &ServerError) -> Fault {
    during(WHAT, classify::refused(Phase::Query, error))
}

fn incomplete(what: &str) -> Fault {
    Fault::new(Phase::Query, FaultKind::Protocol, format!("{WHAT}: {what} in the server's answer"))
}

/// The statement for the replication status: `REPLICA` since MySQL 8.0.22 and MariaDB 10.5.1, `SLAVE`
/// until MySQL 8.3.
pub(super) fn replication_status(server: &ServerVersion) -> &'static str {
    let since = if server.mariadb { 100_501 } else { 80_022 };
    if server.number >= since || server.number == 0 { "SHOW REPLICA STATUS" } else { "SHOW SLAVE STATUS" }
}

#[derive(Debug, PartialEq, Eq)]
struct Role {
    in_recovery: bool,
    read_only: bool,
    lag: Option<Duration>,
}

fn by_replication(read_only: bool, follows: Option<bool>, status: Option<&ResultSet>) -> Role {
    let in_recovery = read_only && follows.unwrap_or(true);
    Role { in_recovery, read_only, lag: status.and_then(replica_lag) }
}

/// The lag in whole seconds, which the server reports while its threads run; the greatest of several
/// sources.
fn replica_lag(status: &ResultSet) -> Option<Duration> {
    let column = status.columns.iter().position(|name| {
        name.eq_ignore_ascii_case("Seconds_Behind_Source")
            || name.eq_ignore_ascii_case("Seconds_Behind_Master")
    })?;
    let lags = (0..status.rows.len()).map(|row| status.cell(row, column)?.parse().ok());
    lags.collect::<Option<Vec<u64>>>()?.into_iter().max().map(Duration::from_secs)
}

fn aurora_lag(status: &ResultSet) -> Option<Duration> {
    let ms: f64 = status.cell(0, 0)?.parse().ok()?;
    Duration::try_from_secs_f64(ms / 1_000.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(lags: &[Option<&str>]) -> ResultSet {
        ResultSet {
            columns: vec!["Slave_IO_Running".to_owned(), "Seconds_Behind_Master".to_owned()],
            rows: lags.iter().map(|lag| vec![Some("Yes".to_owned()), lag.map(str::to_owned)]).collect(),
            ..ResultSet::default()
        }
    }

    #[test]
    fn a_read_only_server_is_a_replica_only_with_a_source() {
        let replica = by_replication(true, Some(true), Some(&status(&[Some("3")])));
        assert_eq!(replica, Role { in_recovery: true, read_only: true, lag: Some(Duration::from_secs(3)) });
        let closed = by_replication(true, Some(false), Some(&status(&[])));
        assert!(!closed.in_recovery && closed.read_only);
        // A writable server is a writer even if it has a source.
        assert!(!by_replication(false, Some(true), Some(&status(&[Some("0")]))).in_recovery);
    }

    #[test]
    fn without_its_status_a_read_only_server_is_what_it_was_or_a_replica_of_unknown_lag() {
        assert_eq!(by_replication(true, None, None), Role { in_recovery: true, read_only: true, lag: None });
        assert!(by_replication(true, Some(true), None).in_recovery);
        assert!(!by_replication(true, Some(false), None).in_recovery);
        assert!(!by_replication(false, None, None).in_recovery);
    }

    #[test]
    fn a_stopped_thread_has_no_lag() {
        assert_eq!(replica_lag(&status(&[None])), None);
        assert_eq!(replica_lag(&status(&[Some("2"), None])), None);
        assert_eq!(replica_lag(&status(&[Some("2"), Some("9")])), Some(Duration::from_secs(9)));
        assert_eq!(replica_lag(&status(&[])), None);
    }

    #[test]
    fn auroras_lag_is_in_milliseconds() {
        let lag = |text: &str| {
            let rows = vec![vec![Some(text.to_owned())]];
            aurora_lag(&ResultSet { rows, ..ResultSet::default() })
        };
        assert_eq!(lag("18.5"), Some(Duration::from_micros(18_500)));
        assert_eq!((lag("-1"), lag("none")), (None, None));
    }

    #[test]
    fn the_statement_depends_on_the_version() {
        for (version, words) in [
            ("8.0.39", "SHOW REPLICA STATUS"),
            ("8.4.3", "SHOW REPLICA STATUS"),
            ("5.7.44-log", "SHOW SLAVE STATUS"),
            ("8.0.21", "SHOW SLAVE STATUS"),
            ("10.11.19-MariaDB", "SHOW REPLICA STATUS"),
            ("10.4.1-MariaDB", "SHOW SLAVE STATUS"),
        ] {
            assert_eq!(replication_status(&ServerVersion::of_greeting(version)), words, "{version}");
        }
    }
}
