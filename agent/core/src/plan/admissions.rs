//! What operators have set for each server at its proxy, for the rules of health: no server leaves a
//! backend for one that new sessions do not reach.

use std::collections::BTreeMap;

use super::{DrainPhase, DrainReason, Drains};
use crate::{ServerId, health::Admission};

impl Drains {
    /// Whether each server's proxy sends it new sessions, as far as its admin flags and weight show.
    ///
    /// A drain of the agent's own for due sessions, or one that an operator asked the agent for, leaves
    /// a server open: the capacity floor ends it as soon as the server is needed. A drain that is being
    /// ended closes it, since nothing ends it sooner; so does one that health itself asked for, or
    /// a sibling would leave before the drain is over.
    pub fn admissions(&self) -> BTreeMap<ServerId, Admission> {
        let admission = |server: &ServerId, phase: DrainPhase| {
            let Some(shown) = self.shown(server) else { return Admission::Unseen };
            let closed = match phase {
                DrainPhase::Idle => !shown.clear(),
                DrainPhase::Undoing { .. }
                | DrainPhase::Sending { reason: DrainReason::AuthRefused, .. }
                | DrainPhase::Held { reason: DrainReason::AuthRefused, .. } => true,
                DrainPhase::Sending { .. } | DrainPhase::Held { .. } => shown.others(),
            };
            if closed { Admission::Closed } else { Admission::Open }
        };
        self.phases().map(|(server, phase)| (server.clone(), admission(server, phase))).collect()
    }
}
