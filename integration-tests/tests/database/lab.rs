//! A stand-in, and logins to it through the crate under test.

use std::time::{Duration, Instant};

use agent_core::{Fault, InstanceId};
use agent_database::{
    Address, Engine as _, Limits, LoginReport, Method, RetireOutcome, RetireTarget, Session, Target,
    TlsTrust, mysql::MySql, postgresql::Postgresql,
};
use integration_tests::standin::{DATABASE, Engine, Options, StandIn};

/// The longest wait for a change that is expected at once.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The client of an engine, and its type of sessions.
pub trait Client {
    type Session;

    fn engine(&self) -> Engine;

    async fn login(
        &self,
        target: &Target,
        trust: &TlsTrust,
        token: &str,
        limits: &Limits,
    ) -> (Result<Self::Session, Fault>, LoginReport);
}

/// The client of either engine.
impl Client for Engine {
    type Session = Box<dyn Session>;

    fn engine(&self) -> Engine {
        *self
    }

    async fn login(
        &self,
        target: &Target,
        trust: &TlsTrust,
        token: &str,
        limits: &Limits,
    ) -> (Result<Self::Session, Fault>, LoginReport) {
        match self {
            Engine::Postgresql => Postgresql.login(target, trust, token, limits).await,
            Engine::Mariadb => MySql::default().login(target, trust, token, limits).await,
        }
    }
}

/// A stand-in and the trust in its authority.
pub struct Lab<E> {
    pub standin: StandIn,
    pub trust: TlsTrust,
    pub limits: Limits,
    client: E,
}

impl<E: Client + Default> Lab<E> {
    /// A writer and this many replicas.
    pub async fn start(replicas: usize) -> Self {
        Self::start_with(Options { replicas, ..Options::default() }).await
    }

    pub async fn start_with(options: Options) -> Self {
        Self::on(E::default(), options).await
    }
}

impl<E: Client> Lab<E> {
    pub async fn on(client: E, options: Options) -> Self {
        let standin = StandIn::start(Options { engine: client.engine(), ..options }).await.unwrap();
        let trust = TlsTrust::from_file(standin.ca_file()).unwrap();
        Self { standin, trust, limits: Limits::default(), client }
    }

    /// A server. MySQL and MariaDB need no database name.
    pub fn target(&self, server: &str, user: &str) -> Target {
        let database_name = if self.client.engine() == Engine::Postgresql { DATABASE } else { "" };
        let server = self.standin.server(server).unwrap();
        let endpoint = Address::new(server.endpoint(), server.connect().port());
        Target::new(InstanceId::new("orders", server.name()), endpoint, user, database_name)
            .dialled_at(Address::new(&server.connect().ip().to_string(), server.connect().port()))
    }

    pub async fn try_login(&self, server: &str, user: &str) -> (Result<E::Session, Fault>, LoginReport) {
        let token = self.standin.token(server, user).unwrap();
        self.client.login(&self.target(server, user), &self.trust, &token, &self.limits).await
    }

    /// The agent's own session as one of the stand-in's users.
    pub async fn session(&self, server: &str, user: &str) -> E::Session {
        self.try_login(server, user).await.0.unwrap()
    }

    /// The fault of a login that must not succeed, and its report.
    pub async fn refusal(&self, target: &Target, trust: &TlsTrust, token: &str) -> (Fault, LoginReport) {
        let (outcome, report) = self.client.login(target, trust, token, &self.limits).await;
        let fault = outcome.err().expect("the login succeeded");
        assert!(!fault.to_string().contains(token), "the token is in {fault}");
        (fault, report)
    }

    pub async fn sql(&self, statement: &str) -> Vec<Vec<Option<String>>> {
        self.standin.execute_sql("a", statement).await.unwrap()
    }

    pub async fn shutdown(self) {
        self.standin.shutdown().await.unwrap();
    }
}

/// Inserts rows into `orders`, one per transaction with short pauses between, until a statement fails:
/// how many commits were acknowledged, and which statement failed.
pub async fn insert_until_closed(mut succeeds: impl AsyncFnMut(&str) -> bool) -> (u32, &'static str) {
    let mut acknowledged = 0_u32;
    loop {
        let insert = format!("INSERT INTO orders (client, number) VALUES (1, {acknowledged})");
        for (statement, name) in [("BEGIN", "at BEGIN"), (insert.as_str(), "inside"), ("COMMIT", "at COMMIT")]
        {
            if !succeeds(statement).await {
                return (acknowledged, name);
            }
        }
        acknowledged += 1;
        tokio::time::sleep(Duration::from_millis(u64::from(3 + acknowledged % 20))).await;
    }
}

/// Tries to catch a session until the outcome is another than [`RetireOutcome::NeverIdle`].
pub async fn caught(agent: &mut dyn Session, target: &RetireTarget, method: Method) -> RetireOutcome {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match agent.catch(target, method).await {
            RetireOutcome::NeverIdle => assert!(Instant::now() < deadline, "it was never caught"),
            outcome => return outcome,
        }
    }
}
