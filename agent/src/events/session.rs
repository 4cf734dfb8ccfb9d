//! Sessions: closed, not closed, and not to be closed any more.

use std::time::Duration;

use agent_core::plan::{Group, Retire, Retired as Result_};
use tracing::{debug, info, warn};

use super::Event;
use crate::metrics::{
    Metrics,
    labels::{CloseResult, OfClose, OfDatabase, Word},
};

/// A close was tried.
#[derive(Debug)]
pub struct Retired<'a> {
    /// What was asked for.
    pub command: &'a Retire,
    /// What became of it.
    pub result: Result_,
    /// How long it took.
    pub took: Duration,
}

impl Event for Retired<'_> {
    fn emit(&self, metrics: &Metrics) {
        let command = self.command;
        let database = command.instance.database.to_string();
        let labels = OfClose {
            database: database.clone(),
            instance: command.instance.instance.to_string(),
            result: CloseResult(Word::of(&self.result)),
        };
        metrics.closes.get_or_create(&labels).inc();
        if self.result == Result_::Closed {
            metrics
                .retired_age_seconds
                .get_or_create(&OfDatabase { database })
                .observe(command.age.as_secs_f64());
            info!(
                instance = %command.instance,
                server = %command.proxy.server,
                user = &*command.user,
                source = %command.proxy.source,
                client = %command.client,
                pid = command.key.pid,
                age_s = command.age.as_secs_f64(),
                limit_s = command.limit.as_secs_f64(),
                how = ?command.how,
                took_ms = self.took.as_secs_f64() * 1e3,
                "session retired"
            );
        } else {
            debug!(
                instance = %command.instance,
                pid = command.key.pid,
                user = &*command.user,
                result = ?self.result,
                "session not retired"
            );
        }
    }
}

/// A close could not be tried, or nothing is known of what became of it.
#[derive(Debug)]
pub struct CloseFailed<'a> {
    /// What was asked for.
    pub command: &'a Retire,
    /// What went wrong.
    pub error: String,
}

impl Event for CloseFailed<'_> {
    fn emit(&self, _: &Metrics) {
        let command = self.command;
        warn!(
            instance = %command.instance,
            server = %command.proxy.server,
            pid = command.key.pid,
            error = self.error,
            "closing a session failed"
        );
    }
}

/// The agent's user lacks rights on an instance.
#[derive(Debug)]
pub struct RightsMissing<'a> {
    /// The instance.
    pub instance: String,
    /// What is missing and what to grant.
    pub advice: &'a str,
}

impl Event for RightsMissing<'_> {
    fn emit(&self, _: &Metrics) {
        warn!(
            instance = self.instance,
            advice = self.advice,
            "something is missing at the database: sessions are held, or not seen whole"
        );
    }
}

/// Clients that were closed do not come back: no more of them are closed.
#[derive(Debug)]
pub struct GroupPaused<'a> {
    /// Who.
    pub group: &'a Group,
}

impl Event for GroupPaused<'_> {
    fn emit(&self, _: &Metrics) {
        warn!(
            user = &*self.group.user,
            application = &*self.group.application,
            network = %self.group.network,
            "clients that were closed do not log in again: their sessions are left alone; \
             `rds-lb-agent resume` after the cause is found"
        );
    }
}
