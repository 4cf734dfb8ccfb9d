//! An open connection: its task, its prepared statements, its time limits.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use agent_core::{Fault, FaultKind, Phase};
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};
use tokio_postgres::{Client, Connection, Row, Statement, types::ToSql};

use super::{classify, gate::LoginGate, memory::RoleMemory};

/// How long a connection may take to say goodbye.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long to wait for the last word of a connection that has broken.
const LAST_WORD: Duration = Duration::from_millis(100);

/// A statement the server has forgotten, or whose result has another shape now.
const STALE_STATEMENT: [&str; 2] = ["26000", "0A000"];

/// An open session of the agent's on a PostgreSQL server.
pub struct PostgresqlSession {
    /// `None` once the session is of no use any more.
    link: Option<Link>,
    /// Why it is of no use.
    fault: Option<Fault>,
    /// Prepared on first use, forgotten after any error.
    statements: HashMap<&'static str, Statement>,
    /// How long one query may take.
    limit: Duration,
    /// What the role query has learned about this server.
    pub(super) role: RoleMemory,
}

/// The two halves of the driver's connection.
struct Link {
    client: Client,
    task: JoinHandle<Result<(), tokio_postgres::Error>>,
    /// Dropped together with the client, it gives the task a last second.
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
        }
    }

    /// Why the session is of no use any more, if it is not.
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// Ends the session in good order.
    pub async fn close(mut self) {
        if let Some(Link { client, task, alive }) = self.link.take() {
            self.statements.clear();
            drop((client, alive));
            // The task bounds itself; what it says at the end is of no interest.
            let _ = task.await;
        }
    }

    /// The rows of a query, within the session's time limit.
    pub(super) async fn rows(
        &mut self,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Fault> {
        let started = Instant::now();
        let known = self.statements.contains_key(sql);
        match self.attempt(sql, parameters, self.limit).await {
            // The server refused before it ran anything: prepare anew, once.
            Err(fault) if known && self.fault.is_none() && is_stale(&fault) => {
                self.attempt(sql, parameters, self.limit.saturating_sub(started.elapsed())).await
            }
            outcome => outcome,
        }
    }

    async fn attempt(
        &mut self,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
        limit: Duration,
    ) -> Result<Vec<Row>, Fault> {
        let Some(link) = &self.link else { return Err(self.of_no_use()) };
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
            Err(_) => {
                let message = format!("no answer within {:?}, so the session was given up", self.limit);
                Err(self.give_up(Fault::new(Phase::Query, FaultKind::TimedOut, message)))
            }
        }
    }

    /// A query failed: with it the session, unless the server says it goes on.
    async fn failed(&mut self, sql: &'static str, error: &tokio_postgres::Error) -> Fault {
        self.statements.remove(sql);
        let mut fault = classify::fault(Phase::Query, error);
        if !classify::ends_session(error) {
            return fault;
        }
        // The driver tells the query only that the connection is gone; why is the
        // connection's own last word (an administrator's command, a reset, ...).
        if error.is_closed()
            && let Some(link) = &mut self.link
            && let Ok(Ok(Err(last_word))) = timeout(LAST_WORD, &mut link.task).await
        {
            fault = classify::fault(Phase::Query, &last_word);
        }
        self.give_up(fault)
    }

    /// Drops the connection at once and remembers why.
    fn give_up(&mut self, fault: Fault) -> Fault {
        self.statements.clear();
        if let Some(link) = self.link.take() {
            link.task.abort();
        }
        self.fault = Some(fault.clone());
        fault
    }

    fn of_no_use(&self) -> Fault {
        let why = self.fault.as_ref().map_or_else(|| "it was closed".to_owned(), ToString::to_string);
        Fault::new(Phase::Query, FaultKind::Disconnected, format!("the session is of no use any more: {why}"))
    }
}

fn is_stale(fault: &Fault) -> bool {
    fault.code.as_deref().is_some_and(|code| STALE_STATEMENT.contains(&code))
}

/// Runs a connection until it ends, or a little longer than its session lives: a
/// server that stands still must not keep it.
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

/// A column by its position in a statement of this crate.
pub(super) fn column<'row, T: tokio_postgres::types::FromSql<'row>>(
    row: &'row Row,
    position: usize,
) -> Result<T, Fault> {
    row.try_get(position).map_err(|error| classify::fault(Phase::Query, &error))
}

/// The only row of a query that always gives one.
pub(super) fn only_row(rows: &[Row]) -> Result<&Row, Fault> {
    match rows {
        [row] => Ok(row),
        _ => {
            Err(Fault::new(Phase::Query, FaultKind::Protocol, format!("{} rows instead of one", rows.len())))
        }
    }
}
