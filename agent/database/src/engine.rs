//! What every kind of database can be asked, in words that fit all of them.
//!
//! [`Engine`] opens a [`Session`]; both can be used as trait objects. Every answer
//! has a time limit of its own, so no caller needs one around it. A session that
//! missed a limit, or lost its connection, is of no use any more: every later
//! question gets a fault at once that says so, and the owner logs in anew.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use agent_core::{
    Fault,
    health::{ConnectErrors, RoleFacts},
    session::{ActivityRow, BackendKey},
};
use futures_util::future::BoxFuture;
use serde::Serialize;

use crate::{
    report::LoginReport,
    target::{Limits, Target},
    trust::TlsTrust,
};

/// An answer that takes time.
pub type Answer<'a, T> = BoxFuture<'a, T>;

/// A login: the session, or why there is none, and how it went either way.
pub type Login = (Result<Box<dyn Session>, Fault>, LoginReport);

/// A kind of database.
pub trait Engine: Send + Sync {
    /// One full login: name, connection, verified TLS, token.
    ///
    /// The report is filled as far as the login got, also when it failed.
    fn login<'a>(
        &'a self,
        target: &'a Target,
        trust: &'a TlsTrust,
        token: &'a str,
        limits: &'a Limits,
    ) -> Answer<'a, Login>;
}

/// An open session of the agent's own. Dropping it closes the connection as well
/// as [`Session::close`], without waiting.
pub trait Session: Send {
    /// The instance's role by its own word. One round trip once the session has
    /// been asked before: this is also the liveness query.
    fn role(&mut self) -> Answer<'_, Result<RoleFacts, Fault>>;

    /// What the agent's user may do here.
    fn rights(&mut self) -> Answer<'_, Result<Rights, Fault>>;

    /// The sessions of the connection table, without the agent's own one and
    /// without the server's own workers.
    fn activity<'a>(&'a mut self, scope: Scope<'a>) -> Answer<'a, Result<Vec<ActivityRow>, Fault>>;

    /// Closes one session if, at that moment, it still is the one described and has
    /// been idle for `quiet` or longer; else says why not. The check and the closing
    /// are one round trip, and take effect inside the database.
    fn retire<'a>(
        &'a mut self,
        target: &'a RetireTarget,
        method: Method,
        quiet: Duration,
    ) -> Answer<'a, RetireOutcome>;

    /// Waits at most 150 ms for the session to become idle and closes it within 5 ms
    /// of that moment; [`RetireOutcome::NeverIdle`] if there was none.
    fn catch<'a>(&'a mut self, target: &'a RetireTarget, method: Method) -> Answer<'a, RetireOutcome>;

    /// The failed connections that the server counts against the addresses they came from.
    /// `None` where no server of this kind does such a thing.
    fn connect_errors(&mut self) -> Answer<'_, Result<Option<ConnectErrors>, Fault>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Why the session is of no use any more, if it is not.
    fn fault(&self) -> Option<&Fault>;

    /// Ends the session in good order.
    fn close(self: Box<Self>) -> Answer<'static, ()>;
}

/// Which sessions to ask for.
#[derive(Copy, Clone, Debug)]
pub enum Scope<'a> {
    /// All of them.
    All,
    /// Only these, as cheaply as possible; those that are gone are missing in the answer.
    Only(&'a [BackendKey]),
}

/// A session to close, by everything that identifies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetireTarget {
    /// Its process and the moment it began.
    pub key: BackendKey,
    /// Where the database sees it come from: the proxy's outgoing address and port.
    pub client: SocketAddr,
    /// Its user.
    pub user: Arc<str>,
    /// Whether the operator named users that do not log in by IAM. Superusers stay
    /// out of reach all the same, and [`Method::Function`] refuses it.
    pub any_user: bool,
}

/// How a session is closed.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// By the agent's own right: `pg_signal_backend`, or `CONNECTION ADMIN` for `KILL`.
    Signal,
    /// Through the function or procedure of `deploy/`, which has that right in the agent's
    /// stead and repeats every condition inside.
    Function,
    /// By `mysql.rds_kill`, which RDS gives in place of `KILL`. PostgreSQL has no such thing.
    Platform,
}

/// What became of an attempt to close a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RetireOutcome {
    /// The signal was sent. That the session is gone is for the next look at the
    /// activity to show.
    Closed,
    /// There is no such session any more.
    Gone,
    /// It runs something, is inside a transaction, or does not show what it does.
    NotIdle,
    /// It is idle, but only for so long.
    NotQuiet(Duration),
    /// It was never freshly idle while it was watched (only [`Session::catch`]).
    NeverIdle,
    /// The process is another session now: start, address, port, user or kind differ.
    Changed,
    /// It holds a lock that outlives transactions: an advisory lock, a user lock, locked tables.
    AdvisoryLock,
    /// Its last statement was `LISTEN`.
    Listening,
    /// Its user is a superuser, or does not log in by IAM.
    NotAllowed,
    /// The attempt itself failed; a time limit leaves open whether the session was closed.
    Failed(Fault),
}

/// What the agent's user may do on an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rights {
    /// The server's version in its own words.
    pub version: String,
    /// The same as a number: 150018 for 15.18.
    pub version_number: u32,
    /// Whether it sees what the sessions of others do.
    pub sees_all_activity: bool,
    /// Which of the things that hold a session it can see.
    pub sight: Sight,
    /// Whether it may close the sessions of others by its own right ([`Method::Signal`]).
    pub may_signal: bool,
    /// Whether it may close them through the function.
    pub function: FunctionState,
    /// Whether it may [`Session::catch`] through its function, which is installed apart.
    pub catch_function: FunctionState,
    /// Whether the platform closes them for it ([`Method::Platform`]).
    pub platform: bool,
    /// Whether it is a superuser, which it should not be.
    pub superuser: bool,
    /// Whether the server knows logins by IAM at all.
    pub iam_known: bool,
    /// Whether the agent's user itself logs in by IAM.
    pub iam_user: bool,
    /// What is missing and what to do about it, the most important first.
    pub missing: Vec<Missing>,
}

impl Rights {
    /// The method that can be used: the function first, which takes the fewest rights.
    pub fn method(&self) -> Option<Method> {
        if self.function == FunctionState::Ready {
            Some(Method::Function)
        } else {
            self.method_for_any_user()
        }
    }

    /// The method for a session whose user does not log in by IAM: the function closes none of them.
    pub fn method_for_any_user(&self) -> Option<Method> {
        // The platform's way takes a moment of its own between look and close.
        if self.may_signal {
            Some(Method::Signal)
        } else if self.platform {
            Some(Method::Platform)
        } else {
            None
        }
    }

    /// What to grant, install or turn on here, in the engine's own words: what closing
    /// takes only where sessions are to be closed.
    pub fn advice(&self, closing: bool) -> impl Iterator<Item = &'static str> + use<'_> {
        let wanted = move |missing: &&Missing| closing || missing.lacks != Lacks::Closing;
        self.missing.iter().filter(wanted).map(|missing| missing.advice)
    }
}

/// What can be seen of others' sessions besides what they are doing. What cannot be
/// seen does not hold a session.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sight {
    /// Open transactions between two statements.
    pub open_transactions: TransactionSight,
    /// Tables locked by `LOCK TABLES` or alike, outside transactions.
    pub table_locks: bool,
    /// Advisory locks (PostgreSQL), user locks of `GET_LOCK` (MySQL family).
    pub user_locks: bool,
}

/// Which open transactions can be seen.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TransactionSight {
    /// Every one.
    All,
    /// Those that have read or written a table: one that has only begun cannot be seen.
    Touching,
    /// None, or not in the way the operator insists on: every session is held.
    Nothing,
}

/// Something the agent lacks on an instance.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// What it cannot do.
    pub lacks: Lacks,
    /// What to grant, install or turn on, in the engine's own words.
    pub advice: &'static str,
}

/// What an agent may lack.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lacks {
    /// Seeing what sessions do: all are held.
    Activity,
    /// Seeing open transactions, some or all ([`TransactionSight`]).
    Transactions,
    /// Seeing how users log in: nobody counts as an IAM user.
    Users,
    /// Seeing where sessions come from: those whose address is hidden are held.
    Addresses,
    /// Seeing locks that outlive transactions: sessions are closed in spite of them.
    Locks,
    /// A way to close sessions.
    Closing,
}

/// Whether the closing function can be used.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FunctionState {
    /// It is not installed in the database the agent is connected to, or (MySQL family)
    /// may not be seen there.
    Missing,
    /// It is of another version than this agent's.
    OtherVersion,
    /// The agent may not execute it.
    NotExecutable,
    /// It can be used.
    Ready,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_function_is_for_users_who_log_in_by_iam() {
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
