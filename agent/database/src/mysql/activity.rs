//! The process list: user, client address, state and idle time of each session.
//!
//! `Sleep` does not mean idle: a transaction may be open. The events of `performance_schema`
//! show every transaction; `innodb_trx` shows only those that have touched a table. The server
//! refreshes `innodb_trx` only after 100 ms without a reader, so it is read at most every 250 ms
//! by all agents together (`pace`), and an entry that is older than a session's idle period is
//! ignored. If either source shows a transaction, the session is in one; if the source that the
//! operator chose is not visible, the activity is unknown. It is also unknown for every session
//! where the agent lacks `PROCESS`: the process list hides other sessions then, and
//! `performance_schema` proves only that they exist.
//!
//! One round trip, and a second one for connections whose `HOST` is a resolved name: the socket
//! table of `performance_schema` has their addresses. Without it such sessions have none.
//!
//! The server does not report when a session began, only how long it has been in its present
//! state: in microseconds on MariaDB (`TIME_MS`), by the timer of its last statement on MySQL,
//! otherwise in whole seconds, of which one is subtracted.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use agent_core::{
    Fault, FaultKind, Phase,
    session::{Activity, ActivityRow, Age, BackendKey, LastStatement},
};

use super::{
    memory::{Facts, OpenTransactions},
    session::MySqlSession,
    types::{Origin, address, id_list, microseconds, port_of, proved_by_seconds},
    wire::ResultSet,
};
use crate::engine::Scope;

/// What the queries do, for the message of a fault.
const WHAT: &str = "reading the process list";

/// Users of the server's own threads.
const OWN_THREADS: [&str; 2] = ["system user", "event_scheduler"];

/// Commands of replication and other internal sessions, by prefix.
const NOT_CLIENTS: [&str; 6] =
    ["Binlog Dump", "Table Dump", "Register Slave", "Slave_", "Group Replication", "Delayed"];

/// How much two readings in whole seconds may differ from the time between them.
const WHOLE_SECOND: Duration = Duration::from_secs(1);

/// The account that RDS itself uses.
const PLATFORM_USER: &str = "rdsadmin";

/// The columns of the process list, for an agent without `PROCESS`.
const CONNECTED: &str = "\
    SELECT t.PROCESSLIST_ID, t.PROCESSLIST_USER, CONCAT(s.IP, ':', s.PORT), t.PROCESSLIST_DB, \
           t.PROCESSLIST_COMMAND, t.PROCESSLIST_TIME, NULL \
      FROM performance_schema.threads AS t \
      LEFT JOIN performance_schema.socket_instances AS s ON s.THREAD_ID = t.THREAD_ID AND s.PORT > 0 \
     WHERE t.TYPE = 'FOREGROUND' AND ";

/// Thread by connection. The other tables are joined to it in the agent: the server would use a
/// nested loop over all threads.
const THREADS: &str = "\
    SELECT t.PROCESSLIST_ID, t.THREAD_ID, t.INSTRUMENTED = 'YES' FROM performance_schema.threads AS t WHERE ";

const OPEN: &str =
    "SELECT THREAD_ID FROM performance_schema.events_transactions_current WHERE STATE = 'ACTIVE'";

const LOCKS: &str = "SELECT DISTINCT OWNER_THREAD_ID FROM performance_schema.metadata_locks";

/// The time since each thread's last statement ended; no row while one runs. The timers are
/// unsigned, and a statement that ends during this query ends after its `now`: MySQL fails the
/// whole query (1690) if a difference becomes negative.
const PAUSES: &str = "\
    SELECT t.PROCESSLIST_ID, \
           FLOOR((GREATEST(MAX(me.now), MAX(s.TIMER_END)) - MAX(s.TIMER_END)) / 1000000) \
      FROM performance_schema.threads AS t \
      JOIN performance_schema.events_statements_current AS s ON s.THREAD_ID = t.THREAD_ID \
     CROSS JOIN (SELECT MAX(own.TIMER_END) AS now \
                   FROM performance_schema.threads AS here \
                   JOIN performance_schema.events_statements_current AS own ON own.THREAD_ID = here.THREAD_ID \
                  WHERE here.PROCESSLIST_ID = CONNECTION_ID()) AS me \
     WHERE ";
const PAUSES_END: &str = " GROUP BY t.PROCESSLIST_ID HAVING SUM(s.END_EVENT_ID IS NULL) = 0";

const APPLICATIONS: &str = "\
    SELECT t.PROCESSLIST_ID, t.ATTR_VALUE FROM performance_schema.session_connect_attrs AS t \
     WHERE t.ATTR_NAME = 'program_name' AND ";

const TOUCHING: &str = "SELECT trx_mysql_thread_id FROM information_schema.INNODB_TRX";

const SOCKETS: &str = "\
    SELECT t.PROCESSLIST_ID, s.IP, s.PORT \
      FROM performance_schema.threads AS t \
      JOIN performance_schema.socket_instances AS s ON s.THREAD_ID = t.THREAD_ID \
     WHERE s.PORT > 0 AND t.PROCESSLIST_ID IN ";

pub(super) async fn activity(
    session: &mut MySqlSession,
    scope: Scope<'_>,
) -> Result<Vec<ActivityRow>, Fault> {
    if matches!(scope, Scope::Only([])) {
        return Ok(Vec::new());
    }
    let facts = session.facts().await?;
    let look = look(session, &facts, scope).await?;
    let mut rows: Vec<Process> = look.processes.iter().filter_map(Process::read).collect();
    bound_by_elapsed_time(&mut session.memory.lasting, &mut rows, Instant::now());
    resolve_names(session, &facts, &rows).await?;
    let memory = &mut session.memory;
    if matches!(scope, Scope::All) {
        let here: HashSet<u64> = rows.iter().map(|row| row.id).collect();
        memory.addresses.retain(|id, _| here.contains(id));
        memory.applications.retain(|id, _| here.contains(id));
        memory.lasting.retain(|id, _| here.contains(id));
        memory.trx.shared_by(agents(&rows, &facts.own_user));
    }
    let seen = Seen { facts: &facts, look: &look, mode: memory.open_transactions };
    let touching = memory.touching.as_ref();
    Ok(rows
        .into_iter()
        .map(|process| {
            let client = match &process.origin {
                Origin::Address(client) => Some(*client),
                Origin::Name(name, port) if name == "localhost" && facts.ipv4_only => {
                    Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), *port))
                }
                Origin::Name(..) => memory.addresses.get(&process.id).copied(),
                Origin::Local => None,
            };
            let application = memory.applications.get(&process.id).cloned().unwrap_or_default();
            seen.row(process, client, application, touching)
        })
        .collect())
}

/// Limits the time in a state to what has passed since it was read last. Whole seconds are differences
/// of the server's wall clock: after a step forward every session would look old and idle.
fn bound_by_elapsed_time(known: &mut HashMap<u64, (Duration, Instant)>, rows: &mut [Process], now: Instant) {
    for row in rows {
        if let Some((lasting, read)) = known.get(&row.id) {
            let expected = *lasting + now.saturating_duration_since(*read);
            if row.lasting > expected + WHOLE_SECOND {
                row.lasting = expected;
            }
        }
        known.insert(row.id, (row.lasting, now));
    }
}

/// The number of agents: the number of hosts that the agent's user is connected from, since an
/// agent has several connections.
fn agents(rows: &[Process], own_user: &str) -> usize {
    let own = rows.iter().filter(|row| &*row.user == own_user);
    let hosts: HashSet<String> = own.map(|row| row.origin.host()).collect();
    hosts.len()
}

/// The results of one reading.
#[derive(Default)]
struct Look {
    processes: Vec<Vec<Option<String>>>,
    events: HashMap<u64, Event>,
    pauses: HashMap<u64, Duration>,
}

#[derive(Copy, Clone)]
struct Event {
    watched: bool,
    active: bool,
    lock: bool,
}

async fn look(session: &mut MySqlSession, facts: &Facts, scope: Scope<'_>) -> Result<Look, Fault> {
    let mariadb = session.server().mariadb;
    let ids = match scope {
        Scope::All => None,
        Scope::Only(keys) => Some(id_list(keys.iter().map(|key| key.pid))),
    };
    let those = |column: &str| match &ids {
        None => format!("{column} <> CONNECTION_ID()"),
        Some(ids) => format!("{column} IN ({ids}) AND {column} <> CONNECTION_ID()"),
    };
    let pause = if mariadb { "FLOOR(p.TIME_MS * 1000)" } else { "NULL" };
    let mut sql = if facts.process || !facts.performance_schema {
        format!(
            "SELECT p.ID, p.USER, p.HOST, p.DB, p.COMMAND, p.TIME, {pause} \
               FROM information_schema.PROCESSLIST AS p WHERE {}",
            those("p.ID")
        )
    } else {
        format!("{CONNECTED}{}", those("t.PROCESSLIST_ID"))
    };
    let pauses = facts.statements && !mariadb;
    // For a few sessions, only unknown names are queried.
    let applications = facts.performance_schema
        && match scope {
            Scope::All => true,
            Scope::Only(keys) => keys.iter().any(|key| !session.memory.applications.contains_key(&key.pid)),
        };
    let touching = facts.process && session.memory.trx.is_due(Instant::now());
    let also = |wanted: bool, sql: &mut String, statement: &str| {
        if wanted {
            sql.push(';');
            sql.push_str(statement);
        }
    };
    let threads = those("t.PROCESSLIST_ID");
    also(facts.performance_schema, &mut sql, &format!("{THREADS}{threads}"));
    also(facts.performance_schema, &mut sql, OPEN);
    also(facts.locks, &mut sql, LOCKS);
    also(pauses, &mut sql, &format!("{PAUSES}{threads}{PAUSES_END}"));
    also(applications, &mut sql, &format!("{APPLICATIONS}{threads}"));
    also(touching, &mut sql, TOUCHING);

    let asked_at = Instant::now();
    let results = session.query(WHAT, &sql).await.inspect_err(|_| session.forget_facts());
    if touching {
        session.memory.trx.read(Instant::now());
    }
    let mut results = results?.into_iter();
    let mut next =
        |wanted: bool| if wanted { results.next().ok_or_else(too_few) } else { Ok(ResultSet::default()) };
    let mut look = Look { processes: next(true)?.rows, ..Look::default() };
    let threads = next(facts.performance_schema)?;
    let active = first_numbers(&next(facts.performance_schema)?);
    let locked = first_numbers(&next(facts.locks)?);
    look.events = threads
        .rows
        .iter()
        .filter_map(|row| match row.as_slice() {
            [id, thread, watched] => {
                let thread = number(thread.as_deref())?;
                let event = Event {
                    watched: flag(watched.as_deref()),
                    active: active.contains(&thread),
                    lock: locked.contains(&thread),
                };
                Some((number(id.as_deref())?, event))
            }
            _ => None,
        })
        .collect();
    look.pauses = next(pauses)?
        .rows
        .iter()
        .filter_map(|row| match row.as_slice() {
            [id, pause] => Some((number(id.as_deref())?, microseconds(pause.as_deref())?)),
            _ => None,
        })
        .collect();
    let memory = &mut session.memory;
    if applications {
        let answer = next(true)?;
        let by_id: HashMap<u64, Arc<str>> = answer
            .rows
            .iter()
            .filter_map(|row| match row.as_slice() {
                [id, name] => Some((number(id.as_deref())?, Arc::from(name.as_deref().unwrap_or_default()))),
                _ => None,
            })
            .collect();
        // A logged-in session without a name has none.
        for process in look.processes.iter().filter_map(Process::read).filter(Process::logged_in) {
            let name = by_id.get(&process.id).cloned().unwrap_or_default();
            memory.applications.insert(process.id, name);
        }
    }
    if touching {
        let ids = first_numbers(&next(true)?);
        memory.touching = Some((ids, asked_at));
    }
    Ok(look)
}

/// Looks up the addresses of connections whose `HOST` is a name.
async fn resolve_names(session: &mut MySqlSession, facts: &Facts, rows: &[Process]) -> Result<(), Fault> {
    if !facts.performance_schema {
        return Ok(());
    }
    let unknown: Vec<(u64, u16)> = rows
        .iter()
        .filter_map(|row| match &row.origin {
            Origin::Name(_, port) => Some((row.id, *port)),
            _ => None,
        })
        .filter(|(id, _)| !session.memory.addresses.contains_key(id))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let sql = format!("{SOCKETS}({})", id_list(unknown.iter().map(|(id, _)| *id)));
    let sockets = session.query(WHAT, &sql).await.inspect_err(|_| session.forget_facts())?;
    let ports: HashMap<u64, u16> = unknown.into_iter().collect();
    for row in sockets.first().map(|result| result.rows.as_slice()).unwrap_or_default() {
        let [id, ip, port] = row.as_slice() else { continue };
        let (Some(id), Some(ip)) = (number(id.as_deref()), ip.as_deref().and_then(address)) else { continue };
        let port = port.as_deref().and_then(port_of);
        // Both tables have to agree on the port.
        if let Some(port) = port.filter(|port| ports.get(&id) == Some(port)) {
            session.memory.addresses.insert(id, SocketAddr::new(ip, port));
        }
    }
    Ok(())
}

/// A row of the process list.
struct Process {
    id: u64,
    user: Arc<str>,
    origin: Origin,
    database: Arc<str>,
    command: String,
    /// The least time that the session has been in its present state.
    lasting: Duration,
}

impl Process {
    /// `None` for the server's own threads.
    fn read(row: &Vec<Option<String>>) -> Option<Self> {
        let [id, user, host, database, command, seconds, microsecond] = row.as_slice() else { return None };
        let user = user.as_deref().unwrap_or_default();
        let command = command.as_deref().unwrap_or_default();
        if OWN_THREADS.contains(&user) || command == "Daemon" {
            return None;
        }
        Some(Self {
            id: number(id.as_deref())?,
            user: user.into(),
            origin: Origin::parse(host.as_deref().unwrap_or_default()),
            database: database.as_deref().unwrap_or_default().into(),
            command: command.to_owned(),
            lasting: microseconds(microsecond.as_deref())
                .unwrap_or_else(|| proved_by_seconds(seconds.as_deref())),
        })
    }

    fn logged_in(&self) -> bool {
        &*self.user != "unauthenticated user" && self.command != "Connect"
    }
}

/// A reading, with what is needed to interpret it.
struct Seen<'a> {
    facts: &'a Facts,
    look: &'a Look,
    mode: OpenTransactions,
}

impl Seen<'_> {
    fn row(
        &self,
        process: Process,
        client: Option<SocketAddr>,
        application: Arc<str>,
        touching: Option<&(HashSet<u64>, Instant)>,
    ) -> ActivityRow {
        let account = self.facts.account(&process.user);
        let event = self.look.events.get(&process.id).copied();
        let lasting = self.look.pauses.get(&process.id).copied().unwrap_or(process.lasting);
        let touching = touching.is_some_and(|(ids, at)| ids.contains(&process.id) && lasting >= at.elapsed());
        let activity = if self.facts.process {
            self.doing(&process.command, event, touching, lasting)
        } else {
            Activity::Unknown
        };
        // Locks inside a transaction are the transaction's.
        let lock = matches!(activity, Activity::Idle(_)) && event.is_some_and(|event| event.lock);
        ActivityRow {
            key: BackendKey { pid: process.id, started_us: 0 },
            client,
            iam_user: account.iam && !account.superuser,
            superuser: account.superuser || &*process.user == PLATFORM_USER,
            user: process.user,
            database_name: process.database,
            application,
            client_backend: !NOT_CLIENTS.iter().any(|other| process.command.starts_with(other)),
            age: Age::AtLeast(lasting),
            activity,
            last_statement: LastStatement::Other,
            // Where locks are not visible at all, `Rights::sight` reports it.
            advisory_lock: Some(lock),
        }
    }

    fn doing(&self, command: &str, event: Option<Event>, touching: bool, lasting: Duration) -> Activity {
        if command != "Sleep" {
            return Activity::Running;
        }
        if touching || event.is_some_and(|event| event.active) {
            return Activity::InTransaction;
        }
        let events = self.facts.events && event.is_some_and(|event| event.watched);
        let hidden = (self.mode.by_events() && !events) || (self.mode.by_trx() && !self.facts.process);
        if hidden { Activity::Unknown } else { Activity::Idle(lasting) }
    }
}

fn first_numbers(result: &ResultSet) -> HashSet<u64> {
    result.rows.iter().filter_map(|row| number(row.first()?.as_deref())).collect()
}

fn number(cell: Option<&str>) -> Option<u64> {
    cell?.parse().ok()
}

fn flag(cell: Option<&str>) -> bool {
    cell == Some("1")
}

fn too_few() -> Fault {
    Fault::new(Phase::Query, FaultKind::Protocol, "fewer results than statements")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(row: [Option<&str>; 7]) -> Option<Process> {
        Process::read(&row.into_iter().map(|cell| cell.map(str::to_owned)).collect())
    }

    fn seen(facts: &Facts, mode: OpenTransactions, event: Option<Event>, touching: bool) -> Activity {
        let seen = Seen { facts, look: &Look::default(), mode };
        seen.doing("Sleep", event, touching, Duration::from_secs(1))
    }

    const QUIET: Event = Event { watched: true, active: false, lock: false };

    #[test]
    fn a_row_of_the_process_list_is_parsed() {
        let row =
            [Some("7"), Some("app"), Some("10.0.0.7:81"), None, Some("Sleep"), Some("2"), Some("1999876")];
        let session = process(row).unwrap();
        assert_eq!((session.id, &*session.user, &*session.database), (7, "app", ""));
        assert_eq!(session.origin, Origin::Address("10.0.0.7:81".parse().unwrap()));
        assert_eq!(session.lasting, Duration::from_micros(1_999_876));
        let row = [Some("7"), Some("app"), Some("10.0.0.7:81"), Some("d"), Some("Sleep"), Some("2"), None];
        assert_eq!(process(row).unwrap().lasting, Duration::from_secs(1));
        for (user, command) in [("system user", "Connect"), ("event_scheduler", "Daemon"), ("", "Daemon")] {
            let row = [Some("3"), Some(user), Some(""), None, Some(command), Some("9"), None];
            assert!(process(row).is_none(), "{user}");
        }
    }

    /// MySQL fails such a statement; MariaDB does not, so tests on it cannot show this.
    #[test]
    fn no_timer_difference_can_become_negative() {
        for sql in [PAUSES, include_str!("guard.sql")] {
            let sql = sql.split_whitespace().collect::<Vec<_>>().join(" ");
            let (greater, _) = sql.split_once(") - MAX(").expect("a difference");
            assert!(greater.contains("GREATEST(MAX("), "{sql}");
            assert_eq!(sql.matches(" - MAX(").count(), 1, "{sql}");
        }
    }

    #[test]
    fn a_step_of_the_servers_clock_makes_no_session_look_idle_for_longer() {
        let seconds = Duration::from_secs;
        let mut known = HashMap::new();
        let start = Instant::now();
        let mut read = |time: &str, at: Duration| {
            let row = [Some("7"), Some("app"), Some("10.0.0.7:81"), None, Some("Sleep"), Some(time), None];
            let mut rows = [process(row).unwrap()];
            bound_by_elapsed_time(&mut known, &mut rows, start + at);
            rows[0].lasting
        };
        assert_eq!(read("3", seconds(0)), seconds(2));
        assert_eq!(read("5", seconds(2)), seconds(4));
        // An hour forward.
        assert_eq!(read("3607", seconds(4)), seconds(6));
        // Another statement has ended since.
        assert_eq!(read("1", seconds(6)), seconds(0));
    }

    #[test]
    fn replication_sessions_are_not_client_sessions() {
        for (command, client) in
            [("Sleep", true), ("Query", true), ("Binlog Dump", false), ("Binlog Dump GTID", false)]
        {
            let row = [Some("3"), Some("app"), Some("10.0.0.7:81"), None, Some(command), Some("9"), None];
            let facts = Facts::default();
            let seen = Seen { facts: &facts, look: &Look::default(), mode: OpenTransactions::Strict };
            let row = seen.row(process(row).unwrap(), None, "".into(), None);
            assert_eq!(row.client_backend, client, "{command}");
        }
    }

    #[test]
    fn only_a_sleeping_session_without_a_transaction_is_idle() {
        let all = Facts { process: true, events: true, ..Facts::default() };
        let blind = Facts { process: true, ..Facts::default() };
        let idle = Activity::Idle(Duration::from_secs(1));
        for mode in
            [OpenTransactions::PerformanceSchema, OpenTransactions::InnodbTrx, OpenTransactions::Strict]
        {
            assert_eq!(seen(&all, mode, Some(QUIET), false), idle);
            // Either source is enough to show a transaction.
            assert_eq!(seen(&all, mode, Some(QUIET), true), Activity::InTransaction);
            assert_eq!(
                seen(&all, mode, Some(Event { active: true, ..QUIET }), false),
                Activity::InTransaction
            );
            // A source that the operator did not choose need not be visible.
            let expected = if mode == OpenTransactions::InnodbTrx { idle } else { Activity::Unknown };
            assert_eq!(seen(&blind, mode, None, false), expected);
            assert_eq!(seen(&all, mode, Some(Event { watched: false, ..QUIET }), false), expected);
            let expected = if mode == OpenTransactions::PerformanceSchema { idle } else { Activity::Unknown };
            assert_eq!(seen(&Facts { process: false, ..all.clone() }, mode, Some(QUIET), false), expected);
        }
        let seen = Seen { facts: &all, look: &Look::default(), mode: OpenTransactions::PerformanceSchema };
        for command in ["Query", "Execute", "Connect", "Killed", "Statistics", "a command of MySQL 12"] {
            assert_eq!(
                seen.doing(command, Some(QUIET), false, Duration::MAX),
                Activity::Running,
                "{command}"
            );
        }
    }

    #[test]
    fn an_innodb_trx_entry_older_than_the_idle_period_is_ignored() {
        let facts = Facts { process: true, events: true, performance_schema: true, ..Facts::default() };
        let look = Look { events: HashMap::from([(7, QUIET)]), ..Look::default() };
        let seen = Seen { facts: &facts, look: &look, mode: OpenTransactions::PerformanceSchema };
        let row = |lasting: Duration, read_ago: Duration| {
            let row = [Some("7"), Some("app"), Some("10.0.0.7:81"), None, Some("Sleep"), Some("0"), None];
            let process = Process { lasting, ..process(row).unwrap() };
            let read = Instant::now().checked_sub(read_ago).unwrap();
            seen.row(process, None, "".into(), Some(&(HashSet::from([7]), read))).activity
        };
        let ms = Duration::from_millis;
        assert_eq!(row(ms(900), ms(100)), Activity::InTransaction);
        assert_eq!(row(ms(100), ms(200)), Activity::Idle(ms(100)));
    }
}
