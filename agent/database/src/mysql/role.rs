//! The instance's role by its own word, and the liveness query: the same thing, in
//! one round trip.
//!
//! A server that is read-only and has a source to follow is a replica; one that is
//! read-only without a source takes no writes for another reason. Aurora says it
//! itself (`innodb_read_only`). Where the replication status may not be seen, a
//! read-only server is taken for a replica whose lag is unknown.

use std::time::{Duration, Instant};

use agent_core::{Fault, Phase, health::RoleFacts};

use super::{classify, session::MySqlSession, types::is_on, version::ServerVersion, wire::ResultSet};

/// How often the agents are counted. That reads the whole process list, the rest of
/// the question nothing of any size.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// Sessions of the agent's own user: what they call themselves is not shown everywhere.
const AGENTS: &str = "(SELECT COUNT(*) FROM information_schema.PROCESSLIST \
     WHERE USER = SUBSTRING_INDEX(USER(), '@', 1))";

/// Aurora's own account of its readers, in milliseconds.
const AURORA_STATUS: &str = "\
    SELECT MAX(REPLICA_LAG_IN_MILLISECONDS) AS lag_ms \
      FROM information_schema.REPLICA_HOST_STATUS WHERE SERVER_ID = @@aurora_server_id";

pub(super) async fn role(session: &mut MySqlSession) -> Result<RoleFacts, Fault> {
    let now = Instant::now();
    let count = session.memory.agents.is_none_or(|(_, at)| now.duration_since(at) >= COUNT_EVERY);
    let aurora = session.server().aurora.is_some();
    let agents = if count { AGENTS } else { "NULL" };
    let status = if aurora { AURORA_STATUS } else { replica_status(session.server()) };
    let sql = format!("SELECT @@global.innodb_read_only, @@global.read_only, {agents};{status}");
    let answered = session.ask(&sql).await?;
    let status = match (&answered.refused, answered.results.get(1)) {
        (None, Some(status)) => Some(status),
        // The role itself was said; only the status was not.
        (Some(error), None) if answered.results.len() == 1 && classify::not_available(error.number) => None,
        (Some(error), _) => return Err(classify::refused(Phase::Query, error)),
        (None, None) => None,
    };
    let no_role = ResultSet::default();
    let role = answered.results.first().unwrap_or(&no_role);
    if let Some(agents) = role.cell(0, 2).and_then(|agents| agents.parse().ok()) {
        session.memory.agents = Some((agents, now));
    }
    let innodb_read_only = is_on(role.cell(0, 0));
    let read_only = is_on(role.cell(0, 1));
    let facts = if aurora {
        Role { in_recovery: innodb_read_only, read_only, lag: status.and_then(aurora_lag) }
    } else {
        by_replication(innodb_read_only || read_only, status)
    };
    Ok(RoleFacts {
        in_recovery: facts.in_recovery,
        read_only: facts.read_only && !facts.in_recovery,
        timeline: None,
        lag: facts.lag.filter(|_| facts.in_recovery),
        agents: session.memory.agents.map_or(1, |(agents, _)| agents),
    })
}

/// The status in the words that the server knows: `REPLICA` came with MySQL 8.0.22 and
/// MariaDB 10.5.1, `SLAVE` went with MySQL 8.4.
fn replica_status(server: &ServerVersion) -> &'static str {
    let since = if server.mariadb { 100_501 } else { 80_022 };
    if server.number >= since || server.number == 0 { "SHOW REPLICA STATUS" } else { "SHOW SLAVE STATUS" }
}

#[derive(Debug, PartialEq, Eq)]
struct Role {
    in_recovery: bool,
    read_only: bool,
    lag: Option<Duration>,
}

fn by_replication(read_only: bool, status: Option<&ResultSet>) -> Role {
    let follows = status.is_none_or(|status| !status.rows.is_empty());
    Role { in_recovery: read_only && follows, read_only, lag: status.and_then(replica_lag) }
}

/// The lag by whole seconds, which the server gives while its threads run. Of several
/// sources the one furthest behind counts.
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
    fn read_only_with_a_source_is_a_replica_and_without_one_is_not() {
        let replica = by_replication(true, Some(&status(&[Some("3")])));
        assert_eq!(replica, Role { in_recovery: true, read_only: true, lag: Some(Duration::from_secs(3)) });
        let closed = by_replication(true, Some(&status(&[])));
        assert!(!closed.in_recovery && closed.read_only);
        // One that takes writes is a writer, whatever it follows besides.
        assert!(!by_replication(false, Some(&status(&[Some("0")]))).in_recovery);
    }

    #[test]
    fn a_replica_that_may_not_be_asked_is_one_of_unknown_lag() {
        assert_eq!(by_replication(true, None), Role { in_recovery: true, read_only: true, lag: None });
        assert!(!by_replication(false, None).in_recovery);
    }

    #[test]
    fn a_stopped_thread_has_no_lag_to_tell() {
        assert_eq!(replica_lag(&status(&[None])), None);
        assert_eq!(replica_lag(&status(&[Some("2"), None])), None);
        assert_eq!(replica_lag(&status(&[Some("2"), Some("9")])), Some(Duration::from_secs(9)));
        assert_eq!(replica_lag(&status(&[])), None);
    }

    #[test]
    fn aurora_says_its_lag_in_milliseconds() {
        let lag = |text: &str| {
            let rows = vec![vec![Some(text.to_owned())]];
            aurora_lag(&ResultSet { rows, ..ResultSet::default() })
        };
        assert_eq!(lag("18.5"), Some(Duration::from_micros(18_500)));
        assert_eq!((lag("-1"), lag("none")), (None, None));
    }

    #[test]
    fn each_server_is_asked_in_its_own_words() {
        for (version, words) in [
            ("8.0.39", "SHOW REPLICA STATUS"),
            ("8.4.3", "SHOW REPLICA STATUS"),
            ("5.7.44-log", "SHOW SLAVE STATUS"),
            ("8.0.21", "SHOW SLAVE STATUS"),
            ("10.11.19-MariaDB", "SHOW REPLICA STATUS"),
            ("10.4.1-MariaDB", "SHOW SLAVE STATUS"),
        ] {
            assert_eq!(replica_status(&ServerVersion::of_greeting(version)), words, "{version}");
        }
    }
}
