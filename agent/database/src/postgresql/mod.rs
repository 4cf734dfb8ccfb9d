//! PostgreSQL: RDS, Aurora, and any server with the same login.
//!
//! The SQL is written for PostgreSQL 11 to 18 and tested on 15. Nothing in it needs
//! a superuser: `pg_read_all_stats` to see what sessions do, and to close them
//! either `pg_signal_backend` or the function of `deploy/postgresql/retire.sql`.
//!
//! # Layout
//! - `login`: from a target and a token to a session, phase by phase.
//! - `gate`: the token goes out as a clear password inside TLS, or not at all.
//! - `session`: the open connection, its prepared statements and time limits.
//! - `memory`: what a session remembers of its server.
//! - `role`, `rights`, `activity`, `retire`: one question each.
//! - `classify`: SQLSTATE and driver errors to faults.
//! - `types`: moments and durations as PostgreSQL counts them.

mod activity;
mod classify;
mod gate;
mod login;
mod memory;
mod retire;
mod rights;
mod role;
mod session;
mod types;

use std::time::Duration;

use agent_core::{Fault, health::RoleFacts, session::ActivityRow};

pub use retire::{CATCH_SQL, RETIRE_SQL, UNINSTALL_SQL};
pub use session::PostgresqlSession;

use crate::{
    engine::{Answer, Engine, Login, Method, RetireOutcome, RetireTarget, Rights, Scope, Session},
    report::LoginReport,
    target::{Limits, Target},
    trust::TlsTrust,
};

/// The engine of PostgreSQL.
#[derive(Copy, Clone, Debug, Default)]
pub struct Postgresql;

/// One full login to PostgreSQL: name, connection, verified TLS, token.
///
/// The report is filled as far as the login got, also when it failed.
pub async fn login(
    target: &Target,
    trust: &TlsTrust,
    token: &str,
    limits: &Limits,
) -> (Result<PostgresqlSession, Fault>, LoginReport) {
    let mut report = LoginReport::default();
    // Boxed: a TLS handshake and a driver are a lot to carry in every caller's future.
    let outcome = Box::pin(login::login(target, trust, token, limits, &mut report)).await;
    (outcome, report)
}

impl Engine for Postgresql {
    fn login<'a>(
        &'a self,
        target: &'a Target,
        trust: &'a TlsTrust,
        token: &'a str,
        limits: &'a Limits,
    ) -> Answer<'a, Login> {
        Box::pin(async move {
            let (outcome, report) = login(target, trust, token, limits).await;
            (outcome.map(|session| Box::new(session) as Box<dyn Session>), report)
        })
    }
}

impl Session for PostgresqlSession {
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

    fn fault(&self) -> Option<&Fault> {
        PostgresqlSession::fault(self)
    }

    fn close(self: Box<Self>) -> Answer<'static, ()> {
        Box::pin((*self).close())
    }
}
