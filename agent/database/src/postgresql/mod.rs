//! PostgreSQL on RDS, Aurora, or any server with the same login.
//!
//! The SQL is written for PostgreSQL 11 to 18 and tested on 15. None of it needs a superuser:
//! seeing what sessions do needs `pg_read_all_stats`, closing them needs `pg_signal_backend` or
//! the function of `deploy/postgresql/retire.sql`.
//!
//! # Layout
//! - `login`: from a target and a token to a session, phase by phase.
//! - `gate`: lets the token out only as a clear-text password inside TLS.
//! - `session`: the open connection, its prepared statements and time limits.
//! - `memory`: what a session remembers of its server.
//! - `role`, `rights`, `activity`, `retire`: one query each.
//! - `peers`: locks by which agents meet.
//! - `classify`: SQLSTATE and driver errors to faults.
//! - `types`: PostgreSQL's times and durations.

mod activity;
mod circumstances;
mod classify;
mod gate;
mod login;
mod memory;
mod peers;
mod retire;
mod rights;
mod role;
mod session;
mod types;

use std::time::Duration;

use agent_core::{
    Fault,
    health::RoleFacts,
    peers::{Look, Wish},
    session::ActivityRow,
};

pub use retire::{CATCH_SQL, RETIRE_SQL, UNINSTALL_SQL};
pub use session::PostgresqlSession;

use crate::{
    engine::{
        Answer, Circumstances, Engine, Login, Method, RetireOutcome, RetireTarget, Rights, Scope, Session,
    },
    report::LoginReport,
    target::{Limits, Target},
    trust::TlsTrust,
};

#[derive(Copy, Clone, Debug, Default)]
pub struct Postgresql;

/// One full login to PostgreSQL: DNS, TCP, verified TLS, token.
///
/// The report covers the phases that were reached, also when the login failed.
pub async fn login(
    target: &Target,
    trust: &TlsTrust,
    token: &str,
    limits: &Limits,
) -> (Result<PostgresqlSession, Fault>, LoginReport) {
    let mut report = LoginReport::default();
    // Boxed, because the future of a handshake and a driver is large.
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

    fn meet<'a>(&'a mut self, wish: &'a Wish) -> Answer<'a, Result<Look, Fault>> {
        Box::pin(peers::meet(self, wish))
    }

    fn interrupted(&mut self) -> Answer<'_, ()> {
        Box::pin(PostgresqlSession::interrupted(self))
    }

    fn circumstances(&mut self) -> Answer<'_, Result<Circumstances, Fault>> {
        Box::pin(circumstances::circumstances(self))
    }

    fn fault(&self) -> Option<&Fault> {
        PostgresqlSession::fault(self)
    }

    fn close(self: Box<Self>) -> Answer<'static, ()> {
        Box::pin((*self).close())
    }
}
