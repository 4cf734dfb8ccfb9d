//! A stand-in with all that is needed to close sessions, and what the tests of it ask.

use std::time::{Duration, Instant};

use agent_core::session::Activity;
use agent_database::{
    Method, RetireOutcome, RetireTarget, Session as _,
    mysql::{self, MySqlSession, OpenTransactions},
};
use integration_tests::{mysql::Session, standin::Options};

use super::{
    clients::{eventually, row_that, target_of},
    lab::{Lab, PATIENCE},
};

pub const QUIET: Duration = Duration::from_millis(250);
pub const ALL: [Method; 3] = [Method::Signal, Method::Function, Method::Platform];

/// RDS's own is not to be had: the same in its steps.
const RDS_KILL: &str = "\
    CREATE PROCEDURE mysql.rds_kill(IN thread BIGINT) READS SQL DATA \
    BEGIN \
      DECLARE l_user VARCHAR(32); \
      DECLARE l_host VARCHAR(64); \
      DECLARE refused VARCHAR(255); \
      SELECT user, host INTO l_user, l_host FROM information_schema.processlist WHERE id = thread; \
      IF l_user = 'rdsadmin' AND l_host LIKE 'localhost%' THEN \
        SELECT `ERROR (RDS): CANNOT KILL RDSADMIN SESSION` INTO refused; \
      ELSE \
        KILL thread; \
      END IF; \
    END";

/// A stand-in with all ways to close, and an agent for each: `lb_agent` may kill,
/// `lb_agent_plain` may execute the procedures, this agent's and the platform's.
pub struct Retirement {
    pub lab: Lab,
    pub signal: MySqlSession,
    pub function: MySqlSession,
}

impl Retirement {
    pub async fn start() -> Self {
        Self::start_with(Options { replicas: 0, ..Options::default() }, OpenTransactions::default()).await
    }

    pub async fn start_with(options: Options, mode: OpenTransactions) -> Self {
        let lab = Lab::start_with(options).await;
        lab.script(mysql::RETIRE_SQL).await;
        lab.script(mysql::CATCH_SQL).await;
        lab.sql(RDS_KILL).await;
        lab.sql(
            "GRANT EXECUTE ON PROCEDURE rds_lb_agent.retire TO lb_agent_plain; \
             GRANT EXECUTE ON PROCEDURE rds_lb_agent.catch TO lb_agent_plain; \
             GRANT EXECUTE ON PROCEDURE mysql.rds_kill TO lb_agent_plain",
        )
        .await;
        let signal = lab.session("a", "lb_agent").await.relying_on(mode);
        let function = lab.session("a", "lb_agent_plain").await.relying_on(mode);
        Self { lab, signal, function }
    }

    /// With the statements for MySQL, whatever the server is.
    pub async fn start_as_to_mysql() -> Self {
        let Self { lab, signal, function } = Self::start().await;
        Self { lab, signal: signal.as_to_mysql(), function: function.as_to_mysql() }
    }

    pub fn agent(&mut self, method: Method) -> &mut MySqlSession {
        match method {
            Method::Signal => &mut self.signal,
            Method::Function | Method::Platform => &mut self.function,
        }
    }

    pub async fn target(&mut self, client: &Session) -> RetireTarget {
        target_of(&row_that(&mut self.signal, client.id(), |row| row.client.is_some()).await)
    }

    /// Runs a statement, and waits until the server has the session asleep again: its answer is
    /// out a moment before.
    pub async fn run(&mut self, client: &mut Session, sql: &str) {
        client.query(sql).await.unwrap();
        row_that(&mut self.signal, client.id(), |row| row.activity != Activity::Running).await;
    }

    /// Tries until the last statement is over and the pause is long enough; any other refusal is
    /// the outcome.
    pub async fn retire_when_quiet(&mut self, method: Method, target: &RetireTarget) -> RetireOutcome {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.agent(method).retire(target, method, QUIET).await {
                RetireOutcome::NotQuiet(_) | RetireOutcome::NotIdle if Instant::now() < deadline => {}
                outcome => return outcome,
            }
        }
    }

    /// All refuse it in the end for this reason.
    pub async fn refused_by_all(&mut self, target: &RetireTarget, expected: &RetireOutcome, why: &str) {
        for method in ALL {
            assert_eq!(&self.retire_when_quiet(method, target).await, expected, "{why}, by {method:?}");
        }
    }

    /// All take it to be at work, however long it has been quiet.
    pub async fn held_by_all(&mut self, target: &RetireTarget, why: &str) {
        for method in ALL {
            let outcome = self.agent(method).retire(target, method, QUIET).await;
            assert_eq!(outcome, RetireOutcome::NotIdle, "{why}, by {method:?}");
        }
    }

    pub async fn gone(&self, client: u32) {
        let count = format!("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = {client}");
        eventually("the session to be gone", || async {
            let count = self.lab.standin.value("a", &count).await.unwrap();
            if count == "0" { Ok(()) } else { Err(count) }
        })
        .await;
    }
}

/// Whether the session is still there and works.
pub async fn lives(client: &mut Session) -> bool {
    client.query("DO 1").await.is_ok()
}
