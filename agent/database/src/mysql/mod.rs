//! MySQL and MariaDB on RDS, Aurora, or any server with the same login.
//!
//! The SQL is written for MySQL 8.0 to 9.7 and MariaDB 10.5 to 11, and tested on MariaDB 10.11
//! and MySQL 9.7. None of it needs `SUPER`: `deploy/mysql/README.md` lists the grants, and what
//! cannot be seen with which settings.
//!
//! # Layout
//! - `wire`: the part of the protocol that the agent uses.
//! - `login`: from a target and a token to a session, phase by phase.
//! - `gate`: lets the token out only as a clear-text password inside TLS.
//! - `session`: the open connection and its time limits.
//! - `role`, `rights`, `activity`, `retire`: one query each.
//! - `peers`: locks by which agents meet.
//! - `memory`: what a session remembers of its server; `learn` queries it.
//! - `pace`: how often `innodb_trx` may be read.
//! - `types`: literals, addresses and durations in SQL.
//! - `host_block`: failed connections per client address.
//! - `classify`: error numbers and lost connections to faults.
//! - `version`: MySQL or MariaDB, which version, Aurora or not.

mod activity;
mod circumstances;
mod classify;
mod gate;
mod host_block;
mod learn;
mod login;
mod memory;
mod pace;
mod peers;
mod retire;
mod rights;
mod role;
mod session;
mod types;
mod version;
#[doc(hidden)]
pub mod wire;

use std::time::Duration;

use agent_core::{
    Fault,
    health::{ConnectErrors, RoleFacts},
    peers::{Look, Wish},
    session::ActivityRow,
};

pub use memory::OpenTransactions;
pub use retire::{CATCH_SQL, RETIRE_SQL, UNINSTALL_SQL};
pub use session::MySqlSession;
pub use version::ServerVersion;

use crate::{
    engine::{
        Answer, Circumstances, Engine, Login, Method, RetireOutcome, RetireTarget, Rights, Scope, Session,
    },
    report::LoginReport,
    target::{Limits, Target},
    trust::TlsTrust,
};

#[derive(Copy, Clone, Debug, Default)]
pub struct MySql {
    /// Which source has to show that a session is outside any transaction.
    pub open_transactions: OpenTransactions,
}

/// One full login to MySQL or MariaDB: DNS, TCP, verified TLS, token.
///
/// The report covers the phases that were reached, also when the login failed.
pub async fn login(
    target: &Target,
    trust: &TlsTrust,
    token: &str,
    limits: &Limits,
) -> (Result<MySqlSession, Fault>, LoginReport) {
    let mut report = LoginReport::default();
    // Boxed, because the future of a handshake is large.
    let outcome = Box::pin(login::login(target, trust, token, limits, &mut report)).await;
    (outcome, report)
}

impl MySqlSession {
    /// Sets the source of open transactions.
    #[must_use]
    pub fn relying_on(mut self, open_transactions: OpenTransactions) -> Self {
        self.memory.open_transactions = open_transactions;
        self
    }

    /// Makes the session use the statements for MySQL, which MariaDB understands: for tests of
    /// them where no MySQL is installed.
    #[must_use]
    pub fn as_to_mysql(mut self) -> Self {
        self.take_for_mysql();
        self
    }
}

impl Engine for MySql {
    fn login<'a>(
        &'a self,
        target: &'a Target,
        trust: &'a TlsTrust,
        token: &'a str,
        limits: &'a Limits,
    ) -> Answer<'a, Login> {
        Box::pin(async move {
            let (outcome, report) = login(target, trust, token, limits).await;
            let outcome = outcome.map(|session| session.relying_on(self.open_transactions));
            (outcome.map(|session| Box::new(session) as Box<dyn Session>), report)
        })
    }
}

impl Session for MySqlSession {
    fn role(&mut self) -> Answer<'_, Result<RoleFacts, Fault>> {
        Box::pin(role::role(self))
    }

    fn rights(&mut self) -> Answer<'_, Result<Rights, Fault>> {
        Box::pin(rights::rights(self))
    }

    fn activity<'a>(&'a mut self, scope: Scope<'a>) -> Answer<'a, Result<Vec<ActivityRow>, Fault>> {
        Box::pin(activity::activity(self, scope))
    }

    fn retire<'a>(
        &'a mut self,
        target: &'a RetireTarget,
        method: Method,
        quiet: Duration,
    ) -> Answer<'a, RetireOutcome> {
        Box::pin(retire::retire(self, target, method, quiet))
    }

    fn catch<'a>(&'a mut self, target: &'a RetireTarget, method: Method) -> Answer<'a, RetireOutcome> {
        Box::pin(retire::catch(self, target, method))
    }

    fn connect_errors(&mut self) -> Answer<'_, Result<Option<ConnectErrors>, Fault>> {
        Box::pin(async { MySqlSession::connect_errors(self).await.map(Some) })
    }

    fn meet<'a>(&'a mut self, wish: &'a Wish) -> Answer<'a, Result<Look, Fault>> {
        Box::pin(peers::meet(self, wish))
    }

    fn interrupted(&mut self) -> Answer<'_, ()> {
        Box::pin(MySqlSession::interrupted(self))
    }

    fn circumstances(&mut self) -> Answer<'_, Result<Circumstances, Fault>> {
        Box::pin(circumstances::circumstances(self))
    }

    fn fault(&self) -> Option<&Fault> {
        MySqlSession::fault(self)
    }

    fn close(self: Box<Self>) -> Answer<'static, ()> {
        Box::pin((*self).close())
    }
}
