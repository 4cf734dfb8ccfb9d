//! Drains by the agent.

use agent_core::{
    ServerId,
    plan::{DrainReason, HoldReason, UndrainReason},
};
use tracing::{error, info, warn};

use super::Event;
use crate::metrics::{
    Metrics,
    labels::{OfDrain, Word},
};

/// A drain was recorded and sent.
#[derive(Debug)]
pub struct DrainBegun<'a> {
    pub server: &'a ServerId,
    pub reason: DrainReason,
}

impl Event for DrainBegun<'_> {
    fn emit(&self, metrics: &Metrics) {
        let labels = OfDrain::new(self.server, self.reason);
        metrics.drains_begun.get_or_create(&labels).inc();
        info!(server = %self.server, reason = %Word::of(&self.reason), "draining: new sessions go elsewhere");
    }
}

/// An operator drained a server whatever the capacity floor says.
///
/// Do: `rds-lb-agent undrain BACKEND/SERVER` when the reason is gone.
#[derive(Debug)]
pub struct DrainForced<'a> {
    pub server: &'a ServerId,
    /// The other servers of the backend that take new sessions.
    pub left: usize,
}

impl Event for DrainForced<'_> {
    fn emit(&self, _: &Metrics) {
        warn!(server = %self.server, others_left = self.left, "drain forced by an operator, without the capacity floor");
    }
}

/// The proxy did not apply a drain.
///
/// Do: look at the error: the `stats socket` line needs `level admin`.
#[derive(Debug)]
pub struct DrainNotTaken<'a> {
    pub server: &'a ServerId,
    pub error: String,
}

impl Event for DrainNotTaken<'_> {
    fn emit(&self, _: &Metrics) {
        warn!(server = %self.server, error = self.error, "not drained: the proxy did not apply the drain");
    }
}

/// A drain is being taken back.
#[derive(Debug)]
pub struct DrainEnded<'a> {
    pub server: &'a ServerId,
    pub reason: UndrainReason,
}

impl Event for DrainEnded<'_> {
    fn emit(&self, _: &Metrics) {
        info!(server = %self.server, reason = %Word::of(&self.reason), "taking a drain back");
    }
}

/// A drain is over and its record removed.
#[derive(Debug)]
pub struct DrainForgotten<'a> {
    pub server: &'a ServerId,
}

impl Event for DrainForgotten<'_> {
    fn emit(&self, _: &Metrics) {
        info!(server = %self.server, "drain over");
    }
}

/// A drain was not begun because it could not be recorded.
///
/// Do: free the disk of `state_dir`, or correct its permissions.
#[derive(Debug)]
pub struct DrainNotRecorded<'a> {
    pub server: &'a ServerId,
    pub error: String,
}

impl Event for DrainNotRecorded<'_> {
    fn emit(&self, _: &Metrics) {
        error!(server = %self.server, error = self.error, "not drained: the drain record could not be written");
    }
}

/// A drain is held, with the reason.
///
/// Do: nothing for an operator's own settings; `source_stale` means that the runtime socket does not
/// answer.
#[derive(Debug)]
pub struct DrainHeld<'a> {
    pub server: &'a ServerId,
    pub reason: HoldReason,
}

impl Event for DrainHeld<'_> {
    fn emit(&self, _: &Metrics) {
        let (server, reason) = (self.server, Word::of(&self.reason));
        match self.reason {
            HoldReason::CapacityFloor => {
                info!(%server, %reason, "not drained: too few other servers would be left");
            }
            HoldReason::AdminState | HoldReason::DrainedLately => info!(%server, %reason, "not drained"),
            _ => warn!(%server, %reason, "not drained"),
        }
    }
}
