//! Closing sessions.

use std::time::Duration;

use agent_core::plan::{Group, Retire, Retired as Result_, Shortage};
use tracing::{debug, info, warn};

use super::{Event, rounded};
use crate::metrics::{
    Metrics,
    labels::{CloseResult, OfClose, OfDatabase, Word},
};

/// The result of a close.
#[derive(Debug)]
pub struct Retired<'a> {
    pub command: &'a Retire,
    pub result: Result_,
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
                source = command.proxy.client_name(),
                client = %command.client,
                pid = command.key.pid,
                age_s = rounded(command.age.as_secs_f64()),
                limit_s = rounded(command.limit.as_secs_f64()),
                how = %Word::of(&command.how),
                took_ms = rounded(self.took.as_secs_f64() * 1e3),
                "session retired"
            );
        } else {
            debug!(
                instance = %command.instance,
                pid = command.key.pid,
                user = &*command.user,
                result = %Word::of(&self.result),
                "session not retired"
            );
        }
    }
}

/// A close could not be attempted, or its result is unknown.
///
/// Do: look at the error.
#[derive(Debug)]
pub struct CloseFailed<'a> {
    pub command: &'a Retire,
    pub error: String,
    /// `false` for another try that failed in the same way: it is not logged.
    pub news: bool,
}

impl Event for CloseFailed<'_> {
    fn emit(&self, _: &Metrics) {
        if !self.news {
            return;
        }
        let command = self.command;
        warn!(
            instance = %command.instance,
            server = %command.proxy.server,
            pid = command.key.pid,
            error = self.error,
            "closing a session failed; it is tried again ever more rarely, and other sessions go first"
        );
    }
}

/// The user of the agent lacks rights on an instance.
///
/// Do: follow `advice`.
#[derive(Debug)]
pub struct RightsMissing<'a> {
    pub instance: String,
    /// The missing right and the statement that grants it.
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

/// The breaker paused a group: clients whose sessions were closed did not log in again.
///
/// Do: find out why these clients do not return; `resume` ends the pause of the group.
#[derive(Debug)]
pub struct GroupPaused<'a> {
    pub group: &'a Group,
}

impl Event for GroupPaused<'_> {
    fn emit(&self, _: &Metrics) {
        warn!(
            user = &*self.group.user,
            application = &*self.group.application,
            network = %self.group.network,
            "clients whose sessions were closed did not log in again; no more sessions of this group are closed \
             until they do, or until `rds-lb-agent resume`"
        );
    }
}

/// An instance has more sessions than the login budget can close within `max_age`.
///
/// Do: set the `login_budget` that the line names, or a longer `max_age`.
#[derive(Debug)]
pub struct BudgetTooSmall<'a> {
    pub shortage: &'a Shortage,
}

impl Event for BudgetTooSmall<'_> {
    fn emit(&self, _: &Metrics) {
        let Shortage { instance, sessions, needed_per_s, allowed_per_s, login_budget } = self.shortage;
        warn!(
            %instance,
            sessions,
            needed_per_s,
            allowed_per_s,
            login_budget,
            "too many sessions for the login budget: they outlive `max_age`; set `login_budget` to at least this, \
             or a longer `max_age`"
        );
    }
}
