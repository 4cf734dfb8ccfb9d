//! Conditions that an operator has to act on. Each is logged when it begins and when it ends.

use agent_core::InstanceId;
use tracing::{error, info, warn};

use super::Event;
use crate::metrics::Metrics;

/// A backend has no usable server, by the agent's verdicts.
///
/// Do: look at `rds-lb-agent status`; `explain BACKEND/SERVER` says what would change each verdict.
#[derive(Debug)]
pub struct NoUsableServer<'a> {
    pub backend: &'a str,
    /// Each server with its reason.
    pub servers: &'a str,
}

impl Event for NoUsableServer<'_> {
    fn emit(&self, _: &Metrics) {
        error!(backend = self.backend, servers = self.servers, "no usable server");
    }
}

/// A backend has a usable server again.
#[derive(Debug)]
pub struct ServerUsableAgain<'a> {
    pub backend: &'a str,
}

impl Event for ServerUsableAgain<'_> {
    fn emit(&self, _: &Metrics) {
        info!(backend = self.backend, "a server is usable again");
    }
}

/// Another instance is the writer.
#[derive(Debug)]
pub struct WriterMoved<'a> {
    pub from: &'a InstanceId,
    pub to: &'a InstanceId,
}

impl Event for WriterMoved<'_> {
    fn emit(&self, _: &Metrics) {
        info!(
            database = %self.to.database,
            from = %self.from.instance,
            to = %self.to.instance,
            "the writer has changed"
        );
    }
}

/// All instances of a database refuse the agent's logins.
///
/// Do: check `rds-db:connect` in IAM, the AWS credentials and the clock of this host, and `GRANT rds_iam` or
/// `AWSAuthenticationPlugin` of the agent's user. Servers are kept meanwhile.
#[derive(Debug)]
pub struct AllLoginsRefused<'a> {
    pub database: &'a str,
}

impl Event for AllLoginsRefused<'_> {
    fn emit(&self, _: &Metrics) {
        error!(
            database = self.database,
            "all logins of the agent are refused: IAM, credentials or the clock of this host; servers are kept"
        );
    }
}

/// Logins of the agent work again.
#[derive(Debug)]
pub struct LoginsAcceptedAgain<'a> {
    pub database: &'a str,
}

impl Event for LoginsAcceptedAgain<'_> {
    fn emit(&self, _: &Metrics) {
        info!(database = self.database, "logins of the agent are accepted again");
    }
}

/// Sessions are past their time and match no session of a proxy, so they are held.
///
/// Do: exempt clients that connect directly; put the agent beside the last proxy before the database; avoid NAT
/// between the proxy and the database.
#[derive(Debug)]
pub struct SessionsUnjoined<'a> {
    pub instance: &'a InstanceId,
    pub sessions: usize,
}

impl Event for SessionsUnjoined<'_> {
    fn emit(&self, _: &Metrics) {
        warn!(
            instance = %self.instance,
            sessions = self.sessions,
            "sessions match no session of a proxy and are held: they come past the proxies, or through NAT or \
             another proxy"
        );
    }
}
