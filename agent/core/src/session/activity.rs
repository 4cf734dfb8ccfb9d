//! The database's side of a session: one row of its connection table.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde::Serialize;

/// The identity of a session at the database. Process ids are reused; together
/// with the start of the backend, by the database's own clock, they are not.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct BackendKey {
    /// PostgreSQL's backend pid, or the MySQL family's connection id.
    pub pid: u64,
    /// When the session began, in microseconds since 1970 by the database's clock.
    /// Compared for equality only, never with another host's clock. The MySQL family
    /// does not say, and counts its ids up while it runs: 0 there.
    pub started_us: i64,
}

/// How old a session is by the database's clock.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Age {
    /// Exactly this (PostgreSQL).
    Exactly(Duration),
    /// This or more: the MySQL family shows only how long a session has been in its
    /// present state. The proxy knows the rest.
    AtLeast(Duration),
}

impl Age {
    /// The lower bound.
    pub fn at_least(self) -> Duration {
        match self {
            Self::Exactly(age) | Self::AtLeast(age) => age,
        }
    }
}

/// What the database says a session is doing.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// Between transactions, for this long by the database's clock.
    Idle(Duration),
    /// Inside a transaction, an aborted one included.
    InTransaction,
    Running,
    /// The database does not show it: it may be anything.
    Unknown,
}

/// What kind the last statement of a session was, as far as it can be seen.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LastStatement {
    /// `LISTEN` or alike: the session waits for something that a new one would miss.
    Listening,
    Other,
    Unknown,
}

/// One client session as the database shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ActivityRow {
    pub key: BackendKey,
    /// Where the connection comes from as the database sees it: the proxy's
    /// outgoing address and port. `None` for a local socket or a resolved name.
    pub client: Option<SocketAddr>,
    pub user: Arc<str>,
    /// Whether that user logs in by IAM (member of `rds_iam`).
    pub iam_user: bool,
    /// The database name it is connected to.
    pub database_name: Arc<str>,
    /// What the client calls itself.
    pub application: Arc<str>,
    /// Whether it is an ordinary client session (not replication, not a worker).
    pub client_backend: bool,
    /// Whether it is a session of a superuser, which is out of reach.
    pub superuser: bool,
    /// How long ago it began, by the database's clock.
    pub age: Age,
    /// What it is doing.
    pub activity: Activity,
    /// What its last statement was.
    pub last_statement: LastStatement,
    /// Whether it holds session-level advisory locks; `None` where that was not asked.
    pub advisory_lock: Option<bool>,
}
