//! The lab with a PostgreSQL, and clients to watch.

use std::sync::Arc;

use agent_core::{Fault, session::ActivityRow};
use agent_database::{
    Limits, LoginReport, RetireTarget, Scope, Session as _, Target, TlsTrust,
    postgresql::{self, PostgresqlSession},
};
use integration_tests::{process::wait_for, standin::Engine};
use tokio_postgres::Client;

use crate::lab;
pub use crate::lab::PATIENCE;

pub type Lab = lab::Lab<Postgresql>;

#[derive(Default)]
pub struct Postgresql;

impl lab::Client for Postgresql {
    type Session = PostgresqlSession;

    fn engine(&self) -> Engine {
        Engine::Postgresql
    }

    async fn login(
        &self,
        target: &Target,
        trust: &TlsTrust,
        token: &str,
        limits: &Limits,
    ) -> (Result<PostgresqlSession, Fault>, LoginReport) {
        postgresql::login(target, trust, token, limits).await
    }
}

impl Lab {
    /// A client of an application that logs in with a token.
    pub async fn client(&self, user: &str, application: &str) -> Client {
        let mut login = self.standin.login("a", user).unwrap();
        login.application_name(application);
        let (client, connection) = login.connect(self.standin.tls().unwrap()).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// A client that logs in with a password.
    pub async fn password_client(&self, application: &str) -> Client {
        let mut login = self.standin.login("a", "legacy").unwrap();
        login.password(self.standin.legacy_password()).application_name(application);
        let (client, connection) = login.connect(self.standin.tls().unwrap()).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

/// The row of the session with this application name.
pub async fn row(agent: &mut PostgresqlSession, application: &str) -> Option<ActivityRow> {
    let rows = agent.activity(Scope::All).await.unwrap();
    rows.into_iter().find(|row| &*row.application == application)
}

/// The same, once it is as expected.
pub async fn row_that(
    agent: &mut PostgresqlSession,
    application: &str,
    expected: impl Fn(&ActivityRow) -> bool,
) -> ActivityRow {
    let agent = Arc::new(tokio::sync::Mutex::new(agent));
    let what = format!("the session of {application} to be as expected");
    wait_for(&what, PATIENCE, || async {
        match row(*agent.lock().await, application).await {
            Some(row) if expected(&row) => Ok(row),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap()
}

/// What identifies the session of a row.
pub fn target_of(row: &ActivityRow) -> RetireTarget {
    RetireTarget {
        key: row.key,
        client: row.client.expect("a client address"),
        user: Arc::clone(&row.user),
        any_user: false,
    }
}
