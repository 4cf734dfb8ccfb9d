//! The agent itself.

use tracing::{error, info, warn};

use super::Event;
use crate::metrics::{
    Metrics,
    labels::{OfReload, ReloadResult},
};

/// The agent runs.
#[derive(Debug)]
pub struct Started<'a> {
    /// Its version.
    pub version: &'a str,
    /// The configuration file.
    pub config: &'a str,
    /// What it may do to sessions.
    pub mode: &'a str,
    /// Instances it looks after.
    pub instances: usize,
    /// Servers it answers for.
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

/// The agent stops; its drains are being taken back.
#[derive(Debug)]
pub struct Stopping<'a> {
    /// The signal, or what else asked for it.
    pub reason: &'a str,
}

impl Event for Stopping<'_> {
    fn emit(&self, _: &Metrics) {
        info!(reason = self.reason, "agent stopping");
    }
}

/// A part of the agent has ended that never should; the process ends with it.
#[derive(Debug)]
pub struct AgentBroken<'a> {
    /// What is known of it.
    pub error: &'a str,
}

impl Event for AgentBroken<'_> {
    fn emit(&self, _: &Metrics) {
        error!(error = self.error, "agent broken: it ends, to be started again");
    }
}

/// A changed configuration is in force.
#[derive(Debug)]
pub struct ConfigTaken<'a> {
    /// The file.
    pub config: &'a str,
}

impl Event for ConfigTaken<'_> {
    fn emit(&self, metrics: &Metrics) {
        metrics.reloads.get_or_create(&OfReload { result: ReloadResult::Taken }).inc();
        info!(config = self.config, "configuration reloaded");
    }
}

/// A changed configuration was refused; the old one stays in force.
#[derive(Debug)]
pub struct ConfigRefused<'a> {
    /// The file.
    pub config: &'a str,
    /// What is wrong with it, and where.
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

/// An operator paused or resumed all acting.
#[derive(Debug)]
pub struct PauseChanged<'a> {
    /// Whether it is paused now.
    pub paused: bool,
    /// The operator's words.
    pub reason: &'a str,
}

impl Event for PauseChanged<'_> {
    fn emit(&self, metrics: &Metrics) {
        metrics.paused.set(self.paused.into());
        if self.paused {
            warn!(reason = self.reason, "acting paused: no session is closed, no server drained");
        } else {
            info!(reason = self.reason, "acting resumed");
        }
    }
}

/// A state file could not be read or written.
#[derive(Debug)]
pub struct StateFailed<'a> {
    /// What is lost by it.
    pub consequence: &'a str,
    /// The file and the system's words.
    pub error: String,
}

impl Event for StateFailed<'_> {
    fn emit(&self, _: &Metrics) {
        error!(error = self.error, consequence = self.consequence, "state file trouble");
    }
}
