//! The interface to a database, the same for every engine.
//!
//! [`Engine`] opens a [`Session`]; both are object-safe. Every call has its own time limit,
//! so callers need none. After a timeout or a lost connection a session is unusable: every
//! later call fails at once with the cause, and the owner has to log in again.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use agent_core::{
    Fault,
    health::{ConnectErrors, RoleFacts},
    peers::{Look, Wish},
    session::{ActivityRow, BackendKey},
};
use futures_util::future::BoxFuture;
use serde::Serialize;

use crate::{
    report::LoginReport,
    target::{Limits, Target},
    trust::TlsTrust,
};

pub type Answer<'a, T> = BoxFuture<'a, T>;

/// A login: the session, or why there is none, and how it went either way.
pub type Login = (Result<Box<dyn Session>, Fault>, LoginReport);

/// A database engine: logs in.
pub trait Engine: Send + Sync {
    /// One full login: DNS, TCP, verified TLS, token.
    ///
    /// The report covers the phases that were reached, also when the login failed.
    fn login<'a>(
        &'a self,
        target: &'a Target,
        trust: &'a TlsTrust,
        token: &'a str,
        limits: &'a Limits,
    ) -> Answer<'a, Login>;
}

/// One of the agent's own sessions. Dropping it closes the connection without waiting.
pub trait Session: Send {
    /// The role that the instance reports. After the first call this takes one round trip:
    /// it is also the liveness query.
    fn role(&mut self) -> Answer<'_, Result<RoleFacts, Fault>>;

    fn rights(&mut self) -> Answer<'_, Result<Rights, Fault>>;

    /// The client sessions in the connection table, without this one and without the
    /// server's background workers.
    fn activity<'a>(&'a mut self, scope: Scope<'a>) -> Answer<'a, Result<Vec<ActivityRow>, Fault>>;

    /// Closes one session if it is still the one described and has been idle for at least
    /// `quiet`; otherwise reports why not. Check and close take effect inside the database,
    /// in one round trip.
    fn retire<'a>(
        &'a mut self,
        target: &'a RetireTarget,
        method: Method,
        quiet: Duration,
    ) -> Answer<'a, RetireOutcome>;

    /// Waits at most 150 ms for the session to become idle and closes it within 5 ms of that
    /// moment; [`RetireOutcome::NeverIdle`] if it never did.
    fn catch<'a>(&'a mut self, target: &'a RetireTarget, method: Method) -> Answer<'a, RetireOutcome>;

    /// The failed connections that the server counts per client address; `None` for an engine
    /// that counts none.
    fn connect_errors(&mut self) -> Answer<'_, Result<Option<ConnectErrors>, Fault>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Takes and releases locks that other agents see, as far as they are free, and reads all of them. The
    /// locks end with the session. They need no privilege.
    fn meet<'a>(&'a mut self, wish: &'a Wish) -> Answer<'a, Result<Look, Fault>>;

    /// Completes when the server ends the session or sends anything else unasked: the next query
    /// tells what. It may be dropped at any time.
    fn interrupted(&mut self) -> Answer<'_, ()>;

    /// Facts about the agent's user and its way to the server, for the doctor.
    fn circumstances(&mut self) -> Answer<'_, Result<Circumstances, Fault>>;

    /// Why the session is unusable; `None` while it is usable.
    fn fault(&self) -> Option<&Fault>;

    /// Logs out, then closes the connection.
    fn close(self: Box<Self>) -> Answer<'static, ()>;
}

/// Facts about the agent's user and its way to the server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Circumstances {
    /// The server's clock, in seconds since 1970.
    pub clock_s: f64,
    /// The agent's address as the server sees it; `None` for a name or a Unix socket.
    pub seen_as: Option<IpAddr>,
    /// The sessions that the user may have; `None` is no limit.
    pub connection_limit: Option<i64>,
    /// Settings of the user, everywhere or in this database: `name=value`.
    pub defaults: Vec<String>,
    /// Whether slots are reserved for which the user has no right.
    pub reserved_for_others: bool,
}

#[derive(Copy, Clone, Debug)]
pub enum Scope<'a> {
    All,
    /// Only these, as cheaply as possible; sessions that have ended are missing from the answer.
    Only(&'a [BackendKey]),
}

/// A session to close, by its full identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetireTarget {
    /// Process id and start time.
    pub key: BackendKey,
    /// The client address as the database sees it: the proxy's outgoing address and port.
    pub client: SocketAddr,
    pub user: Arc<str>,
    /// Whether the operator named users that do not log in by IAM. Superusers are never
    /// closed, and [`Method::Function`] closes IAM users only.
    pub any_user: bool,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// By the agent's own privilege: `pg_signal_backend`, or `CONNECTION ADMIN` for `KILL`.
    Signal,
    /// Through the function or procedure of `deploy/`, which holds that privilege and checks
    /// every condition itself.
    Function,
    /// By `mysql.rds_kill`, RDS's replacement for `KILL` (MySQL and MariaDB only).
    Platform,
}

/// The result of an attempt to close a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RetireOutcome {
    /// The signal was sent. The next reading of the connection table shows whether the session
    /// has ended.
    Closed,
    /// The session has already ended.
    Gone,
    /// It runs a statement, is in a transaction, or its state cannot be seen.
    NotIdle,
    /// It is idle, but only for this long.
    NotQuiet(Duration),
    /// It was never freshly idle while it was watched (only [`Session::catch`]).
    NeverIdle,
    /// The process id now belongs to another session: start, address, port, user or kind differ.
    Changed,
    /// It holds a lock that outlives transactions: an advisory lock, a user lock, or locked tables.
    AdvisoryLock,
    /// Its last statement was `LISTEN`.
    Listening,
    /// Its user is a superuser, or does not log in by IAM.
    NotAllowed,
    /// The attempt failed. After a timeout it is unknown whether the session was closed.
    Failed(Fault),
}

/// What the agent's user may do on an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rights {
    /// The server's version string.
    pub version: String,
    /// As a number: 150018 for 15.18.
    pub version_number: u32,
    /// Whether it sees the state of other users' sessions.
    pub sees_all_activity: bool,
    /// Which of the reasons to hold a session it can see.
    pub sight: Sight,
    /// Whether it may close other users' sessions itself ([`Method::Signal`]).
    pub may_signal: bool,
    /// Whether it may close them through the function.
    pub function: FunctionState,
    /// Whether it may [`Session::catch`] through the catch function, which is installed separately.
    pub catch_function: FunctionState,
    /// Whether it may use [`Method::Platform`].
    pub platform: bool,
    /// Whether it is a superuser, which it should not be.
    pub superuser: bool,
    /// Whether the server supports IAM logins.
    pub iam_known: bool,
    /// Whether the agent's user itself logs in by IAM.
    pub iam_user: bool,
    /// What is missing and how to fix it, most important first.
    pub missing: Vec<Missing>,
}

impl Rights {
    /// The method to use: the function if it is ready, since it needs the fewest privileges.
    pub fn method(&self) -> Option<Method> {
        if self.function == FunctionState::Ready {
            Some(Method::Function)
        } else {
            self.method_for_any_user()
        }
    }

    /// The method for a session whose user does not log in by IAM, which the function refuses.
    pub fn method_for_any_user(&self) -> Option<Method> {
        // `rds_kill` reads the process list first, which widens the window between check and close.
        if self.may_signal {
            Some(Method::Signal)
        } else if self.platform {
            Some(Method::Platform)
        } else {
            None
        }
    }

    /// What to grant, install or turn on, in the engine's terms. Advice about closing is left
    /// out unless `closing` is set.
    pub fn advice(&self, closing: bool) -> impl Iterator<Item = &'static str> + use<'_> {
        let wanted = move |missing: &&Missing| closing || missing.lacks != Lacks::Closing;
        self.missing.iter().filter(wanted).map(|missing| missing.advice)
    }
}

/// What can be seen of other sessions besides their state. A lock that cannot be seen does not
/// hold a session.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sight {
    /// Open transactions between two statements.
    pub open_transactions: TransactionSight,
    /// Tables locked outside transactions (`LOCK TABLES`).
    pub table_locks: bool,
    /// Advisory locks (PostgreSQL), user locks of `GET_LOCK` (MySQL family).
    pub user_locks: bool,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TransactionSight {
    All,
    /// Those that have read or written a table. One that has only begun cannot be seen.
    Touching,
    /// None, or not from the source that the operator requires: every session is held.
    Nothing,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    pub lacks: Lacks,
    /// What to grant, install or turn on, in the engine's terms.
    pub advice: &'static str,
}

/// What the agent cannot do, and the consequence.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lacks {
    /// See sessions' state: all are held.
    Activity,
    /// See open transactions, some or all ([`TransactionSight`]).
    Transactions,
    /// See how users log in: no user counts as an IAM user.
    Users,
    /// See client addresses: sessions with a hidden address are held.
    Addresses,
    /// See the replication status: lag and source are unknown.
    Replication,
    /// See locks that outlive transactions: sessions are closed despite them.
    Locks,
    Closing,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FunctionState {
    /// Not installed in the database that the agent is connected to, or (MySQL family) not
    /// visible there.
    Missing,
    /// Installed by another version of the agent.
    OtherVersion,
    /// Installed, but the agent lacks EXECUTE.
    NotExecutable,
    Ready,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_function_is_never_used_for_users_without_iam() {
        let sight = Sight { open_transactions: TransactionSight::All, table_locks: true, user_locks: true };
        let mut rights = Rights {
            version: "10.11.19".into(),
            version_number: 101_119,
            sees_all_activity: true,
            sight,
            may_signal: false,
            function: FunctionState::Ready,
            catch_function: FunctionState::Missing,
            platform: false,
            superuser: false,
            iam_known: true,
            iam_user: true,
            missing: Vec::new(),
        };
        assert_eq!((rights.method(), rights.method_for_any_user()), (Some(Method::Function), None));
        rights.may_signal = true;
        assert_eq!(
            (rights.method(), rights.method_for_any_user()),
            (Some(Method::Function), Some(Method::Signal))
        );
        rights.platform = true;
        assert_eq!(rights.method_for_any_user(), Some(Method::Signal));
        rights.may_signal = false;
        assert_eq!(rights.method_for_any_user(), Some(Method::Platform));
    }
}
