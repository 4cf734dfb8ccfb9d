//! The agent's own drains.

use agent_core::{
    ServerId,
    plan::{DrainReason, HoldReason, UndrainReason},
};
use tracing::{error, info, warn};

use super::Event;
use crate::metrics::{Metrics, labels::OfDrain};

/// A drain was recorded and sent.
#[derive(Debug)]
pub struct DrainBegun<'a> {
    /// The server.
    pub server: &'a ServerId,
    /// Why.
    pub reason: DrainReason,
}

impl Event for DrainBegun<'_> {
    fn emit(&self, metrics: &Metrics) {
        let labels = OfDrain { server: self.server.to_string(), reason: self.reason.into() };
        metrics.drains_begun.get_or_create(&labels).inc();
        info!(server = %self.server, reason = %self.reason, "draining: new sessions go elsewhere");
    }
}

/// The proxy did not take a drain.
#[derive(Debug)]
pub struct DrainNotTaken<'a> {
    /// The server.
    pub server: &'a ServerId,
    /// Why not, and what to do about it.
    pub error: String,
}

impl Event for DrainNotTaken<'_> {
    fn emit(&self, _: &Metrics) {
        warn!(server = %self.server, error = self.error, "not drained: the proxy does not take it");
    }
}

/// A drain is being taken back.
#[derive(Debug)]
pub struct DrainEnded<'a> {
    /// The server.
    pub server: &'a ServerId,
    /// Why.
    pub reason: UndrainReason,
}

impl Event for DrainEnded<'_> {
    fn emit(&self, _: &Metrics) {
        info!(server = %self.server, reason = ?self.reason, "taking a drain back");
    }
}

/// A drain is over and its record removed.
#[derive(Debug)]
pub struct DrainForgotten<'a> {
    /// The server.
    pub server: &'a ServerId,
}

impl Event for DrainForgotten<'_> {
    fn emit(&self, _: &Metrics) {
        info!(server = %self.server, "drain over");
    }
}

/// A drain was not begun because it could not be recorded.
#[derive(Debug)]
pub struct DrainNotRecorded<'a> {
    /// The server.
    pub server: &'a ServerId,
    /// Why not.
    pub error: String,
}

impl Event for DrainNotRecorded<'_> {
    fn emit(&self, _: &Metrics) {
        error!(server = %self.server, error = self.error, "not drained: its record could not be written");
    }
}

/// A server should be drained and is not.
#[derive(Debug)]
pub struct DrainHeld<'a> {
    /// The server.
    pub server: &'a ServerId,
    /// Why not.
    pub reason: HoldReason,
}

impl Event for DrainHeld<'_> {
    fn emit(&self, _: &Metrics) {
        warn!(server = %self.server, reason = ?self.reason, "not drained");
    }
}
