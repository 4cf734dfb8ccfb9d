//! MySQL and MariaDB: RDS, Aurora, and any server with the same login.
//!
//! The SQL is written for MySQL 8.0 to 9.7 and MariaDB 10.5 to 11, and tested on MariaDB
//! 10.11 and MySQL 9.7. Nothing in it needs `SUPER`: see `deploy/mysql/README.md` for the grants, and
//! for what cannot be seen on which setting.
//!
//! # Layout
//! - `wire`: the protocol, as far as the agent speaks it.
//! - `login`: from a target and a token to a session, phase by phase.
//! - `gate`: the token goes out as a clear password inside TLS, or not at all.
//! - `session`: the open connection and its time limits.
//! - `role`, `rights`, `activity`, `retire`: one question each.
//! - `memory`: what a session remembers of its server; `learn` asks for it.
//! - `pace`: how often `innodb_trx` may be read.
//! - `types`: values as the MySQL family writes and reads them.
//! - `host_block`: what the server counts of failed connections.
//! - `classify`: error numbers and lost connections to faults.
//! - `version`: MySQL or MariaDB, which version, Aurora or not.

mod activity;
mod classify;
mod gate;
mod host_block;
mod learn;
mod login;
mod memory;
mod pace;
mod retire;
mod rights;
mod role;
mod session;
mod types;
mod version;
mod wire;

use std::time::Duration;

use agent_core::{
    Fault,
    health::{ConnectErrors, RoleFacts},
    session::ActivityRow,
};

pub use memory::OpenTransactions;
pub use retire::{CATCH_SQL, RETIRE_SQL, UNINSTALL_SQL};
pub use session::MySqlSession;
pub use version::ServerVersion;

use crate::{
    engine::{Answer, Engine, Login, Method, RetireOutcome, RetireTarget, Rights, Scope, Session},
    report::LoginReport,
    target::{Limits, Target},
    trust::TlsTrust,
};

/// The engine of MySQL and MariaDB.
#[derive(Copy, Clone, Debug, Default)]
pub struct MySql {
    /// What has to tell that a session is outside any transaction.
    pub open_transactions: OpenTransactions,
}

/// One full login to MySQL or MariaDB: name, connection, verified TLS, token.
///
/// The report is filled as far as the login got, also when it failed.
pub async fn login(
    target: &Target,
    trust: &TlsTrust,
    token: &str,
    limits: &Limits,
) -> (Result<MySqlSession, Fault>, LoginReport) {
    let mut report = LoginReport::default();
    // Boxed: a TLS handshake is a lot to carry in every caller's future.
    let outcome = Box::pin(login::login(target, trust, token, limits, &mut report)).await;
    (outcome, report)
}

impl MySqlSession {
    /// The same session, looking at transactions as the operator wants it.
    #[must_use]
    pub fn relying_on(mut self, open_transactions: OpenTransactions) -> Self {
        self.memory.open_transactions = open_transactions;
        self
    }

    /// The same session, taking its server for a MySQL. A MariaDB understands what it is then
    /// asked: for tests of the one where only the other is to be had.
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

    fn fault(&self) -> Option<&Fault> {
        MySqlSession::fault(self)
    }

    fn close(self: Box<Self>) -> Answer<'static, ()> {
        Box::pin((*self).close())
    }
}
