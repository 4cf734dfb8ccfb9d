//! The agent process and its configuration.

use tracing::{error, info, warn};

use super::Event;
use crate::metrics::{
    Metrics,
    labels::{OfDatabase, OfReload, ReloadResult},
};

/// The agent has started.
#[derive(Debug)]
pub struct Started<'a> {
    pub version: &'a str,
    pub config: &'a str,
    pub mode: &'a str,
    pub instances: usize,
    pub servers: usize,
}

impl Event for Started<'_> {
    fn emit(&self, _: &Metrics) {
        info!(
            version = self.version,
            config = self.config,
            mode = self.mode,
            instances = self.instances,
            servers = self.servers,
            "agent started"
        );
    }
}

/// The agent stops, and takes back its drains.
#[derive(Debug)]
pub struct Stopping<'a> {
    /// The name of the signal.
    pub reason: &'a str,
}

impl Event for Stopping<'_> {
    fn emit(&self, _: &Metrics) {
        info!(reason = self.reason, "agent stopping");
    }
}

/// A task panicked or ended; the process exits.
///
/// Do: report it. The supervisor starts the agent again.
#[derive(Debug)]
pub struct AgentBroken<'a> {
    pub error: &'a str,
}

impl Event for AgentBroken<'_> {
    fn emit(&self, _: &Metrics) {
        error!(error = self.error, "internal error; exiting so that the supervisor restarts the agent");
    }
}

/// A changed configuration was applied.
#[derive(Debug)]
pub struct ConfigTaken<'a> {
    pub config: &'a str,
}

impl Event for ConfigTaken<'_> {
    fn emit(&self, metrics: &Metrics) {
        metrics.reloads.get_or_create(&OfReload { result: ReloadResult::Taken }).inc();
        metrics.config_last_reload_successful.set(1);
        info!(config = self.config, "configuration reloaded");
    }
}

/// A changed configuration was refused. The old one stays in force.
///
/// Do: correct the file; `rds-lb-agent validate` shows each error.
#[derive(Debug)]
pub struct ConfigRefused<'a> {
    pub config: &'a str,
    pub error: &'a str,
}

impl Event for ConfigRefused<'_> {
    fn emit(&self, metrics: &Metrics) {
        metrics.reloads.get_or_create(&OfReload { result: ReloadResult::Refused }).inc();
        metrics.config_last_reload_successful.set(0);
        error!(
            config = self.config,
            error = self.error,
            "new configuration refused, the old one stays in force"
        );
    }
}

/// The file was refused before and is the configuration in force again.
#[derive(Debug)]
pub struct ConfigRepaired<'a> {
    pub config: &'a str,
}

impl Event for ConfigRepaired<'_> {
    fn emit(&self, metrics: &Metrics) {
        metrics.config_last_reload_successful.set(1);
        info!(config = self.config, "configuration file is valid again; it is the one in force");
    }
}

/// A database cannot be logged in to, for a reason outside of it. It is tried again.
///
/// Do: correct what the error names, at the line of the configuration file.
#[derive(Debug)]
pub struct DatabaseUnusable<'a> {
    pub database: &'a str,
    /// In the configuration file.
    pub line: u64,
    pub error: &'a str,
}

impl Event for DatabaseUnusable<'_> {
    fn emit(&self, metrics: &Metrics) {
        metrics.database_ready.get_or_create(&OfDatabase { database: self.database.to_owned() }).set(0);
        error!(
            database = self.database,
            line = self.line,
            error = self.error,
            "database not started; the others run, and this one is tried again every 5 s"
        );
    }
}

/// The tasks of a database run.
#[derive(Debug)]
pub struct DatabaseReady<'a> {
    pub database: &'a str,
    /// Whether it could not be started before.
    pub news: bool,
}

impl Event for DatabaseReady<'_> {
    fn emit(&self, metrics: &Metrics) {
        metrics.database_ready.get_or_create(&OfDatabase { database: self.database.to_owned() }).set(1);
        if self.news {
            info!(database = self.database, "database started");
        }
    }
}

/// The CA file of a database cannot be loaded any more.
///
/// Do: correct the CA file.
#[derive(Debug)]
pub struct AuthoritiesKept<'a> {
    pub database: &'a str,
    /// In the configuration file.
    pub line: u64,
    pub error: &'a str,
}

impl Event for AuthoritiesKept<'_> {
    fn emit(&self, _: &Metrics) {
        error!(
            database = self.database,
            line = self.line,
            error = self.error,
            "CA file cannot be loaded; the authorities loaded from it before stay in use"
        );
    }
}

/// An operator paused or resumed the agent.
///
/// Do: `rds-lb-agent resume` when the reason is gone.
#[derive(Debug)]
pub struct PauseChanged<'a> {
    pub paused: bool,
    pub reason: &'a str,
    /// The user.
    pub by: Option<&'a str>,
}

impl Event for PauseChanged<'_> {
    fn emit(&self, metrics: &Metrics) {
        metrics.paused.set(self.paused.into());
        if self.paused {
            warn!(
                reason = self.reason,
                by = self.by,
                "agent paused: it closes no sessions and drains no servers"
            );
        } else {
            info!(by = self.by, "agent resumed");
        }
    }
}

/// A state file could not be read or written.
///
/// Do: free the disk of `state_dir`, or correct its permissions.
#[derive(Debug)]
pub struct StateFailed<'a> {
    pub consequence: &'a str,
    /// With the path.
    pub error: String,
}

impl Event for StateFailed<'_> {
    fn emit(&self, _: &Metrics) {
        error!(error = self.error, consequence = self.consequence, "state file cannot be read or written");
    }
}
