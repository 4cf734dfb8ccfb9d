//! The agent process and its configuration.

use tracing::{error, info, warn};

use super::Event;
use crate::metrics::{
    Metrics,
    labels::{OfReload, ReloadResult},
};

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
        info!(config = self.config, "configuration reloaded");
    }
}

/// A changed configuration was refused. The old one stays in force.
#[derive(Debug)]
pub struct ConfigRefused<'a> {
    pub config: &'a str,
    pub error: &'a str,
}

impl Event for ConfigRefused<'_> {
    fn emit(&self, metrics: &Metrics) {
        metrics.reloads.get_or_create(&OfReload { result: ReloadResult::Refused }).inc();
        error!(
            config = self.config,
            error = self.error,
            "new configuration refused, the old one stays in force"
        );
    }
}

/// An operator paused or resumed the agent.
#[derive(Debug)]
pub struct PauseChanged<'a> {
    pub paused: bool,
    pub reason: &'a str,
}

impl Event for PauseChanged<'_> {
    fn emit(&self, metrics: &Metrics) {
        metrics.paused.set(self.paused.into());
        if self.paused {
            warn!(reason = self.reason, "agent paused: it closes no sessions and drains no servers");
        } else {
            info!(reason = self.reason, "agent resumed");
        }
    }
}

/// A state file could not be read or written.
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
