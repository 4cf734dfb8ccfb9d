//! A stand-in, logins to it through the crate under test, and clients to look at.

use std::{sync::Arc, time::Duration};

use agent_core::{Fault, InstanceId, session::ActivityRow};
use agent_database::{
    Address, Limits, LoginReport, RetireTarget, Scope, Session as _, Target, TlsTrust,
    postgresql::{self, PostgresqlSession},
};
use integration_tests::{
    process::wait_for,
    standin::{DATABASE, Options, StandIn},
};
use tokio_postgres::Client;

/// How long anything may take that is expected to happen at once.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A stand-in and the trust in its authority.
pub struct Lab {
    pub standin: StandIn,
    pub trust: TlsTrust,
    pub limits: Limits,
}

impl Lab {
    /// A writer and so many replicas.
    pub async fn start(replicas: usize) -> Self {
        Self::start_with(Options { replicas, ..Options::default() }).await
    }

    pub async fn start_with(options: Options) -> Self {
        let standin = StandIn::start(options).await.unwrap();
        let trust = TlsTrust::from_file(standin.ca_file()).unwrap();
        Self { standin, trust, limits: Limits::default() }
    }

    pub fn target(&self, server: &str, user: &str) -> Target {
        let server = self.standin.server(server).unwrap();
        let endpoint = Address::new(server.endpoint(), server.connect().port());
        Target::new(InstanceId::new("orders", server.name()), endpoint, user, DATABASE)
            .dialled_at(Address::new(&server.connect().ip().to_string(), server.connect().port()))
    }

    pub async fn try_login(
        &self,
        server: &str,
        user: &str,
    ) -> (Result<PostgresqlSession, Fault>, LoginReport) {
        let token = self.standin.token(server, user).unwrap();
        postgresql::login(&self.target(server, user), &self.trust, &token, &self.limits).await
    }

    /// The agent's own session as one of the stand-in's users.
    pub async fn session(&self, server: &str, user: &str) -> PostgresqlSession {
        self.try_login(server, user).await.0.unwrap()
    }

    /// The fault of a login that must not succeed, and its report.
    pub async fn refusal(&self, target: &Target, trust: &TlsTrust, token: &str) -> (Fault, LoginReport) {
        let (outcome, report) = postgresql::login(target, trust, token, &self.limits).await;
        let fault = outcome.err().expect("the login succeeded");
        assert!(!fault.to_string().contains(token), "the token is in {fault}");
        (fault, report)
    }

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

    pub async fn sql(&self, statement: &str) -> Vec<Vec<Option<String>>> {
        self.standin.execute_sql("a", statement).await.unwrap()
    }

    pub async fn shutdown(self) {
        self.standin.shutdown().await.unwrap();
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
