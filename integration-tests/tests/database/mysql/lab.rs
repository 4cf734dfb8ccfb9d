//! A MariaDB stand-in, and logins to it through the crate under test.

use std::time::Duration;

use agent_core::{Fault, InstanceId};
use agent_database::{
    Address, Limits, LoginReport, Target, TlsTrust,
    mysql::{self, MySqlSession},
};
use integration_tests::standin::{Engine, Options, StandIn};

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
        let standin = StandIn::start(Options { engine: Engine::Mariadb, ..options }).await.unwrap();
        let trust = TlsTrust::from_file(standin.ca_file()).unwrap();
        Self { standin, trust, limits: Limits::default() }
    }

    /// A server, without a database name: the agent needs none.
    pub fn target(&self, server: &str, user: &str) -> Target {
        let server = self.standin.server(server).unwrap();
        let endpoint = Address::new(server.endpoint(), server.connect().port());
        Target::new(InstanceId::new("orders", server.name()), endpoint, user, "")
            .dialled_at(Address::new(&server.connect().ip().to_string(), server.connect().port()))
    }

    pub async fn try_login(&self, server: &str, user: &str) -> (Result<MySqlSession, Fault>, LoginReport) {
        let token = self.standin.token(server, user).unwrap();
        mysql::login(&self.target(server, user), &self.trust, &token, &self.limits).await
    }

    /// The agent's own session as one of the stand-in's users.
    pub async fn session(&self, server: &str, user: &str) -> MySqlSession {
        self.try_login(server, user).await.0.unwrap()
    }

    /// The fault of a login that must not succeed, and its report.
    pub async fn refusal(&self, target: &Target, trust: &TlsTrust, token: &str) -> (Fault, LoginReport) {
        let (outcome, report) = mysql::login(target, trust, token, &self.limits).await;
        let fault = outcome.err().expect("the login succeeded");
        assert!(!fault.to_string().contains(token), "the token is in {fault}");
        (fault, report)
    }

    pub async fn sql(&self, statement: &str) -> Vec<Vec<Option<String>>> {
        self.standin.execute_sql("a", statement).await.unwrap()
    }

    /// Whether the server is a MariaDB: a MySQL can be put in its place.
    pub async fn is_mariadb(&self) -> bool {
        self.standin.value("a", "SELECT VERSION()").await.unwrap().contains("MariaDB")
    }

    /// The right to end the sessions of others, by its name here.
    pub async fn right_to_kill(&self) -> &'static str {
        if self.is_mariadb().await { "CONNECTION ADMIN" } else { "CONNECTION_ADMIN" }
    }

    pub async fn shutdown(self) {
        self.standin.shutdown().await.unwrap();
    }
}
