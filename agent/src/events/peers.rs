//! Other agents of the same database.

use agent_core::InstanceId;
use tracing::{info, warn};

use super::Event;
use crate::metrics::Metrics;

/// The locks by which agents see one another cannot be read, or do not show all agents. The login budget of the
/// instance is not shared then, and no server of it is drained for due sessions.
///
/// Do: follow `cause`; PostgreSQL: `GRANT EXECUTE` of the `pg_advisory` functions if it was revoked from PUBLIC.
#[derive(Debug)]
pub struct PeersUnseen<'a> {
    pub instance: &'a InstanceId,
    pub cause: &'a str,
}

impl Event for PeersUnseen<'_> {
    fn emit(&self, _: &Metrics) {
        warn!(
            instance = %self.instance,
            cause = self.cause,
            "other agents of this instance are not seen, so the login budget is not shared with them"
        );
    }
}

/// Other agents of an instance are seen again.
#[derive(Debug)]
pub struct PeersSeen<'a> {
    pub instance: &'a InstanceId,
}

impl Event for PeersSeen<'_> {
    fn emit(&self, _: &Metrics) {
        info!(instance = %self.instance, "other agents of this instance are seen");
    }
}

/// Agents take different instances of a database for the writer, for more than 10 seconds.
///
/// Do: find out which instance is the writer, then `rds-lb-agent writer DATABASE INSTANCE` on one host.
#[derive(Debug)]
pub struct AgentsDisagree<'a> {
    pub database: &'a str,
    /// The instance that this agent takes for the writer.
    pub own: &'a str,
    /// The others, with the number of agents that take them for the writer.
    pub others: &'a str,
}

impl Event for AgentsDisagree<'_> {
    fn emit(&self, _: &Metrics) {
        warn!(
            database = self.database,
            own = self.own,
            others = self.others,
            "agents take different instances for the writer; `rds-lb-agent writer DATABASE INSTANCE` decides"
        );
    }
}

/// All agents take the same instance for the writer again.
#[derive(Debug)]
pub struct AgentsAgree<'a> {
    pub database: &'a str,
    pub writer: &'a str,
}

impl Event for AgentsAgree<'_> {
    fn emit(&self, _: &Metrics) {
        info!(
            database = self.database,
            writer = self.writer,
            "all agents take the same instance for the writer again"
        );
    }
}
