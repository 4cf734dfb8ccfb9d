//! An open connection: its driver task, prepared statements and time limits.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use agent_core::{Fault, FaultKind, Phase};
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};
use tokio_postgres::{Client, Connection, Row, Statement, types::ToSql};

use super::{
    classify,
    gate::LoginGate,
    memory::{Ages, Locks, RoleMemory},
};
use crate::dial::during;

/// The time limit for a clean logout.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long to wait for the reason after a connection broke.
const LAST_WORD: Duration = Duration::from_millis(100);

/// A prepared statement that no longer exists, or whose result type has changed.
const STALE_STATEMENT: [&str; 2] = ["26000", "0A000"];

/// One of the agent's sessions on a PostgreSQL server.
pub struct PostgresqlSession {
    /// `None` once the session is unusable.
    link: Option<Link>,
    /// Why the session is unusable.
    fault: Option<Fault>,
    /// Prepared on first use, dropped after any error.
    statements: HashMap<&'static str, Statement>,
    /// The time limit of one query.
    limit: Duration,
    pub(super) role: RoleMemory,
    pub(super) ages: Ages,
    /// The locks that show this agent to others; `None` until the first are taken.
    pub(super) peers: Option<Locks>,
}

struct Link {
    client: Client,
    task: JoinHandle<Result<(), tokio_postgres::Error>>,
    /// Dropped together with the client; the task then has [`FAREWELL`] to end.
    alive: oneshot::Sender<()>,
}

impl PostgresqlSession {
    pub(super) fn new(client: Client, connection: Connection<LoginGate, LoginGate>, limit: Duration) -> Self {
        let (alive, gone) = oneshot::channel();
        let task = tokio::spawn(drive(connection, gone));
        Self {
            link: Some(Link { client, task, alive }),
            fault: None,
            statements: HashMap::new(),
            limit,
            role: RoleMemory::default(),
            ages: Ages::default(),
            peers: None,
        }
    }

    /// Why the session is unusable; `None` while it is usable.
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// Completes when the connection has ended; the next query reports why.
    pub async fn interrupted(&mut self) {
        if let Some(link) = &mut self.link {
            // The receiver is the connection task's.
            link.alive.closed().await;
        }
    }

    /// Logs out, then closes the connection.
    pub async fn close(mut self) {
        if let Some(Link { client, task, alive }) = self.link.take() {
            self.statements.clear();
            drop((client, alive));
            // The task has its own time limit, and its result does not matter here.
            let _ = task.await;
        }
    }

    /// The rows of a query, within the session's time limit. `what` is what the query reads or
    /// does, for the message of a fault.
    pub(super) async fn rows(
        &mut self,
        what: &str,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Fault> {
        let started = Instant::now();
        let known = self.statements.contains_key(sql);
        let usable = self.fault.is_none();
        let outcome = match self.attempt(sql, parameters, self.limit).await {
            // The server refused before it ran anything: prepare again, once.
            Err(fault) if known && self.fault.is_none() && is_stale(&fault) => {
                self.attempt(sql, parameters, self.limit.saturating_sub(started.elapsed())).await
            }
            outcome => outcome,
        };
        outcome.map_err(|fault| {
            let fault = during(what, fault);
            if usable && self.fault.is_some() {
                self.fault = Some(fault.clone());
            }
            fault
        })
    }

    /// Runs statements that give no rows, in one round trip. An error that leaves the session usable
    /// is ignored.
    pub(super) async fn try_execute(&mut self, sql: &'static str) -> Result<(), Fault> {
        let Some(link) = &self.link else { return Err(self.unusable()) };
        match timeout(self.limit, link.client.batch_execute(sql)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                let fault = self.failed(sql, &error).await;
                if self.fault.is_some() { Err(fault) } else { Ok(()) }
            }
            Err(_) => Err(self.timed_out()),
        }
    }

    async fn attempt(
        &mut self,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
        limit: Duration,
    ) -> Result<Vec<Row>, Fault> {
        let Some(link) = &self.link else { return Err(self.unusable()) };
        let known = self.statements.get(sql).cloned();
        let query = async {
            let statement = match known {
                Some(statement) => statement,
                None => link.client.prepare(sql).await?,
            };
            let rows = link.client.query(&statement, parameters).await?;
            Ok::<_, tokio_postgres::Error>((statement, rows))
        };
        match timeout(limit, query).await {
            Ok(Ok((statement, rows))) => {
                self.statements.insert(sql, statement);
                Ok(rows)
            }
            Ok(Err(error)) => Err(self.failed(sql, &error).await),
            Err(_) => Err(self.timed_out()),
        }
    }

    /// A query failed. The session ends with it unless the server keeps it open.
    async fn failed(&mut self, sql: &'static str, error: &tokio_postgres::Error) -> Fault {
        self.statements.remove(sql);
        let mut fault = classify::fault(Phase::Query, error);
        if !classify::ends_session(error) {
            return fault;
        }
        // The driver reports to the query only that the connection is closed. The reason (an
        // administrator's command, a reset, ...) is the result of the connection task.
        if error.is_closed()
            && let Some(link) = &mut self.link
            && let Ok(Ok(Err(last_word))) = timeout(LAST_WORD, &mut link.task).await
        {
            fault = classify::fault(Phase::Query, &last_word);
        }
        self.give_up(fault)
    }

    /// Drops the connection at once and records why.
    fn give_up(&mut self, fault: Fault) -> Fault {
        self.statements.clear();
        if let Some(link) = self.link.take() {
            link.task.abort();
        }
        self.fault = Some(fault.clone());
        fault
    }

    fn timed_out(&mut self) -> Fault {
        let message = format!("no answer within {:?}, so the session was closed", self.limit);
        self.give_up(Fault::new(Phase::Query, FaultKind::TimedOut, message))
    }

    fn unusable(&self) -> Fault {
        let why = self.fault.as_ref().map_or_else(|| "it was closed".to_owned(), ToString::to_string);
        Fault::new(Phase::Query, FaultKind::Disconnected, format!("the session is unusable: {why}"))
    }
}

fn is_stale(fault: &Fault) -> bool {
    fault.code.as_deref().is_some_and(|code| STALE_STATEMENT.contains(&code))
}

/// Runs a connection until it ends, or until [`FAREWELL`] after its session was dropped: a
/// frozen server must not keep the task alive.
async fn drive(
    connection: Connection<LoginGate, LoginGate>,
    gone: oneshot::Receiver<()>,
) -> Result<(), tokio_postgres::Error> {
    tokio::pin!(connection);
    tokio::select! {
        outcome = &mut connection => return outcome,
        _ = gone => {}
    }
    timeout(FAREWELL, connection).await.unwrap_or(Ok(()))
}

/// The column at a position.
pub(super) fn column<'row, T: tokio_postgres::types::FromSql<'row>>(
    row: &'row Row,
    position: usize,
) -> Result<T, Fault> {
    row.try_get(position).map_err(|error| classify::fault(Phase::Query, &error))
}

/// The row of a query that always returns exactly one.
pub(super) fn only_row(rows: &[Row]) -> Result<&Row, Fault> {
    match rows {
        [row] => Ok(row),
        _ => {
            Err(Fault::new(Phase::Query, FaultKind::Protocol, format!("{} rows instead of one", rows.len())))
        }
    }
}
